"""A curve in one line of text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import final

BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """Return at most ``width`` blocks, whose heights are means of ``values`` in order."""
    width = min(width, len(values))
    if width < 1:
        return ""
    ends = [round(i * len(values) / width) for i in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(ends)]
    low, high = min(means), max(means)
    if high <= low:
        return BLOCKS[len(BLOCKS) // 2] * width
    return "".join(BLOCKS[round((mean - low) / (high - low) * (len(BLOCKS) - 1))] for mean in means)


@final
class Curve:
    """The values of a whole run in bounded memory: neighbours become their mean once there are too many."""

    def __init__(self, most: int = 256) -> None:
        self.values: list[float] = []
        self._most = most
        self._each = 1  # values in one of ``values``
        self._sum, self._count = 0.0, 0

    def add(self, value: float) -> None:
        """Add the next value."""
        self._sum += value
        self._count += 1
        if self._count == self._each:
            self.values.append(self._sum / self._each)
            self._sum, self._count = 0.0, 0
        if len(self.values) == self._most:
            self.values = [(a + b) / 2 for a, b in zip(self.values[::2], self.values[1::2], strict=True)]
            self._each *= 2
