"""One progress display for the runs of several seeds, read from their folders while other processes train."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from limelight.algo.episodes import Episode
from limelight.runners.base import Budget
from limelight.runs.folder import METRICS, MONITOR
from limelight.viewing.console import ConsoleLogger


class SeedsProgress:
    """Shows steps, returns and evaluations of all seeds together.

    Args:
        folders: of the runs, which may not exist yet.
        budget: of each run.
        quiet: show nothing.
    """

    def __init__(self, folders: Sequence[Path], budget: Budget, quiet: bool) -> None:
        self._tails = [(Tail(folder / METRICS), Tail(folder / MONITOR)) for folder in folders]
        self._steps = [0] * len(folders)
        episodes, _ = self._read()
        of_all = None if budget.episodes is None else budget.episodes * len(folders)
        total = Budget(budget.timesteps * len(folders), of_all)
        self._started = time.monotonic()
        self._console = ConsoleLogger(total, sum(self._steps), len(episodes), quiet=quiet)

    def poll(self, status: str) -> None:
        """Read what the runs have written since the last call, and draw; ``status`` is a line below."""
        episodes, rows = self._read()
        step, seconds = sum(self._steps), time.monotonic() - self._started
        self._console.status(status)
        if episodes:
            self._console.episodes(step, seconds, episodes)
        for row in rows:
            self._console.log(step, seconds, row)
        self._console.tick(step, seconds)

    def message(self, text: str) -> None:
        """Print a line above the display."""
        self._console.message(text)

    def close(self) -> None:
        """Draw the final state and give the terminal back."""
        self._console.close()

    def _read(self) -> tuple[list[Episode], list[dict[str, float]]]:
        """Return the new episodes, and the rows of new evaluations."""
        episodes: list[Episode] = []
        evaluations: list[dict[str, float]] = []
        for i, (metrics, monitor) in enumerate(self._tails):
            for line in metrics.lines():
                row = json.loads(line)
                self._steps[i] = max(self._steps[i], row["step"])
                if row.get("eval/mean_reward") is not None:
                    evaluations.append(row)
            for line in monitor.lines():
                if not line.startswith(("#", "r,")):
                    r, length, _, step = line.split(",")[:4]
                    self._steps[i] = max(self._steps[i], int(step))
                    episodes.append(Episode(i, float(r), int(length), True, int(step)))
        return episodes, evaluations


class Tail:
    """Reads the whole lines that were appended to a file.

    It begins anew where the file became shorter, and goes on after the same number of lines where it was replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._place = 0
        self._file: int | None = None
        self._read = 0  # lines

    def lines(self) -> list[str]:
        """Return the lines since the last call."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            skip = 0
            if status.st_size < self._place:
                self._place = self._read = 0
            elif self._file not in (None, status.st_ino):  # the same lines, with a column more
                self._place, skip, self._read = 0, self._read, 0
            self._file = status.st_ino
            file.seek(self._place)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._place += len(whole)
        lines = whole.decode("utf-8", errors="replace").splitlines()
        self._read += len(lines)
        return lines[skip:]
