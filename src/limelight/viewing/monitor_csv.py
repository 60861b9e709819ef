"""monitor.csv: one line per training episode, in the format that Stable-Baselines3's plotting tools read."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from limelight.errors import CheckpointError
from limelight.files import write_text
from limelight.runs.folder import MONITOR_COLUMNS, read_lines
from limelight.runs.line_file import open_line_file

if TYPE_CHECKING:
    from limelight.algo.episodes import Episode


class MonitorCsvLogger:
    """Writes return, length, training seconds when the episode was reported, and further columns.

    Those are :attr:`Episode.step`, the number of the environment in the run, its worker, and the environment's own
    numbers by the keys of its info (an empty cell: none). They are not in SB3's format (its reader accepts extra
    columns): the lengths of episodes that run side by side do not add up to steps. They do not depend on how often
    episodes are reported.

    Args:
        path: the file, whose name must end in ``monitor.csv`` for SB3; replaced unless the run is resumed.
        env_id: the environment, for the header.
        start_time: Unix time when training started, s; None is now.
        resume_step: the step from which the run is resumed; later episodes are dropped, earlier ones stay.
        info_keys: columns from the start; those of other keys are added when an episode has them.
    """

    def __init__(
        self, path: Path, env_id: str, start_time: float | None = None, resume_step: int | None = None,
        info_keys: Sequence[str] = (),
    ) -> None:  # fmt: skip
        def keep(line: str) -> bool:
            if line.startswith(("#", "r,")):
                return True
            try:
                return int(line.split(",")[3]) <= resume_step  # type: ignore[operator]
            except (IndexError, ValueError):  # damaged lines are dropped too
                return False

        self._path = path
        self._keys: list[str]
        """Keys of the columns after the fixed ones."""
        self._header = json.dumps({"t_start": time.time() if start_time is None else start_time, "env_id": env_id})
        self._keys = list(info_keys)
        self._file = open_line_file(path, None if resume_step is None else keep, self._head)
        if not self._file.is_new:
            try:
                with path.open(encoding="utf-8", newline="") as file:
                    file.readline()
                    self._keys = next(csv.reader(file), [])[len(MONITOR_COLUMNS) :]
            except (csv.Error, UnicodeError):  # a column whose name has no end
                self.close()
                raise CheckpointError(f"{path}: damaged (its second line is no list of columns)") from None

    def episodes(self, step: int, seconds: float, episodes: Sequence[Episode]) -> None:
        """Write a line per episode."""
        new = dict.fromkeys(key for e in episodes if e.info.numbers for key in e.info.numbers if key not in self._keys)
        if new:
            self._add_columns([*new])
        at = round(seconds, 6)
        lines = [f"{round(e.episode_return, 6)},{e.length},{at},{e.step},{e.env},{e.worker}" for e in episodes]
        if self._keys:
            own = ("".join(f",{_cell(e.info.numbers.get(key))}" for key in self._keys) for e in episodes)
            lines = [line + cells for line, cells in zip(lines, own, strict=True)]
        self._file.write("".join(f"{line}\n" for line in lines).encode())

    def _head(self) -> str:
        return f"#{self._header}\n{_line([*MONITOR_COLUMNS, *self._keys])}"

    def _add_columns(self, keys: list[str]) -> None:
        """Add columns that are empty so far; a reader sees the old file or the new one, whole."""
        self._file.flush()
        head, _, *lines = read_lines(self._path) or [f"#{self._header}\n", ""]
        empty = "," * len(keys)
        lines = [f"{line.rstrip()}{empty}\n" for line in lines]
        write_text(self._path, "".join([head, _line([*MONITOR_COLUMNS, *self._keys, *keys]), *lines]))
        self._keys += keys
        self._file.reopen()

    def log(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Ignore metrics; metrics.jsonl has them."""

    def message(self, text: str) -> None:
        """Ignore messages; the console shows them."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line(names: Sequence[str]) -> str:
    """Return names as a line of the file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(" ".join(name.split()) for name in names)
    return text.getvalue()


def _cell(number: float | None) -> str:
    """Return a number in full; whole ones as such."""
    return "" if number is None else f"{int(number)}" if number == int(number) else repr(number)
