"""EnvPool's environments (C++, all B in one call) behind the adapter contract of base.py.

EnvPool is optional and knows environments by Gymnasium's ids. The agent sees Gymnasium's environment of that id: its
spaces and its time limit. It sees Atari games as atari.py shows them, with the same settings.
"""

from __future__ import annotations

import difflib
import warnings
from importlib.util import find_spec
from typing import Any, NamedTuple, final

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from numpy.typing import NDArray

from limelight.envs.atari import Lives, legal
from limelight.envs.attributes import Order, refuse_orders
from limelight.envs.base import OTHER_BACKEND, Step
from limelight.envs.episode_info import VectorInfo
from limelight.envs.games import step_limit
from limelight.envs.source import EnvSource
from limelight.errors import CheckpointError
from limelight.settings.schema import EnvConfig
from limelight.spaces.describe import describe_space
from limelight.typing import State

# EnvPool counts steps in 32 bits, and is given one more than the limit.
_NO_LIMIT = 2**31 - 2


@final
class EnvPoolBackend:
    """Steps ``num_envs`` environments of one EnvPool, on one thread.

    EnvPool calls a step truncated, and not terminated, when it both ends the episode and is the last one of the time
    limit; Gymnasium calls it both. EnvPool therefore gets a limit of one step more, and the limit is applied here: a
    truncated episode is followed by two invalid rows, that step and the reset. EnvPool takes its seed when it is made
    and ignores that of ``reset``, so a reset with a seed makes a new pool. With ``terminal_on_life_loss``, every step
    reports the Atari games that lost a life and continue.

    Args:
        source: an environment for which :func:`why_no_envpool` is None.
        num_envs: B.
    """

    name = "envpool"

    def __init__(self, source: EnvSource, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = source.spaces()
        self._dtype = self.single_observation_space.dtype
        self._pool: Any = None
        request = _request(source)
        self._id = request.env_id
        self._limit = request.limit
        own = {"num_envs": num_envs, "num_threads": 1, "max_episode_steps": self._limit + 1}
        self._options = {**request.options, **own}
        actions = self.single_action_space
        self._num_actions = int(actions.n) if isinstance(actions, Discrete) and source.kind == "atari" else None
        self._lives = Lives() if source.config.atari.terminal_on_life_loss else None
        self._info = VectorInfo(source.config.info_keys, num_envs)

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start an episode in every environment, the i-th with ``seed + i``; return observations [B, *obs_shape]."""
        if seed is not None or self._pool is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
            self._pool = self._make(seed % (2**31 - self.num_envs))
        obs, info = self._pool.reset()
        self._info.reset()
        if self._lives is not None:
            self._lives.begin(info["lives"])
        return np.asarray(obs, self._dtype)

    def _make(self, seed: int) -> Any:
        import envpool

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Gymnasium warns of the bounds of EnvPool's spaces, which are not used
            pool = envpool.make_gymnasium(self._id, seed=seed, **self._options)
            pool.observation_space  # noqa: B018  (EnvPool makes it on first access, which is better here than in a step)
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
        rewards, terminated = np.where(valid, rewards, 0.0), terminated & valid
        lost = None if self._lives is None else self._lives.lost(info["lives"], valid & ~terminated)
        obs, truncated = np.asarray(obs, self._dtype), elapsed == self._limit
        ends = self._info.read(info, terminated | truncated, valid)
        return Step(obs, rewards, terminated, truncated, valid, life_lost=lost, ends=ends)

    def get_state(self) -> State | None:
        """Return None: EnvPool's state cannot be saved."""
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
        """Release the pool, which ends its threads; a second call does nothing."""
        self._pool = None


class _Request(NamedTuple):
    """Arguments for EnvPool."""

    env_id: str
    options: dict[str, Any]
    limit: int
    """Steps after which an episode is truncated."""


def _request(source: EnvSource) -> _Request:
    """Return EnvPool's arguments for the environment of ``source``, whether EnvPool has it or not."""
    spec, config = source.spec, source.config
    if source.game is not None:
        name = "".join(word.capitalize() for word in source.game.split("_"))
        return _Request(f"{name}-v5", _game_options(config), min(step_limit(config), _NO_LIMIT))
    assert spec is not None
    limit = min(config.max_episode_steps or spec.max_episode_steps or _NO_LIMIT, _NO_LIMIT)
    return _Request(spec.id, dict(config.env_kwargs), limit)


def _game_options(config: EnvConfig) -> dict[str, Any]:
    """Return the settings of Atari games by EnvPool's names; rewards are raw, games are played to their end."""
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


def why_no_envpool(source: EnvSource) -> str | None:
    """Return why EnvPool cannot replace the environment of ``source``; None if it can.

    EnvPool must be installed, have the same id or game, an option for every argument of ``env_kwargs``, and the same
    spaces.

    Raises: EnvError or ConfigError if no copy can be made, to compare the spaces with.
    """
    spec, config = source.spec, source.config
    if source.kind == "callable":
        return f"{source.name} is a callable, and EnvPool knows only ids"
    if spec is not None and spec.additional_wrappers:
        return f"EnvPool cannot take the wrappers that {source.name} is registered with"
    if config.autoreset_mode != "next_step":
        return f"EnvPool does not have autoreset_mode {config.autoreset_mode}"
    if source.kind == "atari" and config.atari.noop_max == 0:  # its reset would not return
        return "EnvPool's games begin with a frame or more, but noop_max = 0 (1 is the least)"
    if find_spec("envpool") is None:
        return 'EnvPool is not installed (pip install "limelight-rl[envpool]")'
    import envpool  # takes a second

    env_id, options, _ = _request(source)
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
    except Exception:  # its message lists the types of all options, over many lines
        return f"EnvPool's {env_id} refuses env_kwargs {config.env_kwargs}"
    return _compare_spaces(source, theirs)


def _compare_spaces(source: EnvSource, theirs: Any) -> str | None:
    """Return which space of EnvPool's spec differs from Gymnasium's; None if none does."""
    if source.is_packed():
        return f"EnvPool cannot carry the composite spaces or action masks of {source.name}"
    for role, ours in zip(("observation", "action"), source.spaces(), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bounds that float32 cannot hold
            other = getattr(theirs, f"gymnasium_{role}_space")
        if not _alike(ours, other, bounds=role == "action"):
            return f"{source.name} has {role} space {describe_space(ours)}, EnvPool's {describe_space(other)}"
    return None


def _alike(ours: Space[Any], theirs: Space[Any], bounds: bool) -> bool:
    """Return whether EnvPool's space can replace Gymnasium's.

    EnvPool's MuJoCo takes float64 actions, and the bounds of observations of its Box2D do not hold.
    """
    if type(ours) is not type(theirs):
        return False
    if not isinstance(ours, Box) or not isinstance(theirs, Box):
        return ours == theirs
    same_kind = ours.shape == theirs.shape and ours.dtype.kind == theirs.dtype.kind
    same_bounds = same_kind and np.allclose(ours.low, theirs.low) and np.allclose(ours.high, theirs.high)
    return same_bounds if bounds else same_kind
