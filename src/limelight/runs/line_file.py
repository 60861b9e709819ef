"""Files of a run to which whole lines or records are added while the run goes on."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import final

from limelight.runs.folder import open_lines

MOST_PENDING = 4 << 20
"""Bytes that wait for a disk that is full, at most."""


@final
class WholeFile:
    """Appends to a file at once; each write is whole in it or not there at all.

    What a full disk refuses is kept, up to :data:`MOST_PENDING` bytes, and written before the next write. A file that
    was removed meanwhile is made anew.

    Args:
        path: the file.
        head: returns what a new file begins with.
    Raises: OSError with the file's name, here and in :meth:`write` and :meth:`close`.
    """

    def __init__(self, path: Path, head: Callable[[], bytes] = bytes) -> None:
        self._path = path
        self._head = head
        self._file = path.open("ab", buffering=0)
        self._pending: deque[bytes] = deque()
        self._num_pending = 0
        self.is_new = self._size() == 0
        """Whether the file has just been made, with the head alone."""
        if self.is_new:
            try:
                self.write(head())
            except OSError:
                self._file.close()
                raise

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def write(self, data: bytes) -> None:
        """Append ``data`` and what was refused before."""
        self._pending.append(data)
        self._num_pending += len(data)
        while self._num_pending > MOST_PENDING and len(self._pending) > 1:
            self._num_pending -= len(self._pending.popleft())
        self.flush()

    def flush(self) -> None:
        """Write what was refused before."""
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self.reopen()
            self._pending.appendleft(self._head())
        data, begin = b"".join(self._pending), self._size()
        try:
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(begin)
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        self._pending.clear()
        self._num_pending = 0

    def reopen(self) -> None:
        """Continue at the end of the file, which was replaced."""
        self._file.close()
        self._file = self._path.open("ab", buffering=0)

    def close(self) -> None:
        """Write what was refused, and close the file; a second call does nothing."""
        try:
            if self._pending and not self._file.closed:
                self.flush()
        finally:
            self._file.close()


def open_line_file(path: Path, keep: Callable[[str], bool] | None, head: Callable[[], str] = str) -> WholeFile:
    """Open a file to add lines to; see :func:`limelight.runs.folder.open_lines` for ``path`` and ``keep``.

    ``head``: returns the first lines of a new file.
    Raises: OSError.
    """
    open_lines(path, keep).close()
    return WholeFile(path, lambda: head().encode())
