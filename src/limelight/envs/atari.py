"""Atari games played by ALE's C++ vector environment: B games in one call, on threads of its own.

The backend steps B games; AtariGame is one game as a Gymnasium environment, and shows the same frames.
"""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from importlib.metadata import version
from typing import Any, final

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Space
from numpy.typing import NDArray

from limelight.envs.attributes import Order, refuse_orders
from limelight.envs.base import OTHER_BACKEND, Step
from limelight.envs.episode_info import VectorInfo
from limelight.envs.games import INSTALL, id_of, step_limit
from limelight.errors import CheckpointError, EnvError
from limelight.settings.schema import EnvConfig
from limelight.typing import State

Frame = NDArray[np.uint8]

_LARGEST_SEED = 2**31 - 1
# ALE counts frames in 32 bits, up to one more than the limit.
_MOST_FRAMES = 2**31 - 2


def make_games(game: str, config: EnvConfig, num_envs: int, num_threads: int, **changes: Any) -> Any:
    """Make ALE's vector environment with the settings of ``config``; ``changes`` are arguments of its constructor.

    Rewards are raw, games are played to their end, and a finished one restarts at the next step: clipping and lives are
    handled elsewhere. The last observation of a game that reaches its limit is the maximum over the frames of this step
    and the one before, as ALE then leaves out the very last frame.

    Raises: EnvError if ale-py is too old, or the ROM cannot be read.
    """
    own = {
        "num_threads": min(num_threads, num_envs),
        "max_num_frames_per_episode": min(step_limit(config) * config.atari.frame_skip, _MOST_FRAMES),
        "repeat_action_probability": config.atari.sticky_actions,
        "full_action_space": config.atari.full_action_set,
        "img_height": config.atari.frame_size,
        "img_width": config.atari.frame_size,
        "stack_num": config.atari.frame_stack,
        "frameskip": config.atari.frame_skip,
        "noop_max": config.atari.noop_max,
        "use_fire_reset": config.atari.fire_reset,
        "reward_clipping": False,
        "episodic_life": False,
        "autoreset_mode": "NextStep",
    }
    with redirect_stdout(io.StringIO()):  # ale-py prints where it finds ROMs if ALE_ROMS_DIR is set
        try:
            return _vector_class()(game, num_envs, **{**own, **changes})
        except OSError as error:
            raise EnvError(_no_rom(game, error)) from error


def _vector_class() -> Any:
    number = version("ale-py")
    if [int(part) for part in re.findall(r"\d+", number)[:3]] < [0, 12, 1]:
        raise EnvError(f"ale-py {number}: is too old; {INSTALL}")
    import ale_py
    from ale_py.vector_env import AtariVectorEnv

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # each process would print a greeting
    return AtariVectorEnv


def _no_rom(game: str, error: OSError) -> str:
    hint = f"ALE_ROMS_DIR must be unset, or a folder that holds ale-py's {game}.bin"
    return f"env_id = {id_of(game)}: its ROM cannot be read ({' '.join(str(error).split())}); {hint}"


def screen_size(game: str) -> tuple[int, int]:
    """Return height and width of the screen of a game that :func:`make_games` has made."""
    import ale_py
    from ale_py import roms

    ale = ale_py.ALEInterface()
    with redirect_stdout(io.StringIO()):
        rom = roms.get_rom_path(game)
    assert rom is not None
    ale.loadROM(rom)
    height, width = ale.getScreenDims()
    return height, width


def legal(actions: NDArray[Any], num_envs: int, num_actions: int) -> NDArray[np.int64]:
    """Return ``actions`` [B] as int64, for ALE and EnvPool.

    Raises: ValueError for actions that the game does not have: ALE would hang, EnvPool would read outside its memory.
    """
    actions = np.asarray(actions)
    right = actions.shape == (num_envs,) and actions.dtype.kind in "iu"
    if not right or actions.min() < 0 or actions.max() >= num_actions:
        raise ValueError(f"actions {actions.tolist()}: must be {num_envs} whole numbers of 0 … {num_actions - 1}")
    return np.ascontiguousarray(actions, np.int64)


