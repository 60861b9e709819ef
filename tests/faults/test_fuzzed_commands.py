"""Commands on runs whose files are cut, altered or made of anything: one line at worst, never a traceback."""

from __future__ import annotations

import contextlib
import gc
import io
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.altered_files import cut_or_altered, paths_of, plain, put
from helpers.commands import refusal
from helpers.manual_workers import draw_no_report
from helpers.saved_runs import checkpoint_of, copy_of_run, rewrite
from limelight.cli import main as cli
from limelight.training.loop import TrainingLoop

FEW = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(FEW, max_examples=400)
FILES = ("config.yaml", "summary.json", "metrics.jsonl", "monitor.csv", "best/state.json", "best/tensors.safetensors")
ADDED = ("parent.json", "system.json", "command.txt", "evaluations.jsonl")
"""Files that this run has not; any bytes are put there."""


def commands(run: Path) -> list[list[str]]:
    """A command line of each command that reads a folder of a run."""
    return [
        ["train", "--resume", str(run), "--quiet", "--total-timesteps", "210", "--final-episodes", "0"],
        ["train", "--from", str(run), "--quiet", "--run-dir", str(run.parent / "branch"), "--final-episodes", "0"],
        ["train", "CartPole-v1", "--init-agent", str(run), "--quiet", "--run-dir", str(run.parent / "child")],
        ["evaluate", str(run), "--episodes", "1"],
        ["explain", str(run)],
        ["list", "runs", str(run.parent)],
        ["list", "runs", str(run.parent), "--json"],
        ["clean", str(run)],
        ["replay", str(run)],
    ]


SLOW = ("report", "compare", "export")
"""Commands that draw or convert, which takes a second."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run to copy; those that begin from it end at once."""
    draw_no_report(monkeypatch)
    monkeypatch.setattr(TrainingLoop, "_run", lambda self, interrupt: "completed")
    return copy_of_run(tmp_path)


def one_line_at_worst(argv: list[str]) -> None:
    """Run a command line, which must succeed or say in one line why not."""
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of NumPy and Matplotlib, on numbers near the largest
        status = cli.main(argv)
    lines = [line for line in errors.getvalue().splitlines() if not line.startswith("limelight: note: ")]
    refusals = [line for line in lines if line.startswith("limelight: error: ")]
    assert status in (0, 1, 2), argv
    assert len(refusals) == (status == 2), (argv, lines)
    assert "Traceback" not in errors.getvalue(), argv


def try_altered(run: Path, data: st.DataObject) -> None:
    """Alter one file of a copy of the run, and run one command on it."""
    with altered_copy(run) as copy:
        name = data.draw(st.sampled_from(FILES) | st.sampled_from(ADDED))
        path = copy / name
        path.write_bytes(cut_or_altered(path.read_bytes() if path.exists() else b'{"step": 1}', data.draw))
        one_line_at_worst(data.draw(st.sampled_from(commands(copy))))


def try_any_settings(run: Path, data: st.DataObject) -> None:
    """Put any value into config.yaml, and continue from it."""
    with altered_copy(run) as copy:
        config = yaml.safe_load((copy / "config.yaml").read_text())
        path = data.draw(st.sampled_from(paths_of(config)[1:]))
        put(config, path, data.draw(plain))
        (copy / "config.yaml").write_text(yaml.safe_dump(config))
        one_line_at_worst(data.draw(st.sampled_from(commands(copy))))


def try_any_state(run: Path, data: st.DataObject) -> None:
    """Put any value into a checkpoint with a right digest, and continue from it."""
    with altered_copy(run) as copy:
        folder = data.draw(st.sampled_from([copy / "best", checkpoint_of(copy)]))

        def change(content: dict[str, Any]) -> None:
            put(content, data.draw(st.sampled_from(paths_of(content)[1:])), data.draw(finite))

        rewrite(folder, change)
        one_line_at_worst(data.draw(st.sampled_from([*commands(copy)[:4], commands(copy)[-1]])))


