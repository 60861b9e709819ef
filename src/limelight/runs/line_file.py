"""A file of a run to which whole lines are added while the run goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import final

from limelight.runs.folder import open_lines


@final
class LineFile:
    """Writes lines to disk at once. A file that was removed meanwhile is made anew.

    Args:
        path: the file.
        keep: as for :func:`limelight.runs.folder.open_lines`.
        head: returns the first lines of a new file.
    Raises: OSError, here and in :meth:`write`.
    """

    def __init__(self, path: Path, keep: Callable[[str], bool] | None, head: Callable[[], str] = str) -> None:
        self._path = path
        self._head = head
        self._file = open_lines(path, keep)
        self.is_new = self._file.tell() == 0
        """Whether the file has just been made, with the head alone."""
        if self.is_new:
            self.write(head())

    def write(self, lines: str) -> None:
        """Write whole lines. What a full disk refuses is written with the next lines, up to a buffer of 8 KiB."""
        if not self._path.exists():
            self.close()
            self._file = open_lines(self._path, None)
            lines = self._head() + lines
        self._file.write(lines)
        self._file.flush()

    def reopen(self) -> None:
        """Continue at the end of the file, which was replaced."""
        self.close()
        self._file = self._path.open("a", encoding="utf-8", newline="\n")

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()
