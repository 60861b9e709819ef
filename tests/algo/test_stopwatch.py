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


def test_long_calls_are_all_measured(clock: Clock) -> None:
    def work(seconds: float) -> float:
        clock.now += seconds
        return seconds

    timed = Stopwatch(work)
    calls = [1e-6 if i % 10 == 9 else 0.001 * (1 + i % 5) for i in range(100)]  # as rows that only reset
    assert [timed(seconds) for seconds in calls] == calls
    assert timed.seconds == pytest.approx(sum(calls))
    assert clock.reads == 200


@pytest.mark.parametrize("period", [2, 7, 8, 13])
def test_short_calls_are_measured_one_in_seven_without_following_a_period(period: int, clock: Clock) -> None:
    """Every so many steps an episode restarts, which takes much longer or shorter than a step."""

    def work(number: int) -> None:
        clock.now += 50e-6 if number % period == 0 else 10e-6

    timed, calls = Stopwatch(work), 50_000
    for number in range(calls):
        timed(number)
    assert timed.seconds == pytest.approx(clock.now, rel=0.1)
    assert clock.reads == pytest.approx(2 * calls / stopwatch.BLOCK, rel=0.01)


def test_calls_that_become_long_are_all_measured_from_then_on(clock: Clock) -> None:
    def work(seconds: float) -> None:
        clock.now += seconds

    timed = Stopwatch(work)
    for seconds in [1e-5] * 70 + [1e-2] * 70:
        timed(seconds)
    assert timed.seconds == pytest.approx(clock.now, rel=0.1)


def test_a_call_that_fails_counts_nothing(clock: Clock) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("no")

    timed = Stopwatch(fail)
    with pytest.raises(RuntimeError, match="no"):
        timed(1)
    assert timed.seconds == 0.0
