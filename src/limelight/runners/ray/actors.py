"""The Ray actors of a run: made, asked for their states, ended; and why one has ended."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from limelight.envs.stalls import NOTE_AFTER
from limelight.errors import WorkerError
from limelight.runners.ray.worker import RayWorker
from limelight.runners.worker_slots import WorkerSlot
from limelight.settings.schema import RayConfig
from limelight.typing import State

STATE_TIMEOUT = 10.0
"""Seconds that workers have to send their states; a checkpoint does not wait longer."""
STOP_TIMEOUT = 5.0
"""Seconds that workers have to free their environments before they are killed."""


@dataclass
class PooledWorker:
    """A worker slot with its present Ray actor."""

    slot: WorkerSlot
    actor: Any = None
    """The handle of the actor of :class:`RayWorker`."""
    pending: int = 0
    """Rollouts that were requested and have not been received."""
    version: int = -1
    """The version of its parameters; -1 before it has received any."""
    asked_at: float = 0.0
    """``time.monotonic()`` of its last answer, or of the first request since."""
    is_noted: bool = False
    """A message has said that it does not answer."""


def new_actor(settings: RayConfig) -> Any:
    """Start an actor of :class:`RayWorker`, where Ray finds room for it."""
    options = {
        "num_cpus": settings.worker_cpus,
        "num_gpus": settings.worker_gpus,
        "scheduling_strategy": "SPREAD" if settings.worker_placement == "spread" else "DEFAULT",
    }
    path = [folder or os.getcwd() for folder in sys.path]
    return ray.remote(RayWorker).options(**options).remote(path)


def end_workers(workers: Sequence[PooledWorker]) -> None:
    """Free the environments of all workers, and kill these."""
    with contextlib.suppress(RayError):
        tasks = [worker.actor.close.remote() for worker in workers if worker.slot.ready]
        if tasks:
            ray.wait(tasks, num_returns=len(tasks), timeout=STOP_TIMEOUT)
        for worker in workers:
            if worker.actor is not None:
                ray.kill(worker.actor)


def late_notes(workers: Sequence[PooledWorker], pending: Mapping[Any, PooledWorker]) -> list[str]:
    """Return a line on each worker that has not answered for long; the same worker gets one once."""
    now, notes = time.monotonic(), []
    for worker in workers:
        if not worker.pending or worker.is_noted or now - worker.asked_at < NOTE_AFTER:
            continue
        if not ray.wait([task for task, other in pending.items() if other is worker], timeout=0.0)[0]:
            worker.is_noted = True
            hint = "step_timeout ends and names a step that hangs"
            notes.append(f"worker {worker.slot.index} has not answered for {now - worker.asked_at:.0f} s; {hint}")
    return notes


def needs(settings: RayConfig) -> str:
    """Return what a worker reserves, for messages."""
    return f"each: {settings.worker_cpus:g} CPUs, {settings.worker_gpus:g} GPUs"


def states_of(workers: Sequence[PooledWorker], before: Sequence[State | None]) -> tuple[list[State | None], list[int]]:
    """Return the states of all workers, ``before`` for those not started, and the indices of ready ones without one."""
    ready = [worker for worker in workers if worker.slot.ready]
    tasks = {worker.actor.get_state.remote(): worker for worker in ready if not worker.pending}
    states = list(before)
    if tasks:
        for task in ray.wait(list(tasks), num_returns=len(tasks), timeout=STATE_TIMEOUT)[0]:
            with contextlib.suppress(RayError):  # its next rollout fails too, and that is handled
                states[tasks[task].slot.index] = ray.get(task)
    return states, [worker.slot.index for worker in ready if states[worker.slot.index] is None]


def stored(value: Any) -> Any:
    """Put ``value`` into Ray's object store, and return the reference to it.

    Raises: WorkerError if the store is full, on the disk as well.
    """
    try:
        return ray.put(value)
    except RayError as error:
        raise WorkerError(f"Ray's object store does not take new parameters: {exit_reason(error)}") from None


def exit_reason(error: RayError) -> str:
    """Describe an exit by Ray's error, without a terminal's colour codes."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    if isinstance(error, OutOfMemoryError):
        return (
            f"its machine ran out of memory, and Ray ended it ({' '.join(text.split())[:300]}); fewer workers for each "
            "machine (worker_cpus), fewer environments (num_envs) or shorter rollouts (num_steps) need less"
        )
    # A task's error was raised by the worker's code; all others are of actors and nodes.
    return f"it raised\n{text}" if isinstance(error, RayTaskError) else text
