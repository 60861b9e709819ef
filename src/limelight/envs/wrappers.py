"""Gymnasium wrappers that hide a part of the state, for policies with memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from limelight.errors import ConfigError
from limelight.spaces.describe import describe_space

Observation = NDArray[np.floating[Any]]

POSITIONS: dict[str, tuple[int, ...]] = {
    "CartPole-v0": (0, 2),
    "CartPole-v1": (0, 2),
    "MountainCar-v0": (0,),
    "Pendulum-v1": (0, 1),
    "Acrobot-v1": (0, 1, 2, 3),
    "LunarLander-v2": (0, 1, 4, 6, 7),
    "LunarLander-v3": (0, 1, 4, 6, 7),
}
"""Environment id → indices of the observation that are not velocities."""


class HideVelocities(gym.ObservationWrapper[Observation, Any, Observation], RecordConstructorArgs):
    """Keeps only the positions, so that velocities must be inferred from earlier observations.

    Args:
        env: observations are a flat Box.
        keep: indices of the observation to keep, in this order; None: those of :data:`POSITIONS`.
    Raises: ConfigError if ``keep`` is missing for an unknown environment, or does not fit its observations.
    """

    def __init__(self, env: gym.Env[Observation, Any], keep: Sequence[int] | None = None) -> None:
        RecordConstructorArgs.__init__(self, keep=keep)
        gym.ObservationWrapper.__init__(self, env)
        env_id = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        if keep is None and env_id not in POSITIONS:
            raise ConfigError(
                f"keep: the positions in observations are known only of {', '.join(POSITIONS)}, not of {env_id}; "
                "give their indices, e.g. keep=[0, 2]"
            )
        self._keep = list(POSITIONS[env_id] if keep is None else keep)
        space = env.observation_space
        if not isinstance(space, Box) or len(space.shape) != 1:
            raise ConfigError(
                f"keep = {self._keep}: {env_id} has observations {describe_space(space)}; a flat Box would work"
            )
        size = space.shape[0]
        if not self._keep or len(set(self._keep)) < len(self._keep) or not set(self._keep) <= set(range(size)):
            raise ConfigError(f"keep = {self._keep}: must be one or more different indices from 0 to {size - 1}")
        self.observation_space = Box(space.low[self._keep], space.high[self._keep], dtype=space.dtype.type)

    def observation(self, observation: Observation) -> Observation:
        """Return the parts that are kept."""
        return observation[self._keep]


def masked_cartpole(render_mode: str | None = None) -> gym.Env[Observation, np.int64]:
    """Make CartPole-v1 (500 steps) without its velocities: ``limelight.envs.wrappers:masked_cartpole``."""
    return HideVelocities(gym.make("CartPole-v1", disable_env_checker=True, render_mode=render_mode))
