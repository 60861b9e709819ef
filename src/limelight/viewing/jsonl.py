"""metrics.jsonl: one JSON object per row of metrics. Made by train.py, read by report.py and pandas."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from limelight.viewing.lines import open_lines

if TYPE_CHECKING:
    from limelight.algo.episodes import Episode


class JsonlLogger:
    """Writes ``{"step": …, "seconds": …, "train/entropy": …}`` a row, flushed at once; nan and ±inf are null.

    Args:
        path: the file; replaced unless the run is resumed.
        resume_step: step that the resumed run goes on from; later rows are dropped, earlier ones stay.
    """

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        def keep(line: str) -> bool:
            try:
                return bool(json.loads(line)["step"] <= resume_step)
            except (ValueError, KeyError, TypeError):  # damaged lines go too
                return False

        self._file = open_lines(path, None if resume_step is None else keep)

    def log(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Write a row."""
        row: dict[str, float | None] = {"step": int(step), "seconds": round(float(seconds), 6)}
        row |= {name: _plain(value) for name, value in metrics.items()}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()

    def episodes(self, step: int, seconds: float, episodes: Sequence[Episode]) -> None:
        """Episodes are monitor.csv's matter."""

    def message(self, text: str) -> None:
        """Messages are the console's matter."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _plain(value: float) -> float | int | None:
    """A number JSON knows, from a Python, NumPy or torch one."""
    if isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
