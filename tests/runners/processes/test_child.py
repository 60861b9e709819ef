"""Processes that end with the one that started them, while they still read their arguments too."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

STARTS = """
import os, time
from pathlib import Path
from helpers.slow_to_read import SlowToRead
from limelight.runners.processes.child import ChildProcess

if __name__ == "__main__":
    folder = Path({folder!r})
    process = ChildProcess(target=print, args=(SlowToRead(str(folder)),), daemon=True)
    process.start()
    while not (folder / "reading").exists():
        time.sleep(0.01)
    print((folder / "reading").read_text())
    os._exit(0)
"""


def run_script(folder: Path, code: str) -> str:
    script = folder / "starts.py"
    script.write_text(code)
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True,
        check=True, timeout=40,
    ).stdout  # fmt: skip


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(sys.platform == "win32", reason="asks for a process by a signal")
def test_a_process_that_still_reads_its_arguments_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    reader = int(run_script(tmp_path, STARTS.format(folder=str(tmp_path))))
    deadline = time.monotonic() + 30.0  # it reads for 60 s
    while is_running(reader):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_is_to_be_done_before_the_exit_is_done(tmp_path: Path) -> None:
    code = (
        "import os, pathlib\n"
        "from helpers.slow_to_read import registers\n"
        "from limelight.runners.processes.child import ChildProcess\n"
        f"folder = {str(tmp_path)!r}\n"
        "if __name__ == '__main__':\n"
        "    process = ChildProcess(target=registers, args=(folder,), daemon=True)\n"
        "    process.start()\n"
        "    while not pathlib.Path(folder, 'registered').exists():\n"
        "        pass\n"
        "    os._exit(0)\n"
    )
    run_script(tmp_path, code)
    deadline = time.monotonic() + 30.0
    while not (tmp_path / "last").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
