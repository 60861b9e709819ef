"""Episode statistics: returns and lengths from raw rewards and valid rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from limelight.algo.rollout import Rollout
from limelight.envs.episode_info import NO_INFO, Ends, EpisodeInfo
from limelight.typing import State


class Episode(NamedTuple):
    """A finished episode; its return is the sum of raw rewards."""

    env: int
    """Number of the environment: in its collector, and once the runner has set it, in the run."""
    episode_return: float
    length: int
    terminated: bool
    step: int = 0
    """Environment steps of the run at the end of the rollout in which the episode ended; set by the runner."""
    worker: int = 0
    """Index of the worker that ran it, 0 where there are none; set by the runner."""
    info: EpisodeInfo = NO_INFO
    """The environment's own numbers."""


class EpisodeTracker:
    """Return and length so far of the running episode of each environment, and the episodes that have finished."""

    def __init__(self, num_envs: int) -> None:
        self.returns = np.zeros(num_envs, np.float64)
        self.lengths = np.zeros(num_envs, np.float64)
        self._finished: list[Episode] = []

    def reset(self) -> None:
        """Start new episodes in all environments."""
        self.returns[:] = 0.0
        self.lengths[:] = 0.0

    def add(
        self,
        rollout: Rollout,
        life_lost: NDArray[np.bool_] | None = None,
        rewards: NDArray[np.float64] | None = None,
        ends: Sequence[Ends | None] | None = None,
    ) -> None:
        """Add a rollout to the running episodes and record those that it finished.

        Args:
            rollout: the rollout.
            life_lost: [T, B], rows that count as terminated for learning while the episode goes on.
            rewards: [T, B], as the environments gave them, where those of the rollout are rounded to float32.
            ends: [T], the environments' own numbers of the episodes that ended there.
        """
        rewards = np.asarray(rollout.rewards, np.float64) if rewards is None else rewards
        terminated, truncated = rollout.terminated, rollout.truncated
        if not (np.count_nonzero(terminated) or np.count_nonzero(truncated)):  # the common case, without a loop
            self.returns += np.add.reduce(rewards, axis=0)
            self.lengths += np.add.reduce(rollout.valid, axis=0)
            return
        if life_lost is not None:
            terminated = terminated * ~life_lost
        for t in range(len(terminated)):
            self.returns += rewards[t]
            self.lengths += rollout.valid[t]
            done = np.flatnonzero(terminated[t] + truncated[t])
            if len(done):
                self._finish(done, terminated[t], (ends and ends[t]) or {})

    def _finish(self, done: NDArray[np.int64], terminated: NDArray[np.float32], ends: Ends) -> None:
        """Record the episodes that ended in one step, in the environments ``done``."""
        columns = done, self.returns[done], self.lengths[done], terminated[done]
        for b, episode_return, length, end in zip(*(column.tolist() for column in columns), strict=True):
            self._finished.append(Episode(b, episode_return, int(length), bool(end), info=ends.get(b, NO_INFO)))
        self.returns[done] = 0.0
        self.lengths[done] = 0.0

    def pop_finished(self) -> list[Episode]:
        """Return the episodes finished since the last call, oldest first."""
        finished, self._finished = self._finished, []
        return finished

    def get_state(self) -> State:
        """Return the running episodes."""
        return {"returns": self.returns.copy(), "lengths": self.lengths.copy()}

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`."""
        self.returns[:] = state["returns"]
        self.lengths[:] = state["lengths"]
