"""A rollout: T steps of B environments as time-major arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from limelight.spaces.images import PixelScale

Float = NDArray[np.float32]


class FinalObs(NamedTuple):
    """Final observations of truncated episodes in streams whose next row is already the next episode's first.

    Such streams are those of the autoreset modes SAME_STEP and DISABLED.
    """

    t: NDArray[np.intp]
    """Time index of each final observation, [K]."""
    b: NDArray[np.intp]
    """Environment index of each final observation, [K]."""
    obs: NDArray[Any]
    """The final observations, [K, *obs_shape]."""
    recurrent_state: Float | None = None
    """The recurrent state after acting in row t, from which V(final observation) follows, [K, S]."""


@dataclass(frozen=True)
class Rollout:
    """T steps of B environments. The arrays are views of buffers that the next rollout overwrites.

    Masks are float32 zeros and ones, so that the formulas over them are arithmetic without control flow.
    """

    obs: NDArray[Any]
    """Observations s_0 .. s_T, normalised where the run normalises them before the network, [T+1, B, *obs_shape]."""
    actions: NDArray[Any]
    """Actions a_0 .. a_{T-1} as sampled, [T, B, *action_shape]."""
    rewards: Float
    """Raw rewards r_1 .. r_T, [T, B]."""
    terminated: Float
    """1 where the step ended the episode in a terminal state, [T, B]."""
    truncated: Float
    """1 where a time limit ended the episode, [T, B]."""
    valid: Float
    """0 where the step only reset a finished environment, [T, B]."""
    episode_start: Float
    """1 where ``obs`` is the first observation of an episode; the recurrent state is zeroed before it, [T+1, B]."""
    num_valid: int
    """Number of transitions in the rollout, ``valid.sum()``."""
    final_obs: FinalObs | None = None
    """Final observations that ``obs`` does not hold; None where ``obs[t+1]`` is the final observation."""
    recurrent_state: Float | None = None
    """The recurrent state before ``obs[0]`` (and before ``episode_start[0]`` zeroes it), [B, S]; None without one."""
    log_probs: Float | None = None
    """log μ(aₜ|sₜ) of an older policy that acted, [T, B]; setting it makes the learner correct by V-trace.

    None: the present policy acted, and all ratios are 1.
    """
    image_scale: PixelScale | None = None
    """Mean and scale by which images were normalised when acting; None where the network still has them."""
    learning_rewards: Float | None = None
    """Rewards as :meth:`Learner.rewards` made them where they were collected, [T, B]; None: not made yet."""

    @property
    def episodes_ended(self) -> int:
        """Number of episodes that ended in the rollout."""
        return int(np.count_nonzero(self.terminated + self.truncated))


def side_by_side(rollouts: Sequence[Rollout]) -> Rollout:
    """Return one rollout [T, ΣB] with the environments of several [T, B], whose images have one scale."""

    def joined(arrays: Sequence[Any], axis: int = 1) -> Any:
        return None if arrays[0] is None else np.concatenate(arrays, axis)

    def field(name: str, axis: int = 1) -> Any:
        return joined([getattr(rollout, name) for rollout in rollouts], axis)

    widths = [rollout.valid.shape[1] for rollout in rollouts]
    firsts = np.cumsum([0, *widths[:-1]])
    final = [
        rollout.final_obs._replace(b=rollout.final_obs.b + first)
        for rollout, first in zip(rollouts, firsts, strict=True)
        if rollout.final_obs is not None and len(rollout.final_obs.b)
    ]
    return Rollout(
        field("obs"), field("actions"), field("rewards"), field("terminated"), field("truncated"), field("valid"),
        field("episode_start"), sum(rollout.num_valid for rollout in rollouts),
        final_obs=FinalObs(*(joined(parts, 0) for parts in zip(*final, strict=True))) if final else None,
        recurrent_state=field("recurrent_state", 0), log_probs=field("log_probs"),
        image_scale=rollouts[0].image_scale, learning_rewards=field("learning_rewards"),
    )  # fmt: skip
