"""Shares of the time that go into environments, acting, learning, waiting and evaluation."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from limelight.runners.actor_learner import ActorLearner
    from limelight.typing import Metrics

ENVIRONMENT, ACTING, LEARNING, WAITING, EVALUATION = (
    f"time/{name}" for name in ("environment", "acting", "learning", "waiting", "evaluation")
)
KINDS = (ENVIRONMENT, ACTING, LEARNING, EVALUATION, WAITING)
"""Metrics that are shares of the wall-clock time, in the order in which they are shown."""
WALL = "time/wall"


def own_shares(metrics: Metrics) -> Metrics:
    """Return the shares alone, of the metrics of an actor-learner."""
    return {name: metrics[name] for name in KINDS if name in metrics}


@final
class ShareMeter:
    """Measures the shares of one actor-learner's time since the last row; what is neither else is learning."""

    def __init__(self, actor_learner: ActorLearner) -> None:
        self._actor_learner = actor_learner
        self._last = (0.0, 0.0, 0.0, 0.0)

    def start(self, total: float) -> None:
        """Measure from now on; ``total``: as for :meth:`metrics`."""
        self._last = (total, *self._actor_learner.spent(), self._last[3])

    def metrics(self, total: float, idle: float = 0.0) -> Metrics:
        """Return the shares since the last call, which sum to 1; none where no time has passed.

        Args:
            total: seconds so far, from any start.
            idle: those of them that were spent waiting.
        """
        now = (total, *self._actor_learner.spent(), idle)
        passed, environment, collecting, waiting = (new - old for new, old in zip(now, self._last, strict=True))
        self._last = now
        if passed <= 0.0:
            return {}
        # Estimates of a few measured calls may be above the time that has passed
        scale = 1.0 / max(passed, collecting + waiting)
        environment = min(environment, collecting)
        learning = max(0.0, passed - collecting - waiting)
        parts = environment, collecting - environment, learning, waiting
        return {name: part * scale for name, part in zip((ENVIRONMENT, ACTING, LEARNING, WAITING), parts, strict=True)}


@final
class RowClock:
    """The wall-clock time between two rows of metrics: the speed, and the shares of it.

    ``evaluates_beside``: evaluations run while workers go on, so the other shares sum to 1 without them.
    """

    def __init__(self, evaluates_beside: bool = False) -> None:
        self._evaluates_beside = evaluates_beside
        self.start(0, 0.0)

    def start(self, step: int, seconds: float) -> None:
        """Measure from ``step`` on, at which ``seconds`` of training had passed."""
        self._step = step
        self._seconds = seconds
        self._started = time.monotonic()
        self.evaluation = 0.0
        """Seconds of evaluations since the last row."""

    def row(self, step: int, seconds: float, metrics: Metrics) -> Metrics:
        """Return ``metrics`` with the speed since the last row, and its shares of training as shares of all the time.

        ``seconds``: of training so far.
        """
        wall = max(time.monotonic() - self._started, 1e-9)
        training = seconds - self._seconds
        row = {"time/fps": (step - self._step) / max(training, 1e-9), **metrics}
        if LEARNING in metrics:
            row[WALL] = wall
            row[EVALUATION] = min(1.0, self.evaluation / wall)
            trained = min(1.0, training / wall)
            for name in (ENVIRONMENT, ACTING, LEARNING, WAITING):
                row[name] = metrics[name] * trained
            row[WAITING] += max(0.0, 1.0 - trained - (0.0 if self._evaluates_beside else row[EVALUATION]))
        self.start(step, seconds)
        return row
