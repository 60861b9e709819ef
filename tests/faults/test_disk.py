"""A disk that is full, read-only or gone: the run goes on, and what was saved stays intact."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import limelight
from helpers.manual_workers import draw_no_report
from limelight.cli import main as cli
from limelight.errors import ConfigError
from limelight.files import write_text
from limelight.runs import checkpoint, line_file
from limelight.runs.checkpoint import checkpoints, latest_checkpoint, read_state
from limelight.runs.line_file import open_line_file
from limelight.runs.reader import read_run
from limelight.viewing.tensorboard import TensorBoardLogger

QUICK: dict[str, Any] = {
    "quiet": True, "backend": "sync", "num_envs": 2, "num_steps": 5, "hidden_sizes": (4,), "log_every": 50,
    "checkpoint_every": 50, "eval_every": 100, "eval_episodes": 1, "final_episodes": 1, "max_episode_steps": 20,
    "preset": "plain", "report_every": 0, "total_timesteps": 400,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a disk needs root on Linux")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Write until the disk is full."""
    path = folder / "ballast"
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096) == 4096:
            pass
    return path


class FullFrom:
    """Fills the disk at the step ``begin`` of a run and frees it at ``end``."""

    def __init__(self, folder: Path, begin: int, end: int = 10**9) -> None:
        self.folder, self.begin, self.end = folder, begin, end
        self.newest: Path | None = None
        self.ballast: Path | None = None

    def on_rollout(self, run: Any) -> None:
        if run.step >= self.begin and self.ballast is None:
            self.newest = latest_checkpoint(self.folder / "r")
            self.ballast = fill(self.folder)
        if run.step >= self.end and self.ballast is not None and self.ballast.exists():
            self.ballast.unlink()


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def notes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "limelight"]


def test_training_outlives_a_full_disk_and_writes_again(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "limelight"):
        result = limelight.train(
            "CartPole-v1", run_dir=str(small_disk / "r"), callbacks=[FullFrom(small_disk, 150, 300)], **QUICK
        )
    assert (result.status, result.saved) == ("completed", True)
    written = notes(caplog)
    refusals = [line for line in written if "checkpoint at step" in line and "No space left" in line]
    assert len(refusals) == 1, written
    assert "training goes on and tries again" in refusals[0]
    for kind in ("checkpoint at step", "metrics.jsonl"):
        assert any(kind in line and line.endswith("written again") for line in written)
    logged = [row["step"] for row in rows(small_disk / "r")]
    assert np.diff(logged).max() < 60, "those of the full disk are among them"
    assert len(read_run(small_disk / "r").episodes.values) == result.summary["total_episodes"]
    assert rows(small_disk / "r")[-1]["run/failed_writes"] >= 1
    newest = checkpoints(small_disk / "r")[-1]
    assert read_state(newest)["training"]["runner"]["num_steps"] >= 400
    assert [path for path in (small_disk / "r" / "checkpoints").iterdir() if path.name.startswith(".")] == []
    read_run(small_disk / "r")
    assert limelight.resume(small_disk / "r", total_timesteps=450, quiet=True).status == "completed"


def test_a_disk_that_stays_full_leaves_the_last_checkpoint(
    small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = FullFrom(small_disk, 150)
    result = limelight.train("CartPole-v1", run_dir=str(small_disk / "r"), callbacks=[full], **QUICK)
    assert (result.status, result.saved) == ("completed", False)
    assert full.newest is not None
    assert read_state(full.newest)["training"]["runner"]["num_steps"] < 200
    assert latest_checkpoint(small_disk / "r") == full.newest
    assert full.ballast is not None
    full.ballast.unlink()
    assert limelight.resume(small_disk / "r", quiet=True).status == "completed"


def test_a_command_whose_end_is_not_saved_ends_with_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "_replace_folder", refuse)
    argv = ["train", "CartPole-v1", "--quiet", "--total-timesteps", "50", "--final-episodes", "0", "--eval-every", "0"]
    assert cli.main([*argv, "--run-dir", str(tmp_path / "r")]) == 1
    assert "the end is not saved" in capsys.readouterr().out


