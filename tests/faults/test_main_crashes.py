"""C code that ends the process that trains or evaluates: what the run's folder, lists and a resume say of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import limelight
from faults.test_kills_and_machines import Lines
from helpers.manual_workers import draw_no_report
from limelight.runs.listing import list_runs, status_in_words

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["a2c", "a3c"])  # in a3c the main process only evaluates
def test_an_abort_in_the_main_process_is_named_in_its_folder_and_on_resume(
    algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_no_report(monkeypatch)
    folder, paths = tmp_path / "r", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [
        sys.executable, "-m", "limelight", "train", "helpers.faulty_envs:AbortsOnce", "--algo", algo, "--num-envs", "2",
        "--env-kwargs", "file", str(tmp_path / "aborted"), "--backend", "sync", "--preset", "plain", "--quiet",
        "--total-timesteps", "1500", "--checkpoint-every", "200", "--eval-every", "500", "--eval-episodes", "40",
        "--final-episodes", "0", "--no-tensorboard", "--run-dir", str(folder),
        *(["--num-workers", "1"] if algo == "a3c" else []),
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONFAULTHANDLER"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**environment, "PYTHONPATH": paths}
    )
    assert done.returncode == -signal.SIGABRT, done.stderr
    written = (folder / "crash.txt").read_text()
    assert written.startswith("Fatal Python error: Aborted\n")
    assert ("in evaluate" in written) == (algo == "a3c")
    crash = "C code ended the process: Aborted in abort (faulty_envs.py, line "
    assert status_in_words(folder, {}).startswith(crash)
    assert [run.status for run in list_runs(tmp_path)] == ["crashed"]

    lines = Lines()
    result = limelight.resume(folder, quiet=True, loggers=[lines])
    assert result.status == "completed"
    (note,) = [text for _, text in lines.messages if text.startswith("before this, ")]
    assert note.startswith(f"before this, {crash}")
    assert "\n" not in note
    assert [run.status for run in list_runs(tmp_path)] == ["completed"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "check"])
def test_an_abort_before_there_is_a_folder_is_shown(command: str, tmp_path: Path) -> None:
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-m", "limelight", command, "helpers.breaking_envs:Breaking"]
    words += ["--env-kwargs", "how", "abort", "reset", "1.0"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONFAULTHANDLER"}
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
        env={**environment, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in done.stderr
    assert "in reset" in done.stderr
    assert not list(tmp_path.iterdir())
