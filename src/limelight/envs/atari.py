"""Atari games by ALE's C++ vector environment: B games in one call, on threads of its own.

Used by resolve.py (which game an id means, one game as a Gymnasium environment) and make.py (the backend). ale-py is
optional. Every id of a game is the same environment here: what differs between them are settings of EnvConfig.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any, final

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from limelight.config import ConfigError, EnvConfig, did_you_mean
from limelight.envs.base import State, Step

Frame = NDArray[np.uint8]

# ALE/Pong-v5, PongNoFrameskip-v4, PongDeterministic-v4, pong
_IDS = re.compile(r"ALE/(?P<ale>\w+)-v5|(?P<old>\w+?)(?:NoFrameskip|Deterministic)-v4|(?P<plain>\w+)")
_RANDOM_SKIP = re.compile(r"(\w+?)(?:-ram)?-v[04]|(\w+?)(?:-ram)?(?:NoFrameskip|Deterministic)-v0")
DEFAULT_LIMIT = 27_000
"""Steps after which a game is cut, of four frames each: half an hour of play, as in the literature."""
_LARGEST_SEED = 2**31 - 1


def game_of(env_id: str) -> str | None:
    """The ROM that an id stands for, as ALE names it (``space_invaders``); None if it is no id of an Atari game.

    Raises: ConfigError for a game that there is not, an id that ALE's vector environment cannot play, or no ale-py.
    """
    match, random = _IDS.fullmatch(env_id), _RANDOM_SKIP.fullmatch(env_id)
    if match is None and random is None:
        return None
    asks_for_ale = match is not None and match["plain"] is None
    if find_spec("ale_py") is None:
        if not asks_for_ale:
            return None
        raise ConfigError(f'env_id = {env_id}: needs ale-py, which is not installed; pip install "limelight-rl[atari]"')
    games = _games()
    if match is None:
        assert random is not None
        game = games.get(_key(random[1] or random[2]))
        if game is None:
            return None
        raise ConfigError(
            f"env_id = {env_id}: skips frames at random or shows memory, which ALE's vector environment does not; use "
            f"ALE/{_pascal(game)}-v5, with sticky_actions 0.25 for randomness"
        )
    name = match["ale"] or match["old"] or match["plain"]
    game = games.get(_key(name))
    if game is None and asks_for_ale:
        near = did_you_mean(name, [_pascal(known) for known in games.values()])
        raise ConfigError(f"env_id = {env_id}: ALE has no game {name}{near or '; `limelight list envs ALE` shows all'}")
    return game


def _key(name: str) -> str:
    return name.replace("_", "").lower()


def _pascal(game: str) -> str:
    return game.title().replace("_", "")


def _games() -> dict[str, str]:
    """Lower-case names without underscores → ROM ids, of all games whose ROM is there."""
    from ale_py import roms

    return {_key(game): game for game in roms.get_all_rom_ids()}


def make_games(game: str, config: EnvConfig, num_envs: int, num_threads: int, **changes: Any) -> Any:
    """ALE's vector environment with the settings of ``config``; ``changes`` are arguments of its constructor.

    Rewards are raw, games are whole, and a finished one begins again at the next step: what is made of rewards and
    lives is ours.
    """
    import ale_py
    from ale_py.vector_env import AtariVectorEnv

    skip = config.frame_skip
    own = {
        "num_threads": num_threads,
        "max_num_frames_per_episode": (config.max_episode_steps or DEFAULT_LIMIT * 4 // skip) * skip,
        "repeat_action_probability": config.sticky_actions,
        "full_action_space": config.full_action_set,
        "img_height": config.frame_size,
        "img_width": config.frame_size,
        "stack_num": config.frame_stack,
        "frameskip": skip,
        "noop_max": config.noop_max,
        "use_fire_reset": config.fire_reset,
        "reward_clipping": False,
        "episodic_life": False,
        "autoreset_mode": "NextStep",
    }
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # without the greeting of every process
    return AtariVectorEnv(game, num_envs, **{**own, **changes})


@final
class AtariBackend:
    """``num_envs`` games stepped together by ALE, on ``num_threads`` threads.

    Observations are the last ``frame_stack`` frames, grey, [B, frame_stack, frame_size, frame_size] bytes, oldest
    first. A row after the end of a game only resets it, and is invalid. With ``terminal_on_life_loss`` every step
    tells which games lost a life and go on.
    """

    name = "ale"

    def __init__(self, game: str, config: EnvConfig, num_envs: int, num_threads: int) -> None:
        self.num_envs = num_envs
        self._envs = make_games(game, config, num_envs, num_threads)
        self.single_observation_space: Box = self._envs.single_observation_space
        self.single_action_space: Discrete = self._envs.single_action_space
        self._tell_lives = config.terminal_on_life_loss
        self._done = np.zeros(num_envs, np.bool_)
        self._lives = np.zeros(num_envs, np.int32)

    def reset(self, seed: int | None = None) -> Frame:
        """Start a game in every environment, with a seed the i-th by ``seed + i``."""
        seed = None if seed is None else seed % (_LARGEST_SEED - self.num_envs)
        obs, info = self._envs.reset(seed=seed)
        self._done, self._lives = np.zeros(self.num_envs, np.bool_), info["lives"]
        return np.asarray(obs)

    def step(self, actions: NDArray[Any]) -> Step:
        """Apply actions [B] to every game.

        Raises: ValueError for an action that the game does not have, which ALE would wait for without end.
        """
        actions = np.ascontiguousarray(actions, np.int64)
        if actions.min() < 0 or actions.max() >= self.single_action_space.n:
            raise ValueError(f"actions {actions.tolist()}: must be 0 … {self.single_action_space.n - 1}")
        obs, rewards, terminated, truncated, info = self._envs.step(actions)
        valid = ~self._done
        self._done = terminated | truncated
        lives, self._lives = self._lives, info["lives"]
        lost = valid & ~self._done & (self._lives < lives) if self._tell_lives else None
        return Step(obs, rewards.astype(np.float32), terminated, truncated, valid, life_lost=lost)

    def get_state(self) -> State | None:
        """None: ALE's vector environment does not give its games away."""
        return None

    def set_state(self, state: State) -> None:
        """Refuse the state of another backend.

        Raises: ConfigError always.
        """
        raise ConfigError("backend = ale: the checkpoint's episodes are of another backend; resume with that one")

    def close(self) -> None:
        """Let ALE go, which ends its threads; a second call does nothing."""
        self._envs = None


