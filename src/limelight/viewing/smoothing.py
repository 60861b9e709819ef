"""Arithmetic of curves: averages over episodes, and fewer points for long series."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np

from limelight.runs.reader import Floats

WINDOW = 100
"""Episodes in the moving average."""
MAX_DOTS, MAX_POINTS = 2000, 500
"""Most episodes drawn as dots, and most points of a line; longer series are thinned out evenly."""


def moving_average(values: Floats, window: int = WINDOW) -> Floats:
    """Return the mean of the last ``window`` values (of all, as long as there are fewer) at each place, [N] → [N]."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    result: Floats = (sums[ends] - sums[starts]) / (ends - starts)
    return result


def exponential_smoothing(values: Floats, weight: float) -> Floats:
    """Return the exponentially weighted mean of the values so far, corrected for its start at 0, [N] → [N]."""
    smoothed = accumulate(values.tolist(), lambda past, value: weight * past + (1 - weight) * value, initial=0.0)
    result: Floats = np.fromiter(smoothed, np.float64)[1:] / (1 - weight ** np.arange(1, len(values) + 1))
    return result


def thinned(length: int, most: int) -> Any:
    """Return the indices of at most ``most`` of ``length`` places, evenly spread, both ends included."""
    return np.arange(length) if length <= most else np.linspace(0, length - 1, most).astype(np.intp)
