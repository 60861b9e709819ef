"""report.html while a run goes on: rewritten now and then from numbers in memory, at a bounded cost and size."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from limelight.files import write_text
from limelight.runners.base import budget_of
from limelight.runs.reader import Floats, read_run, spread
from limelight.settings.schema import TrainConfig
from limelight.viewing import page
from limelight.viewing.curves import EpisodeCurve, PageRun, episode_curve, page_data
from limelight.viewing.numbers import clock, compact, decimal, with_spread
from limelight.viewing.smoothing import MAX_DOTS, MAX_POINTS, WINDOW, exponential_smoothing, moving_average
from limelight.viewing.time_spent import add_spent, advice, shares

if TYPE_CHECKING:
    from limelight.algo.episodes import Episode

MOST_SHARE = 0.003
"""Most of the time that writing the page may take: the next one waits until that holds."""
_MEMORY = 1_000
"""Returns before a batch from which its averages are made, enough for the smoothing of docs/settings.md."""


@final
class LivePage:
    """Receives the progress of a run, and writes its page at most every ``report_every`` seconds.

    Rows and episodes are thinned by half whenever there are twice as many as a page shows. The report that is drawn at
    the end of the run replaces the page.

    Args:
        config: of the run.
        run_dir: its folder, which gets report.html.
        command: the command line.
        resumed: the run continues; the page begins with what its files have.
    """

    def __init__(self, config: TrainConfig, run_dir: Path, command: str, resumed: bool = False) -> None:
        self._config = config
        self._path = run_dir / "report.html"
        self._command = command
        self._budget = budget_of(config)
        self._settings = page.section("Settings", page.settings_table([config], [""]))
        self._started = time.monotonic()
        self._rows: list[dict[str, Any]] = []
        self._pending: list[tuple[float, float, float]] = []  # step, seconds, return
        self._reported = [0.0, 0.0]  # step and seconds of the last episodes that were taken
        self._curve = np.empty((6, 0))
        self._every = 1  # of the episodes that are kept
        self._tail = np.empty(0)
        self._count = 0
        self._spent: dict[str, float] = {}
        self._step, self._seconds = 0, 0.0
        self._best: float | None = None
        if resumed:
            self._take_over(run_dir)
        self._first_progress = self._budget.progress(self._step, self._count)
        self._due = 0.0
        self._write()

    def _take_over(self, run_dir: Path) -> None:
        """Begin with the rows and the episodes that the run has written before."""
        run = read_run(run_dir)
        for row in run.metrics:
            self._add_row(dict(row))
        if len(run.episodes.values):
            self._curve = np.array(episode_curve(run.episodes, self._config.log.smoothing))
            self._every = max(1, len(run.episodes.values) // self._curve.shape[1])
            self._tail = run.episodes.values[-_MEMORY:]
            self._count = len(run.episodes.values)
            self._reported = [float(run.episodes.steps[-1]), float(run.episodes.seconds[-1])]

    def log(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Keep a row, and write the page if it is due."""
        self._step, self._seconds = step, seconds
        self._add_row({"step": step, "seconds": seconds, **metrics})
        if time.monotonic() >= self._due:
            self._write()

    def _add_row(self, row: dict[str, Any]) -> None:
        add_spent(self._spent, row)
        evaluation = row.get("eval/mean_reward")
        if evaluation is not None and (self._best is None or evaluation >= self._best):
            self._best = float(evaluation)
        self._rows.append(row)
        if len(self._rows) > 2 * MAX_POINTS:
            # Rows of evaluations and of training are thinned apart, as one kind may be much rarer
            kinds = [[r for r in self._rows if ("eval/mean_reward" in r) is which] for which in (True, False)]
            kept = [kind[-1::-2] if len(kind) > MAX_POINTS // 2 else kind for kind in kinds]
            self._rows = sorted((r for kind in kept for r in kind), key=lambda r: float(r["step"]))

    def episodes(self, step: int, seconds: float, episodes: Sequence[Episode]) -> None:
        """Keep the returns of finished episodes, until the next page."""
        self._pending += [(step, seconds, episode.episode_return) for episode in episodes]

    def message(self, text: str) -> None:
        """Ignore messages; the console shows them."""

    def close(self) -> None:
        """Write the last state."""
        self._write()

    def _take_episodes(self) -> None:
        """Move the pending episodes to the curve, with their averages; thin it out where it is too long."""
        if not self._pending:
            return
        steps, seconds, values = np.array(self._pending, np.float64).T
        self._pending = []
        steps, seconds = self._spread(0, steps), self._spread(1, seconds)
        numbers = self._count + np.arange(1.0, len(values) + 1.0)
        with_tail = np.concatenate([self._tail, values])
        smoothed = exponential_smoothing(with_tail, self._config.log.smoothing)
        averages = [each[len(self._tail) :] for each in (moving_average(with_tail, WINDOW), smoothed)]
        self._tail, self._count = with_tail[-_MEMORY:], self._count + len(values)
        new = np.array([numbers, steps, seconds, values, *averages])
        self._curve = np.concatenate([self._curve, new[:, numbers % self._every == 0]], axis=1)
        while self._curve.shape[1] > MAX_DOTS:
            self._every *= 2
            self._curve = self._curve[:, 1::2]

    def _spread(self, which: int, places: Floats) -> Floats:
        """Place episodes that were reported together between the report before and their own."""
        spread_out = spread(np.concatenate([[self._reported[which]], places]))[1:]
        self._reported[which] = places[-1]
        return spread_out

    def _write(self) -> None:
        """Write the page; where the disk refuses it, the next page is the next try."""
        began = time.monotonic()
        self._take_episodes()
        with suppress(OSError):
            write_text(self._path, self._page())
        now = time.monotonic()
        self._due = now + max(self._config.log.report_every, (now - began) / MOST_SHARE)

    def _page(self) -> str:
        config = self._config
        run = PageRun("", config.eval.stop_at_return, EpisodeCurve(*self._curve), self._rows)
        data = page_data([run])
        curves = "\n".join(
            page.chart_section(title, (self._time() if group == "time" else "") + page.charts(data, group))
            for group, title in page.GROUPS.items()
            if any(chart["group"] == group for chart in data["charts"])
        )
        title = f"{config.env.env_id} · {config.algorithm.algo} · seed {config.seed}"
        header = (
            f"<header><h1>{escape(title)}</h1>\n<p><code>{escape(self._command)}</code></p>\n"
            f'<div id="status">{self._status()}</div></header>'
        )
        note = (
            '<p class="note">The finished report adds a diagnosis, results and videos. '
            "Until then: <code>limelight explain</code>.</p>"
        )
        body = f"{header}\n{page.controls(live=True)}\n{curves}\n{note}\n{self._settings}"
        return page.document(config.env.env_id, body, data, live_seconds=max(2.0, config.log.report_every))

    def _time(self) -> str:
        found = shares(self._spent)
        return page.time_bar(found, advice(found, self._config))

    def _status(self) -> str:
        """Return what changes from page to page: when it was written, and the main numbers."""
        elapsed = time.monotonic() - self._started
        progress = self._budget.progress(self._step, self._count)
        done = progress - self._first_progress
        left = elapsed * max(0.0, 1.0 - progress) / done if done > 0.0 else None
        none: dict[str, Any] = {}
        evaluation = next((row for row in reversed(self._rows) if "eval/mean_reward" in row), none)
        speed = next((row["time/fps"] for row in reversed(self._rows) if row.get("time/fps") is not None), None)
        last = self._tail[-WINDOW:]
        pairs = [
            (f"{min(1.0, progress):.0%}", "of the budget"),
            (f"{self._step:,}", "environment steps"),
            (decimal(float(last.mean())) if len(last) else "–", f"mean return of {WINDOW} episodes"),
            (_evaluation(evaluation), "last evaluation"),
            ("–" if self._best is None else decimal(self._best), "best evaluation"),
            ("–" if speed is None else compact(float(round(speed))), "steps per second"),
            (clock(elapsed), "elapsed"),
            ("–" if left is None else clock(left), "left"),
        ]
        when = time.strftime("%H:%M:%S")
        return f'<p><span class="status">running</span> as of {when}</p>{page.tiles(pairs)}'


def _evaluation(row: Mapping[str, Any]) -> str:
    mean = row.get("eval/mean_reward")
    return "–" if mean is None else with_spread(mean, row.get("eval/std_reward") or 0.0)