class AtariGame(gym.Env[Frame, np.int64]):
    """One game as a Gymnasium environment: frame for frame what :class:`AtariBackend` gives, as it is made of the same.

    ``render`` shows it in colour and full size. These frames are those of a second game, played by the same seeds and
    actions, of which every frame is as the first one's but for the pre-processing.
    """

    def __init__(self, game: str, config: EnvConfig, render_mode: str | None = None) -> None:
        self.game, self.render_mode = game, render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": max(1, round(60 / config.frame_skip))}
        self._games = [make_games(game, config, 1, 1)]
        self.observation_space: Box = self._games[0].single_observation_space
        self.action_space: Discrete = self._games[0].single_action_space
        if render_mode is not None:
            as_seen = {"grayscale": False, "img_height": 210, "img_width": 160, "stack_num": 1}
            self._games.append(make_games(game, config, 1, 1, **as_seen))
        self._picture: Frame | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Begin a game."""
        super().reset(seed=seed)
        seen = [games.reset(seed=None if seed is None else seed % _LARGEST_SEED) for games in self._games]
        return self._see([obs for obs, _ in seen]), _first(seen[0][1])

    def step(self, action: np.int64 | int) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """One step of ``frame_skip`` frames.

        Raises: ValueError for an action that the game does not have.
        """
        if not 0 <= int(action) < self.action_space.n:
            raise ValueError(f"action {action}: must be 0 … {self.action_space.n - 1}")
        seen = [games.step(np.array([action], np.int64)) for games in self._games]
        _, rewards, terminated, truncated, info = seen[0]
        obs = self._see([step[0] for step in seen])
        return obs, float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _first(info)

    def _see(self, obs: list[Any]) -> Frame:
        self._picture = obs[-1][0, 0]
        return np.asarray(obs[0][0])

    def render(self) -> Any:
        """The picture [height, width, 3] of the last step."""
        return self._picture

    def close(self) -> None:
        """Let ALE go; a second call does nothing."""
        self._games = []


def _first(info: dict[str, Any]) -> dict[str, Any]:
    return {"lives": int(info["lives"][0]), "episode_frame_number": int(info["episode_frame_number"][0])}