def test_a_disk_that_is_full_at_the_end_says_how_to_draw_the_report(
    small_disk: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fills:
        def on_end(self, run: Any, status: str) -> None:
            fill(small_disk)

    def draw(run_dir: Path) -> Path:
        write_text(run_dir / "report.html", "x" * 5000)
        return run_dir / "report.html"

    monkeypatch.setattr(import_module("limelight.training.run"), "draw_report", draw)
    result = limelight.train("CartPole-v1", run_dir=str(small_disk / "r"), callbacks=[Fills()], **QUICK)
    assert (result.status, result.saved, result.report) == ("completed", False, None)
    written = notes(caplog)
    assert any("summary.json: cannot be written" in line for line in written)
    assert any(line.endswith(f"; limelight report {small_disk / 'r'} draws it") for line in written)
    assert not any("training goes on" in line for line in written)


def test_a_full_disk_at_the_start_is_one_line(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(small_disk)
    assert cli.main(["train", "CartPole-v1", "--quiet", "--run-dir", str(small_disk / "r")]) in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "No space left" in lines[0]
    assert str(small_disk / "r") in lines[0]


def test_a_signal_whose_checkpoint_is_not_saved_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminates:
        def on_rollout(self, run: Any) -> None:
            if run.step > 20:
                monkeypatch.setattr(checkpoint, "_replace_folder", refuse)
                os.kill(os.getpid(), signal.SIGTERM)

    def refuse(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys.modules[__name__], "Terminates", Terminates, raising=False)
    argv = ["train", "CartPole-v1", "--quiet", "--callback", f"{__name__}:Terminates", "--final-episodes", "0"]
    assert cli.main([*argv, "--run-dir", str(tmp_path / "r"), "--eval-every", "0"]) == 143
    line = capsys.readouterr().out
    assert "interrupted after" in line
    assert "the end is not saved" in line


def test_a_read_only_disk_is_one_line(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert cli.main(["train", "CartPole-v1", "--quiet", "--run-dir", str(small_disk / "r")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Read-only file system" in line


def test_a_report_on_a_read_only_disk_is_one_line(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limelight.train("CartPole-v1", run_dir=str(small_disk / "r"), **QUICK)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert cli.main(["report", str(small_disk / "r")]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert "Read-only file system" in line
    assert cli.main(["explain", str(small_disk / "r")]) == 0
    assert cli.main(["evaluate", str(small_disk / "r"), "--episodes", "1"]) == 0


def test_a_folder_that_is_deleted_meanwhile_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Deletes:
        done = False

        def on_rollout(self, run: Any) -> None:
            if run.step >= 200 and not self.done:
                self.done = True
                shutil.rmtree(tmp_path / "r")

    result = limelight.train("CartPole-v1", run_dir=str(tmp_path / "r"), callbacks=[Deletes()], **QUICK)
    assert (result.status, result.saved) == ("completed", True)
    data = read_run(tmp_path / "r")
    assert data.metrics[0]["step"] >= 200
    assert len(data.episodes.values) > 0
    assert limelight.load(tmp_path / "r", "last") is not None
    assert {"command.txt", "system.json"} <= {path.name for path in (tmp_path / "r").iterdir()}
    assert limelight.resume(tmp_path / "r", total_timesteps=450, quiet=True).status == "completed"


# --------------------------------------------------------------------------- single files


@pytest.mark.parametrize("most", [5_000, 4 << 20])
def test_lines_are_whole_after_a_disk_was_full(most: int, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_file, "MOST_PENDING", most)
    file = open_line_file(small_disk / "lines", None)
    written = [f"{i} {'y' * 200}\n" for i in range(200)]
    for line in written[:20]:
        file.write(line.encode())
    ballast = fill(small_disk)
    refused = []
    for line in written[20:150]:
        try:
            file.write(line.encode())
        except OSError as error:
            refused.append(error.filename)
    assert len(refused) > 100
    assert {*refused} == {str(small_disk / "lines")}
    assert (small_disk / "lines").read_text().endswith("\n")
    ballast.unlink()
    for line in written[150:]:
        file.write(line.encode())
    file.close()
    found = (small_disk / "lines").read_text().splitlines(keepends=True)
    if most > 10_000:
        assert found == written, "none is lost"
    else:
        assert {*found} < {*written}
        assert found == sorted(found, key=written.index)
        assert 10 < len({*found} & {*written[20:150]}) < 50, "the latest of those that were refused"


def test_what_was_refused_last_is_written_when_a_file_is_closed(small_disk: Path) -> None:
    file = open_line_file(small_disk / "lines", None)
    ballast = fill(small_disk)
    with pytest.raises(OSError, match="No space"):
        file.write(b"x" * (1 << 16) + b"\n")
    ballast.unlink()
    file.close()
    file.close()
    assert (small_disk / "lines").read_text() == "x" * (1 << 16) + "\n"


def test_event_files_have_whole_records_after_a_disk_was_full(small_disk: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    logger = TensorBoardLogger(small_disk)
    logger.log(1, 0.0, {"train/a": 1.0})
    ballast = fill(small_disk)
    many = {f"train/{i}": float(i) for i in range(1000)}
    with pytest.raises(OSError, match="No space"):
        logger.log(2, 0.0, many)
    ballast.unlink()
    logger.log(3, 0.0, {"train/a": 3.0})
    logger.close()
    (path,) = small_disk.glob("events*")
    assert [event.step for event in EventFileLoader(str(path)).Load()] == [0, 1, 2, 3]


class Raising:
    """A logger of the user's own."""

    def log(self, *args: Any) -> None:
        raise RuntimeError("my server is down")

    def episodes(self, *args: Any) -> None: ...

    def message(self, *args: Any) -> None: ...

    def close(self) -> None: ...


def test_a_logger_of_the_users_own_that_raises_is_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "limelight"):
        result = limelight.train("CartPole-v1", run_dir=str(tmp_path / "r"), loggers=[Raising()], **QUICK)
    assert result.status == "completed"
    (note,) = notes(caplog)
    assert "logger Raising.log raised RuntimeError: my server is down (test_disk.py, line" in note


def test_a_run_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Not a directory"):
        limelight.train("CartPole-v1", run_dir=str(tmp_path / "file" / "r"), **QUICK)