@final
class Lives:
    """Tells which games lose a life and continue, from the number of lives after each step."""

    def __init__(self) -> None:
        self._lives = np.zeros(0, np.int32)

    def begin(self, lives: NDArray[np.int32]) -> None:
        """Take the lives [B] with which all games start."""
        self._lives = lives

    def lost(self, lives: NDArray[np.int32], playing: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which of the games ``playing`` [B] had more lives before this step; zero lives: the game is ending."""
        before = self._lives
        self._lives = lives
        return playing & (lives < before) & (lives > 0)


@final
class AtariBackend:
    """Steps ``num_envs`` games together by ALE, on ``num_threads`` threads.

    Observations are the last ``frame_stack`` frames in grey, [B, frame_stack, frame_size, frame_size] bytes, oldest
    first, black before the game. A row after the end of a game only resets it, and is invalid. With
    ``terminal_on_life_loss``, every step reports the games that lost a life and continue.
    """

    name = "ale"

    def __init__(self, game: str, config: EnvConfig, num_envs: int, num_threads: int) -> None:
        self.num_envs = num_envs
        self._envs = make_games(game, config, num_envs, num_threads)
        self.single_observation_space: Space[Any] = self._envs.single_observation_space
        self.single_action_space: Space[Any] = self._envs.single_action_space
        self._num_actions = int(self._envs.single_action_space.n)
        self._lives = Lives() if config.atari.terminal_on_life_loss else None
        self._info = VectorInfo(config.info_keys, num_envs)
        self._done = np.zeros(num_envs, np.bool_)
        self._started = False

    def reset(self, seed: int | None = None) -> Frame:
        """Start a game in every environment, the i-th with ``seed + i``; return observations."""
        if seed is None and not self._started:  # ALE would seed every game by the time in seconds
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        self._started = True
        obs, info = self._envs.reset(seed=None if seed is None else _seeds(seed, self.num_envs))
        self._done = np.zeros(self.num_envs, np.bool_)
        self._info.reset()
        if self._lives is not None:
            self._lives.begin(info["lives"])
        return np.asarray(obs)

    def step(self, actions: NDArray[Any]) -> Step:
        """Apply actions [B] to every game.

        Raises: ValueError for an action that the game does not have.
        """
        actions = legal(actions, self.num_envs, self._num_actions)
        obs, rewards, terminated, truncated, info = self._envs.step(actions)
        valid = ~self._done
        self._done = terminated | truncated
        lost = None if self._lives is None else self._lives.lost(info["lives"], valid & ~terminated)
        ends = self._info.read(info, self._done, valid)
        return Step(obs, rewards.astype(np.float64), terminated, truncated, valid, life_lost=lost, ends=ends)

    def get_state(self) -> State | None:
        """Return None: the games of ALE's vector environment cannot be saved."""
        return None

    def set_state(self, state: State) -> None:
        """Refuse the state, which is that of another backend.

        Raises: CheckpointError always.
        """
        raise CheckpointError(OTHER_BACKEND.format(self.name))

    def follow(self, order: Order) -> list[Any]:
        """Refuse the order. Raises: ConfigError always."""
        refuse_orders(order, self.name)

    def close(self) -> None:
        """Release ALE's environment, which ends its threads; a second call does nothing."""
        self._envs = None


def _seeds(seed: int, num_envs: int) -> NDArray[np.int64]:
    """Return ``seed``, ``seed + 1``, …, [num_envs], modulo the largest seed of ALE."""
    return (seed + np.arange(num_envs)) % _LARGEST_SEED


@final
class AtariGame(gym.Env[Any, Any]):
    """One game as a Gymnasium environment, with the same frames as :class:`AtariBackend`.

    ``render`` returns a frame in colour and full size. It is that of a second game, played with the same seeds and
    actions, which differs from the first one only in the pre-processing.
    """

    def __init__(self, game: str, config: EnvConfig, render_mode: str | None = None) -> None:
        self.game = game
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": max(1, round(60 / config.atari.frame_skip))}
        arguments = {"game": game, "config": config}
        self.spec = EnvSpec(
            id_of(game), f"{__name__}:AtariGame", max_episode_steps=step_limit(config), kwargs=arguments
        )
        self._games = [make_games(game, config, 1, 1)]
        self.observation_space: Space[Any] = self._games[0].single_observation_space
        self.action_space: Space[Any] = self._games[0].single_action_space
        self._num_actions = int(self._games[0].single_action_space.n)
        if render_mode is not None:
            height, width = screen_size(game)
            full_size = {"grayscale": False, "img_height": height, "img_width": width, "stack_num": 1}
            self._games.append(make_games(game, config, 1, 1, **full_size))
        self._started = False
        self._frame: Frame | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Start a game."""
        super().reset(seed=seed)
        if seed is None and not self._started:  # both games need the same seed
            seed = int(self.np_random.integers(_LARGEST_SEED))
        self._started = True
        starts = [games.reset(seed=None if seed is None else _seeds(seed, 1)) for games in self._games]
        return self._observe([obs for obs, _ in starts]), _first(starts[0][1])

    def step(self, action: np.int64 | int) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Hold the action for ``frame_skip`` frames.

        Raises: ValueError for an action that the game does not have.
        """
        actions = legal(np.asarray(action)[None], 1, self._num_actions)
        steps = [games.step(actions) for games in self._games]
        _, rewards, terminated, truncated, info = steps[0]
        obs = self._observe([step[0] for step in steps])
        return obs, float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _first(info)

    def _observe(self, obs: list[Any]) -> Frame:
        if self.render_mode is not None:
            self._frame = obs[-1][0, 0]
        return np.asarray(obs[0][0])

    def render(self) -> Any:
        """Return the frame [height, width, 3] of the last step; None before the first game or without a render mode."""
        return self._frame

    def close(self) -> None:
        """Release ALE's environments; a second call does nothing."""
        self._games = []


def _first(info: dict[str, Any]) -> dict[str, Any]:
    return {"lives": int(info["lives"][0]), "episode_frame_number": int(info["episode_frame_number"][0])}
