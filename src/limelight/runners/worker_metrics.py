"""Counters and metrics of many workers, combined into one row."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from limelight.typing import Metrics

ENV_RESTARTS = "rollout/env_restarts"
"""The metric of environments that were replaced; only in runs in which one was."""


class Counter(IntEnum):
    """Columns of the counters, which have a row per worker."""

    STEPS = 0
    UPDATES = 1
    SKIPPED = 2
    """Updates whose gradient was not finite."""
    EPISODES = 3
    """Finished episodes."""
    ENV_RESTARTS = 4
    """Environments that were replaced."""


def env_restarts(counters: NDArray[np.int64]) -> Metrics:
    """Return the metric of replaced environments, if there are any."""
    count = int(counters[:, Counter.ENV_RESTARTS].sum())
    return {ENV_RESTARTS: count} if count else {}


GREATEST = frozenset({"train/reward_max"})
"""Metrics of which the greatest over workers is reported; of all others it is the mean."""


def combined_metrics(rows: Sequence[Metrics]) -> Metrics:
    """Return every metric of the last row, each over the rows that have it: the mean, or the greatest one."""
    keys = rows[-1] if rows else ()
    return {
        key: float((np.max if key in GREATEST else np.mean)([row[key] for row in rows if key in row])) for key in keys
    }


class WorkerRates:
    """Steps/s and updates/s of every worker, each since the last call."""

    def __init__(self, counters: NDArray[np.int64]) -> None:
        self.counters = counters
        self.start()

    def start(self) -> None:
        """Measure from now on."""
        self._last_time = time.perf_counter()
        self._last_counters = self.counters.copy()

    def metrics(self) -> Metrics:
        """Return the rates of every worker since the last call, or since :meth:`start`."""
        now = time.perf_counter()
        counters = self.counters.copy()
        rates = (counters - self._last_counters) / max(now - self._last_time, 1e-9)
        self._last_time = now
        self._last_counters = counters
        names = (("steps_per_second", Counter.STEPS), ("updates_per_second", Counter.UPDATES))
        return {
            f"async/worker_{worker}/{name}": float(rate[column])
            for worker, rate in enumerate(rates)
            for name, column in names
        }
