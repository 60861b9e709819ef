"""Processes that end with the one that started them, from their first moment on: before they have loaded PyTorch."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from multiprocessing import connection, parent_process
from multiprocessing.context import SpawnProcess
from typing import Any, final

_LAST: list[Callable[[], None]] = []


@final
class ChildProcess(SpawnProcess):
    """A spawned process that exits when the one that started it has exited, for whatever reason.

    Reading its arguments loads PyTorch, which takes seconds on a busy machine; the watch begins before that. What a
    user's script imports outside ``if __name__ == "__main__"`` is imported earlier still.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _begin, (os.getpid(),), vars(self)


def _begin(parent: int) -> ChildProcess:
    """Start the watch in the new process; return the object that is filled with what was pickled."""
    threading.Thread(target=_exit_with_parent, args=(parent,), name="limelight-parent", daemon=True).start()
    return ChildProcess.__new__(ChildProcess)


def before_exit(call: Callable[[], None]) -> None:
    """Let the watch call this before it ends the process."""
    _LAST.append(call)


def _exit_with_parent(pid: int) -> None:
    while (parent := parent_process()) is None:  # not known before the arguments are read
        if os.name == "posix" and os.getppid() != pid:
            break
        time.sleep(0.05)
    else:
        connection.wait([parent.sentinel])
    for call in _LAST:
        call()
    os._exit(1)
