"""Files of which a reader sees the old one or the new one, whole, whatever ends the writer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

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
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def temporary_of(path: Path) -> Path:
    """Return the name beside ``path`` to write to, at which there is nothing: a link there would lead elsewhere.

    Raises: OSError.
    """
    temporary = path.with_name(f".{path.name}{SUFFIX}")
    temporary.unlink(missing_ok=True)
    return temporary


def write_text(path: Path, text: str, durable: bool = False) -> None:
    """Write a text file; ``durable``: it is on the disk before it gets its name, so that no power cut empties it.

    Bytes of a command line that Python could not decode (surrogates) are written as they came.

    Raises: OSError.
    """
    options: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": "\n"}
    with replacing(path) as temporary, temporary.open("w", **options) as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())


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
