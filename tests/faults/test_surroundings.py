"""Odd surroundings of a run: folders, clocks, languages, rights and terminals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import limelight
from helpers.commands import refusal
from helpers.manual_workers import draw_no_report
from helpers.saved_runs import FORMATS, copy_of_run
from helpers.settings import one_line
from limelight.cli import main as cli
from limelight.errors import ConfigError
from limelight.runs.folder import only_process
from limelight.runs.reader import read_run

SHORT = [
    "--total-timesteps", "60", "--num-envs", "2", "--num-steps", "5", "--backend", "sync", "--eval-every", "0",
    "--final-episodes", "1", "--max-episode-steps", "20", "--no-tensorboard", "--preset", "plain",
]  # fmt: skip
QUICK: dict[str, Any] = {
    "total_timesteps": 60, "num_envs": 2, "num_steps": 5, "backend": "sync", "eval_every": 0, "final_episodes": 1,
    "max_episode_steps": 20, "quiet": True, "preset": "plain", "hidden_sizes": (4,), "log_every": 20,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)


def in_process(code: str, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line in a new process, after ``code``; reports are not drawn."""
    start = (
        f"import sys; {code}\nfrom limelight.training import run\nimport importlib\n"
        "importlib.import_module('limelight.training.run').draw_report = lambda folder: None\n"
        "from limelight.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    )
    options = {"capture_output": True, "text": True, "timeout": 120, **options}
    return subprocess.run([sys.executable, "-c", start, *argv], check=False, **options)


# --------------------------------------------------------------------------- folders


def test_two_runs_in_one_folder_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copy_of_run(tmp_path)
    line = refusal(capsys, "train", "CartPole-v1", "--run-dir", str(run))
    assert "is not empty; name a new folder" in line
    with only_process(run):
        line = refusal(capsys, "train", "--resume", str(run), "--quiet", "--total-timesteps", "900")
    assert "another process trains there" in line


@pytest.mark.parametrize("name", ["γ-日本-\u0645", "with space 'and' \"quotes\"", "a" * 200, "x%20y#z?"])
def test_names_of_folders_of_any_letters(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    result = limelight.train("CartPole-v1", run_dir=str(folder), **QUICK)
    assert result.status == "completed"
    assert read_run(folder).config.run_dir == str(folder)
    assert limelight.resume(folder, quiet=True, total_timesteps=80).status == "completed"


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_a_name_that_is_no_text_is_written_out_where_it_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the report is drawn
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xff"))
    limelight.train("CartPole-v1", run_dir=str(folder), **QUICK)
    assert "r\\udcff" in (folder / "report.html").read_text(encoding="utf-8")
    assert cli.main(["list", "runs", str(tmp_path), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["path"] == str(folder)


def test_a_very_long_path_is_written(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["d" * 100] * 12)
    assert limelight.train("CartPole-v1", run_dir=str(folder), **QUICK).status == "completed"


@pytest.mark.parametrize("name", ["n" * 300, "é" * 130, "/".join(["d" * 200] * 30), "new/" + "n" * 300])
@pytest.mark.parametrize(
    "words",
    [
        "train CartPole-v1 --run-dir", "train CartPole-v1 --seeds 2 --run-dir", "train --from RUN --run-dir",
        "train --from", "train --resume", "train CartPole-v1 --init-agent", "train CartPole-v1 --config",
        "evaluate", "report", "report RUN --output", "compare RUN RUN --output", "explain", "replay", "export",
        "export RUN --output", "list runs", "clean", "push", "push RUN a/b --dry-run", "tune --resume",
    ],
)  # fmt: skip
def test_a_path_that_is_too_long_is_a_line_that_names_the_argument(
    words: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(FORMATS / "format-2") if word == "RUN" else word for word in words.split()]
    argument = {"evaluate": "run_dir", "report": "run_dirs", "explain": "run_dir", "replay": "run_dir"}
    argument |= {"export": "run_dir", "runs": "text", "clean": "run_dirs", "push": "run_dir"}
    last = argv[-1].removeprefix("--").replace("-", "_")
    line = refusal(capsys, *argv, str(tmp_path / name), *(["a/b"] if words == "push" else []))
    assert line.startswith(f"{argument.get(last, last)} = {tmp_path}")
    assert "too long for a path" in line
    assert len(line) < 450
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [4040, 4095, 5000])
def test_a_path_without_room_for_the_files_of_a_run_is_refused_in_python_too(length: int, tmp_path: Path) -> None:
    """The folder itself could be made where its path is a little shorter than what the system takes."""
    start = str(tmp_path)
    path = (start + "/" + "/".join(["d" * 99] * 60))[:length]
    for use in (lambda: limelight.train("CartPole-v1", run_dir=path, **QUICK), lambda: limelight.load(path)):
        with pytest.raises(ConfigError) as error:
            use()
        assert one_line(error).startswith(f"run_dir = {start}")
    assert list(tmp_path.iterdir()) == []


def test_a_run_behind_a_link_is_continued_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copy_of_run(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(run)
    assert limelight.resume(link, quiet=True, total_timesteps=220, final_episodes=0).status == "completed"
    assert link.is_symlink()
    assert cli.main(["explain", str(link)]) == 0


def test_links_that_lead_nowhere_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("gone", "loop"):
        for command in (["explain"], ["report"], ["train", "--resume"], ["evaluate"]):
            assert str(tmp_path / name) in refusal(capsys, *command, str(tmp_path / name))


@pytest.mark.skipif(not hasattr(os, "umask"), reason="no rights of this kind")
@pytest.mark.parametrize("mask", [0o077, 0o000])
def test_any_umask_lets_the_owner_continue(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        limelight.train("CartPole-v1", run_dir=str(tmp_path / "r"), **QUICK)
        assert limelight.resume(tmp_path / "r", quiet=True, total_timesteps=80).status == "completed"
    finally:
        os.umask(before)
    others = [path for path in tmp_path.rglob("*") if path.stat().st_mode & 0o077 & mask]
    assert others == []


# --------------------------------------------------------------------------- clock


def test_a_clock_that_goes_backwards_changes_no_time_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    settings = {**QUICK, "eval_every": 20, "eval_episodes": 1, "final_episodes": 1}
    result = limelight.train("CartPole-v1", run_dir=str(tmp_path / "r"), **settings)
    data = read_run(tmp_path / "r")
    seconds = [row["seconds"] for row in data.metrics]
    assert seconds == sorted(seconds)
    evaluations = [row["time/eval_seconds"] for row in data.metrics if "time/eval_seconds" in row]
    assert len(evaluations) == 3
    assert all(0.0 <= value < 60.0 for value in evaluations)
    times = [value for row in data.metrics for name, value in row.items() if name.startswith("time/")]
    assert len(times) > len(evaluations)
    assert min(times) >= 0.0
    assert 0.0 < result.summary["wall_seconds"] < 60.0
    assert limelight.resume(tmp_path / "r", quiet=True, total_timesteps=80).status == "completed"


# --------------------------------------------------------------------------- languages and terminals


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables", [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"LANG": "tr_TR.UTF-8"}, {"TZ": "Asia/Kathmandu"}]
)
def test_any_language_of_the_machine(variables: dict[str, str], tmp_path: Path) -> None:
    environment = {**os.environ, **variables}
    run = tmp_path / "γ"
    done = in_process("", "train", "CartPole-v1", *SHORT, "--run-dir", str(run), env=environment)
    assert done.returncode == 0, done.stderr
    assert in_process("", "explain", str(run), env=environment).returncode == 0


@pytest.mark.slow
def test_no_home_and_no_terminal(tmp_path: Path) -> None:
    bare = {name: value for name, value in os.environ.items() if name not in ("HOME", "TERM", "USER", "LOGNAME")}
    for variables in (bare, {**bare, "HOME": "/nonexistent", "TERM": "dumb"}):
        done = in_process(
            "", "train", "CartPole-v1", *SHORT, "--run-dir", str(tmp_path / str(len(variables))), env=variables,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no pipes of a shell")
def test_a_reader_that_leaves_does_not_end_the_training(tmp_path: Path) -> None:
    """Progress goes to standard error: with a closed one, the run still comes to its end."""
    read, write = os.pipe()
    os.close(read)
    argv = ["train", "CartPole-v1", *SHORT, "--episode-lines", "--run-dir", str(tmp_path / "r")]
    done = in_process("", *argv, capture_output=False, stdout=write, stderr=write)
    os.close(write)
    assert done.returncode in (0, 1)
    assert read_run(tmp_path / "r").summary["status"] == "completed"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no pipes of a shell")
@pytest.mark.parametrize("closed", ["sys.stdout = None", "sys.stderr = None", "sys.stdout = sys.stderr = None"])
def test_streams_that_are_closed(closed: str, tmp_path: Path) -> None:
    done = in_process(closed, "train", "CartPole-v1", *SHORT, "--run-dir", str(tmp_path / "r"))
    assert "Traceback" not in done.stderr, done.stderr
    assert read_run(tmp_path / "r").summary["status"] == "completed"


@pytest.mark.skipif(os.name == "nt", reason="no pipes of a shell")
@pytest.mark.parametrize(
    ("words", "buffered"),
    [
        (["--help"], True),
        (["--version"], False),
        pytest.param(["list", "runs", "RUN/.."], True, marks=pytest.mark.slow),
        pytest.param(["list", "envs"], False, marks=pytest.mark.slow),
        pytest.param(["explain", "RUN"], True, marks=pytest.mark.slow),
        pytest.param(["report", "RUN"], True, marks=pytest.mark.slow),
        pytest.param(["evaluate", "RUN", "--episodes", "1"], True, marks=pytest.mark.slow),
    ],
)
def test_a_reader_that_has_left_ends_a_command_without_a_word(words: list[str], buffered: bool, tmp_path: Path) -> None:
    """As ``| head``: standard output is a pipe that nobody reads any more."""
    run = copy_of_run(tmp_path)
    read, write = os.pipe()
    os.close(read)
    argv = [sys.executable, "-m", "limelight", *(word.replace("RUN", str(run)) for word in words)]
    variables = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    done = subprocess.run(argv, stdout=write, stderr=subprocess.PIPE, text=True, check=False, env=variables)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_working_directory_that_was_deleted_is_one_line(tmp_path: Path) -> None:
    code = (
        f"import os; os.chdir({str(tmp_path)!r}); os.rmdir({str(tmp_path)!r})\n"
        "from limelight.cli.main import main\nraise SystemExit(main(['list', 'algos']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "limelight: error: the working directory was deleted; change to one that exists\n"
