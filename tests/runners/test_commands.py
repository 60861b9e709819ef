"""Commands as processes: how many at a time, their exit statuses and output, and their end when a poll says so."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from limelight.runners.commands import Command, run_commands


def python(code: str, log: Path) -> Command:
    return Command([sys.executable, "-S", "-c", code], log)


def test_statuses_and_output_are_those_of_the_commands(tmp_path: Path) -> None:
    log = tmp_path / "log"
    commands = [python(f"print('line {i}'); raise SystemExit({i})", log) for i in range(3)]
    assert run_commands(commands, 1, os.environ, lambda running: running <= 1) == [0, 1, 2]
    assert log.read_text().splitlines() == ["line 0", "line 1", "line 2"]


def test_a_poll_that_is_false_ends_the_running_ones_and_starts_no_more(tmp_path: Path) -> None:
    commands = [python("import time; time.sleep(60)", tmp_path / "log") for _ in range(3)]
    seen: list[int] = []
    assert run_commands(commands, 2, os.environ, lambda running: seen.append(running)) == [-15, -15, None]  # type: ignore[func-returns-value, arg-type]
    assert max(seen) == 2


def test_an_error_of_the_poll_leaves_no_process_behind(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"import time; time.sleep(3); open({str(mark)!r}, 'w')"

    def fail(running: int) -> bool:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        run_commands([python(code, tmp_path / "log")], 1, os.environ, fail)
    time.sleep(0.1)
    assert not mark.exists()
