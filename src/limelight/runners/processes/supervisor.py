"""The supervisor of worker processes: starts them, receives their messages, and replaces those that exit.

It polls in a thread, so that an exit is noticed while the main thread evaluates.
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
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from gymnasium.vector.utils import CloudpickleWrapper

from limelight.errors import ConfigError, LimelightError, WorkerError
from limelight.runners.base import ENV_STATE_NOT_RESTORED
from limelight.runners.processes.channel import Note
from limelight.runners.processes.child import ChildProcess
from limelight.runners.processes.crash_file import CrashFile, make_crash_file
from limelight.runners.processes.portable import stop_signals_held
from limelight.runners.processes.shared import Command, Control, SharedState
from limelight.runners.processes.worker import Failure, OrderReply, Ready, Report, StateReply, WorkerSpec, run_worker
from limelight.runners.worker_slots import RestartPolicy, WorkerSlot, pop_due
from limelight.settings.schema import EnvConfig, TrainConfig
from limelight.typing import EnvFactory, State

_REPORT_EVERY = 0.2
"""Seconds between two reports of every worker."""
_STATE_TIMEOUT = 10.0
"""Seconds that workers have to finish a rollout and send their states; a checkpoint does not wait longer."""
_STOP_TIMEOUT = 5.0
"""Seconds that workers have to exit after STOP, before they are killed."""
SILENT_AFTER = 45.0
"""Seconds without any message of a worker after which a note says so: its own note on a step comes before that."""

_FROM_OUTSIDE = {int(getattr(signal, name, signal.SIGTERM)) for name in ("SIGKILL", "SIGTERM")}
"""Signals by which a user, or the system where memory is short, ends a process; its own code does not."""


_TIMED_OUT = "Timeout ("
"""With this the fault handler begins where it ends a process."""


@dataclass
class WorkerProcess:
    """A worker slot with its present process."""

    slot: WorkerSlot
    process: BaseProcess | None = None
    channel: Connection | None = None
    failure: Failure | None = None
    """The reason that the worker gave for its exit."""
    state: State | None = None
    """The reply to the last request for states."""
    report_number: int = 0
    reply: OrderReply | None = None
    """The reply to the last order."""
    heard_at: float = 0.0
    """``time.monotonic()`` of its start, or of its last message."""
    is_silent: bool = False
    """A note has said that it sends no messages."""
    crash_file: CrashFile | None = None

    def start(self, context: SpawnContext, spec: WorkerSpec, factory: CloudpickleWrapper, shared: SharedState) -> None:
        """Start the next process of the slot."""
        self.failure = None
        self.state = None
        self.reply = None
        self.slot.ready = False
        self.heard_at, self.is_silent = time.monotonic(), False
        self.crash_file = make_crash_file(spec.config.env.num_envs)
        self.channel, worker_end = context.Pipe()
        process = ChildProcess(
            target=run_worker,
            args=(spec, factory, shared, worker_end, self.crash_file),
            name=f"limelight-worker-{self.slot.index}",
            daemon=True,
        )
        with worker_end, _inheritable():
            process.start()
        self.process = process

    def receive(self) -> Iterator[object]:
        """Yield the messages that have arrived; close the channel where the worker has closed its end."""
        try:
            while self.channel is not None and self.channel.poll():
                yield self.channel.recv()
        except (EOFError, OSError):
            assert self.channel is not None
            self.channel.close()
            self.channel = None

    def close(self) -> None:
        """Free the process object and the channel of a worker that has exited."""
        if self.process is not None:
            self.process.close()
        if self.channel is not None:
            self.channel.close()
        if self.crash_file is not None:
            self.crash_file.close()
        self.process = None
        self.channel = None
        self.crash_file = None


class Supervisor:
    """Owns the worker processes of a run and the queues of their messages."""

    def __init__(
        self,
        context: SpawnContext,
        config: TrainConfig,
        shared: SharedState,
        factory: EnvFactory | None,
        make_spec: Callable[[WorkerSlot], WorkerSpec],
    ) -> None:
        self.context = context
        self.shared = shared
        self.make_spec = make_spec
        self.factory = CloudpickleWrapper(factory)  # type: ignore[arg-type]  # it wraps anything
        self.control = shared.arrays["control"]
        self.workers = [WorkerProcess(WorkerSlot(index)) for index in range(shared.num_workers)]
        self.restart_policy = RestartPolicy(config)
        self.reports: deque[Report] = deque()
        self.messages: deque[str] = deque()
        self.error: Exception | None = None
        """The reason that the run cannot continue; None while it can."""
        self._changed = threading.Condition()
        self._wake, self._waker = context.Pipe(duplex=False)
        self._closing = False
        self._next_report = 0.0
        self._thread = threading.Thread(target=self._watch, name="limelight-supervisor", daemon=True)

    # ------------------------------------------------------------------ for the main thread

    def start(self, seconds: float) -> bool:
        """Start every worker at the first call; return whether all are ready within ``seconds``.

        Raises: the error of a worker that fails to start.
        """
        if self._thread.ident is None:
            for worker in self.workers:
                self._spawn(worker)
            self._thread.start()
        return self.wait_until(lambda: all(worker.slot.ready for worker in self.workers), seconds)

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until a message makes ``condition`` true; return False if that takes longer than ``seconds``.

        Raises: :attr:`error`, once there is one.
        """
        with self._changed:
            reached = self._changed.wait_for(lambda: self.error is not None or condition(), seconds)
        if self.error is not None:
            raise self.error
        return reached

    def collect_reports(self) -> None:
        """Wait until every worker has reported all of its updates so far."""
        self.control[Control.REPORTS_WANTED] += 1
        number = int(self.control[Control.REPORTS_WANTED])
        self.wait_until(
            lambda: all(worker.report_number >= number for worker in self.workers if worker.slot.ready), _STATE_TIMEOUT
        )

    @contextmanager
    def paused(self) -> Iterator[list[State | None]]:
        """Pause all workers inside this context; yield their states: None of workers not started or too slow."""
        before = self.control[Control.COMMAND]
        self.control[Control.COMMAND] = Command.PAUSE
        for worker in self.workers:
            worker.state = None
        asked = [(worker, worker.slot.restarts) for worker in self.workers if worker.slot.ready]
        self.control[Control.STATES_WANTED] += 1

        def late() -> list[int]:
            present = [worker for worker, restarts in asked if worker.slot.ready and worker.slot.restarts == restarts]
            return [worker.slot.index for worker in present if worker.state is None]

        with self._changed:
            in_time = self._changed.wait_for(lambda: not late(), _STATE_TIMEOUT)
        if not in_time:
            self.messages.append(
                f"workers {late()} did not pause within {_STATE_TIMEOUT:g} s; the checkpoint lacks them"
            )
        try:
            yield [worker.state for worker in self.workers]
        finally:
            self.control[Control.COMMAND] = before

    def close(self) -> None:
        """Stop every worker after its rollout; kill those that take longer than ``_STOP_TIMEOUT``."""
        self.control[Control.COMMAND] = Command.STOP
        self._closing = True
        if self._thread.is_alive():
            self._waker.send(None)
            self._thread.join()
        for worker in self.workers:
            if worker.channel is not None:  # closing it also wakes a worker that waits for its message to be received
                worker.channel.close()
        deadline = time.monotonic() + _STOP_TIMEOUT
        for worker in self.workers:
            if worker.process is not None:
                _stop(worker.process, max(0.0, deadline - time.monotonic()), kill=not worker.slot.ready)
            worker.close()
        self._wake.close()
        self._waker.close()

    # ------------------------------------------------------------------ the thread

    def _watch(self) -> None:
        try:
            self._poll_all()
        except LimelightError as error:
            self.error = error
        except BaseException:  # otherwise the main thread would wait forever
            self.error = WorkerError(f"the supervisor of the workers failed\n{traceback.format_exc()}")
        with self._changed:
            self._changed.notify_all()

    def _poll_all(self) -> None:
        """Wait for messages and exits of all workers, and handle them, until the supervisor is closed."""
        while not self._closing:
            sources: dict[Any, WorkerProcess | None] = {self._wake: None}
            for worker in self.workers:
                if worker.channel is not None:
                    sources[worker.channel] = worker
                if worker.process is not None:
                    sources[worker.process.sentinel] = worker
            ready = connection.wait(list(sources), timeout=_REPORT_EVERY / 4)
            for source in ready:
                if (worker_of_source := sources[source]) is not None:
                    self._poll(worker_of_source)
            self._run_timers(time.monotonic())
            if ready:
                with self._changed:
                    self._changed.notify_all()

    def _run_timers(self, now: float) -> None:
        if self.error is None:
            for slot in pop_due(worker.slot for worker in self.workers):
                self._spawn(self.workers[slot.index])
        if now >= self._next_report:
            self._next_report = now + _REPORT_EVERY
            self.control[Control.REPORTS_WANTED] += 1
            for worker in self.workers:
                self.messages += silence(worker, now, self.restart_policy.config.env)

    def _spawn(self, worker: WorkerProcess) -> None:
        try:
            worker.start(self.context, self.make_spec(worker.slot), self.factory, self.shared)
        except OSError as error:
            raise ConfigError(
                f"num_workers = {len(self.workers)}: worker {worker.slot.index} cannot be started ({error.strerror}); "
                "use fewer workers, or allow more open files and processes (ulimit -n, ulimit -u)"
            ) from None

    def _poll(self, worker: WorkerProcess) -> None:
        """Handle the messages of a worker, and its exit."""
        if worker.process is None:  # channel and sentinel both signal an exit; this is the second signal
            return
        exitcode = worker.process.exitcode  # read first, so that messages sent before the exit are still received
        for message in worker.receive():
            self._handle_message(worker, message)
        if exitcode is not None and not self._closing:
            self._handle_exit(worker, exitcode)

    def _handle_message(self, worker: WorkerProcess, message: object) -> None:
        worker.heard_at = time.monotonic()
        match message:
            case Note():
                self.messages.append(f"worker {worker.slot.index}: {message.text}")
            case Ready():
                worker.slot.mark_ready()
                if not message.exact:
                    self.messages.append(f"worker {worker.slot.index}: {ENV_STATE_NOT_RESTORED}")
            case Report():
                worker.report_number = message.number
                self.reports.append(message)
                self.messages += [f"worker {worker.slot.index}: {line}" for line in message.restarts]
            case Failure():
                worker.failure = message
            case OrderReply():
                worker.reply = message
            case StateReply():
                if message.number == self.control[Control.STATES_WANTED]:  # not a late reply to an earlier request
                    worker.state = message.state

    def _handle_exit(self, worker: WorkerProcess, exitcode: int) -> None:
        """Schedule the next process of the slot, or end the run."""
        crash = worker.crash_file.text() if worker.crash_file is not None else ""
        worker.close()
        worker.slot.ready = False
        failure = worker.failure
        if self.error is not None:  # the run is ending, and its first error is the one to raise
            return
        if failure is not None and failure.error is not None:
            self.error = failure.error
            return
        reason = _exit_reason(exitcode, crash) if failure is None else f"it raised\n{failure.message}"
        try:
            killed = failure is None and -exitcode in _FROM_OUTSIDE
            self.messages.append(self.restart_policy.handle_exit(worker.slot, reason, killed))
        except WorkerError as error:
            self.error = error


