"""Faults of an environment's own code: each is one line, with every backend."""

from __future__ import annotations

import logging
import re
import signal
from decimal import Decimal
from fractions import Fraction
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete

from helpers.rude_envs import (
    CannotClose,
    ExitsAtOnce,
    ExitsInReset,
    ExitsInStep,
    KilledInStep,
    ListReset,
    NoneStep,
    OldReset,
    OldSeed,
    OldStep,
    PanicsAtOnce,
    PanicsInClose,
    PanicsInReset,
    PanicsInStep,
    Plain,
    RaisesInStep,
)
from limelight.envs.base import EnvBackend
from limelight.envs.faults import what_happened
from limelight.envs.gymnasium_backend import SyncBackend
from limelight.envs.make import make_envs
from limelight.errors import EnvError

BACKENDS = ("sync", "async")


def play(kind: Any, backend: str, steps: int = 25) -> int:
    """Return the number of valid steps."""
    envs: EnvBackend = make_envs(kind, num_envs=2, backend=backend)
    try:
        envs.reset(0)
        return sum(int(envs.step(np.ones(2, np.int64)).valid.sum()) for _ in range(steps))
    finally:
        envs.close()


def fault(kind: Any, backend: str) -> EnvError:
    with pytest.raises(EnvError) as error:
        play(kind, backend)
    assert "\n" not in str(error.value)
    return error.value


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ExitsInStep, "ExitsInStep: step() called sys.exit() (rude_envs.py, line "),
        (ExitsInReset, "ExitsInReset: reset() called sys.exit() (rude_envs.py, line "),
        (ExitsAtOnce, "ExitsAtOnce: making it called sys.exit() (rude_envs.py, line "),
        (RaisesInStep, "RaisesInStep: step() raised ZeroDivisionError: division by zero (rude_envs.py, line "),
        (PanicsInStep, "PanicsInStep: step() raised Panic: index out of bounds (rude_envs.py, line "),
        (PanicsInReset, "PanicsInReset: reset() raised CancelledError (rude_envs.py, line "),
        (PanicsAtOnce, "PanicsAtOnce: making it raised GeneratorExit (rude_envs.py, line "),
    ],
)
def test_an_exit_or_exception_is_one_line_with_its_place(kind: Any, backend: str, expected: str) -> None:
    error = fault(kind, backend)
    assert expected in str(error)
    assert f"limelight check helpers.rude_envs:{kind.__name__}" in str(error)
    assert error.from_env


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (OldStep, "not enough values to unpack (expected 5, got 4)"),
        (NoneStep, "step 1 of an episode returned values in environment 0 that do not fit (cannot unpack non-iterable"),
        (ListReset, "reset() returned one list: must be (observation, info); fix the environment"),
        (OldReset, "(observation, info); fix the environment"),
        (OldSeed, "unexpected keyword argument 'seed': must be reset(self, *, seed=None, options=None)"),
    ],
)
def test_the_methods_of_old_gym_are_refused_with_what_they_must_be(kind: Any, backend: str, expected: str) -> None:
    assert expected in str(fault(kind, backend))


def test_a_process_that_is_gone_is_named_with_its_status() -> None:
    error = fault(KilledInStep, "async")
    assert re.search(r"the process of environment (0|1) with status 7.* exited; fix", str(error))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (CannotClose, "CannotClose: close() raised ConnectionError: the simulator is gone (rude_envs.py, line "),
        (PanicsInClose, "PanicsInClose: close() raised Panic: the display is gone (rude_envs.py, line "),
    ],
)
def test_a_close_that_fails_is_one_note(kind: Any, expected: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "limelight"):
        play(kind, "sync")
        play(kind, "sync")
    (note,) = (record.getMessage() for record in caplog.records)
    assert expected in note


def test_ctrl_c_is_no_fault_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.default_int_handler)  # background jobs ignore it

    class Interrupted(Plain):
        def reward(self, action: Any) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(Interrupted, "sync")


