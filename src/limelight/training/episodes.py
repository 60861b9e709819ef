"""The training episodes that a run has reported: their number, their statistics, and those beyond the budget."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limelight.algo.episodes import Episode
from limelight.envs.episode_info import EpisodeInfo
from limelight.typing import Metrics, State

LATEST = 100
"""Episodes over which statistics are taken."""


class ReportedEpisodes:
    """Counts the episodes of a run up to its budget.

    Those that finish after the last one of the budget, in the same rollout, are kept for a run that continues with a
    larger budget.

    Args:
        limit: the budget; None: no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.count = 0
        # (return, length, terminated, numbers of info) of the latest
        self._recent: deque[tuple[float, int, bool, Mapping[str, float]]] = deque(maxlen=LATEST)
        self._largest_return: float | None = None
        self._surplus: list[Episode] = []

    def take(self, finished: Sequence[Episode]) -> list[Episode]:
        """Count episodes that have finished; return those to report, oldest first."""
        episodes = [*self._surplus, *finished]
        left = len(episodes) if self.limit is None else max(0, self.limit - self.count)
        episodes, self._surplus = episodes[:left], episodes[left:]
        if episodes:
            self.count += len(episodes)
            self._recent.extend((e.episode_return, e.length, e.terminated, e.info.numbers) for e in episodes[-LATEST:])
            largest = max(e.episode_return for e in episodes)
            self._largest_return = largest if self._largest_return is None else max(largest, self._largest_return)
        return episodes

    def metrics(self) -> Metrics:
        """Return the means of the last 100 episodes, the largest return of all, and their number.

        The mean of a number in info is over the episodes that have it.
        """
        row: dict[str, float] = {}
        if self._recent:
            returns, lengths, terminated, numbers = zip(*self._recent, strict=True)
            row["rollout/ep_rew_mean"] = float(np.mean(returns))
            row["rollout/ep_len_mean"] = float(np.mean(lengths))
            row["rollout/truncated_share"] = 1.0 - float(np.mean(terminated))
            for key in dict.fromkeys(key for of_episode in numbers for key in of_episode):
                row[f"env/{key}"] = float(np.mean([of_episode[key] for of_episode in numbers if key in of_episode]))
        if self._largest_return is not None:
            row["rollout/ep_rew_max"] = self._largest_return
        return {**row, "rollout/episodes": self.count}

    def get_state(self) -> State:
        """Return everything as plain data."""
        return {
            "recent": [list(episode) for episode in self._recent],
            "count": self.count,
            "largest_return": self._largest_return,
            "surplus": [list(episode) for episode in self._surplus],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self._recent.extend((float(r), int(n), bool(t), dict(numbers)) for r, n, t, numbers in state["recent"])
        self.count = int(state["count"])
        self._largest_return = state["largest_return"]
        surplus = (Episode(*episode) for episode in state["surplus"])
        self._surplus = [episode._replace(info=EpisodeInfo(*episode.info)) for episode in surplus]
