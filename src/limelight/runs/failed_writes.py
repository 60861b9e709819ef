"""Writes that the disk refuses while a run goes on: one line for each kind, and a count for the metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from limelight.typing import Metrics

_LOG = logging.getLogger("limelight")
_TRIES_AGAIN = "training goes on and tries again"


@final
class FailedWrites:
    """Counts failed writes; the run goes on, and tries each kind again when it is due again."""

    def __init__(self) -> None:
        self.count = 0
        self._failing: set[str] = set()
        self._noted: set[str] = set()

    @contextmanager
    def writing(self, what: str, hint: str = _TRIES_AGAIN) -> Iterator[None]:
        """Note an OSError inside this context instead of raising it.

        Args:
            what: is written; the words before `` at `` name its kind, of which the first failure is a line.
            hint: the end of that line.
        """
        try:
            yield
        except OSError as error:
            self.fail(what, error, hint)
        else:
            self.succeed(what)

    def fail(self, what: str, error: OSError, hint: str = _TRIES_AGAIN) -> None:
        """Count a failure; log the first of its kind."""
        self.count += 1
        kind = what.partition(" at ")[0]
        self._failing.add(kind)
        if kind not in self._noted:
            self._noted.add(kind)
            reason = error.strerror or type(error).__name__
            _LOG.warning("limelight: note: %s: cannot be written (%s); %s", what, reason, hint)

    def succeed(self, what: str) -> None:
        """Log that a kind is written again, if it failed before."""
        kind = what.partition(" at ")[0]
        if kind in self._failing:
            self._failing.discard(kind)
            _LOG.warning("limelight: note: %s: written again", what)

    def is_failing(self, kind: str) -> bool:
        """Return whether the last write of a kind has failed."""
        return kind in self._failing

    def metrics(self) -> Metrics:
        """Return the number of failed writes, if there are any."""
        return {"run/failed_writes": float(self.count)} if self.count else {}
