"""EnvPool's environments (C++, all B in one call) behind the adapter contract of base.py; make.py builds these.

EnvPool is optional and knows environments by Gymnasium's ids. What an agent sees is Gymnasium's environment of that id:
its spaces and its time limit. Of an Atari game it sees what atari.py shows, by the same settings.
"""

from __future__ import annotations

import difflib
import warnings
from importlib.util import find_spec
from typing import Any, NamedTuple, final

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Discrete, Space
from numpy.typing import NDArray

from limelight.envs.atari import Lives, legal
from limelight.envs.base import Step
from limelight.envs.games import step_limit
from limelight.envs.source import EnvMaker
from limelight.errors import ConfigError
from limelight.settings.schema import EnvConfig
from limelight.spaces.describe import describe_space
from limelight.typing import AnyEnv, State

# EnvPool counts steps in 32 bits, and is given one more than the limit.
_NO_LIMIT = 2**31 - 2


@final
class EnvPoolBackend:
    """``num_envs`` environments of one EnvPool, on one thread.

    EnvPool calls a step truncated, and not terminated, when it both ends the episode and is the last one of the time
    limit; Gymnasium calls it both. So EnvPool gets a limit of one step more, and the limit is kept here: a truncated
    episode is followed by two invalid rows, that step and the reset. EnvPool takes its seed when it is made and
    ignores that of ``reset``, so a reset with a seed makes a new one (1 to 7 ms). Of Atari games every step tells which
    lost a life and go on, with ``terminal_on_life_loss``.

    Args:
        maker: of environments for which :func:`why_no_envpool` is None.
        probe: one of them; its spaces are those of the backend.
        num_envs: B.
    """

    name = "envpool"

    def __init__(self, maker: EnvMaker, probe: AnyEnv, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = probe.observation_space, probe.action_space
        self._dtype = probe.observation_space.dtype
        self._pool: Any = None
        source = _source(maker)
        self._limit = source.limit
        own = {"num_envs": num_envs, "num_threads": 1, "max_episode_steps": self._limit + 1}
        self._id, self._options = source.env_id, {**source.options, **own}
        actions = self.single_action_space
        self._num_actions = int(actions.n) if isinstance(actions, Discrete) and maker.game() is not None else None
        self._lives = Lives() if maker.config.atari.terminal_on_life_loss else None

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start an episode in every environment, with a seed the i-th by ``seed + i``; observations [B, *obs_shape]."""
        if seed is not None or self._pool is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
            self._pool = self._make(seed % (2**31 - self.num_envs))
        obs, info = self._pool.reset()
        if self._lives is not None:
            self._lives.begin(info["lives"])
        return np.asarray(obs, self._dtype)

    def _make(self, seed: int) -> Any:
        import envpool

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Gymnasium warns of the bounds of EnvPool's spaces, which are not used
            pool = envpool.make_gymnasium(self._id, seed=seed, **self._options)
            pool.observation_space  # noqa: B018  (EnvPool makes it when it is first asked for, here or in a step)
        return pool

    def step(self, actions: NDArray[Any]) -> Step:
        """Apply actions [B, *action_shape] to every environment.

        Raises: ValueError for an action that an Atari game does not have.
        """
        if self._num_actions is not None:
            actions = legal(actions, self.num_envs, self._num_actions)
        obs, rewards, terminated, _, info = self._pool.step(actions)
        elapsed = info["elapsed_step"]
        valid = (elapsed > 0) & (elapsed <= self._limit)
        rewards, terminated = np.where(valid, rewards, np.float32(0.0)), terminated & valid
        lost = None if self._lives is None else self._lives.lost(info["lives"], valid & ~terminated)
        obs = np.asarray(obs, self._dtype)
        return Step(obs, rewards, terminated, elapsed == self._limit, valid, life_lost=lost)

    def get_state(self) -> State | None:
        """None: EnvPool does not give its state away."""
        return None

    def set_state(self, state: State) -> None:
        """Refuse the state of another backend.

        Raises: ConfigError always.
        """
        raise ConfigError("backend = envpool: the checkpoint's episodes are of another backend; resume with that one")

    def close(self) -> None:
        """Let EnvPool go, which ends its threads; a second call does nothing."""
        self._pool = None


class _Source(NamedTuple):
    """What EnvPool is asked for."""

    env_id: str
    options: dict[str, Any]
    limit: int
    """Steps after which an episode is cut."""


def _source(maker: EnvMaker) -> _Source:
    """What is EnvPool's for the environment of ``maker``, whether EnvPool has it or not."""
    spec, config, game = maker.resolve(), maker.config, maker.game()
    if game is not None:
        name = "".join(word.capitalize() for word in game.split("_"))
        return _Source(f"{name}-v5", _game_options(config), min(step_limit(config), _NO_LIMIT))
    assert isinstance(spec, EnvSpec)
    limit = min(config.max_episode_steps or spec.max_episode_steps or _NO_LIMIT, _NO_LIMIT)
    return _Source(spec.id, dict(config.env_kwargs), limit)


def _game_options(config: EnvConfig) -> dict[str, Any]:
    """EnvPool's names for the settings of Atari games; rewards are raw, games whole."""
    return {
        "frame_skip": config.atari.frame_skip,
        "stack_num": config.atari.frame_stack,
        "img_height": config.atari.frame_size,
        "img_width": config.atari.frame_size,
        "repeat_action_probability": config.atari.sticky_actions,
        "noop_max": config.atari.noop_max,
        "use_fire_reset": config.atari.fire_reset,
        "full_action_space": config.atari.full_action_set,
        "reward_clip": False,
        "episodic_life": False,
    }


def why_no_envpool(maker: EnvMaker) -> str | None:
    """Why EnvPool cannot replace the environment of ``maker``; None if it can.

    It must be installed, hold the very id or game, have every argument of ``env_kwargs`` as an option, and the same
    spaces.

    Raises: ConfigError if ``maker`` cannot make its environment, to compare the spaces with.
    """
    spec, config, game = maker.resolve(), maker.config, maker.game()
    if game is None and not isinstance(spec, EnvSpec):
        return f"{maker.name} is a callable, and EnvPool knows ids alone"
    if isinstance(spec, EnvSpec) and spec.additional_wrappers:
        return f"EnvPool cannot take the wrappers that {maker.name} is registered with"
    if config.autoreset_mode != "next_step":
        return f"EnvPool does not have autoreset_mode {config.autoreset_mode}"
    if game is not None and config.atari.noop_max == 0:  # with which it would not return from a reset
        return "EnvPool's games begin with a frame or more, but noop_max = 0 (1 is the least)"
    if find_spec("envpool") is None:
        return 'EnvPool is not installed (pip install "limelight-rl[envpool]")'
    import envpool  # takes a second, so nobody imports it who does not need it

    env_id, options, _ = _source(maker)
    known = envpool.list_all_envs()
    if env_id not in known:
        near = difflib.get_close_matches(env_id, [i for i in known if i in gym.registry])
        return f"EnvPool has no {env_id}" + (f" (it has {', '.join(near)})" if near else "")
    fields = envpool.make_spec(env_id).config._fields
    for key in config.env_kwargs:
        if key not in fields:
            return f"EnvPool's {env_id} has no option {key} (env_kwargs)"
    try:
        theirs = envpool.make_spec(env_id, **options)
    except Exception:  # whatever its C++ makes of a value; it answers with the types of all options
        return f"EnvPool's {env_id} refuses env_kwargs {config.env_kwargs}"
    return _other_spaces(maker, theirs)


def _other_spaces(maker: EnvMaker, theirs: Any) -> str | None:
    """Which space of EnvPool's spec is another than Gymnasium's; None if none is."""
    if maker.is_packed():
        return f"EnvPool cannot carry the composite spaces or action masks of {maker.name}"
    probe = maker()
    probe.close()
    for role in ("observation", "action"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bounds that float32 cannot hold
            other = getattr(theirs, f"gymnasium_{role}_space")
        ours = getattr(probe, f"{role}_space")
        if not _alike(ours, other, bounds=role == "action"):
            return f"{maker.name} has {role} space {describe_space(ours)}, EnvPool's {describe_space(other)}"
    return None


def _alike(ours: Space[Any], theirs: Space[Any], bounds: bool) -> bool:
    """Whether EnvPool's space can stand in for Gymnasium's.

    EnvPool's MuJoCo takes float64 actions, and its Box2D states bounds of observations that do not hold.
    """
    if type(ours) is not type(theirs):
        return False
    if not isinstance(ours, Box) or not isinstance(theirs, Box):
        return ours == theirs
    same_kind = ours.shape == theirs.shape and ours.dtype.kind == theirs.dtype.kind
    same_bounds = same_kind and np.allclose(ours.low, theirs.low) and np.allclose(ours.high, theirs.high)
    return same_bounds if bounds else same_kind