finite = plain.filter(lambda value: not {"nan", "inf", "-inf"} & {*map(str, numbers_in(value))})


def numbers_in(value: Any) -> list[Any]:
    """The numbers in nested data."""
    if isinstance(value, list | dict):
        return [x for item in (value.values() if isinstance(value, dict) else value) for x in numbers_in(item)]
    return [value] if isinstance(value, float) else []


@contextlib.contextmanager
def altered_copy(run: Path) -> Any:
    folder = run.parent / "copies"
    shutil.rmtree(folder, ignore_errors=True)
    yield shutil.copytree(run, folder / "r")


# --------------------------------------------------------------------------- examples


def spoil_space(content: dict[str, Any]) -> None:
    content["state"]["observation_space"]["low"] = [[], 0.0, 0.0, 0.0]


def enlarge_space(content: dict[str, Any]) -> None:
    content["state"]["observation_space"].update(shape=[3_000, 3_000], low=0.0, high=1.0)


def spoil_counts(content: dict[str, Any]) -> None:
    content["state"]["training"]["episodes"] = None


def spoil_actor(content: dict[str, Any]) -> None:
    content["state"]["training"]["runner"]["actor"] = {"envs": 1}


@pytest.mark.parametrize("change", [spoil_space, enlarge_space, spoil_counts, spoil_actor])
def test_a_branch_of_a_damaged_checkpoint_is_one_line(
    change: Any, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(checkpoint_of(run), change)
    branch = str(run.parent / "branch")
    assert f"{run}: " in refusal(
        capsys, "train", "--from", str(run), "--run-dir", branch, "--quiet", "--total-timesteps", "900"
    )


def test_a_replay_of_a_damaged_checkpoint_is_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(checkpoint_of(run), spoil_actor)
    assert f"{run}: not what this version" in refusal(capsys, "replay", str(run))


def test_an_attribute_of_an_environment_without_a_name_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(content: dict[str, Any]) -> None:
        envs = content["state"]["training"]["runner"]["actor"]["envs"]["envs"]
        envs[0]["layers"][-1]["attributes"][0][0] = None

    rewrite(checkpoint_of(run), change)
    assert "have names that are no text" in refusal(capsys, *commands(run)[0])


def test_a_column_without_an_end_is_one_line_and_the_files_are_closed(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (run / "monitor.csv").read_text().splitlines(keepends=True)
    (run / "monitor.csv").write_text("".join([lines[0], "r," + "x" * 200_000 + "\n", *lines[2:]]))
    assert "monitor.csv: damaged" in refusal(capsys, *commands(run)[0])
    gc.collect()  # a file that is open still fails this test by its ResourceWarning


# --------------------------------------------------------------------------- any bytes and values


ATTEMPTS = [try_altered, try_any_settings, try_any_state]


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_no_command_ends_with_a_traceback(attempt: Any, run: Path) -> None:
    @FEW
    @given(data=st.data())
    def try_some(data: st.DataObject) -> None:
        attempt(run, data)

    try_some()


@pytest.mark.faults
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_no_command_ends_with_a_traceback_of_many_files(attempt: Any, run: Path) -> None:
    @MANY
    @given(data=st.data())
    def try_many(data: st.DataObject) -> None:
        attempt(run, data)

    try_many()


@pytest.mark.faults
@pytest.mark.parametrize("command", SLOW)
def test_no_drawing_ends_with_a_traceback(command: str, run: Path) -> None:
    @settings(MANY, max_examples=25)
    @given(data=st.data())
    def try_many(data: st.DataObject) -> None:
        with altered_copy(run) as copy:
            path = copy / data.draw(st.sampled_from(FILES))
            path.write_bytes(cut_or_altered(path.read_bytes(), data.draw))
            others = [str(shutil.copytree(run, copy.parent / "other"))] if command == "compare" else []
            one_line_at_worst([command, str(copy), *others])

    try_many()
