"""What many workers report, as one row of metrics. For the runners that have workers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from limelight.typing import Metrics


class Counter(IntEnum):
    """Columns of the counters, a row per worker."""

    STEPS = 0
    UPDATES = 1
    SKIPPED = 2
    """Updates whose gradient was not finite."""


def mean_metrics(rows: Sequence[Metrics]) -> Metrics:
    """The mean of every metric over the rows that have it; the last row says which there are."""
    keys = rows[-1] if rows else ()
    return {key: float(np.mean([row[key] for row in rows if key in row])) for key in keys}


class WorkerRates:
    """Steps/s and updates/s of every worker since the last look."""

    def __init__(self, counters: NDArray[np.int64]) -> None:
        self.counters = counters
        self.start()

    def start(self) -> None:
        """Look for the first time."""
        self._at, self._before = time.perf_counter(), self.counters.copy()

    def metrics(self) -> Metrics:
        """By worker, as they are logged."""
        now, counters = time.perf_counter(), self.counters.copy()
        rates = (counters - self._before) / max(now - self._at, 1e-9)
        self._at, self._before = now, counters
        names = (("steps_per_second", Counter.STEPS), ("updates_per_second", Counter.UPDATES))
        return {
            f"async/worker_{worker}/{name}": float(rate[column])
            for worker, rate in enumerate(rates)
            for name, column in names
        }
