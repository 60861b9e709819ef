"""metrics.jsonl: one JSON object per row of metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from limelight.runs.folder import finite_or_none
from limelight.runs.line_file import open_line_file

if TYPE_CHECKING:
    from limelight.algo.episodes import Episode


class JsonlLogger:
    """Writes a row as ``{"step": …, "seconds": …, "train/entropy": …}``, flushed at once; nan and ±inf are null.

    Args:
        path: the file; replaced unless the run is resumed.
        resume_step: the step from which the run is resumed; later rows are dropped, earlier ones stay.
    """

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        def keep(line: str) -> bool:
            try:
                return bool(json.loads(line)["step"] <= resume_step)
            except (ValueError, KeyError, TypeError):  # damaged lines are dropped too
                return False

        self._file = open_line_file(path, None if resume_step is None else keep)

    def log(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Write a row."""
        row: dict[str, float | None] = {"step": int(step), "seconds": round(float(seconds), 6)}
        row |= {name: _as_json(value) for name, value in metrics.items()}
        self._file.write(f"{json.dumps(row, allow_nan=False)}\n".encode())

    def episodes(self, step: int, seconds: float, episodes: Sequence[Episode]) -> None:
        """Ignore episodes; monitor.csv has them."""

    def message(self, text: str) -> None:
        """Ignore messages; the console shows them."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _as_json(value: float) -> float | None:
    """Return a Python, NumPy or PyTorch number as JSON knows it; whole numbers stay whole."""
    return value if isinstance(value, int) else finite_or_none(float(value))
