"""A step or reset that does not return is said, and ended by step_timeout."""

from __future__ import annotations

import functools
import logging
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

from helpers.breaking_envs import Breaking, ResetFails
from helpers.settings import one_line
from limelight.envs import guards, stalls
from limelight.envs.base import EnvBackend
from limelight.envs.guards import pop_restarts
from limelight.envs.make import make_envs
from limelight.envs.source import resolve_env
from limelight.envs.stalls import watched
from limelight.errors import EnvError
from limelight.settings.schema import EnvConfig

ACTIONS = np.ones(3, np.int64)
TESTS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Breaking, "broken", [])
    monkeypatch.setattr(guards, "FIRST_DELAY", 0.001)
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "limelight-stalls"]


def make(kind: Any = Breaking, on_env_error: str = "restart", **kwargs: Any) -> EnvBackend:
    return make_envs(kind, 3, backend="sync", on_env_error=on_env_error, step_timeout=0.2, env_kwargs=kwargs)


@pytest.mark.parametrize("how", ["hang", "spin"])
def test_a_step_that_hangs_is_replaced_and_named_with_seed_and_actions(how: str) -> None:
    envs = make(how=how, step=0.02)
    before = signal.getsignal(signal.SIGURG)
    messages: list[str] = []
    with watched(0.2):
        envs.reset(7)
        while len(messages) < 3:
            step = envs.step(ACTIONS)
            messages += pop_restarts(envs)
            assert (step.failed is None) or step.truncated[step.failed].all()
    assert signal.getsignal(signal.SIGURG) is before
    assert len(Breaking.broken) == 3
    for message, (_, count) in zip(messages, Breaking.broken, strict=True):
        assert f"Breaking: step() of environment {message.partition('environment ')[2][0]} (seed " in message
        assert f", step {count}, last actions [{', '.join('1' * min(count, 5))}])" in message
        assert re.search(r"has not returned for [01] s \(breaking_envs\.py, line ", message)
        assert "; step_timeout = 0.2; a new copy goes on" in message


def test_a_reset_that_hangs_is_tried_again() -> None:
    envs = make(ResetFails, how="hang")
    ResetFails.left = 2
    with watched(0.2):
        envs.reset(7)
        envs.step(ACTIONS)
    first, second = pop_restarts(envs)
    assert "ResetFails: reset() of environment 0 (seed 7" in first
    assert "ResetFails: reset() of environment 0 (seed " in second


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("reset", "reset() of a copy (seed 0) has not returned for "),
        ("make", "making a copy has not returned for "),
    ],
)
@pytest.mark.parametrize("on_env_error", ["raise", "restart"])
def test_a_copy_that_hangs_before_a_run_is_named(
    on_env_error: str, where: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    left = [1]

    class Hangs(Breaking):
        def __init__(self) -> None:
            super().__init__()
            self._hang("make")

        def _hang(self, here: str) -> None:
            if where == here and left:
                left.pop()
                time.sleep(600)

        def reset(self, **kwargs: Any) -> Any:
            self._hang("reset")
            return super().reset(**kwargs)

    source = resolve_env(EnvConfig(step_timeout=0.2, on_env_error=on_env_error), Hangs)
    if on_env_error == "restart":
        source.spaces()
        (message,) = caplog.messages
    else:
        with pytest.raises(EnvError) as error:
            source.spaces()
        message = one_line(error)
    assert f"Hangs: {words}" in message
    assert "(test_stalls.py, line " in message
    assert "; step_timeout = 0.2" in message


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("step", "step() of a copy (seed 0, step 7, last actions ["),
        ("reset", "reset() of a copy (seed 0, step 0) has not"),
    ],
)
def test_random_play_that_hangs_is_named_and_leaves_the_defaults(
    where: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    resets = []

    class Hangs(Breaking):
        def reset(self, **kwargs: Any) -> Any:
            resets.append(1)
            if where == "reset" and len(resets) == 2:  # the first one is of the search for a mask
                time.sleep(600)
            return super().reset(**kwargs)

        def step(self, action: Any) -> Any:
            if where == "step" and self.steps == 6:
                time.sleep(600)
            return super().step(action)

    source = resolve_env(EnvConfig(step_timeout=0.2), Hangs)
    source.play_once()
    assert source.inspection.play is None
    (note,) = caplog.messages
    assert f"Hangs: {words}" in note
    assert note.endswith("; step_timeout = 0.2; defaults are chosen without random play")


def test_the_wait_before_another_try_is_no_call_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "FIRST_DELAY", 0.4)
    envs = make(ResetFails)
    ResetFails.left = 3  # waits of 0, 0.4 and 0.8 s
    with watched(0.2):
        envs.reset(7)
        envs.step(ACTIONS)
    assert ["raised ValueError" in message for message in pop_restarts(envs)] == [True] * 3


