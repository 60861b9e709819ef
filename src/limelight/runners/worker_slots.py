"""Worker slots, and the policy by which a worker that has exited is replaced."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeGuard

from limelight.errors import EnvError, LimelightError, WorkerError
from limelight.settings.schema import TrainConfig

_FIRST_DELAY = 0.1
"""Seconds before the first restart of a slot; each further restart waits twice as long."""
_MAX_DELAY = 10.0
"""Seconds before a restart, at most."""
_HEALTHY_SECONDS = 60.0
"""A worker that has run for so long does not count among failures in a row, from which the delay follows."""


@dataclass
class WorkerSlot:
    """The place of one worker of a run; a worker that has exited is replaced in its slot."""

    index: int
    restarts: int = 0
    """Workers that have been replaced in this slot."""
    ready: bool = False
    """The present worker has started and has not exited."""
    was_ready: bool = False
    """This worker, or an earlier one in this slot, has started."""
    restart_at: float | None = None
    """``time.monotonic()`` at which the next worker is due; None while none is."""
    ready_at: float | None = None
    """``time.monotonic()`` at which the present worker had started; None before."""
    in_a_row: int = 0
    """Restarts since a worker has run for a while."""

    def mark_ready(self) -> None:
        """Record that the present worker has started."""
        self.ready = True
        self.was_ready = True
        self.ready_at = time.monotonic()


@dataclass
class RestartPolicy:
    """Schedules the replacement of workers, up to ``max_worker_restarts`` times over all slots."""

    config: TrainConfig
    count: int = 0
    """Restarts so far, over all slots."""

    def handle_exit(self, slot: WorkerSlot, reason: str, from_outside: bool = False) -> str:
        """Schedule the next worker of a slot whose worker exited for ``reason``; return the message for the user.

        ``from_outside``: something else ended it, so that another may start where it did not.

        Raises: WorkerError if the worker is not to be replaced.
        """
        now = time.monotonic()
        if slot.ready_at is not None and now - slot.ready_at >= _HEALTHY_SECONDS:
            slot.in_a_row = 0
        slot.ready_at = None
        slot.ready = False
        workers, env = self.config.workers, self.config.env
        exited = f"worker {slot.index} ({env.env_id}, {env.num_envs} environments) exited: {reason.rstrip()}"
        if not slot.was_ready and not from_outside:
            raise WorkerError(f"{exited}\nit failed while starting, so it is not restarted")
        if workers.on_worker_error == "raise":
            raise WorkerError(f"{exited}\non_worker_error = raise, so the run ends")
        if self.count >= workers.max_worker_restarts:
            raise WorkerError(f"{exited}\nmax_worker_restarts = {workers.max_worker_restarts} are used up")
        delay = min(_FIRST_DELAY * 2**slot.in_a_row, _MAX_DELAY)
        slot.in_a_row += 1
        slot.restarts += 1
        slot.restart_at = now + delay
        self.count += 1
        count = f"{self.count} of {workers.max_worker_restarts}"
        return f"{exited}\nrestarted in {delay:g} s with fresh seeds (restart {count})"


def pop_due(slots: Iterable[WorkerSlot]) -> list[WorkerSlot]:
    """Return the slots whose next worker is due, and clear their times: the caller starts the workers."""
    now = time.monotonic()
    due = [slot for slot in slots if slot.restart_at is not None and now >= slot.restart_at]
    for slot in due:
        slot.restart_at = None
    return due


def ends_the_run(error: BaseException) -> TypeGuard[LimelightError]:
    """Return whether a worker's error ends the run: not one of an environment's own code, which may not recur."""
    return isinstance(error, LimelightError) and not (isinstance(error, EnvError) and error.from_env)
