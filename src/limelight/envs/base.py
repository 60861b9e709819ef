"""The adapter contract every environment backend fulfils; rollout.py and evaluate.py know nothing else.

The canonical stream is Gymnasium's NEXT_STEP: the observation of the row after a done row *is* the final
observation's successor in the buffer, and the row that only resets is marked invalid.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium.spaces import Space
from numpy.typing import NDArray

from limelight.typing import State


class Step(NamedTuple):
    """What one step of B environments yields."""

    obs: NDArray[Any]
    """Observation after the step, [B, *obs_shape]."""
    rewards: NDArray[np.float32]
    """Raw reward, [B]; 0 on invalid rows."""
    terminated: NDArray[np.bool_]
    """The episode ended in a terminal state, [B]; False on invalid rows."""
    truncated: NDArray[np.bool_]
    """The episode was cut (time limit) in a state that has a value, [B]; False on invalid rows."""
    valid: NDArray[np.bool_]
    """False where no transition of an episode happened: after a done row, until the environment is reset, [B]."""
    final_obs: NDArray[Any] | None = None
    """Last observation of the rows done in this step, where ``obs`` already is the next episode's first one
    (SAME_STEP and DISABLED streams); other rows are undefined. None where ``obs`` is the final observation."""
    life_lost: NDArray[np.bool_] | None = None
    """A life was lost and the game goes on, which is to be learnt from as an end, [B]; None where it is not."""


class EnvBackend(Protocol):
    """B environments stepped together."""

    name: str
    """Which backend this is: "vector", "sync", "async", "envpool" or "ale"."""
    num_envs: int
    single_observation_space: Space[Any]
    single_action_space: Space[Any]

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start an episode in every environment; first observations, [B, *obs_shape]."""

    def step(self, actions: NDArray[Any]) -> Step:
        """Apply actions [B, *action_shape] to every environment."""

    def get_state(self) -> State | None:
        """All that is needed to continue the episodes and their random streams exactly, or None if it cannot be had."""

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state` of a backend made with the same settings."""

    def close(self) -> None:
        """Free what the environments hold; may be called twice."""
