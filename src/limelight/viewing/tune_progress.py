"""The progress of a search for settings on the terminal: a line for each trial, and how long the rest takes."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping

from limelight.printable import printable
from limelight.viewing.numbers import clock, compact


class TuneProgress:
    """Prints to stderr; on a terminal, the last line shows the trials that run.

    Args:
        total: how many trials there will be.
        done: how many have been made before.
        best: the number and the score of the best trial so far.
        quiet: print nothing.
    """

    def __init__(self, total: int, done: int, best: tuple[int, float] | None, quiet: bool) -> None:
        self._total = total
        self._done = done
        self._before = done
        self._best = best
        self._quiet = quiet
        self._started = time.monotonic()
        self._width = 0
        self._last_tick = 0.0

    def trial(self, number: int, state: str, score: float | None, error: str | None) -> None:
        """Print the line of a trial that has ended."""
        self._done += state != "lost"
        is_best = score is not None and (self._best is None or score > self._best[1])
        if score is not None and is_best:
            self._best = number, score
        result = state if score is None else f"score {compact(score)}{', the best so far' if is_best else ''}"
        result = f"failed: {error}" if state == "failed" else result
        self.message(f"trial {number}{' (the defaults)' if number == 0 else ''}: {result} · {self._summary()}")

    def tick(self, running: Mapping[int, float], what: str = "trial") -> None:
        """Show how much of their budget the running processes have used."""
        now = time.monotonic()
        if self._quiet or not sys.stderr.isatty() or now - self._last_tick < 1.0:
            return
        self._last_tick = now
        shares = ", ".join(f"{what} {number} {share:.0%}" for number, share in running.items())
        line = f"{shares or 'starting'} · {self._summary(running)}"[: shutil.get_terminal_size().columns - 1]
        print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)
        self._width = len(line)

    def begin_ranking(self, candidates: int, seeds: int, done: int) -> None:
        """Print that the ranking begins; its runs are counted from here on."""
        self._total, self._done, self._before = candidates * seeds, done, done
        self._best, self._started = None, time.monotonic()
        self.message(f"ranking: {candidates} candidates, the defaults among them, on {seeds} fresh seeds each")

    def ranking(self, done: int) -> None:
        """Show how many runs of the ranking have ended."""
        if done > self._done:
            self._done = done
            self.message(f"ranking: {self._summary()}")

    def message(self, text: str) -> None:
        """Print a line."""
        if not self._quiet:
            erase = "\r\x1b[K" if self._width else ""
            self._width = 0
            print(erase + printable(text), file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the last line."""
        if self._width:
            self.message("")

    def _summary(self, running: Mapping[int, float] | None = None) -> str:
        """Return how many trials have been made, the best, and the time that the rest takes at this pace."""
        best = "" if self._best is None else f" · best {compact(self._best[1])} (trial {self._best[0]})"
        made = self._done - self._before + sum((running or {}).values())
        left = self._total - self._before - made
        rest = ""
        if made > 0.05 and left > 0:
            rest = f" · {clock((time.monotonic() - self._started) / made * left)} left"
        return f"{self._done} of {self._total}{best}{rest}"
