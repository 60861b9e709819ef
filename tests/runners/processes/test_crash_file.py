"""The crash file of a worker: what a process that C code ended has left in it."""

from __future__ import annotations

import multiprocessing
import os

import pytest

from limelight.envs.last_call import COLUMNS, CallRecord
from limelight.runners.processes.crash_file import CrashFile, make_crash_file
from limelight.runners.processes.portable import FORCED

pytestmark = pytest.mark.skipif(os.name != "posix", reason="inherits a descriptor")


def end(crash_file: CrashFile, how: str) -> None:
    from gymnasium.spaces import Discrete

    calls = crash_file.enable()
    record = CallRecord(calls, 0, Discrete(2), 5, 0)
    record.step(1, 1)
    if how == "after":
        record.end()
    if how != "exit":
        os.abort()


@pytest.mark.parametrize(
    ("how", "first"),
    [("in", "step() of environment 0 (seed 5, step 1, last actions [1])"), ("after", "Fatal Python error: Aborted")],
)
def test_a_spawned_process_leaves_its_call_and_its_traceback(how: str, first: str) -> None:
    file = CrashFile(2)
    assert file.text() == ""
    process = multiprocessing.get_context("spawn").Process(target=end, args=(file, how))
    process.start()
    process.join()
    text = file.text().splitlines()
    file.close()
    assert text[0] == first
    assert "Fatal Python error: Aborted" in text
    assert text[-1].startswith("  File ")
    assert any(line.endswith(" in end") for line in text)


def test_a_process_that_exits_leaves_nothing_to_tell() -> None:
    file = CrashFile(1)
    os.pwrite(file.fileno(), b"\1" * 8 * COLUMNS, 0)
    assert file.text() == ""
    file.close()


def test_there_is_none_where_descriptors_are_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORCED, "1")
    assert make_crash_file(1) is None
