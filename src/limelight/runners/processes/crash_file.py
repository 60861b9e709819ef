"""The file of a worker in which Python's fault handler writes, and the last call of its environments."""

from __future__ import annotations

import faulthandler
import mmap
import os
import tempfile
from multiprocessing import reduction
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from limelight.envs.crashes import shortened
from limelight.envs.last_call import COLUMNS, describe_call
from limelight.runners.processes.portable import uses_names


@final
class CrashFile:
    """A nameless file: first a row of numbers per environment, on its last call, then the fault handler's text.

    The rows are a mapping of the file, so that they outlive the process that wrote them.
    """

    def __init__(self, num_envs: int) -> None:
        self._file: Any = tempfile.TemporaryFile()  # noqa: SIM115  (closed by close)
        self._num_envs = num_envs
        self._size = (num_envs + 1) * COLUMNS * 8
        self._file.truncate(self._size)
        os.lseek(self._file.fileno(), self._size, os.SEEK_SET)  # the worker's descriptor has the same position

    def enable(self) -> NDArray[np.float64]:
        """Let the fault handler of this process write into the file; return the rows."""
        faulthandler.enable(self._file, all_threads=False)
        flat = np.frombuffer(mmap.mmap(self._file.fileno(), self._size), np.float64)
        return flat.reshape(self._num_envs + 1, COLUMNS)

    def fileno(self) -> int:
        """Return the descriptor."""
        return int(self._file.fileno())

    def text(self) -> str:
        """Return the fault handler's text, shortened, and the call in which the process ended; empty without one."""
        content = os.pread(self.fileno(), self._size + (1 << 16), 0)
        written = content[self._size :].decode("utf-8", "replace")
        if not written:
            return ""
        rows = np.frombuffer(content[: self._size], np.float64).reshape(-1, COLUMNS)
        return "\n".join(filter(None, [describe_call(rows), shortened(written)]))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (reduction.DupFd(self.fileno()), self._num_envs)


def _received(descriptor: Any, num_envs: int) -> CrashFile:
    """Make the file in the spawned process from an inherited descriptor."""
    crash_file = CrashFile.__new__(CrashFile)
    crash_file._file = os.fdopen(descriptor.detach(), "rb+")
    crash_file._num_envs = num_envs
    crash_file._size = (num_envs + 1) * COLUMNS * 8
    return crash_file


def make_crash_file(num_envs: int) -> CrashFile | None:
    """Make the file of a worker; None where spawned processes inherit no descriptors."""
    return None if uses_names() else CrashFile(num_envs)