def test_plain_environments_play() -> None:
    first, *others = [play(Plain, backend) for backend in BACKENDS]
    assert first > 25
    assert others == [first] * len(others)


# --------------------------------------------------------------------------- rewards


class Pays(Plain):
    """Gives a reward of a certain form."""

    def __init__(self, reward: Any) -> None:
        super().__init__()
        self.given = reward

    def reward(self, action: Any) -> Any:
        return self.given


NO_NUMBERS = (
    "1.5", b"1.5", None, 1 + 2j, np.complex64(1 + 2j), np.timedelta64(3, "s"), np.array(["1.5"]), [], 10**400, {},
    np.ma.masked, np.ma.masked_array([1.0], [True]), torch.ones((), requires_grad=True),
)  # fmt: skip


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
@pytest.mark.parametrize("reward", NO_NUMBERS, ids=repr)
def test_a_reward_that_is_no_real_number_is_refused_and_not_cast(reward: Any, mode: Any) -> None:
    envs = SyncBackend([Pays(0.0), Pays(reward)], mode, "Pays")
    envs.reset(0)
    with pytest.raises(EnvError, match="env_id = Pays: step 1 of an episode returned values in environment 1"):
        envs.step(np.zeros(2, np.int64))


@pytest.mark.parametrize(
    "reward",
    [
        True,
        1,
        np.int8(1),
        np.uint64(1),
        np.float16(1),
        np.longdouble(1),
        np.array([1]),
        [[1.0]],
        Decimal(1),
        Fraction(1),
    ],
    ids=repr,
)
def test_a_reward_is_a_real_number_of_any_type(reward: Any) -> None:
    envs = SyncBackend([Pays(reward)])
    envs.reset(0)
    assert envs.step(np.zeros(1, np.int64)).rewards.tolist() == [1.0]


# --------------------------------------------------------------------------- ends, and spaces that a reset changes


class Ends(Plain):
    """Ends its first step in a certain form."""

    def __init__(self, terminated: Any) -> None:
        super().__init__()
        self.given = terminated

    def step(self, action: Any) -> Any:
        obs, reward, _, truncated, info = super().step(action)
        return obs, reward, self.given, truncated, info


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
@pytest.mark.parametrize("end", ["no", None, np.nan, 0.5, 2, [], np.array([True, False]), np.ma.masked], ids=repr)
def test_an_end_that_is_not_true_or_false_is_refused(end: Any, mode: Any) -> None:
    envs = SyncBackend([Ends(False), Ends(end)], mode, "Ends")
    envs.reset(0)
    with pytest.raises(EnvError, match=r"step 1 of an episode .* environment 1 .*terminated = .* is not true or false"):
        envs.step(np.zeros(2, np.int64))


@pytest.mark.parametrize("end", [1, np.True_, np.array([True]), 1.0, [1]], ids=repr)
def test_an_end_is_true_in_any_form_of_one_truth_value(end: Any) -> None:
    envs = SyncBackend([Ends(end)])
    envs.reset(0)
    assert envs.step(np.zeros(1, np.int64)).terminated.tolist() == [True]


class Moves(Plain):
    """Has another action space after a reset."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        result = super().reset(seed=seed)
        self.action_space = Discrete(9)
        return result


def test_a_reset_that_changes_the_spaces_is_refused() -> None:
    with pytest.raises(EnvError, match=r"reset\(\) changed action_space, Discrete\(2\) and Discrete\(9\)"):
        SyncBackend([Moves()]).reset(0)


class Bare(gym.Env[Any, Any]):
    """Has no spaces of its own."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}


def test_only_a_wrapper_may_have_spaces() -> None:
    env: Any = gym.Wrapper(Bare())
    env.observation_space, env.action_space = Plain().observation_space, Plain().action_space
    assert SyncBackend([env]).reset(0).tolist() == [[0.0, 0.0, 0.0]]


class Mute(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise ValueError("no text")


def test_an_exception_without_a_text_is_named() -> None:
    assert what_happened(Mute()) == "raised Mute"
