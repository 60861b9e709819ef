"""A rollout: T steps of B environments as time-major arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from limelight.spaces.images import PixelScale

Float = NDArray[np.float32]


class FinalObs(NamedTuple):
    """Final observations that the stream itself does not hold (SAME_STEP and DISABLED autoreset)."""

    t: NDArray[np.intp]
    """Row in time of each one, [K]."""
    b: NDArray[np.intp]
    """Environment of each one, [K]."""
    obs: NDArray[Any]
    """The observations, [K, *obs_shape]."""
    recurrent_state: Float | None = None
    """What a policy with memory remembered there, after acting in row t: the state for V(final observation), [K, S]."""


@dataclass(frozen=True)
class Rollout:
    """What one :meth:`RolloutCollector.collect` saw. Arrays are views of buffers that the next collect overwrites.

    Masks are float32 zeros and ones, so that the formulas of returns.py are arithmetic, not control flow.
    """

    obs: NDArray[Any]
    """Observations s_0 .. s_T, normalised if the run normalises (pictures: raw bytes), [T+1, B, *obs_shape]."""
    actions: NDArray[Any]
    """Actions a_0 .. a_{T-1}, [T, B, *action_shape]."""
    rewards: Float
    """Raw rewards r_1 .. r_T, [T, B]."""
    terminated: Float
    """1 where the step ended the episode in a terminal state, [T, B]."""
    truncated: Float
    """1 where a time limit cut the episode, [T, B]."""
    valid: Float
    """0 where the step only reset a finished environment, [T, B]."""
    episode_start: Float
    """1 where ``obs`` is the first observation of an episode: memory is zeroed before it, [T+1, B]."""
    num_valid: int
    """Transitions in the rollout: environment steps taken, ``valid.sum()``."""
    final_obs: FinalObs | None = None
    """Final observations of truncated rows, where ``obs[t+1]`` is already the next episode's first."""
    recurrent_state: Float | None = None
    """What the policy remembered before it saw ``obs[0]`` (and ``episode_start[0]``), [B, S]; None without memory."""
    log_probs: Float | None = None
    """log μ(aₜ|sₜ) of the policy that acted, [T, B], where the learner's may be newer; None: it is the learner's."""
    pixels: PixelScale | None = None
    """What pictures were standardised by where they were acted on; None: what the learner's networks do it by."""
    learning_rewards: Float | None = None
    """What :meth:`Learner.rewards` made of ``rewards`` where they were collected, [T, B]; None: not yet made."""

    @property
    def episodes_ended(self) -> int:
        """How many episodes ended in it."""
        return int(np.count_nonzero(self.terminated + self.truncated))
