"""EnvPool's environments (C++, all B in one call) behind the adapter contract of base.py; make.py builds these.

EnvPool is optional and knows environments by Gymnasium's ids. What an agent sees is Gymnasium's environment of that id:
its spaces and its time limit.
"""

from __future__ import annotations

import difflib
import warnings
from importlib.util import find_spec
from typing import Any, final

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Space
from numpy.typing import NDArray

from limelight.config import ConfigError
from limelight.envs.base import State, Step
from limelight.envs.resolve import AnyEnv, EnvMaker
from limelight.envs.spaces import describe_space

# EnvPool counts steps in 32 bits, and is given one more than the limit.
_NO_LIMIT = 2**31 - 2


@final
class EnvPoolBackend:
    """``num_envs`` environments of one EnvPool, on one thread.

    EnvPool calls a step truncated, and not terminated, when it both ends the episode and is the last one of the time
    limit; Gymnasium calls it both. So EnvPool gets a limit of one step more, and the limit is kept here: a truncated
    episode is followed by two invalid rows, that step and the reset. EnvPool takes its seed when it is made and
    ignores that of ``reset``, so a reset with a seed makes a new one (1 to 7 ms).

    Args:
        maker: of environments for which :func:`no_envpool_because` is None.
        probe: one of them; its spaces are those of the backend.
        num_envs: B.
    """

    name = "envpool"

    def __init__(self, maker: EnvMaker, probe: AnyEnv, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = probe.observation_space, probe.action_space
        self._dtype = probe.observation_space.dtype
        self._pool: Any = None
        spec, config = maker.resolve(), maker.config
        assert isinstance(spec, EnvSpec)
        self._limit = min(config.max_episode_steps or spec.max_episode_steps or _NO_LIMIT, _NO_LIMIT)
        own = {"num_envs": num_envs, "num_threads": 1, "max_episode_steps": self._limit + 1}
        self._id, self._options = spec.id, {**config.env_kwargs, **own}

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start an episode in every environment, with a seed the i-th by ``seed + i``; observations [B, *obs_shape]."""
        if seed is not None or self._pool is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
            self._pool = self._make(seed % (2**31 - self.num_envs))
        obs, _ = self._pool.reset()
        return np.asarray(obs, self._dtype)

    def _make(self, seed: int) -> Any:
        import envpool

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Gymnasium warns of the bounds of EnvPool's spaces, which are not used
            pool = envpool.make_gymnasium(self._id, seed=seed, **self._options)
            pool.observation_space  # noqa: B018  (EnvPool makes it when it is first asked for, here or in a step)
        return pool

    def step(self, actions: NDArray[Any]) -> Step:
        """Apply actions [B, *action_shape] to every environment."""
        obs, rewards, terminated, _, info = self._pool.step(actions)
        elapsed = info["elapsed_step"]
        valid = (elapsed > 0) & (elapsed <= self._limit)
        rewards = np.where(valid, rewards, np.float32(0.0))
        return Step(np.asarray(obs, self._dtype), rewards, terminated & valid, elapsed == self._limit, valid)

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


def no_envpool_because(maker: EnvMaker) -> str | None:
    """Why EnvPool cannot replace the environment of ``maker``; None if it can.

    It must be installed, hold the very id, have every argument of ``env_kwargs`` as an option, and the same spaces.

    Raises: ConfigError if ``maker`` cannot make its environment, to compare the spaces with.
    """
    spec, config = maker.resolve(), maker.config
    if not isinstance(spec, EnvSpec):
        return f"{maker.name} is a callable, and EnvPool knows ids alone"
    if spec.additional_wrappers:
        return f"EnvPool cannot take the wrappers that {maker.name} is registered with"
    if config.autoreset_mode != "next_step":
        return f"EnvPool does not have autoreset_mode {config.autoreset_mode}"
    if find_spec("envpool") is None:
        return 'EnvPool is not installed (pip install "limelight-rl[envpool]")'
    import envpool  # takes a second, so nobody imports it who does not need it

    known = envpool.list_all_envs()
    if spec.id not in known:
        near = difflib.get_close_matches(spec.id, [i for i in known if i in gym.registry])
        return f"EnvPool has no {spec.id}" + (f" (it has {', '.join(near)})" if near else "")
    options = envpool.make_spec(spec.id).config._fields
    for key in config.env_kwargs:
        if key not in options:
            return f"EnvPool's {spec.id} has no option {key} (env_kwargs)"
    try:
        theirs = envpool.make_spec(spec.id, **config.env_kwargs)
    except Exception:  # whatever its C++ makes of a value; it answers with the types of all options
        return f"EnvPool's {spec.id} refuses env_kwargs {config.env_kwargs}"
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
