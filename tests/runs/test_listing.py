"""The runs in a folder: their status, steps, returns and age."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import limelight
from helpers.settings import one_line
from limelight.errors import CheckpointError
from limelight.runs.folder import only_process, read_json, write_json
from limelight.runs.listing import list_runs

ENDS = ("stopped", "interrupted", "failed", "reached_return")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is at its end, and copies of it with other ends."""
    folder = tmp_path_factory.mktemp("runs")
    settings = {"eval_every": 200, "eval_episodes": 1, "final_episodes": 1, "tensorboard": False, "log_every": 100}
    limelight.train("Acrobot-v1", quiet=True, total_timesteps=400, run_dir=str(folder / "a" / "done"), **settings)
    for name in ("killed", "odd", "going", *ENDS):
        shutil.copytree(folder / "a" / "done", folder / "b" / name)
    (folder / "b" / "killed" / "summary.json").unlink()
    summary = read_json(folder / "a" / "done" / "summary.json")
    for name in ENDS:
        write_json(folder / "b" / name / "summary.json", {**summary, "status": name})
    (folder / "b" / "odd" / "config.yaml").write_text("[", encoding="utf-8")
    return folder


def test_every_run_has_the_status_of_its_summary_or_a_word_of_its_own(runs: Path) -> None:
    with only_process(runs / "b" / "going"):
        found = {entry.path.name: entry.status for entry in list_runs(runs)}
    others = {"done": "completed", "killed": "broken_off", "odd": "damaged", "going": "running"}
    assert found == {**others, **{name: name for name in ENDS}}


def test_a_finished_run_has_the_numbers_of_its_summary(runs: Path) -> None:
    (entry,) = list_runs(runs / "a")
    summary = read_json(runs / "a" / "done" / "summary.json")
    assert (entry.env, entry.algo, entry.steps) == ("Acrobot-v1", summary["algorithm"], summary["total_timesteps"])
    assert entry.best_return == summary["best_eval_return"]
    assert 0 <= entry.age < 600


def test_a_killed_run_has_the_steps_and_the_best_evaluation_of_its_rows(runs: Path) -> None:
    entry = next(entry for entry in list_runs(runs) if entry.path.name == "killed")
    assert entry.steps >= 400
    assert entry.best_return is not None


def test_a_killed_run_without_rows_has_the_steps_of_its_newest_checkpoint(runs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(runs / "b" / "killed", tmp_path / "killed")
    (run / "metrics.jsonl").unlink()
    shutil.rmtree(run / "checkpoints")
    for step in (0, 70):
        (run / "checkpoints" / f"step_{step:012d}").mkdir(parents=True)
    (entry,) = list_runs(tmp_path)
    assert entry.steps == 70


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        list_runs(tmp_path / "nowhere")
    assert "no such folder" in one_line(error)
    with pytest.raises(CheckpointError, match="no run in it"):
        list_runs(tmp_path)
