"""What every subcommand prints: notices, its help, and standard output that only the command itself writes to."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, TextIO, cast, final

from limelight.printable import printable

if TYPE_CHECKING:
    from limelight.cli.flags import Syntax

HELP_FLAGS = ("--help", "-h", "--help-all")


def prepare_streams() -> None:
    """Make standard output and error usable, whatever the command was started with.

    Closed ones lead nowhere; one without γ in its encoding shows a ? instead of failing; progress whose reader has left
    (``| head``) is dropped, and the run goes on.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed; the lowest free number is the one that open returns
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (for the whole command)
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="replace")
    if sys.stderr is sys.__stderr__:
        for method in ("write", "flush"):
            setattr(sys.stderr, method, _dropping(getattr(sys.stderr, method)))


def _dropping(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of standard error that sends everything nowhere once its reader has left."""

    def call(*words: Any) -> Any:
        try:
            return method(*words)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            return None

    return call


@final
class _Printable:
    """A stream of text on which control characters are written out: what a command prints may come from any file."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; see :func:`limelight.printable.printable`."""
        return self._stream.write(printable(text))

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the stream."""
        return getattr(self._stream, name)


@contextlib.contextmanager
def printable_stdout() -> Iterator[None]:
    """Write out control characters on standard output meanwhile, where commands print results and no progress."""
    with contextlib.redirect_stdout(cast(TextIO, _Printable(sys.stdout))):
        yield


def complain(*words: str) -> None:
    """Print an error on stderr, with its control characters written out."""
    print(printable(" ".join(("limelight:", *words))), file=sys.stderr)


def print_help(argv: Sequence[str], syntax: Syntax[Any]) -> bool:
    """Print the help of a subcommand if ``argv`` asks for it; whether it does."""
    if not {*argv} & {*HELP_FLAGS}:
        return False
    from limelight.cli.help import help_text

    print(help_text(syntax))
    return True


def notice(text: str) -> None:
    """Print a note on stderr."""
    complain("note:", text)


@contextlib.contextmanager
def stdout_collected() -> Iterator[IO[bytes]]:
    """Write everything that is written to stdout meanwhile into a temporary file, which is given."""
    with (
        tempfile.TemporaryFile() as file,
        _redirected(file.fileno()),
        os.fdopen(os.dup(file.fileno()), "w", encoding="utf-8") as text,
        contextlib.redirect_stdout(text),
    ):
        yield file


@contextlib.contextmanager
def stdout_reserved(quiet: bool = False) -> Iterator[None]:
    """Send everything that is written to stdout meanwhile to stderr: by environments, libraries or child processes.

    With ``quiet`` it is dropped.

    The file descriptor is redirected, as libraries in C and child processes write to it directly.
    """
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        _redirected(nowhere.fileno() if quiet else 2),
        contextlib.redirect_stdout(nowhere if quiet else sys.stderr),
    ):
        yield


@contextlib.contextmanager
def _redirected(descriptor: int) -> Iterator[None]:
    """Let the file descriptor of stdout be another one meanwhile."""
    flush_stdout()
    stdout = os.dup(1)
    os.dup2(descriptor, 1)
    try:
        yield
    finally:
        flush_stdout()
        os.dup2(stdout, 1)
        os.close(stdout)


def flush_stdout() -> None:
    """Write out the buffers of Python and, where there is one to ask, of the C library."""
    sys.stdout.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
