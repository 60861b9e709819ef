"""The decisions of the supervisor, without processes: restarts, pauses, and errors that end the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from helpers.manual_workers import quick_config
from limelight.algo.optim import initial_state
from limelight.algo.train_state import TrainState
from limelight.errors import ConfigError, WorkerError
from limelight.runners.processes.channel import Note
from limelight.runners.processes.shared import Command, Control, SharedState
from limelight.runners.processes.supervisor import SILENT_AFTER, Supervisor, WorkerProcess
from limelight.runners.processes.worker import Failure, Ready, StateReply

MakeSupervisor = Callable[..., Supervisor]


@pytest.fixture
def make_supervisor(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeSupervisor]:
    """``make_supervisor(**settings)``: a supervisor of two workers whose processes are never started."""
    made = []

    def make(**settings: Any) -> Supervisor:
        config = quick_config(**{"num_workers": 2, **settings})
        params = torch.zeros(3)
        context = get_context("spawn")
        shared = SharedState(context, config, TrainState(params, None, initial_state(config.optim, params)), {})
        supervisor = Supervisor(context, config, shared, None, lambda slot: cast(Any, None))
        monkeypatch.setattr(supervisor, "_spawn", lambda worker: None)
        made.append(supervisor)
        return supervisor

    yield make
    for supervisor in made:
        supervisor.close()
        supervisor.shared.close()


def exit_worker(
    supervisor: Supervisor, worker: WorkerProcess, exitcode: int, failure: Failure | None = None
) -> float | None:
    """Let a worker's process exit; return the seconds until its restart, None if there is to be none."""
    if failure is not None:
        supervisor._handle_message(worker, failure)
    worker.process = cast(Any, SimpleNamespace(exitcode=exitcode, close=lambda: None))
    supervisor._poll(worker)
    supervisor._poll(worker)  # channel and sentinel both signal the same exit
    due = worker.slot.restart_at
    worker.slot.restart_at = None
    worker.failure = None
    return None if due is None else due - time.monotonic()


def test_every_further_restart_of_a_slot_waits_twice_as_long(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor(max_worker_restarts=20)
    worker = supervisor.workers[0]
    supervisor._handle_message(worker, Ready(exact=True))
    delays = [exit_worker(supervisor, worker, -9) for _ in range(10)]
    expected = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]
    assert delays == [pytest.approx(seconds, abs=0.05) for seconds in expected]
    assert worker.slot.restarts == supervisor.restart_policy.count == 10
    assert supervisor.error is None
    assert "killed by SIGKILL\nrestarted in 0.1 s" in supervisor.messages[0]


