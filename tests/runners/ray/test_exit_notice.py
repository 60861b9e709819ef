"""A process that ends without an exception leaves a line with the command that continues its run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ENDS = """
import os, sys
from pathlib import Path
from limelight.runners.ray.exit_notice import exit_noticed
with exit_noticed(Path(sys.argv[1])):
    {end}
"""


def errors_of(end: str, folder: Path) -> list[str]:
    code = ENDS.format(end=end)
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stderr.splitlines()


def test_a_process_that_ends_without_an_exception_leaves_the_command_that_continues(tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    (folder / "checkpoints" / "step_000000000100").mkdir(parents=True)
    first, second = errors_of("os._exit(1)", folder)
    assert first.startswith("limelight: error: the process of the run was ended from outside, or by Ray")
    assert second == f"limelight: the newest checkpoint is intact; continue with: limelight train --resume '{folder}'"


def test_a_process_that_ends_before_a_checkpoint_says_so(tmp_path: Path) -> None:
    assert errors_of("os._exit(1)", tmp_path)[1] == f"limelight: no checkpoint had been saved yet in {tmp_path}"


@pytest.mark.parametrize("end", ["pass", "sys.exit(3)"])
def test_a_run_that_ends_in_order_leaves_no_line(end: str, tmp_path: Path) -> None:
    assert errors_of(end, tmp_path) == []
