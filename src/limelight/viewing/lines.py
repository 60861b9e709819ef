"""Text files of one record per line that a resumed run continues; used by jsonl.py and monitor_csv.py."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TextIO


def open_lines(path: Path, keep: Callable[[str], bool] | None) -> TextIO:
    """A file to write lines to: a new one, or where ``keep`` is given the old one with the lines it keeps.

    A last line that was cut short is never kept. Raises: OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if keep is None or not path.exists():
        return path.open("w", encoding="utf-8", newline="\n")
    with path.open(encoding="utf-8", newline="\n") as file:
        kept = [line for line in file if line.endswith("\n") and keep(line)]
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(kept), encoding="utf-8", newline="\n")
    os.replace(temporary, path)
    return path.open("a", encoding="utf-8", newline="\n")
