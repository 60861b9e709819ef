"""Files are replaced whole: a kill, an error or a full disk leaves the old file, and no half-written one."""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import limelight.files as files
import limelight.runs.checkpoint as checkpoint
from limelight.files import remove_debris, replacing, write_text
from limelight.runs.checkpoint import checkpoints, latest_checkpoint, read_state, save_checkpoint
from limelight.runs.folder import open_lines, write_json
from limelight.settings.io import load_yaml, save_yaml
from limelight.settings.schema import TrainConfig

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
MODULES = (files.__file__, checkpoint.__file__, os.path.join(os.path.dirname(os.__file__), "shutil.py"))
NO_FILES = ("_encode", "_add_tensor", "_decode", "_dumps", "_sha256", "<listcomp>", "<dictcomp>", "<genexpr>", "_read")


def lines_run(write: Callable[[], Any], stop_at: int | None = None) -> int:
    """Run ``write``; return how many lines of the modules that write it ran. Kill this process at line ``stop_at``."""
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in MODULES or frame.f_code.co_name in NO_FILES:
            return None
        if event == "line":
            count += 1
            if count == stop_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        write()
    finally:
        sys.settrace(before)
    return count


def killed_at(line: int, write: Callable[[], Any]) -> None:
    """Run ``write`` in a forked process that is killed at a line."""
    pid = os.fork()
    if pid == 0:
        try:
            lines_run(write, line)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def state_of(step: int) -> dict[str, Any]:
    rng = np.random.default_rng(step)
    data = rng.random(1 << 8)  # an array of environments that is a file of its own
    return {"step": step, "params": rng.random(1_000), "training": {"envs": [data, {"nested": [float("nan"), "x"]}]}}


def check(found: dict[str, Any], step: int) -> None:
    np.testing.assert_equal(found, {**state_of(step), "training": {"envs": list(state_of(step)["training"]["envs"])}})


@pytest.mark.slow
@needs_fork
def test_a_kill_at_any_of_200_points_leaves_a_complete_newest_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_SHARED", 1 << 10)  # arrays of environments are files of their own
    newest_step, step, found = 3, 3, set[str]()
    for first in (1, 2, 3):
        save_checkpoint(tmp_path, first, state_of(first), 2)
    total = lines_run(lambda: save_checkpoint(tmp_path, 4, state_of(4), 2))
    newest_step, step = 4, 4
    rng = random.Random(0)
    points = [point for _ in range(9) for point in rng.sample(range(2, total), total - 2)][:200]
    for line in points:
        step += 1
        state = state_of(step)
        killed_at(line, lambda: save_checkpoint(tmp_path, step, state, 2))  # noqa: B023
        newest = latest_checkpoint(tmp_path)
        assert newest is not None
        saved = int(newest.name.removeprefix("step_"))
        assert saved in (newest_step, step)
        check(read_state(newest), saved)
        assert len(checkpoints(tmp_path)) >= 2, "the one before is there as well"
        found.add("new" if saved == step else "old")
        newest_step = saved
    assert len(points) == 200
    assert found == {"new", "old"}
    save_checkpoint(tmp_path, step + 1, state_of(step + 1), 2)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {path.name for path in checkpoints(tmp_path)}, "nothing of the killed writers remains"
    assert len(names) == 2


@pytest.mark.slow
@needs_fork
def test_a_kill_while_the_best_agent_is_replaced_leaves_one_of_the_two(tmp_path: Path) -> None:
    best = tmp_path / "best"
    checkpoint.write_state(best, state_of(1))
    total = lines_run(lambda: checkpoint.write_state(best, state_of(2)))
    for line in range(2, total):
        checkpoint.write_state(best, state_of(1))
        killed_at(line, lambda: checkpoint.write_state(best, state_of(2)))
        assert checkpoint.has_state(best)
        check(found := read_state(best), int(found["step"]))


@needs_fork
@pytest.mark.parametrize("name", ["summary.json", "config.yaml", "monitor.csv"])
def test_a_kill_while_a_file_is_replaced_leaves_the_old_or_the_new_one(name: str, tmp_path: Path) -> None:
    path = tmp_path / name

    def write(seed: int) -> None:
        if name == "summary.json":
            write_json(path, {"seed": seed})
        elif name == "config.yaml":
            save_yaml(TrainConfig(seed=seed), path)
        else:
            open_lines(path, lambda line: line == f"{seed}\n").close()

    def begin() -> str:
        if name == "monitor.csv":
            path.write_text("1\n2\n")
        else:
            write(1)
        return path.read_text()

    begin()
    total = lines_run(lambda: write(2))
    new = path.read_text()
    for line in range(1, total):
        old = begin()
        killed_at(line, lambda: write(2))
        assert path.read_text() in (old, new)
        if name == "config.yaml":
            load_yaml(path)
    remove_debris(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_text(tmp_path / "a", "old")
    for broken in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, broken, full)
            with pytest.raises(OSError, match="No space"):
                write_text(tmp_path / "a", "new", durable=True)
        assert (tmp_path / "a").read_text() == "old"
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a"):  # nothing was written
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_debris_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = ["best/state.json", ".best.old/state.json", "checkpoints/step_000000000001/state.json", "x.tmp", ".hidden"]
    debris = [".summary.json.tmp", ".best.tmp/state.json", "checkpoints/.step_000000000002.tmp/x", "videos/.a.mp4.tmp"]
    for name in (*kept, *debris):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    remove_debris(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(kept)


def test_a_file_that_is_replaced_is_written_through_no_link(tmp_path: Path) -> None:
    """A folder of a stranger may have a link, or a pipe, where a file is written before it gets its name."""
    outside = tmp_path / "outside"
    outside.write_text("precious")
    for make in (lambda path: path.symlink_to(outside), lambda path: path.hardlink_to(outside)):
        for name in ("a", ".a.tmp"):
            (tmp_path / name).unlink(missing_ok=True)
            make(tmp_path / name)
        write_text(tmp_path / "a", "new")
        assert outside.read_text() == "precious"
        assert (tmp_path / "a").read_text() == "new"
        assert not (tmp_path / "a").is_symlink()


def test_debris_is_not_removed_through_links(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    other.mkdir()
    (other / ".precious.tmp").write_text("x")
    (run / "videos").symlink_to(other)
    (run / ".left.tmp").symlink_to(other)
    remove_debris(run)
    assert (other / ".precious.tmp").exists()
