"""The Logger protocol, and a logger that passes everything on to several others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

from limelight.errors import ConfigError

if TYPE_CHECKING:
    from limelight.algo.episodes import Episode


class Logger(Protocol):
    """Receives the progress of a run. Steps are environment steps; seconds are training time, without evaluation.

    A logger may also have ``tick(step, seconds)``, which is called several times a second to show progress, and
    ``start(run_dir, config, resume_step)``, which is called before all else (``resume_step`` None: a new run).
    """

    def log(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Receive a row of metrics of training (``rollout/… time/… train/…``) or of an evaluation (``eval/…``)."""

    def episodes(self, step: int, seconds: float, episodes: Sequence[Episode]) -> None:
        """Receive the training episodes that have just finished, oldest first."""

    def message(self, text: str) -> None:
        """Receive a message for the user: a line, or several with a traceback."""

    def close(self) -> None:
        """Write pending data and close files; a second call does nothing."""


_METHODS = ("log", "episodes", "message", "close")


def require_loggers(loggers: Sequence[Logger]) -> None:
    """Refuse loggers that lack a method, before a run begins.

    Raises: ConfigError.
    """
    for i, logger in enumerate(loggers):
        missing = [
            name for name in ("log", "episodes", "message", "close") if not callable(getattr(logger, name, None))
        ]
        if missing or isinstance(logger, type):
            fault = f"has no {', '.join(missing)}" if missing else "is a class; pass an object of it"
            name = logger.__name__ if isinstance(logger, type) else type(logger).__name__
            raise ConfigError(f"loggers[{i}] = {name}: {fault} (limelight.Logger lists the methods)")


class Loggers:
    """A Logger that passes everything on to several loggers, in order."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.loggers = tuple(loggers)
        self._ticks = [logger.tick for logger in loggers if hasattr(logger, "tick")]

    def log(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Pass on a row of metrics."""
        for logger in self.loggers:
            logger.log(step, seconds, metrics)

    def episodes(self, step: int, seconds: float, episodes: Sequence[Episode]) -> None:
        """Pass on finished episodes, if there are any."""
        if episodes:
            for logger in self.loggers:
                logger.episodes(step, seconds, episodes)

    def tick(self, step: int, seconds: float) -> None:
        """Pass on the progress to the loggers that have ``tick``."""
        for tick in self._ticks:
            tick(step, seconds)

    def message(self, text: str) -> None:
        """Pass on a message."""
        for logger in self.loggers:
            logger.message(text)

    def close(self) -> None:
        """Close every logger, even if closing one of them fails."""
        with ExitStack() as stack:
            for logger in reversed(self.loggers):
                stack.callback(logger.close)
