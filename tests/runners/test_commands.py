"""Commands as processes: how many at a time, their exit statuses and output, and their end when a poll says so."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

import limelight
from limelight.runners.commands import Command, Processes, run_commands


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


def test_one_of_several_processes_is_ended_and_the_exits_are_told_once(tmp_path: Path) -> None:
    with closing(Processes(os.environ)) as processes:
        processes.start(7, python("import time; time.sleep(60)", tmp_path / "log"))
        processes.start(3, python("raise SystemExit(4)", tmp_path / "log"))
        assert sorted(processes.running) == [3, 7]
        exited: dict[int, int] = {}
        while 3 not in exited:
            time.sleep(0.02)
            exited |= processes.take_exited()
        assert exited == {3: 4}
        assert processes.running == [7]
        processes.end(7)
        while 7 not in exited:
            time.sleep(0.02)
            exited |= processes.take_exited()
        assert exited == {3: 4, 7: -15}
        assert processes.take_exited() == {}


CHILD = """
import os, signal, sys, time
from limelight.runners.commands import exit_with_parent
exit_with_parent()
{handler}
assert sys.stdin.read() == "" and "LIMELIGHT_EXIT_WITH_PARENT" not in os.environ
open({mark!r}, "w").write(str(os.getpid()))
while True:
    time.sleep(60)
"""
PARENT = """
import os, sys
from pathlib import Path
from limelight.runners.commands import Command, Processes, run_commands
run_commands([Command([sys.executable, "-c", {code!r}], Path({log!r}))], 1, os.environ, lambda running: True)
"""


def wait_for(condition: object, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("handler", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN)"], ids=["plain", "deaf"])
def test_a_command_exits_with_its_killed_parent_even_where_it_ignores_sigterm(handler: str, tmp_path: Path) -> None:
    mark, log = tmp_path / "mark", tmp_path / "log"
    code = CHILD.format(handler=handler, mark=str(mark))
    env = {**os.environ, "PYTHONPATH": str(Path(limelight.__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, "-c", PARENT.format(code=code, log=str(log))], env=env)
    try:
        assert wait_for(lambda: mark.exists() and mark.read_text(), 30), log.read_text()
        child = int(mark.read_text())
        time.sleep(0.3)
        assert is_running(child)
        parent.kill()
        assert wait_for(lambda: not is_running(child), 10)
    finally:
        parent.kill()
        parent.wait()


def is_running(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(done.stdout.strip()) and not done.stdout.strip().startswith("Z")
