"""The page of a run that goes on: how often it is written, what it has, and how large it may grow."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import limelight
from helpers.manual_workers import draw_no_report
from limelight.algo.episodes import Episode
from limelight.settings.io import save_yaml, with_settings
from limelight.settings.schema import TrainConfig
from limelight.viewing import live
from limelight.viewing.jsonl import JsonlLogger
from limelight.viewing.live import LivePage
from limelight.viewing.monitor_csv import MonitorCsvLogger
from limelight.viewing.smoothing import moving_average


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=100.0, strftime=lambda form: "12:00:00")
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(live, "time", clock)
    return clock


def config(**settings: Any) -> TrainConfig:
    return with_settings(TrainConfig(), settings)


def data_of(folder: Path) -> dict[str, Any]:
    page = (folder / "report.html").read_text(encoding="utf-8")
    found = re.search(r'id="data">(.*?)</script>', page)
    assert found is not None
    return json.loads(found[1])


def finished(*returns: float) -> list[Episode]:
    return [Episode(0, r, 10, True) for r in returns]


def test_the_page_is_there_at_once_and_written_now_and_then(tmp_path: Path, clock: SimpleNamespace) -> None:
    page = LivePage(config(report_every=10.0, total_timesteps=1_000), tmp_path, "limelight train <x>")
    first = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "limelight train &lt;x&gt;" in first
    assert 'data-live="10"' in first
    assert ">running<" in first
    assert "http" not in first
    page.episodes(10, 0.1, finished(7.0, 9.0))
    page.log(100, 1.0, {"train/entropy": 0.5})
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == first
    clock.now += 10.0
    page.log(250, 2.0, {"train/entropy": 0.25, "time/fps": 125.0})
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for value, name in (("25%", "of the budget"), ("8.0", "mean return of 100 episodes"), ("0:30", "left")):
        assert f"<b>{value}</b><span>{name}</span>" in text
    charts = {chart["title"]: chart for chart in data_of(tmp_path)["charts"]}
    assert charts["entropy"]["series"][0]["y"] == [0.5, 0.25]
    assert charts["episode return"]["series"][0]["y"] == [7, 9]
    page.log(300, 3.0, {"eval/mean_reward": 5.0, "eval/std_reward": 1.0})
    page.close()  # with what has come since
    assert "5.0 ± 1.0" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_writing_takes_a_bounded_share_of_the_time(
    tmp_path: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = LivePage(config(report_every=1.0), tmp_path, "")
    written: list[float] = []

    def slow(self: LivePage) -> str:
        written.append(clock.now)
        clock.now += 0.3
        return ""

    monkeypatch.setattr(LivePage, "_page", slow)
    for step in range(1, 400):
        clock.now += 1.0
        page.log(step, float(step), {})
    assert 0.3 * (len(written) - 1) <= live.MOST_SHARE * (written[-1] - written[0]) + 1e-9
    assert len(written) > 2


@pytest.mark.slow
def test_long_runs_stay_small_and_keep_their_averages(tmp_path: Path, clock: SimpleNamespace) -> None:
    page = LivePage(config(total_timesteps=10**9), tmp_path, "")
    returns = np.random.default_rng(0).normal(size=30_000)
    for i in range(3_000):
        page.episodes(100 * i, float(i), finished(*returns[10 * i : 10 * i + 10]))
        clock.now += 0.5
        page.log(100 * i, float(i), {f"train/metric_{k}": i / 3 + k for k in range(30)})
        if i % 300 == 0:
            page.log(100 * i, float(i), {"eval/mean_reward": float(i)})
    page.close()
    assert (tmp_path / "report.html").stat().st_size < 1_000_000
    data = data_of(tmp_path)
    _, _, mean, evaluation = data["charts"][0]["series"]
    assert len(evaluation["y"]) == 10  # rare rows are not thinned out
    axis = data["axes"][mean["axis"]]
    assert 1_000 <= len(axis["episodes"]) <= 2_000
    exact = moving_average(returns)[np.array(axis["episodes"], int) - 1]
    np.testing.assert_allclose(mean["y"], exact, atol=1e-3)
    steps = data["axes"][data["charts"][1]["series"][0]["axis"]]["steps"]
    assert steps == sorted(steps)
    assert steps[-1] == 299_900


def test_episodes_reported_together_are_spread_over_the_time_before(tmp_path: Path, clock: SimpleNamespace) -> None:
    page = LivePage(config(), tmp_path, "")
    page.episodes(100, 1.0, finished(1.0, 2.0))
    clock.now += 20.0
    page.log(100, 1.0, {})
    page.episodes(200, 2.0, finished(3.0, 4.0))
    page.episodes(300, 3.0, finished(5.0))
    page.close()
    axis = data_of(tmp_path)["axes"][0]
    assert axis["steps"] == [50, 100, 150, 200, 300]
    assert axis["seconds"] == [0.5, 1, 1.5, 2, 3]


def test_a_resumed_run_begins_with_what_it_had(tmp_path: Path, clock: SimpleNamespace) -> None:
    save_yaml(config(), tmp_path / "config.yaml")
    monitor = MonitorCsvLogger(tmp_path / "monitor.csv", "CartPole-v1", 0.0)
    monitor.episodes(50, 1.0, finished(1.0, 2.0, 3.0))
    monitor.close()
    rows = JsonlLogger(tmp_path / "metrics.jsonl")
    rows.log(60, 1.0, {"train/entropy": 0.5})
    rows.log(60, 1.0, {"eval/mean_reward": 2.5})
    rows.close()
    page = LivePage(config(), tmp_path, "", resumed=True)
    page.episodes(100, 2.0, finished(6.0))
    page.log(100, 2.0, {"train/entropy": 0.25})
    page.close()
    charts = {chart["title"]: chart for chart in data_of(tmp_path)["charts"]}
    assert charts["entropy"]["series"][0]["y"] == [0.5, 0.25]
    assert charts["episode return"]["series"][2]["y"] == [1, 1.5, 2, 3]
    assert "<b>2.5</b><span>best evaluation</span>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_disk_that_refuses_the_page_does_not_end_the_run(tmp_path: Path, clock: SimpleNamespace) -> None:
    (tmp_path / "report.html").mkdir()  # a file cannot replace it
    page = LivePage(config(), tmp_path, "")
    clock.now += 100.0
    page.log(1, 1.0, {})
    page.close()
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"], "no half-written page is left"


@pytest.mark.parametrize(("seconds", "expected"), [(0.5, True), (0.0, False)])
def test_a_run_writes_its_page_unless_it_is_switched_off(
    seconds: float, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_no_report(monkeypatch)
    settings: dict[str, Any] = {"tensorboard": False, "eval_every": 0, "final_episodes": 0, "report_every": seconds}
    limelight.train("CartPole-v1", run_dir=str(tmp_path / "r"), total_timesteps=500, quiet=True, **settings)
    assert (tmp_path / "r" / "report.html").exists() == expected
    assert not (tmp_path / "r" / ".report.html.tmp").exists()