def test_after_a_worker_has_run_for_a_minute_the_delay_is_the_first_one_again(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor()
    worker = supervisor.workers[0]
    for seconds, delay in ((0.0, 0.1), (0.0, 0.2), (61.0, 0.1), (0.0, 0.2)):
        supervisor._handle_message(worker, Ready(exact=True))
        worker.slot.ready_at = time.monotonic() - seconds
        assert exit_worker(supervisor, worker, -9) == pytest.approx(delay, abs=0.05)
    assert exit_worker(supervisor, worker, -9) == pytest.approx(0.4, abs=0.05)  # killed while it starts
    assert worker.slot.restarts == supervisor.restart_policy.count == 5  # the budget and the seeds count all


def test_restarts_are_counted_over_all_workers(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor(max_worker_restarts=1)
    for worker in supervisor.workers:
        supervisor._handle_message(worker, Ready(exact=True))
    assert exit_worker(supervisor, supervisor.workers[0], 3) is not None
    assert supervisor.error is None
    assert exit_worker(supervisor, supervisor.workers[1], -11) is None
    assert isinstance(supervisor.error, WorkerError)
    assert str(supervisor.error) == (
        "worker 1 (CartPole-v1, 2 environments) exited: killed by SIGSEGV\nmax_worker_restarts = 1 are used up"
    )
    assert "exited: exit status 3\n" in supervisor.messages[0]
    with pytest.raises(WorkerError, match="used up"):
        supervisor.wait_until(lambda: True, 1.0)


def test_the_first_error_is_the_one_that_is_raised(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor(on_worker_error="raise")
    for worker, exitcode in zip(supervisor.workers, (-11, -9), strict=True):
        supervisor._handle_message(worker, Ready(exact=True))
        assert exit_worker(supervisor, worker, exitcode) is None
    assert str(supervisor.error).startswith("worker 0 (CartPole-v1, 2 environments) exited: killed by SIGSEGV\n")
    assert not supervisor.messages


@pytest.mark.parametrize("number", [9, 15])
def test_a_worker_that_is_killed_while_it_starts_is_replaced_and_keeps_its_state(
    number: int, make_supervisor: MakeSupervisor
) -> None:
    supervisor = make_supervisor()
    worker = supervisor.workers[0]
    assert exit_worker(supervisor, worker, -number) is not None
    assert supervisor.error is None
    assert not worker.slot.was_ready


@pytest.mark.parametrize("exitcode", [1, -11])
def test_a_worker_that_fails_while_starting_is_not_restarted(exitcode: int, make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor()
    assert exit_worker(supervisor, supervisor.workers[0], exitcode) is None
    assert str(supervisor.error).endswith("it failed while starting, so it is not restarted")


def test_a_restarted_worker_that_fails_while_starting_is_restarted(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor()
    worker = supervisor.workers[0]
    supervisor._handle_message(worker, Ready(exact=True))
    assert exit_worker(supervisor, worker, -9) is not None
    assert not worker.slot.ready
    assert exit_worker(supervisor, worker, -9) is not None


def test_a_workers_config_error_ends_the_run_unchanged(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor()
    worker = supervisor.workers[0]
    supervisor._handle_message(worker, Ready(exact=True))
    assert exit_worker(supervisor, worker, 1, Failure("Traceback …", ConfigError("gamma = 2: no"))) is None
    assert isinstance(supervisor.error, ConfigError)
    assert str(supervisor.error) == "gamma = 2: no"


def test_an_error_in_the_supervisor_ends_the_run(
    make_supervisor: MakeSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = make_supervisor()

    def fail(now: float) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(supervisor, "_run_timers", fail)
    with pytest.raises(WorkerError, match=r"(?s)supervisor of the workers failed\n.*RuntimeError: out of luck"):
        supervisor.start(30.0)


def test_a_pause_does_not_wait_for_workers_that_become_ready_during_it(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor()
    first, second = supervisor.workers
    supervisor._handle_message(first, Ready(exact=True))
    supervisor.control[Control.COMMAND] = Command.RUN

    def send_messages() -> None:
        while not (number := int(supervisor.control[Control.STATES_WANTED])):
            time.sleep(0.001)
        assert supervisor.control[Control.COMMAND] == Command.PAUSE
        with supervisor._changed:
            supervisor._handle_message(second, Ready(exact=True))
            supervisor._handle_message(first, StateReply(number - 1, {"late": True}))
            supervisor._changed.notify_all()
        time.sleep(0.05)
        with supervisor._changed:
            supervisor._handle_message(first, StateReply(number, {"late": False}))
            supervisor._changed.notify_all()

    sender = threading.Thread(target=send_messages)
    sender.start()
    start = time.monotonic()
    with supervisor.paused() as states:
        assert states == [{"late": False}, None]
    assert 0.05 <= time.monotonic() - start < 5.0
    sender.join()
    assert supervisor.control[Control.COMMAND] == Command.RUN
    assert not supervisor.messages


def test_workers_that_do_not_pause_in_time_are_named(
    make_supervisor: MakeSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limelight.runners.processes.supervisor._STATE_TIMEOUT", 0.05)
    supervisor = make_supervisor()
    for worker in supervisor.workers:
        supervisor._handle_message(worker, Ready(exact=True))
    with supervisor.paused() as states:
        assert states == [None, None]
    assert list(supervisor.messages) == ["workers [0, 1] did not pause within 0.05 s; the checkpoint lacks them"]


@pytest.mark.parametrize("ready", [True, False])
def test_a_worker_that_sends_nothing_is_named_once(ready: bool, make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor()
    worker, other = supervisor.workers
    for each in (worker, other):
        each.process = cast(Any, SimpleNamespace(close=lambda: None))
    if ready:
        supervisor._handle_message(worker, Ready(exact=True))
    worker.heard_at = time.monotonic()
    for seconds in (SILENT_AFTER - 1, SILENT_AFTER + 1, SILENT_AFTER + 2):
        other.heard_at = worker.heard_at + seconds
        supervisor._run_timers(worker.heard_at + seconds)
    (note,) = supervisor.messages
    assert note.startswith("worker 0 (CartPole-v1): no message for 46 s; it is ")
    assert ("in a rollout or an update; step_timeout ends" in note) == ready
    for each in (worker, other):
        each.process = None


def test_notes_of_a_worker_are_messages_of_the_run(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor()
    supervisor._handle_message(supervisor.workers[1], Note("note: step() has not returned"))
    assert list(supervisor.messages) == ["worker 1: note: step() has not returned"]
