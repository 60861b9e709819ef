"""Cleaning run folders: what goes, what stays, and which runs are left as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

import limelight
from helpers.commands import refusal
from limelight.cli import main as cli
from limelight.runs import cleaning
from limelight.runs.checkpoint import checkpoints
from limelight.runs.folder import SUMMARY, only_process

TINY = {
    "algo": "a2c", "preset": "plain", "num_envs": 2, "num_steps": 4, "total_timesteps": 160, "checkpoint_every": 40,
    "keep_last": 3, "final_episodes": 1, "tensorboard": False, "quiet": True,
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with a best agent."""
    folder = tmp_path / "runs" / "one"
    limelight.train("CartPole-v1", run_dir=str(folder), eval_every=80, eval_episodes=1, **TINY)
    return folder


@pytest.fixture
def unjudged(tmp_path: Path) -> Path:
    """A finished run without evaluations."""
    folder = tmp_path / "runs" / "two"
    limelight.train("CartPole-v1", run_dir=str(folder), eval_every=0, **TINY)
    return folder


def test_checkpoints_go_and_the_best_agent_stays(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = limelight.evaluate(limelight.load(run), episodes=2).returns
    size = sum(file.stat().st_size for file in (run / "checkpoints").rglob("*") if file.is_file())
    (run / ".report.html.tmp").write_text("left by a killed writer", encoding="utf-8")
    assert cli.main(["clean", str(run)]) == 0
    assert capsys.readouterr().out == f"{run}: {size / 1e6:.2g} MB freed\n"
    assert not checkpoints(run)
    assert not list(run.glob(".*"))
    assert limelight.evaluate(limelight.load(run), episodes=2).returns == before
    assert cli.main(["report", str(run)]) == 0
    capsys.readouterr()
    refused = refusal(capsys, "train", "--resume", str(run), "--total-timesteps", "400")
    assert f"no checkpoint in {run}/checkpoints; --init-agent {run} begins a new run" in refused
    limelight.train("CartPole-v1", init_agent=run, run_dir=str(run.parent / "next"), eval_every=0, **TINY)
    assert cleaning.clean(run).freed == 0


def test_the_only_agent_stays(unjudged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest = checkpoints(unjudged)[-1]
    assert cli.main(["clean", str(unjudged.parent)]) == 0
    assert f"{newest.name} stays as its only agent" in capsys.readouterr().out
    assert checkpoints(unjudged) == [newest]
    assert limelight.load(unjudged)


def test_a_damaged_best_agent_does_not_count(run: Path) -> None:
    newest = checkpoints(run)[-1]
    (run / "best" / "state.json").write_text("{", encoding="utf-8")
    assert cleaning.clean(run).kept == newest
    assert checkpoints(run) == [newest]


def test_unfinished_runs_need_to_be_named(run: Path) -> None:
    (run / SUMMARY).unlink()
    left = cleaning.clean(run)
    assert "resuming needs the checkpoints" in (left.reason or "")
    assert len(checkpoints(run)) == 3
    assert cleaning.clean(run, include_unfinished=True).freed > 0
    assert not checkpoints(run)


def test_a_run_that_goes_on_is_left(run: Path) -> None:
    with only_process(run):
        assert cleaning.clean(run, include_unfinished=True).reason == "a process trains there"
    assert len(checkpoints(run)) == 3


def test_a_folder_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no config.yaml there" in refusal(capsys, "clean", str(tmp_path))
    assert "RUN_DIRS: missing" in refusal(capsys, "clean")


@pytest.mark.parametrize("name", ["link", "step_000000000001", ".step_000000000001.tmp"])
def test_links_to_other_folders_are_not_followed(name: str, run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").write_text("x", encoding="utf-8")
    (run / "checkpoints" / name).symlink_to(other)
    cleaning.clean(run)
    assert (other / "precious").exists()


def test_nothing_is_removed_where_checkpoints_is_a_link(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    (run / "checkpoints").rename(other)
    (other / "precious").write_text("x", encoding="utf-8")
    (run / "checkpoints").symlink_to(other)
    before = sorted(other.rglob("*"))
    assert cli.main(["clean", str(run)]) == 0
    assert f"left as it is (checkpoints is a link to {other}, outside the run)" in capsys.readouterr().out
    assert sorted(other.rglob("*")) == before


def test_what_is_no_checkpoint_stays(run: Path) -> None:
    notes, folder = run / "checkpoints" / "notes.txt", run / "checkpoints" / "step_by_step" / "text"
    folder.mkdir(parents=True)
    notes.write_text("x", encoding="utf-8")
    assert cleaning.clean(run).freed > 0
    assert not checkpoints(run)
    assert folder.is_dir()
    assert notes.exists()


def test_a_run_that_a_folder_of_runs_links_is_left(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A stranger's folder of runs may have links to any run; a link that is named itself is meant."""
    strangers = run.parents[1] / "strangers"
    strangers.mkdir()
    (strangers / "one").symlink_to(run)
    assert cli.main(["clean", str(strangers)]) == 0
    assert capsys.readouterr().out == f"{strangers / 'one'}: left as it is (a link to {run}; name that folder)\n"
    assert len(checkpoints(run)) == 3
    assert cli.main(["clean", str(strangers / "one")]) == 0
    assert not checkpoints(run)
