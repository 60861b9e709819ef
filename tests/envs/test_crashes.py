"""The traceback of C code that ends a process: where it goes, and the lines that tell of it."""

from __future__ import annotations

import faulthandler
import subprocess
import sys
from pathlib import Path

import pytest

from limelight.envs.crashes import crash_line, crashes_into, shortened

ABORTED = """Fatal Python error: Aborted

Stack (most recent call first):
  File "/lib/ctypes/__init__.py", line 9 in string_at
  File "/home/me/shop.py", line 12 in sell
  File "/home/me/shop.py", line 40 in step

Extension modules: numpy._core._multiarray_umath (total: 1)
"""


def test_the_line_has_the_error_and_the_innermost_line_of_the_environments_own_code(tmp_path: Path) -> None:
    file = tmp_path / "crash.txt"
    assert crash_line(file) is None
    file.touch()
    assert crash_line(file) is None
    file.write_text(ABORTED.replace("/lib/ctypes", str(Path(subprocess.__file__).parent / "ctypes")))
    assert crash_line(file) == "C code ended the process: Aborted in sell (shop.py, line 12)"
    file.write_bytes(b"\xff\n\0")
    assert "\n" not in str(crash_line(file))


def test_what_is_shown_is_the_error_and_the_thread_of_the_environment() -> None:
    assert shortened(ABORTED).splitlines() == [
        line for line in ABORTED.splitlines()[:6] if line.startswith(("  ", "Fa"))
    ]
    library = str(Path(subprocess.__file__).parent / "threading.py")
    timeout = f'Timeout (0:00:06)!\nThread 0x1 (most recent call first):\n  File "{library}", line 1 in wait\n\n'
    timeout += 'Thread 0x2 (most recent call first):\n  File "/home/me/shop.py", line 40 in step\n'
    assert shortened(timeout).splitlines() == ["Timeout (0:00:06)!", '  File "/home/me/shop.py", line 40 in step']


def test_a_fault_handler_that_is_on_stays_as_it_is(tmp_path: Path) -> None:
    was_enabled = faulthandler.is_enabled()
    faulthandler.enable(sys.__stderr__ or 2)
    try:
        with crashes_into(tmp_path / "crash.txt", tmp_path / "before.txt"):
            assert not list(tmp_path.iterdir())
        assert faulthandler.is_enabled()
    finally:
        if not was_enabled:
            faulthandler.disable()


ENDS = """
import faulthandler, os, pathlib, sys
from limelight.envs.crashes import crashes_into

path, how = pathlib.Path(sys.argv[1]), sys.argv[2]
try:
    with crashes_into(path, path.with_name("before.txt")):
        assert faulthandler.is_enabled()
        if how == "abort":
            os.abort()
        if how == "raise":
            raise ZeroDivisionError
except ZeroDivisionError:
    pass
assert not faulthandler.is_enabled()
"""


@pytest.mark.parametrize("how", ["end", "raise", "abort"])
def test_the_file_remains_only_where_c_code_ends_the_process(how: str, tmp_path: Path) -> None:
    file = tmp_path / "crash.txt"
    file.write_text("of the process before")
    done = subprocess.run([sys.executable, "-c", ENDS, str(file), how], timeout=60, capture_output=True, text=True)
    assert (done.returncode == 0) == (how != "abort"), done.stderr
    assert file.exists() == (how == "abort")
    assert (tmp_path / "before.txt").read_text() == "of the process before"
    assert how != "abort" or file.read_text().startswith("Fatal Python error: Aborted")


SHOWN = """
import contextlib, faulthandler, os, pathlib, sys
from limelight.envs.crashes import crashes_into, crashes_shown

path, where = pathlib.Path(sys.argv[1]), sys.argv[2]
if where == "without stderr":
    sys.stderr = None
with crashes_shown():
    if where == "before":
        os.abort()
    with crashes_into(path, path.with_name("before.txt")):
        if where == "within":
            os.abort()
    if where == "after":
        os.abort()
assert not faulthandler.is_enabled()
"""


@pytest.mark.parametrize("where", ["before", "within", "after", "not at all", "without stderr"])
def test_c_code_that_ends_a_command_outside_a_run_is_shown(where: str, tmp_path: Path) -> None:
    file = tmp_path / "crash.txt"
    done = subprocess.run([sys.executable, "-c", SHOWN, str(file), where], timeout=60, capture_output=True, text=True)
    assert (done.returncode == 0) == (where in ("not at all", "without stderr")), done.stderr
    assert done.stderr.startswith("Fatal Python error: Aborted") == (where in ("before", "after"))
    assert file.exists() == (where == "within")
