"""How the supervisor decides, without processes: what a death leads to, who rests, what ends the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from helpers.manual_workers import a3c
from limelight.algo.optim import initial_state
from limelight.algo.train_state import TrainState
from limelight.errors import ConfigError, WorkerError
from limelight.runners.processes.shared import Command, Control, Shared
from limelight.runners.processes.supervisor import Supervisor, WorkerSlot
from limelight.runners.processes.worker import Failure, Ready, StateReply

Supervisors = Any


@pytest.fixture
def supervisor_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisors]:
    """``supervisor_of(**settings)``: two workers that are never started."""
    made = []

    def make(**settings: Any) -> Supervisor:
        config = a3c(**{"num_workers": 2, **settings})
        params = torch.zeros(3)
        context = get_context("spawn")
        shared = Shared(context, config, TrainState(params, None, initial_state(config.optim, params)), {})
        supervisor = Supervisor(context, config, shared, None, lambda worker, restarts: cast(Any, None))
        monkeypatch.setattr(supervisor, "_spawn", lambda slot: None)
        made.append(supervisor)
        return supervisor

    yield make
    for supervisor in made:
        supervisor.close()
        supervisor.shared.lock.close()


def die(supervisor: Supervisor, slot: WorkerSlot, exitcode: int, failure: Failure | None = None) -> float | None:
    """The end of a slot's process; the seconds until the next one, if there is to be one."""
    if failure is not None:
        supervisor._handle_message(slot, failure)
    slot.process = cast(Any, SimpleNamespace(exitcode=exitcode, close=lambda: None))
    supervisor._poll(slot)
    supervisor._poll(slot)  # the other sign of the same end
    due, slot.restart_at, slot.failure = slot.restart_at, None, None
    return None if due is None else due - time.monotonic()


def test_every_further_restart_of_a_seat_waits_twice_as_long(supervisor_of: Supervisors) -> None:
    supervisor = supervisor_of(max_worker_restarts=20)
    slot = supervisor.slots[0]
    supervisor._handle_message(slot, Ready(exact=True))
    delays = [die(supervisor, slot, -9) for _ in range(10)]
    expected = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]
    assert delays == [pytest.approx(seconds, abs=0.05) for seconds in expected]
    assert slot.restarts == supervisor.restarts.count == 10
    assert supervisor.error is None
    assert "killed by SIGKILL\nrestarted in 0.1 s" in supervisor.messages[0]


def test_restarts_are_counted_over_all_workers(supervisor_of: Supervisors) -> None:
    supervisor = supervisor_of(max_worker_restarts=1)
    for slot in supervisor.slots:
        supervisor._handle_message(slot, Ready(exact=True))
    assert die(supervisor, supervisor.slots[0], 3) is not None
    assert supervisor.error is None
    assert die(supervisor, supervisor.slots[1], -11) is None
    assert isinstance(supervisor.error, WorkerError)
    assert str(supervisor.error) == (
        "worker 1 (CartPole-v1, 2 environments) died: killed by SIGSEGV\nmax_worker_restarts = 1 are used up"
    )
    assert "it ended with status 3" in supervisor.messages[0]
    with pytest.raises(WorkerError, match="used up"):
        supervisor.wait_until(lambda: True, 1.0)


def test_the_first_reason_for_the_end_stays(supervisor_of: Supervisors) -> None:
    supervisor = supervisor_of(on_worker_error="raise")
    for slot, exitcode in zip(supervisor.slots, (-11, -9), strict=True):
        supervisor._handle_message(slot, Ready(exact=True))
        assert die(supervisor, slot, exitcode) is None
    assert str(supervisor.error).startswith("worker 0 (CartPole-v1, 2 environments) died: killed by SIGSEGV\n")
    assert not supervisor.messages


@pytest.mark.parametrize("exitcode", [1, -9])
def test_who_never_began_is_not_restarted(exitcode: int, supervisor_of: Supervisors) -> None:
    supervisor = supervisor_of()
    assert die(supervisor, supervisor.slots[0], exitcode) is None
    assert str(supervisor.error).endswith("it had not begun, so it is not restarted")


def test_a_successor_that_never_began_is_restarted(supervisor_of: Supervisors) -> None:
    supervisor = supervisor_of()
    supervisor._handle_message(supervisor.slots[0], Ready(exact=True))
    assert die(supervisor, supervisor.slots[0], -9) is not None
    assert not supervisor.slots[0].ready
    assert die(supervisor, supervisor.slots[0], -9) is not None


def test_a_config_error_ends_the_run_as_itself(supervisor_of: Supervisors) -> None:
    supervisor = supervisor_of()
    supervisor._handle_message(supervisor.slots[0], Ready(exact=True))
    assert die(supervisor, supervisor.slots[0], 1, Failure("Traceback …", ConfigError("gamma = 2: no"))) is None
    assert isinstance(supervisor.error, ConfigError)
    assert str(supervisor.error) == "gamma = 2: no"


def test_a_supervisor_that_fails_ends_the_run_instead_of_leaving_it_waiting(
    supervisor_of: Supervisors, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = supervisor_of()

    def fail(now: float) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(supervisor, "_run_timers", fail)
    with pytest.raises(WorkerError, match=r"(?s)supervisor of the workers failed\n.*RuntimeError: out of luck"):
        supervisor.start(30.0)


def test_who_begins_while_the_others_rest_is_not_waited_for(supervisor_of: Supervisors) -> None:
    supervisor = supervisor_of()
    first, second = supervisor.slots
    supervisor._handle_message(first, Ready(exact=True))
    supervisor.control[Control.COMMAND] = Command.RUN

    def talk() -> None:
        while not (number := int(supervisor.control[Control.STATES_WANTED])):
            time.sleep(0.001)
        assert supervisor.control[Control.COMMAND] == Command.WAIT
        with supervisor._changed:
            supervisor._handle_message(second, Ready(exact=True))
            supervisor._handle_message(first, StateReply(number - 1, {"late": True}))
            supervisor._changed.notify_all()
        time.sleep(0.05)
        with supervisor._changed:
            supervisor._handle_message(first, StateReply(number, {"late": False}))
            supervisor._changed.notify_all()

    talker = threading.Thread(target=talk)
    talker.start()
    start = time.monotonic()
    with supervisor.at_rest() as states:
        assert states == [{"late": False}, None]
    assert 0.05 <= time.monotonic() - start < 5.0
    talker.join()
    assert supervisor.control[Control.COMMAND] == Command.RUN
    assert not supervisor.messages


def test_who_does_not_rest_in_time_is_named(supervisor_of: Supervisors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limelight.runners.processes.supervisor._STATE_WITHIN", 0.05)
    supervisor = supervisor_of()
    for slot in supervisor.slots:
        supervisor._handle_message(slot, Ready(exact=True))
    with supervisor.at_rest() as states:
        assert states == [None, None]
    assert list(supervisor.messages) == ["workers [0, 1] did not pause within 0.05 s; the checkpoint lacks them"]
