"""The curves of report.html as plain data: which charts there are, and their points, thinned to a bounded size."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from limelight.runners.time_shares import KINDS
from limelight.runs.reader import Floats, RunData, Series
from limelight.viewing.smoothing import (
    MAX_DOTS,
    MAX_POINTS,
    WINDOW,
    exponential_smoothing,
    moving_average,
    thinned,
)

MAX_NUMBERS = 60_000
"""Most values of all lines on a page."""
MAX_WORKERS = 32
"""Most workers that are drawn, over all runs."""
TABLE_ROWS = 10
"""Rows of the table below a chart."""
OTHERS = ("rollout/ep_len_mean", "rollout/truncated_share", "time/fps")
RATES = re.compile(r"async/worker_\d+/updates_per_second")


class EpisodeCurve(NamedTuple):
    """Training episodes and their averages, each [N]."""

    numbers: Floats
    """1 is the first episode of the run."""
    steps: Floats
    seconds: Floats
    values: Floats
    means: Floats
    """Of the last 100 episodes."""
    smoothed: Floats


class PageRun(NamedTuple):
    """What a page shows of a run."""

    label: str
    target: float | None
    """The return at which training stops."""
    episodes: EpisodeCurve
    rows: Sequence[Mapping[str, Any]]
    """Of metrics."""


def episode_curve(episodes: Series, smoothing: float, most: int = MAX_DOTS) -> EpisodeCurve:
    """Return at most ``most`` of the episodes with their averages over all of them."""
    kept = thinned(len(episodes.values), most)
    means, smoothed = moving_average(episodes.values), exponential_smoothing(episodes.values, smoothing)
    return EpisodeCurve(kept + 1.0, *(each[kept] for each in (*episodes, means, smoothed)))


def page_run(run: RunData, label: str, smoothing: float, most: int) -> PageRun:
    """Return what a page shows of a run that was read."""
    return PageRun(label, run.config.eval.stop_at_return, episode_curve(run.episodes, smoothing, most), run.metrics)


def page_data(runs: Sequence[PageRun]) -> dict[str, Any]:
    """Return the charts of a page: ``axes`` (steps, seconds and episodes of points) and ``charts`` that refer to them.

    A chart has a title, a group, and series with label, axis, values ``y``, style and colour; ranges ``low`` and
    ``high`` where there are any. Values that are not finite are None.
    """
    names = list(dict.fromkeys(name for run in runs for row in run.rows for name in row))
    workers = [name for name in names if RATES.fullmatch(name)][: max(1, MAX_WORKERS // len(runs))]
    builder = _Builder(runs, max(20, min(MAX_POINTS, MAX_NUMBERS // (len(runs) * max(1, len(names))))))
    builder.add_returns()
    for name in names:
        if name.startswith(("train/", "env/")) or name in OTHERS:
            group = "env" if name.startswith("env/") else "training"
            builder.add(name.removeprefix("train/").replace("_", " "), group, [(name, "", "line")])
    if any(name in names for name in KINDS):
        kinds = [(name, name.removeprefix("time/"), "line") for name in KINDS if name in names]
        builder.add("share of the time", "time", kinds)
    if "async/policy_lag" in names:
        lags = [("async/policy_lag", "mean", "line"), ("async/policy_lag_max", "max", "dash")]
        builder.add("policy lag, in updates by other workers", "workers", lags)
        rates = [(name, name.split("/")[1].replace("_", " "), "line") for name in workers]
        builder.add("updates per second, one line per worker", "workers", rates)
    return {"axes": builder.axes, "charts": builder.charts}


class _Builder:
    """Collects charts, whose series share their axes where their points are at the same places."""

    def __init__(self, runs: Sequence[PageRun], points: int) -> None:
        self.runs = runs
        self.points = points
        self.axes: list[dict[str, list[float | None]]] = []
        self.charts: list[dict[str, Any]] = []
        self._known: dict[tuple[int, bytes], int] = {}

    def add_returns(self) -> None:
        """Add the chart of episode returns and evaluations."""
        several = len(self.runs) > 1
        series: list[dict[str, Any]] = []
        for i, run in enumerate(self.runs):
            prefix = f"{run.label} · " if several else ""
            episodes = run.episodes
            if len(episodes.values):
                axis = self._axis(i, episodes.steps, episodes.seconds, episodes.numbers)
                for label, values, style in (
                    ("episode", episodes.values, "dot"),
                    ("exponential smoothing", episodes.smoothed, "thin"),
                    (f"mean of {WINDOW} episodes", episodes.means, "bold"),
                ):
                    series.append(_series(prefix + label, axis, values, style, i))
            series += self._evaluations(i, prefix, i if several else 1)
        target = next((run.target for run in self.runs if run.target is not None), None)
        self.charts.append({"title": "episode return", "group": "returns", "series": series, "target": target})

    def _evaluations(self, i: int, prefix: str, color: int) -> list[dict[str, Any]]:
        rows = [row for row in self.runs[i].rows if "eval/mean_reward" in row]
        rows = [rows[place] for place in thinned(len(rows), self.points)]
        if not rows:
            return []
        axis = self._axis(i, *_places(rows))
        mean, low, high = (_column(rows, f"eval/{name}_reward") for name in ("mean", "min", "max"))
        entry = _series(f"{prefix}evaluation", axis, mean, "mark", color)
        return [
            {**entry, "low": _numbers(low), "high": _numbers(high), "std": _numbers(_column(rows, "eval/std_reward"))}
        ]

    def add(self, title: str, group: str, lines: Sequence[tuple[str, str, str]]) -> None:
        """Add a chart of metrics: (name, label, style) each; of several runs, each has its colour."""
        several, series = len(self.runs) > 1, []
        for i, run in enumerate(self.runs):
            for k, (name, label, style) in enumerate(lines):
                rows = [row for row in run.rows if name in row]
                rows = [rows[place] for place in thinned(len(rows), self.points)]
                if rows:
                    words = [run.label] if several else []
                    words += [label] if label else []
                    color = i if several or style == "dash" else k
                    axis = self._axis(i, *_places(rows))
                    series.append(_series(" · ".join(words) or title, axis, _column(rows, name), style, color))
        self.charts.append({"title": title, "group": group, "series": series, "target": None})

    def _axis(self, run: int, steps: Floats, seconds: Floats, numbers: Floats | None = None) -> int:
        """Return the index of the axis with these places; episodes are counted where their number is not given."""
        key = (run, steps.tobytes() + (b"" if numbers is None else b"episodes"))
        if key not in self._known:
            if numbers is None:
                episodes = self.runs[run].episodes
                before = np.searchsorted(episodes.steps, steps, side="right")
                numbers = np.concatenate([[0.0], episodes.numbers])[before]
            places = {"steps": steps, "seconds": seconds, "episodes": numbers}
            self.axes.append({name: _numbers(values, 8) for name, values in places.items()})
            self._known[key] = len(self.axes) - 1
        return self._known[key]


def _places(rows: Sequence[Mapping[str, Any]]) -> tuple[Floats, Floats]:
    return _column(rows, "step"), _column(rows, "seconds")


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> Floats:
    """Return a metric of every row, nan where it is missing or not finite."""
    return np.array([row.get(name) for row in rows], np.float64)


def _series(label: str, axis: int, values: Floats, style: str, color: int) -> dict[str, Any]:
    return {"label": label, "axis": axis, "y": _numbers(values), "style": style, "color": color % 8}


def _numbers(values: Floats, digits: int = 5) -> list[float | None]:
    """Return values of so many significant digits as JSON has them; whole numbers are written without a point."""
    return [_short(float(f"{value:.{digits}g}")) if math.isfinite(value) else None for value in values.tolist()]


def _short(value: float) -> float:
    return int(value) if value == int(value) else value


def table_rows(chart: Mapping[str, Any], axes: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Return the header and a few rows of a chart as a table: steps, and the value of each line there."""
    lines = [series for series in chart["series"] if series["style"] != "dot" and series["y"]][:8]
    if not lines:
        return [], []
    longest = max((axes[line["axis"]]["steps"] for line in lines), key=len)
    rows = []
    for place in thinned(len(longest), TABLE_ROWS):
        step = longest[place]
        rows.append([step, *(_value_at(axes[line["axis"]]["steps"], line["y"], step) for line in lines)])
    return ["environment steps", *(line["label"] for line in lines)], rows


def _value_at(steps: Sequence[float], values: Sequence[Any], step: float) -> Any:
    """Return the last value at or before ``step``."""
    place = int(np.searchsorted(np.asarray(steps, np.float64), step, side="right")) - 1
    return values[place] if place >= 0 else None
