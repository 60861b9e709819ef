"""The points of a page's curves: what is drawn, where, and how many."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from limelight.runs.reader import Series
from limelight.viewing import curves
from limelight.viewing.curves import PageRun, episode_curve, page_data, table_rows

EPISODES = Series(np.arange(100.0, 1_100.0, 100.0), np.arange(1.0, 11.0), np.arange(10.0))
ROWS: list[dict[str, Any]] = [
    {"step": 500, "seconds": 5.0, "train/entropy": 0.5, "train/grad_norm": None, "time/fps": 100.0, "env/coins": 3.0},
    {"step": 500, "seconds": 5.0, "eval/mean_reward": 4.0, "eval/std_reward": 1.0, "eval/min_reward": 2.0},
    {"step": 1_000, "seconds": 10.0, "train/entropy": math.nan, "train/grad_norm": 2.0, "time/fps": 100.0},
]


def run(label: str = "", rows: list[dict[str, Any]] | None = None, target: float | None = None) -> PageRun:
    return PageRun(label, target, episode_curve(EPISODES, 0.9), ROWS if rows is None else rows)


def chart(data: dict[str, Any], title: str) -> dict[str, Any]:
    return next(chart for chart in data["charts"] if chart["title"] == title)


def test_returns_evaluations_and_metrics_are_charts() -> None:
    data = page_data([run(target=8.0)])
    assert [(c["title"], c["group"]) for c in data["charts"]] == [
        ("episode return", "returns"), ("entropy", "training"), ("grad norm", "training"), ("time/fps", "training"),
        ("env/coins", "env"),
    ]  # fmt: skip
    returns = data["charts"][0]
    assert returns["target"] == 8.0
    assert [(s["label"], s["style"]) for s in returns["series"]] == [
        ("episode", "dot"), ("exponential smoothing", "thin"), ("mean of 100 episodes", "bold"), ("evaluation", "mark"),
    ]  # fmt: skip
    assert returns["series"][0]["y"] == list(range(10))
    evaluation = returns["series"][3]
    assert (evaluation["y"], evaluation["std"], evaluation["low"], evaluation["high"]) == ([4], [1], [2], [None])
    assert data["axes"][evaluation["axis"]] == {"steps": [500], "seconds": [5], "episodes": [5]}
    assert chart(data, "entropy")["series"][0]["y"] == [0.5, None]
    assert chart(data, "grad norm")["series"][0]["y"] == [None, 2]
    json.dumps(data, allow_nan=False)


def test_lines_at_the_same_places_share_an_axis() -> None:
    data = page_data([run()])
    axes = {c["series"][0]["axis"] for c in data["charts"] if c["title"] in ("entropy", "grad norm", "time/fps")}
    assert len(axes) == 1


def test_several_runs_have_a_colour_and_a_name_each() -> None:
    data = page_data([run("one"), run("two")])
    entropy = chart(data, "entropy")
    assert [(s["label"], s["color"]) for s in entropy["series"]] == [("one", 0), ("two", 1)]
    marks = [s for s in data["charts"][0]["series"] if s["style"] == "mark"]
    assert [(s["label"], s["color"]) for s in marks] == [("one · evaluation", 0), ("two · evaluation", 1)]


def test_workers_and_shares_of_the_time_have_a_chart_each() -> None:
    lag = {"async/policy_lag": 1.5, "async/policy_lag_max": 4}
    rates = {f"async/worker_{w}/updates_per_second": float(w) for w in range(50)}
    data = page_data(
        [run(rows=[{"step": 1, "seconds": 1.0, "time/acting": 0.25, "time/learning": 0.75, **lag, **rates}])]
    )
    assert [s["label"] for s in chart(data, "share of the time")["series"]] == ["acting", "learning"]
    assert [s["label"] for s in chart(data, "policy lag, in updates by other workers")["series"]] == ["mean", "max"]
    workers = chart(data, "updates per second, one line per worker")["series"]
    assert len(workers) == curves.MAX_WORKERS
    assert workers[1]["label"] == "worker 1"


@pytest.mark.parametrize(("runs", "metrics", "rows"), [(1, 30, 5_000), (30, 30, 2_000)])
def test_the_data_of_long_and_of_many_runs_are_bounded(runs: int, metrics: int, rows: int) -> None:
    table = [
        {"step": 2_000 * i, "seconds": i * 1.234567, **{f"train/metric_{k}": i * 0.987654 + k for k in range(metrics)}}
        for i in range(rows)
    ]
    places = np.arange(100_000.0)
    episodes = Series(places * 17.0, places / 7.0, np.sin(places))
    data = page_data([PageRun(str(i), None, episode_curve(episodes, 0.9, 2_000 // runs), table) for i in range(runs)])
    assert len(json.dumps(data, separators=(",", ":"))) < 700_000
    axis = data["axes"][0]
    assert (axis["steps"][0], axis["steps"][-1], axis["episodes"][-1]) == (0, 1_699_983, 100_000)


def test_a_chart_is_a_table_too() -> None:
    data = page_data([run()])
    header, rows = table_rows(data["charts"][0], data["axes"])
    assert header == ["environment steps", "exponential smoothing", "mean of 100 episodes", "evaluation"]
    assert len(rows) == curves.TABLE_ROWS
    assert rows[3] == [400, pytest.approx(1.63, abs=0.01), 1.5, None]  # before the first evaluation
    assert rows[-1][2:] == [4.5, 4]


def test_a_run_without_anything_has_one_empty_chart() -> None:
    nothing = Series(*np.empty((3, 0)))
    data = page_data([PageRun("", None, episode_curve(nothing, 0.9), [])])
    assert data == {
        "axes": [],
        "charts": [{"title": "episode return", "group": "returns", "series": [], "target": None}],
    }
    assert table_rows(data["charts"][0], []) == ([], [])
