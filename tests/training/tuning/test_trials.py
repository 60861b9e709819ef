"""The evaluations of a trial and its score."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from limelight.settings.schema import TrainConfig
from limelight.training.tuning.trials import (
    Limit,
    RunningTrial,
    evaluations_of,
    score,
    score_of_run,
    trial_command,
)


def row(step: int, seconds: float, mean: float | None) -> str:
    return json.dumps({"step": step, "seconds": seconds, **({} if mean is None else {"eval/mean_reward": mean})}) + "\n"


def test_the_score_is_the_mean_over_the_last_third_of_the_budget(tmp_path: Path) -> None:
    lines = [row(300, 1, 5.0), row(500, 2, None), row(700, 3, 10.0), row(1024, 4, 20.0)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines) + '{"step": 10')  # the last line was cut short
    assert score_of_run(tmp_path, Limit(1000, "step")) == 15.0
    assert score_of_run(tmp_path, Limit(4.0, "seconds")) == 15.0  # 3 and 4 of 4 seconds
    assert score_of_run(tmp_path, Limit(100.0, "seconds")) is None
    assert score(evaluations_of(lines[:1], Limit(1000, "step"))) is None


def test_a_trial_reports_the_first_evaluation_of_each_tenth(tmp_path: Path) -> None:
    trial = RunningTrial(tmp_path, Limit(100, "step"))
    assert trial.read() == []
    assert trial.share == 0.0
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(row(5, 0, 1.0) + row(12, 0, 2.0) + row(15, 0, 3.0) + row(37, 0, 4.0))
    assert trial.read() == [(1, 2.0), (3, 4.0)]
    assert trial.read() == []
    assert trial.share == pytest.approx(0.37)
    assert len(trial.evaluations) == 4


def test_a_trial_is_a_run_of_the_command_line(tmp_path: Path) -> None:
    command = trial_command(TrainConfig(), tmp_path / "trials" / "trial-3")
    assert [*command.words[1:4]] == ["-m", "limelight", "train"]
    assert (tmp_path / "trials" / "trial-3.yaml").is_file()
    assert command.log == tmp_path / "trials" / "trial-3.log"
