"""An evaluation in full as text: within 80 columns, differences in words, single episodes as tables and videos."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import limelight
from limelight.errors import EnvError
from limelight.runs.evaluation import Evaluation
from limelight.runs.full_evaluation import FullEvaluation, TracedEvaluation, trace
from limelight.viewing import evaluations as view
from limelight.viewing.record import record_trace


def full(greedy: list[float], sampled: list[float], rewards: str = "") -> FullEvaluation:
    def traced(returns: list[float]) -> TracedEvaluation:
        return TracedEvaluation(Evaluation(returns, [10] * len(returns)), (), returns if rewards else None)

    return FullEvaluation(traced(greedy), traced(sampled), rewards)


def test_the_comparison_fits_80_columns_and_says_whether_they_differ() -> None:
    lines = view.comparison(full([-123456.7, -99999.9] * 9, [987654321.1, 1234567.8] * 9, "clipped to ±1"))
    assert max(map(len, lines)) <= 80
    assert any(line.endswith(", they differ") for line in lines)
    assert "as trained: clipped to ±1" in lines
    same = view.comparison(full([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]))
    assert any(line.endswith(", no difference is shown") for line in same)
    assert not any("as trained" in line for line in same)


def test_long_episodes_are_shortened_and_wide_actions_cut() -> None:
    header = ["step", "action", "reward", "return", "value", "end"]
    rows = [[t, [0.123456] * 9, 1.0, float(t), 0.5, ""] for t in range(1, 101)]
    lines = view.episode_lines(header, rows)
    assert max(map(len, lines)) <= 80
    assert "82 steps are left out" in lines[1 + view.FIRST]
    assert lines[-1].split()[0] == "100"
    assert "…" in lines[1]
    assert not any("left out" in line for line in view.episode_lines(header, rows[:18]))


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> limelight.Agent:
    folder = str(tmp_path_factory.mktemp("view") / "run")
    settings = {"quiet": True, "tensorboard": False, "eval_every": 0, "final_episodes": 0, "backend": "sync"}
    return limelight.train("CartPole-v1", algo="a2c", total_timesteps=200, run_dir=folder, **settings).agent


def test_the_file_of_an_episode_has_all_its_steps(agent: limelight.Agent, tmp_path: Path) -> None:
    traced = trace(agent, episodes=3, with_values=True)
    paths, lines = view.write_tables(traced, agent, tmp_path, "x")
    assert [path.name for path in paths] == ["x-worst.csv", "x-median.csv"]
    with paths[0].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(traced.worst.rewards)
    assert float(rows[-1]["return"]) == min(traced.evaluation.returns)
    assert rows[-1]["end"] == "terminated"
    assert lines[1].startswith(f"worst episode: return {min(traced.evaluation.returns):g}, ")


def test_the_video_repeats_the_episode_and_another_one_is_refused(agent: limelight.Agent, tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    traced = trace(agent, episodes=3, num_envs=1, with_values=True)
    last = max(traced.traces, key=lambda episode: episode.number)
    assert last.number == 2
    record_trace(agent, tmp_path / "a.mp4", last)
    assert (tmp_path / "a.mp4").stat().st_size > 1_000
    last.rewards[0] = 7.0
    with pytest.raises(EnvError, match=r"another reward at step 1 .*cannot be shown again"):
        record_trace(agent, tmp_path / "b.mp4", last)


def test_rows_as_json_are_those_of_the_table(agent: limelight.Agent) -> None:
    traced = trace(agent, episodes=2, with_values=True)
    found = view.rows_as_json(traced, agent)
    assert found["worst"]["return"] == min(traced.evaluation.returns)
    assert np.cumsum([step["reward"] for step in found["median"]["steps"]])[-1] == found["median"]["return"]
