"""monitor.csv: one line per training episode, in the format that Stable-Baselines3's plotting tools read."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from limelight.runs.folder import MONITOR_COLUMNS, open_lines

if TYPE_CHECKING:
    from limelight.algo.episodes import Episode


class MonitorCsvLogger:
    """Writes return, length, training seconds when the episode was reported, and three columns more.

    Those are :attr:`Episode.step`, the number of the environment in the run and its worker. They are not in SB3's
    format (its reader accepts extra columns): the lengths of episodes that run side by side do not add up to steps.
    They do not depend on how often episodes are reported.

    Args:
        path: the file, whose name must end in ``monitor.csv`` for SB3; replaced unless the run is resumed.
        env_id: the environment, for the header.
        start_time: Unix time when training started, s; None is now.
        resume_step: the step from which the run is resumed; later episodes are dropped, earlier ones stay.
    """

    def __init__(
        self, path: Path, env_id: str, start_time: float | None = None, resume_step: int | None = None
    ) -> None:
        def keep(line: str) -> bool:
            if line.startswith(("#", "r,")):
                return True
            try:
                return int(line.split(",")[3]) <= resume_step  # type: ignore[operator]
            except (IndexError, ValueError):  # damaged lines are dropped too
                return False

        self._file = open_lines(path, None if resume_step is None else keep)
        if self._file.tell() == 0:
            header = json.dumps({"t_start": time.time() if start_time is None else start_time, "env_id": env_id})
            self._file.write(f"#{header}\n{','.join(MONITOR_COLUMNS)}\n")
            self._file.flush()

    def episodes(self, step: int, seconds: float, episodes: Sequence[Episode]) -> None:
        """Write a line per episode."""
        at = round(seconds, 6)
        lines = (f"{round(e.episode_return, 6)},{e.length},{at},{e.step},{e.env},{e.worker}\n" for e in episodes)
        self._file.write("".join(lines))
        self._file.flush()

    def log(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Ignore metrics; metrics.jsonl has them."""

    def message(self, text: str) -> None:
        """Ignore messages; the console shows them."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()
