"""Throughput with and without callback, time shares and live page, in alternating runs of one process.

    python benchmarks/viewing_cost.py                  # HalfCheetah (Pendulum without MuJoCo) 16 × 5, CartPole 256 × 5
    python benchmarks/viewing_cost.py --seconds 20 --rounds 9

Each round trains for so long in four ways, in a new order each time: with a callback that is told of everything and
does nothing, as shipped, without the live page, and without page and clocks (every stopwatch calls its function
straight). The table has medians over rounds, and the median of the ratio to the last within a round, with its
interquartile range.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import limelight
from limelight.algo import stopwatch
from limelight.training import run as training

WAYS = ("page, shares and callback", "page and shares", "shares alone", "neither")
CONTINUOUS = "HalfCheetah-v5" if find_spec("mujoco") else "Pendulum-v1"
CASES: dict[str, dict[str, Any]] = {
    f"{CONTINUOUS} 16 × 5": {"env": CONTINUOUS, "num_envs": 16, "num_steps": 5},
    "CartPole-v1 256 × 5": {"env": "CartPole-v1", "num_envs": 256, "num_steps": 5},
    "CartPole-v1 1 × 1": {"env": "CartPole-v1", "num_envs": 1, "num_steps": 1},
}


class StopAfter:
    """A logger that interrupts a run after so many seconds of training, and keeps the speed until then."""

    def __init__(self, seconds: float) -> None:
        self.limit = seconds
        self.speed = 0.0
        self._start: tuple[float, int] | None = None

    def tick(self, step: int, seconds: float) -> None:
        """Measure, and interrupt the run at its end."""
        if self._start is None:
            if seconds > 0.5:  # after the first rollouts, which allocate
                self._start = time.perf_counter(), step
            return
        passed = time.perf_counter() - self._start[0]  # with the time of the page
        if passed >= self.limit:
            self.speed = (step - self._start[1]) / passed
            raise KeyboardInterrupt

    def log(self, *args: Any) -> None:
        """Ignore rows."""

    def episodes(self, *args: Any) -> None:
        """Ignore episodes."""

    def message(self, *args: Any) -> None:
        """Ignore messages."""

    def close(self) -> None:
        """Do nothing."""


class Told:
    """A callback that is told of everything, and does nothing."""

    def on_rollout(self, run: Any) -> None:
        """Ignore a rollout."""

    def on_episodes(self, run: Any, episodes: Any) -> None:
        """Ignore episodes."""


@contextmanager
def clocks(wanted: bool) -> Iterator[None]:
    """Without clocks, a stopwatch only calls its function."""
    before = stopwatch.Stopwatch.__call__
    if not wanted:
        stopwatch.Stopwatch.__call__ = lambda self, argument: self._function(argument)  # type: ignore[method-assign]
    try:
        yield
    finally:
        stopwatch.Stopwatch.__call__ = before  # type: ignore[method-assign]


def speed(case: dict[str, Any], way: str, seconds: float, seed: int) -> float:
    """Return steps per second of one run."""
    stop = StopAfter(seconds)
    settings = {**case, "report_every": 10.0 if way in WAYS[:2] else 0.0}
    callbacks = [Told()] if way == WAYS[0] else []
    env = settings.pop("env")
    with tempfile.TemporaryDirectory() as folder, clocks(way != WAYS[3]), suppress(KeyboardInterrupt):
        limelight.train(
            env, quiet=True, loggers=[stop], callbacks=callbacks, run_dir=str(Path(folder) / "run"), seed=seed,
            total_timesteps=10**9, eval_every=0, checkpoint_every=0, tensorboard=False, final_episodes=0, **settings,
        )  # fmt: skip
    return stop.speed


def measure(case: dict[str, Any], seconds: float, rounds: int) -> dict[str, list[float]]:
    """Return the speeds of each way, a list over rounds."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    order = random.Random(0)
    for number in range(rounds):
        for way in order.sample(WAYS, len(WAYS)):
            found[way].append(speed(case, way, seconds, number))
    return found


def table(name: str, found: dict[str, list[float]]) -> str:
    """Return a Markdown table of one case."""
    lines = [f"**{name}**", "", "| way | steps/s | of neither | interquartile range |", "|---|---|---|---|"]
    for way, speeds in found.items():
        ratios = sorted(a / b for a, b in zip(speeds, found[WAYS[3]], strict=True))
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios * 3)
        middle = statistics.median(ratios)
        lines.append(f"| {way} | {statistics.median(speeds):,.0f} | {middle:.1%} | {low:.1%} to {high:.1%} |")
    return "\n".join(lines)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each run; the page is written every 10")
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args(argv)


def main() -> None:
    arguments = parse()
    training.draw_report = lambda run_dir: None  # type: ignore[assignment]
    for name, case in CASES.items():
        print(table(name, measure(case, arguments.seconds, arguments.rounds)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
