"""A stopwatch that measures short calls now and then, as reading the clock at each of them would cost speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, final

SHORT = 100e-6
"""Seconds of the longest recent call from which every call is measured: readings of the clock are nothing beside it."""
FADING = 0.9
"""Share of the longest call that counts at the next: short calls among long ones change nothing."""
BLOCK = 7
"""Short calls of which one is measured, and counts for all."""


@final
class Stopwatch:
    """A function of one argument whose calls are timed.

    Of short calls one in a block is measured, at a place that changes from block to block: episodes and rollouts have
    periods of their own, which a fixed place might follow.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.seconds = 0.0
        """Seconds of all calls so far, an estimate where not all of them are measured."""
        self._function = function
        self._longest = 0.0
        self._block = 1
        self._place = 1
        self._calls_left = 1
        self._state = 0  # of a linear congruential generator over 0 … 63

    def __call__(self, argument: Any) -> Any:
        """Return ``function(argument)``."""
        self._calls_left -= 1
        if self._calls_left:
            return self._function(argument)
        start = time.perf_counter()
        result = self._function(argument)
        passed = time.perf_counter() - start
        self.seconds += self._block * passed
        # Choose the next call to measure
        rest = self._block - self._place
        self._longest = max(passed, FADING * self._longest)
        self._block = 1 if self._longest >= SHORT else BLOCK
        self._state = (5 * self._state + 3) % 64
        self._place = 1 + (self._state * self._block >> 6)
        self._calls_left = rest + self._place
        return result
