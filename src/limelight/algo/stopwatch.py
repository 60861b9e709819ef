"""A stopwatch that measures a call now and then, as reading the clock at every step of one environment costs speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, final

_STEPS = 7
"""Environment steps from which a call is worth two readings of the clock; odd, as rollouts often have 2ⁿ steps."""


@final
class Stopwatch:
    """A function of one argument whose calls are timed: one call in ``every``, which counts for all of them.

    Args:
        function: the function.
        steps: environment steps that a call takes; calls of few steps are measured more rarely.
    """

    def __init__(self, function: Callable[[Any], Any], steps: int) -> None:
        self.seconds = 0.0
        """Seconds of all calls so far, an estimate where not all of them are measured."""
        self.every = max(1, -(-_STEPS // steps))
        self._function = function
        self._calls_left = self.every

    def __call__(self, argument: Any) -> Any:
        """Return ``function(argument)``."""
        self._calls_left -= 1
        if self._calls_left:
            return self._function(argument)
        self._calls_left = self.every
        start = time.perf_counter()
        result = self._function(argument)
        self.seconds += self.every * (time.perf_counter() - start)
        return result
