"""The table of runs of ``limelight list runs``, as lines no wider than the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from limelight.printable import one_line
from limelight.runs.listing import RunEntry, in_words

_HEADER = ("env", "algo", "steps", "status", "last", "best", "age", "run")
_WIDEST_ENV = 18
_GAP = "  "


def run_table(entries: Sequence[RunEntry], width: int) -> list[str]:
    """Return a header and a line per run; a path too long for the rest of a line loses its first folders."""
    cells = [_cells(entry) for entry in entries]
    widths = [max(len(row[i]) for row in (_HEADER[:-1], *cells)) for i in range(len(_HEADER) - 1)]
    room = width - sum(widths) - len(_GAP) * len(widths)
    lines = [_line(_HEADER[:-1], widths, _HEADER[-1])]
    return lines + [_line(row, widths, shortened(entry.path, room)) for row, entry in zip(cells, entries, strict=True)]


def _cells(entry: RunEntry) -> tuple[str, ...]:
    env = one_line(entry.env)
    env = env if len(env) <= _WIDEST_ENV else f"{env[: _WIDEST_ENV - 1]}…"
    numbers = (_short(entry.last_return), _short(entry.best_return))
    return (env, entry.algo, _count(entry.steps), in_words(entry.status), *numbers, duration(entry.age))


def _line(cells: Sequence[str], widths: Sequence[int], path: str) -> str:
    """Return a line; numbers are flush right, words flush left."""
    texts = [
        cell.rjust(width) if name in ("steps", "last", "best", "age") else cell.ljust(width)
        for name, cell, width in zip(_HEADER, cells, widths, strict=False)
    ]
    return _GAP.join([*texts, path]).rstrip()


def shortened(path: Path, room: int) -> str:
    """Return a path in at most ``room`` characters, without its first folders where it is longer."""
    text = one_line(str(path))
    parts = [one_line(part) for part in path.parts]
    for i in range(1, len(parts)):
        if len(text) <= room:
            return text
        text = "…/" + "/".join(parts[i:])
    return text if len(text) <= room else f"…{text[-max(8, room - 1) :]}"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _count(steps: int) -> str:
    """Return ``980``, ``12.3k``, ``450k``, ``4.5M`` or ``1.2G``."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if steps >= unit:
            return f"{steps / unit:.{0 if steps >= 100 * unit else 1}f}{letter}"
    return str(steps)


def duration(seconds: float) -> str:
    """Return ``12s``, ``5m``, ``3h`` or ``40d``."""
    for unit, letter in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "m")):
        if seconds >= unit:
            return f"{int(seconds // unit)}{letter}"
    return f"{int(seconds)}s"
