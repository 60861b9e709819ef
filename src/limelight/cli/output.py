"""Standard output that only the command itself writes to."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def stdout_reserved() -> Iterator[None]:
    """Send everything that is written to stdout meanwhile to stderr: by environments, libraries or child processes.

    The file descriptor is redirected, as libraries in C and child processes write to it directly.
    """
    _flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _flush()
        os.dup2(stdout, 1)
        os.close(stdout)


def _flush() -> None:
    """Write out the buffers of Python and, where there is one to ask, of the C library."""
    sys.stdout.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
