"""The words of ``limelight tune``, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from helpers.commands import refusal
from limelight.cli import main as cli
from limelight.training.tuning import study


def test_without_optuna_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(study, "find_spec", lambda name: None)
    folder = tmp_path / "tune"
    line = refusal(capsys, "tune", "CartPole-v1", "--run-dir", str(folder))
    assert line == "tune: needs Optuna, which is not installed; pip install 'limelight-rl[tune]'"
    assert not folder.exists()


def test_the_help_is_short(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["tune", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--trials INT" in out
    assert "--fresh-seeds INT" in out
    assert len(out.splitlines()) < 45


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "ENV_ID: missing; see limelight tune --help, or give --resume FOLDER"),
        (["CartPole-v1", "--trials", "0"], "trials = 0: must be ≥ 1"),
        (["CartPole-v1", "--trials", "many"], "trials = many: must be a whole number"),
        (["CartPole-v1", "--seconds", "-1"], "seconds = -1.0: must be > 0"),
        (["CartPole-v1", "--pruner", "mean"], "pruner = mean: must be median | halving | none"),
        (["CartPole-v1", "--trial", "3"], "--trial: no such setting; did you mean --trials"),
        (["CartPool-v1"], "CartPool"),
        (["CartPole-v1", "--total-episodes", "5"], "total_episodes = 5: trials are compared at equal steps"),
        (["--resume", "nowhere"], "resume = nowhere: no tune.json there"),
        (["CartPole-v1", "--resume", "nowhere"], "env_id = CartPole-v1: a search that is resumed has its settings"),
        (["--resume", "nowhere", "--gamma", "0.5"], "gamma = 0.5: a search that is resumed has its settings"),
        (["--resume", "nowhere", "--seconds", "3"], "seconds = 3: a search that is resumed has its budget"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(study, "find_spec", lambda name: sys)
    monkeypatch.chdir(tmp_path)
    assert message in refusal(capsys, "tune", *words)
    assert not any(tmp_path.iterdir())
