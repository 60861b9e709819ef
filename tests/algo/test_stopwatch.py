"""The stopwatch, with a simulated clock."""

from __future__ import annotations

from typing import Any

import pytest

from limelight.algo import stopwatch
from limelight.algo.stopwatch import Stopwatch


class Clock:
    """Stands for the module ``time``; counts how often it is read."""

    now = 0.0
    reads = 0

    def perf_counter(self) -> float:
        self.reads += 1
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)
    return clock


@pytest.mark.parametrize(("steps", "every"), [(1, 7), (2, 4), (5, 2), (7, 1), (640, 1)])
def test_calls_of_few_steps_are_measured_rarely_and_count_for_all(steps: int, every: int, clock: Clock) -> None:
    def work(seconds: float) -> float:
        clock.now += seconds
        return seconds

    timed = Stopwatch(work, steps)
    assert [timed(0.5) for _ in range(28)] == [0.5] * 28
    assert timed.every == every
    assert timed.seconds == pytest.approx(14.0)
    assert clock.reads == 2 * (28 // every)


def test_a_call_that_fails_counts_nothing(clock: Clock) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("no")

    timed = Stopwatch(fail, 100)
    with pytest.raises(RuntimeError, match="no"):
        timed(1)
    assert timed.seconds == 0.0
