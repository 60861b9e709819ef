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

from limelight.config import ConfigError, TrainConfig
from limelight.envs.base import State
from limelight.envs.make import EnvFactory
from limelight.runners.base import EPISODES_RESTART, WorkerError
from limelight.runners.restarts import Restarts
from limelight.runners.shared import Command, Control, Shared
from limelight.runners.worker import Failure, Ready, Report, Rest, WorkerSpec, run_worker

_REPORT_EVERY = 0.2
"""Seconds between two reports of every worker."""
_STATE_WITHIN = 10.0
"""Seconds that a worker may take to its next rest; a checkpoint does not wait longer for its state."""
_END_WITHIN = 5.0
"""Seconds that a worker may take to end by itself."""


@dataclass
class Seat:
    """The place of one worker, and the process that sits in it now."""

    index: int
    process: BaseProcess | None = None
    channel: Connection | None = None
    incarnation: int = 0
    ready: bool = False
    """The present process has begun to work."""
    was_ready: bool = False
    """Some process in this seat had."""
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
        self.seats = [Seat(index) for index in range(shared.num_workers)]
        self.reports: deque[tuple[int, Report]] = deque()
        self.messages: deque[str] = deque()
        self.restarts = Restarts(config)
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
            for seat in self.seats:
                self._spawn(seat)
            self._thread.start()
        return self.wait_until(lambda: all(seat.ready for seat in self.seats), seconds)

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
        self.wait_until(lambda: all(s.report_number >= number for s in self.seats if s.ready), _STATE_WITHIN)

    @contextmanager
    def at_rest(self) -> Iterator[list[State | None]]:
        """While no worker moves the shared memory: the state of each, None of those that are dead or too slow."""
        before, self.control[Control.COMMAND] = self.control[Control.COMMAND], Command.WAIT
        for seat in self.seats:
            seat.state = None
        asked = [(seat, seat.incarnation) for seat in self.seats if seat.ready]  # who begins later rests already
        self.control[Control.STATES_WANTED] += 1

        def late() -> list[int]:
            alive = [seat for seat, asked_of in asked if seat.ready and seat.incarnation == asked_of]
            return [seat.index for seat in alive if seat.state is None]

        with self._changed:
            in_time = self._changed.wait_for(lambda: not late(), _STATE_WITHIN)
        if not in_time:
            self.messages.append(
                f"workers {late()} did not pause within {_STATE_WITHIN:g} s; the checkpoint lacks them"
            )
        try:
            yield [seat.state for seat in self.seats]
        finally:
            self.control[Control.COMMAND] = before

    def close(self) -> None:
        """Stop every worker: after its rollout, or by force where that takes too long."""
        self.control[Control.COMMAND] = Command.STOP
        self._closing = True
        if self._thread.is_alive():
            self._waker.send(None)
            self._thread.join()
        for seat in self.seats:
            if seat.channel is not None:  # also wakes a worker that waits for us to listen
                seat.channel.close()
        deadline = time.monotonic() + _END_WITHIN
        for seat in self.seats:
            process, seat.process = seat.process, None
            if process is None:
                continue
            if not seat.ready:  # its imports take seconds, and it has nothing to finish
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
            self._attend_all()
        except ConfigError as error:
            self.error = error
        except BaseException:  # nobody would watch any more, and the main thread would wait for ever
            self.error = WorkerError(f"the supervisor of the workers failed\n{traceback.format_exc()}")
        with self._changed:
            self._changed.notify_all()

    def _attend_all(self) -> None:
        while not self._closing:
            sources: dict[Any, Seat | None] = {self._wake: None}
            for seat in self.seats:
                if seat.channel is not None:
                    sources[seat.channel] = seat
                if seat.process is not None:
                    sources[seat.process.sentinel] = seat
            ready = connection.wait(list(sources), timeout=_REPORT_EVERY / 4)
            for source in ready:
                seat_of = sources[source]
                if seat_of is not None:
                    self._attend(seat_of)
            self._do_what_is_due(time.monotonic())
            if ready:
                with self._changed:
                    self._changed.notify_all()

    def _do_what_is_due(self, now: float) -> None:
        for seat in self.seats:
            if seat.restart_at is not None and now >= seat.restart_at and self.error is None:
                seat.restart_at = None
                self._spawn(seat)
        if now >= self._next_report:
            self._next_report = now + _REPORT_EVERY
            self.control[Control.REPORTS_WANTED] += 1

    def _spawn(self, seat: Seat) -> None:
        seat.failure, seat.ready, seat.state = None, False, None
        spec = self.make_spec(seat.index, seat.incarnation)
        try:
            seat.channel, theirs = self.context.Pipe(duplex=False)
            process = self.context.Process(
                target=run_worker,
                args=(spec, self.factory, self.shared, theirs),
                name=f"limelight-worker-{seat.index}",
                daemon=True,
            )
            with theirs, _inheritable():
                process.start()
        except OSError as error:
            raise ConfigError(
                f"num_workers = {len(self.seats)}: worker {seat.index} cannot be started ({error.strerror}); "
                "use fewer workers, or allow more open files and processes (ulimit -n, ulimit -u)"
            ) from None
        seat.process = process

    def _attend(self, seat: Seat) -> None:
        """Take in what a worker has said, and its end, if that has come."""
        if seat.process is None:  # channel and process both tell of an end, and the other one was heard first
            return
        exitcode = seat.process.exitcode  # before listening, so that the last words of the dead are heard
        try:
            while seat.channel is not None and seat.channel.poll():
                self._hear(seat, seat.channel.recv())
        except (EOFError, OSError):
            assert seat.channel is not None
            seat.channel.close()
            seat.channel = None
        if exitcode is not None and not self._closing:
            self._bury(seat, exitcode)

    def _hear(self, seat: Seat, message: object) -> None:
        match message:
            case Ready():
                seat.ready = seat.was_ready = True
                if not message.exact:
                    self.messages.append(f"worker {seat.index}: {EPISODES_RESTART}")
            case Report():
                seat.report_number = message.number
                self.reports.append((seat.index, message))
            case Failure():
                seat.failure = message
            case Rest():
                if message.number == self.control[Control.STATES_WANTED]:  # not of a rest it was too late for
                    seat.state = message.state

    def _bury(self, seat: Seat, exitcode: int) -> None:
        """See to a worker's death: a new one after a while, or the end of the run."""
        assert seat.process is not None
        seat.process.close()
        if seat.channel is not None:
            seat.channel.close()
        seat.process, seat.channel, seat.ready = None, None, False
        failure = seat.failure
        if self.error is not None:  # the run is ending already, and the first reason is the one to name
            return
        if failure is not None and failure.is_config_error:
            self.error = ConfigError(failure.message)
            return
        cause = _cause(exitcode) if failure is None else f"it raised\n{failure.message}"
        try:
            delay, message = self.restarts.after(seat.index, seat.incarnation, seat.was_ready, cause)
        except WorkerError as error:
            self.error = error
            return
        seat.incarnation += 1
        seat.restart_at = time.monotonic() + delay
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
