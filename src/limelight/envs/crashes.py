"""C code that ends a process: the traceback that Python's fault handler writes then, and the lines that tell of it."""

from __future__ import annotations

import contextlib
import faulthandler
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from limelight.errors import CheckpointError
from limelight.files import open_regular

_FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.*)')
_THREAD = re.compile(r"(Current thread|Thread|Stack)\b.*\(most recent call first\):$")
_MOST_FRAMES = 15


_ours: list[TextIO] = []
"""Standard error, while the fault handler writes there because of :func:`crashes_shown`."""


@contextmanager
def crashes_shown() -> Iterator[None]:
    """Let the fault handler write to standard error inside this context, where it is not on already."""
    if faulthandler.is_enabled():
        yield
        return
    try:
        faulthandler.enable(sys.stderr, all_threads=False)
    except (AttributeError, RuntimeError, ValueError, OSError):  # there is none, or it is no file
        yield
        return
    _ours.append(sys.stderr)
    try:
        yield
    finally:
        _ours.clear()
        faulthandler.disable()


@contextmanager
def crashes_into(path: Path, before: Path) -> Iterator[None]:
    """Let the fault handler write into a file inside this context; at an end of any other kind the file is removed.

    Where the user has turned the fault handler on (PYTHONFAULTHANDLER, ``python -X faulthandler``), it stays as it is.
    So it does where the file cannot be written. ``before``: the name that a file of an earlier process gets.
    """
    with contextlib.ExitStack() as stack:
        if _ours or not faulthandler.is_enabled():
            with contextlib.suppress(OSError):
                if path.exists() and path.stat().st_size:
                    path.replace(before)
                file = stack.enter_context(path.open("wb"))
                stack.callback(_remove, path)
                faulthandler.enable(file, all_threads=False)
                stack.callback(_as_before)
        yield


def _as_before() -> None:
    """Let the fault handler write where it did before a run."""
    faulthandler.disable()
    if _ours:
        faulthandler.enable(_ours[0], all_threads=False)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def shortened(text: str) -> str:
    """Return the first line of what the fault handler wrote, and the innermost frames of the thread of environments."""
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if _THREAD.match(line)]
    if not starts:
        return "\n".join(lines[: _MOST_FRAMES + 1]).strip()
    stacks = [_frames(lines[number + 1 :]) for number in starts]
    # The fault handler does not mark the thread whose time is up
    stack = next((stack for stack in stacks if any(_is_own(match["file"]) for match in _matches(stack))), stacks[0])
    return "\n".join([lines[0], *stack[:_MOST_FRAMES]])


def _frames(lines: list[str]) -> list[str]:
    """Return the frames that a list of lines begins with."""
    end = next((number for number, line in enumerate(lines) if not line.startswith("  File ")), len(lines))
    return lines[:end]


def _matches(lines: list[str]) -> list[re.Match[str]]:
    return [match for line in lines if (match := _FRAME.match(line)) is not None]


def _is_own(file: str) -> bool:
    from limelight.envs.faults import is_own  # loads Gymnasium, which reports do without

    return is_own(file)


def crash_line(path: Path) -> str | None:
    """Return one line on what the fault handler has written into a file; None where the file is empty or missing."""
    try:
        with open_regular(path) as (file, size):
            text = file.read(min(size, 1 << 16)).decode("utf-8", "replace")
    except (OSError, CheckpointError):
        return None
    first, *stack = shortened(text).splitlines() or [""]
    if not first:
        return None
    own = next((match for match in _matches(stack) if _is_own(match["file"])), None)
    place = f" in {own['function']} ({Path(own['file']).name}, line {own['line']})" if own is not None else ""
    return f"C code ended the process: {first.removeprefix('Fatal Python error: ')}{place}"
