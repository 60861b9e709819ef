"""The Logger protocol, and the fan-out to several of them that runners hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from limelight.algo.episodes import Episode


class Logger(Protocol):
    """Takes note of a run. Steps are environment steps; seconds are training time, evaluation not counted.

    A logger may also have ``tick(step, seconds)``: called many times a second, to show that the run is alive.
    """

    def log(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """A row of metrics of training (``rollout/… time/… train/…``) or of an evaluation (``eval/…``)."""

    def episodes(self, step: int, seconds: float, episodes: Sequence[Episode]) -> None:
        """Training episodes that have just finished, oldest first."""

    def message(self, text: str) -> None:
        """What the person who watches should know: a line, or several where a traceback is in it."""

    def close(self) -> None:
        """Write what is pending and let go of files; may be called twice."""


class Loggers:
    """A Logger that hands everything to several, in order."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.loggers = tuple(loggers)
        self._ticks = [logger.tick for logger in loggers if hasattr(logger, "tick")]

    def log(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Hand on a row of metrics."""
        for logger in self.loggers:
            logger.log(step, seconds, metrics)

    def episodes(self, step: int, seconds: float, episodes: Sequence[Episode]) -> None:
        """Hand on finished episodes, if there are any."""
        if episodes:
            for logger in self.loggers:
                logger.episodes(step, seconds, episodes)

    def tick(self, step: int, seconds: float) -> None:
        """Tell those that show it how far the training is."""
        for tick in self._ticks:
            tick(step, seconds)

    def message(self, text: str) -> None:
        """Hand on a line for the person."""
        for logger in self.loggers:
            logger.message(text)

    def close(self) -> None:
        """Close every logger, also when one of them fails to."""
        with ExitStack() as stack:
            for logger in reversed(self.loggers):
                stack.callback(logger.close)
