"""A line on standard error where Ray ends the process of a run without an exception.

Ray does so where its process on this machine is gone and the run calls it in the same moment; no code of that process
runs afterwards. So another process, which needs neither Ray nor this library, waits for its end.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WAIT = """
import os, sys
folder, command = sys.argv[1:]
if not sys.stdin.buffer.read(1):
    try:
        saved = any(name.startswith("step_") for name in os.listdir(os.path.join(folder, "checkpoints")))
    except OSError:
        saved = False
    print("limelight: error: the process of the run was ended from outside, or by Ray because Ray's own processes on "
          "this machine are gone", file=sys.stderr)
    print("limelight: " + (f"the newest checkpoint is intact; continue with: {command}" if saved
          else f"no checkpoint had been saved yet in {folder}"), file=sys.stderr)
"""


@contextmanager
def exit_noticed(run_dir: Path) -> Iterator[None]:
    """Say that the run can be resumed, if this process ends inside this context without leaving it."""
    command = shlex.join(["limelight", "train", "--resume", str(run_dir)])
    waiting = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WAIT, str(run_dir), command],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it was killed
            waiting.communicate(b".")
