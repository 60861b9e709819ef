"""What the progress display says of a run as a whole: the return so far, the best evaluation, where the time goes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import final

from rich.text import Text

from limelight.viewing.numbers import decimal
from limelight.viewing.sparkline import Curve, sparkline
from limelight.viewing.time_spent import add_spent, in_words, shares


@final
class History:
    """Collects rows of metrics in bounded memory."""

    def __init__(self) -> None:
        self._returns = Curve()
        self._best: float | None = None
        self._spent: dict[str, float] = {}

    def add(self, metrics: Mapping[str, float]) -> None:
        """Receive a row."""
        add_spent(self._spent, metrics)
        mean, evaluation = metrics.get("rollout/ep_rew_mean"), metrics.get("eval/mean_reward")
        if mean is not None and math.isfinite(mean):
            self._returns.add(mean)
        if evaluation is not None:
            self._best = evaluation if self._best is None else max(self._best, evaluation)

    def returns_line(self, width: int, encoding: str) -> Text:
        """Return the return over the run as a sparkline, and the best evaluation; empty where there is no curve yet."""
        if len(self._returns.values) < 2:
            return Text()
        best = "" if self._best is None else f"  best eval {decimal(self._best)}"
        if not encoding.lower().startswith("utf"):
            return Text(best.strip())
        room = min(60, width - len("curve  ") - len(best))
        return Text.assemble("curve  ", (sparkline(self._returns.values, room), "green"), best)

    def time_line(self) -> str:
        """Return ``environment 62%  acting 11%  …`` over the whole run; empty before the first row."""
        return in_words(self.time_shares())

    def time_shares(self) -> dict[str, float]:
        """Return the shares of the time so far; empty before the first row."""
        return shares(self._spent)

    def seconds(self) -> float:
        """Return the seconds that these are shares of."""
        return sum(self._spent.values())