def test_without_restarts_a_hang_is_one_line() -> None:
    envs = make(on_env_error="raise", how="hang", step=1.0)
    envs.reset(7)
    with watched(0.2), pytest.raises(EnvError) as error:
        envs.step(ACTIONS)
    assert "step() of environment 0 (seed 7, step 1, last actions [1]) has not returned" in one_line(error)
    assert error.value.from_env


def test_a_timeout_may_be_longer_than_any_timer() -> None:  # a thread that fails is an error of the test
    with watched(1e300):
        time.sleep(0.05)


def test_steps_that_return_in_time_are_left_alone() -> None:
    envs = make_envs("CartPole-v1", 3, backend="sync", step_timeout=0.2)
    with watched(0.2):
        envs.reset(0)
        deadline = time.monotonic() + 0.8
        while time.monotonic() < deadline:
            envs.step(ACTIONS)


def test_without_a_timeout_a_note_says_which_call_does_not_return(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stalls, "NOTE_AFTER", 0.2)
    monkeypatch.setattr("helpers.breaking_envs.WAYS", {"hang": functools.partial(time.sleep, 0.8)})
    monkeypatch.setattr(CartPoleVectorEnv, "step", lambda self, actions: time.sleep(0.8))
    for backend in ("sync", "vector"):
        caplog.clear()
        kwargs = {"how": "hang", "step": 1.0} if backend == "sync" else {}
        envs = make_envs(Breaking if kwargs else "CartPole-v1", 3, backend=backend, env_kwargs=kwargs)
        envs.reset(7)
        with caplog.at_level(logging.WARNING, "limelight"), watched(None):
            try:
                envs.step(ACTIONS)
            except (EnvError, TypeError):
                assert backend == "vector"
        notes = [record.getMessage() for record in caplog.records]
        if backend == "sync":
            assert len(notes) == 3
            for i, note in enumerate(notes):
                assert f"Breaking: step() of environment {i} (seed {7 + i}, last actions 1) has not returned" in note
        else:
            assert "CartPole-v1: step() of environments (last actions [1, 1, 1]) has not returned" in notes[0]
        assert notes[0].endswith("; step_timeout ends such a call")


HOLDS_THE_LOCK = """
import itertools, sys
import numpy as np
from helpers.breaking_envs import Breaking
from limelight.envs import stalls
from limelight.envs.make import make_envs
import helpers.breaking_envs as breaking

stalls.GRACE = 0.5
breaking.WAYS["lock"] = lambda: sum(itertools.repeat(0))
envs = make_envs(Breaking, 2, backend="sync", step_timeout=0.3, env_kwargs={"how": "lock", "step": 1.0})
envs.reset(0)
with stalls.watched(0.3):
    envs.step(np.ones(2, np.int64))
"""


@pytest.mark.faults
def test_code_that_no_exception_can_interrupt_ends_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", HOLDS_THE_LOCK], capture_output=True, text=True, timeout=60, cwd=TESTS)
    assert done.returncode == 1
    assert "Timeout (0:00:0" in done.stderr
    assert "breaking_envs.py" in done.stderr
