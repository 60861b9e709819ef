"""Starts the workers of a run, listens to them, replaces those that die. Owned by shared_memory.py.

A thread does the watching, so that a death is noticed while the main thread evaluates.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from gymnasium.vector.utils import CloudpickleWrapper

from limelight.errors import ConfigError, LimelightError, WorkerError
from limelight.runners.base import ENV_STATE_NOT_RESTORED
from limelight.runners.processes.shared import Command, Control, Shared
from limelight.runners.processes.worker import Failure, Ready, Report, StateReply, WorkerSpec, run_worker
from limelight.runners.worker_slots import RestartPolicy
from limelight.settings.schema import TrainConfig
from limelight.typing import EnvFactory, State

_REPORT_EVERY = 0.2
"""Seconds between two reports of every worker."""
_STATE_WITHIN = 10.0
"""Seconds that a worker may take to its next rest; a checkpoint does not wait longer for its state."""
_END_WITHIN = 5.0
"""Seconds that a worker may take to end by itself."""


@dataclass
class WorkerSlot:
    """The place of one worker, and the process that sits in it now."""

    index: int
    process: BaseProcess | None = None
    channel: Connection | None = None
    restarts: int = 0
    ready: bool = False
    """The present process has begun to work."""
    was_ready: bool = False
    """Some process in this slot had."""
    failure: Failure | None = None
    state: State | None = None
    report_number: int = 0
    restart_at: float | None = None
    """When the next process is due (of ``time.monotonic``)."""


class Supervisor:
    """The worker processes of a run and what they say."""

    def __init__(
        self,
        context: SpawnContext,
        config: TrainConfig,
        shared: Shared,
        factory: EnvFactory | None,
        make_spec: Callable[[int, int], WorkerSpec],
    ) -> None:
        self.context, self.config, self.shared, self.make_spec = context, config, shared, make_spec
        self.factory = CloudpickleWrapper(factory)  # type: ignore[arg-type]  # it wraps anything
        self.control = shared.arrays["control"]
        self.slots = [WorkerSlot(index) for index in range(shared.num_workers)]
        self.reports: deque[tuple[int, Report]] = deque()
        self.messages: deque[str] = deque()
        self.restarts = RestartPolicy(config)
        self.error: Exception | None = None
        """Why the run cannot go on."""
        self._changed = threading.Condition()
        self._wake, self._waker = context.Pipe(duplex=False)
        self._closing = False
        self._next_report = 0.0
        self._thread = threading.Thread(target=self._watch, name="limelight-supervisor", daemon=True)

    # ------------------------------------------------------------------ for the main thread

    def start(self, seconds: float) -> bool:
        """Start every worker, if that was not done before, and wait until all are ready; False if they are not yet.

        Raises: whatever keeps one of them from that.
        """
        if self._thread.ident is None:
            for slot in self.slots:
                self._spawn(slot)
            self._thread.start()
        return self.wait_until(lambda: all(slot.ready for slot in self.slots), seconds)

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for what the workers say; False if the time was not enough.

        Raises: :attr:`error`, once there is one.
        """
        with self._changed:
            reached = self._changed.wait_for(lambda: self.error is not None or condition(), seconds)
        if self.error is not None:
            raise self.error
        return reached

    def settle(self) -> None:
        """Wait for a report of everything that was done so far."""
        self.control[Control.REPORTS_WANTED] += 1
        number = int(self.control[Control.REPORTS_WANTED])
        self.wait_until(lambda: all(s.report_number >= number for s in self.slots if s.ready), _STATE_WITHIN)

    @contextmanager
    def at_rest(self) -> Iterator[list[State | None]]:
        """While no worker moves the shared memory: the state of each, None of those that are dead or too slow."""
        before, self.control[Control.COMMAND] = self.control[Control.COMMAND], Command.WAIT
        for slot in self.slots:
            slot.state = None
        asked = [(slot, slot.restarts) for slot in self.slots if slot.ready]  # who begins later rests already
        self.control[Control.STATES_WANTED] += 1

        def late() -> list[int]:
            alive = [slot for slot, asked_of in asked if slot.ready and slot.restarts == asked_of]
            return [slot.index for slot in alive if slot.state is None]

        with self._changed:
            in_time = self._changed.wait_for(lambda: not late(), _STATE_WITHIN)
        if not in_time:
            self.messages.append(
                f"workers {late()} did not pause within {_STATE_WITHIN:g} s; the checkpoint lacks them"
            )
        try:
            yield [slot.state for slot in self.slots]
        finally:
            self.control[Control.COMMAND] = before

    def close(self) -> None:
        """Stop every worker: after its rollout, or by force where that takes too long."""
        self.control[Control.COMMAND] = Command.STOP
        self._closing = True
        if self._thread.is_alive():
            self._waker.send(None)
            self._thread.join()
        for slot in self.slots:
            if slot.channel is not None:  # also wakes a worker that waits for us to listen
                slot.channel.close()
        deadline = time.monotonic() + _END_WITHIN
        for slot in self.slots:
            process, slot.process = slot.process, None
            if process is None:
                continue
            if not slot.ready:  # its imports take seconds, and it has nothing to finish
                process.kill()
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
            process.close()
        self._wake.close()
        self._waker.close()

    # ------------------------------------------------------------------ the thread

    def _watch(self) -> None:
        try:
            self._poll_all()
        except LimelightError as error:
            self.error = error
        except BaseException:  # nobody would watch any more, and the main thread would wait for ever
            self.error = WorkerError(f"the supervisor of the workers failed\n{traceback.format_exc()}")
        with self._changed:
            self._changed.notify_all()

    def _poll_all(self) -> None:
        while not self._closing:
            sources: dict[Any, WorkerSlot | None] = {self._wake: None}
            for slot in self.slots:
                if slot.channel is not None:
                    sources[slot.channel] = slot
                if slot.process is not None:
                    sources[slot.process.sentinel] = slot
            ready = connection.wait(list(sources), timeout=_REPORT_EVERY / 4)
            for source in ready:
                seat_of = sources[source]
                if seat_of is not None:
                    self._poll(seat_of)
            self._run_timers(time.monotonic())
            if ready:
                with self._changed:
                    self._changed.notify_all()

    def _run_timers(self, now: float) -> None:
        for slot in self.slots:
            if slot.restart_at is not None and now >= slot.restart_at and self.error is None:
                slot.restart_at = None
                self._spawn(slot)
        if now >= self._next_report:
            self._next_report = now + _REPORT_EVERY
            self.control[Control.REPORTS_WANTED] += 1

    def _spawn(self, slot: WorkerSlot) -> None:
        slot.failure, slot.ready, slot.state = None, False, None
        spec = self.make_spec(slot.index, slot.restarts)
        try:
            slot.channel, theirs = self.context.Pipe(duplex=False)
            process = self.context.Process(
                target=run_worker,
                args=(spec, self.factory, self.shared, theirs),
                name=f"limelight-worker-{slot.index}",
                daemon=True,
            )
            with theirs, _inheritable():
                process.start()
        except OSError as error:
            raise ConfigError(
                f"num_workers = {len(self.slots)}: worker {slot.index} cannot be started ({error.strerror}); "
                "use fewer workers, or allow more open files and processes (ulimit -n, ulimit -u)"
            ) from None
        slot.process = process

    def _poll(self, slot: WorkerSlot) -> None:
        """Take in what a worker has said, and its end, if that has come."""
        if slot.process is None:  # channel and process both tell of an end, and the other one was heard first
            return
        exitcode = slot.process.exitcode  # before listening, so that the last words of the dead are heard
        try:
            while slot.channel is not None and slot.channel.poll():
                self._handle_message(slot, slot.channel.recv())
        except (EOFError, OSError):
            assert slot.channel is not None
            slot.channel.close()
            slot.channel = None
        if exitcode is not None and not self._closing:
            self._handle_exit(slot, exitcode)

    def _handle_message(self, slot: WorkerSlot, message: object) -> None:
        match message:
            case Ready():
                slot.ready = slot.was_ready = True
                if not message.exact:
                    self.messages.append(f"worker {slot.index}: {ENV_STATE_NOT_RESTORED}")
            case Report():
                slot.report_number = message.number
                self.reports.append((slot.index, message))
            case Failure():
                slot.failure = message
            case StateReply():
                if message.number == self.control[Control.STATES_WANTED]:  # not of a rest it was too late for
                    slot.state = message.state

    def _handle_exit(self, slot: WorkerSlot, exitcode: int) -> None:
        """See to a worker's death: a new one after a while, or the end of the run."""
        assert slot.process is not None
        slot.process.close()
        if slot.channel is not None:
            slot.channel.close()
        slot.process, slot.channel, slot.ready = None, None, False
        failure = slot.failure
        if self.error is not None:  # the run is ending already, and the first reason is the one to name
            return
        if failure is not None and failure.error is not None:
            self.error = failure.error
            return
        cause = _cause(exitcode) if failure is None else f"it raised\n{failure.message}"
        try:
            delay, message = self.restarts.after(slot.index, slot.restarts, slot.was_ready, cause)
        except WorkerError as error:
            self.error = error
            return
        slot.restarts += 1
        slot.restart_at = time.monotonic() + delay
        self.messages.append(message)


@contextmanager
def _inheritable() -> Iterator[None]:
    """While a process is spawned: what it inherits that multiprocessing does not see to."""
    main = sys.modules["__main__"]
    script = getattr(main, "__file__", None)
    absent = script is not None and not Path(script).exists()  # "<stdin>", which no process can import again
    resource_tracker.ensure_running()  # where that is left to start(), it unblocks what is blocked here
    # Ctrl-C reaches the whole group; a worker ignores it from its first line on, but that comes after all imports.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        if absent:
            del main.__file__
        yield
    finally:
        if absent:
            main.__file__ = script
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _cause(exitcode: int) -> str:
    """How a process ended that said nothing itself."""
    if exitcode >= 0:
        return f"it ended with status {exitcode}"
    try:
        return f"killed by {signal.Signals(-exitcode).name}"
    except ValueError:
        return f"killed by signal {-exitcode}"