def silence(worker: WorkerProcess, now: float, env: EnvConfig) -> list[str]:
    """Return a note, once, on a process that sends nothing: even an idle worker reports several times a second."""
    seconds = now - worker.heard_at
    if worker.process is None or worker.is_silent or seconds < SILENT_AFTER:
        return []
    worker.is_silent = True
    doing = "starting: it imports, or makes its environments"
    if worker.slot.ready:
        hint = "" if env.step_timeout is not None else "; step_timeout ends a step or reset that does not return"
        doing = f"in a rollout or an update{hint}"
    return [f"worker {worker.slot.index} ({env.env_id}): no message for {seconds:.0f} s; it is {doing}"]


def _stop(process: BaseProcess, seconds: float, kill: bool) -> None:
    """Wait for a process to exit and kill it after ``seconds``; with ``kill`` at once, as during its imports."""
    if kill:
        process.kill()
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
    process.close()


@contextmanager
def _inheritable() -> Iterator[None]:
    """Set up the state that a process spawned inside this context inherits, where multiprocessing does not.

    A main module without a file ("<stdin>") is hidden: the spawned process could not import it. Stop signals are held.
    """
    main = sys.modules["__main__"]
    script = getattr(main, "__file__", None)
    absent = script is not None and not Path(script).exists()
    with stop_signals_held():
        try:
            if absent:
                del main.__file__
            yield
        finally:
            if absent:
                main.__file__ = script


def _exit_reason(exitcode: int, crash: str) -> str:
    """Describe the exit of a process that sent no :class:`Failure`; ``crash``: the text of its crash file."""
    if exitcode >= 0:
        stalled = exitcode == 1 and _TIMED_OUT in crash
        reason = "step_timeout is over, in code that no exception ends" if stalled else f"exit status {exitcode}"
    else:
        try:
            reason = f"killed by {signal.Signals(-exitcode).name}"
        except ValueError:
            reason = f"killed by signal {-exitcode}"
    return f"{reason}\n{crash}" if crash else reason
