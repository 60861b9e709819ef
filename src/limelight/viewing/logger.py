"""The Logger protocol, and a logger that passes everything on to several others."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from limelight.envs.faults import what_happened
from limelight.errors import ConfigError
from limelight.runs.failed_writes import FailedWrites

if TYPE_CHECKING:
    from limelight.algo.episodes import Episode


_LOG = logging.getLogger("limelight")


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
    """A Logger that passes everything on to several loggers, in order.

    Training depends on none of them: a disk that refuses a write, and a logger of the user's own that raises anything,
    are a line each; the others receive what they are sent.
    """

    def __init__(self, loggers: Sequence[Logger], failed_writes: FailedWrites | None = None) -> None:
        self.loggers = tuple(loggers)
        self.failed_writes = failed_writes or FailedWrites()
        self._with_tick = tuple(logger for logger in loggers if hasattr(logger, "tick"))
        self._noted: set[int] = set()
        self._refused: dict[tuple[int, str], str] = {}  # logger and method → the file that could not be written

    def log(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Pass on a row of metrics."""
        self._pass_on("log", self.loggers, step, seconds, metrics)

    def episodes(self, step: int, seconds: float, episodes: Sequence[Episode]) -> None:
        """Pass on finished episodes, if there are any."""
        if episodes:
            self._pass_on("episodes", self.loggers, step, seconds, episodes)

    def tick(self, step: int, seconds: float) -> None:
        """Pass on the progress to the loggers that have ``tick``."""
        self._pass_on("tick", self._with_tick, step, seconds)

    def message(self, text: str) -> None:
        """Pass on a message."""
        self._pass_on("message", self.loggers, text)

    def close(self) -> None:
        """Close every logger, even if closing one of them fails."""
        with ExitStack() as stack:
            for logger in reversed(self.loggers):
                stack.callback(self._pass_on, "close", (logger,))

    def _pass_on(self, method: str, loggers: Sequence[Logger], *args: Any) -> None:
        for logger in loggers:
            try:
                getattr(logger, method)(*args)
            except Exception as error:
                self._note(logger, method, error)
            else:
                if self._refused and (file := self._refused.pop((id(logger), method), None)):
                    self.failed_writes.succeed(file)

    def _note(self, logger: Logger, method: str, error: Exception) -> None:
        """Log the first failure of a logger; an error of the library's own is raised."""
        kind = type(logger)
        if isinstance(error, OSError):
            file = kind.__name__ if error.filename is None else Path(os.fsdecode(error.filename)).name
            self._refused[id(logger), method] = file
            self.failed_writes.fail(file, error)
        elif kind.__module__.startswith("limelight."):
            raise error
        elif id(logger) not in self._noted:
            self._noted.add(id(logger))
            _LOG.warning(
                "limelight: note: logger %s.%s %s; training goes on", kind.__name__, method, what_happened(error)
            )
