"""Files of which a reader sees the old one or the new one, whole, whatever ends the writer; reading has an end."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from limelight.errors import CheckpointError

SUFFIX = ".tmp"
"""End of the names of files that are being written; they begin with a dot."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path to write to, beside ``path``, whose name the file gets at the end of this context.

    Where writing fails, nothing remains of it, and the old file stays.
    """
    temporary = temporary_of(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # writing knows no name
            error.filename = str(path)
        raise


def temporary_of(path: Path) -> Path:
    """Return the name beside ``path`` to write to, at which there is nothing: a link there would lead elsewhere.

    Raises: OSError.
    """
    temporary = path.with_name(f".{path.name}{SUFFIX}")
    temporary.unlink(missing_ok=True)
    return temporary


def write_text(path: Path, text: str, durable: bool = False, errors: str = "backslashreplace") -> None:
    """Write a text file; ``durable``: it is on the disk before it gets its name, so that no power cut empties it.

    ``errors``: what becomes of bytes that Python could not decode (surrogates); by default they are written out.
    Raises: OSError.
    """
    options: dict[str, Any] = {"encoding": "utf-8", "errors": errors, "newline": "\n"}
    with replacing(path) as temporary, temporary.open("w", **options) as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def open_regular(path: Path, most: int | None = None) -> Iterator[tuple[BufferedReader, int]]:
    """Open a regular file to read; yield it and its size, which a reader must not pass: files of /proc say 0.

    Pipes and devices may have no end, and opening one may wait without an end.

    Raises: CheckpointError if it is no regular file, or has more than ``most`` bytes; OSError.
    """
    _require_regular(path, path.stat(), most)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
        status = os.fstat(file.fileno())
        _require_regular(path, status, most)  # it may be another one by now
        yield file, status.st_size


def _require_regular(path: Path, status: os.stat_result, most: int | None) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: no regular file; give a file, as pipes and devices are not read")
    if most is not None and status.st_size > most:
        raise CheckpointError(f"{path}: has {status.st_size:,} bytes; files of at most {most:,} bytes are read")


def read_regular(path: Path, most: int) -> bytes:
    """Return the content of a regular file of at most so many bytes.

    Raises: CheckpointError and OSError as :func:`open_regular`.
    """
    with open_regular(path, most) as (file, size):
        return file.read(size)


def is_regular_within(path: Path, folder: Path) -> bool:
    """Return whether a path is a regular file that lies in a folder, and not elsewhere behind a link."""
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


def remove_debris(folder: Path) -> None:
    """Remove the files and folders that a writer which was killed has left in a folder, and in those directly in it.

    Links to folders elsewhere are not followed.
    """
    for parent in (folder, *(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())):
        for path in parent.glob(f".*{SUFFIX}"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()
