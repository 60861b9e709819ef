"""Environments that fail in chosen workers, and log their seeds, observations and actions."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from limelight.algo import optim


def worker_index() -> int | None:
    """Return the index of the worker that runs in this process; None in any other process."""
    kind, _, index = current_process().name.rpartition("-")
    return int(index) if kind == "limelight-worker" else None


def raise_error() -> None:
    raise RuntimeError("the simulator broke")


def lose_a_pipe() -> None:
    raise BrokenPipeError("the simulator's pipe")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def segfault() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def kill_in_push() -> None:
    """Let the optimizer's next step, in the middle of a push, kill the process."""
    optim.RMSprop.step = lambda *_: kill()  # type: ignore[method-assign]


def abort() -> None:
    os.abort()


def read_null() -> None:
    ctypes.string_at(0)


def hang() -> None:
    time.sleep(600)


def hold_the_lock() -> None:
    ctypes.PyDLL(None).sleep(600)


def stall() -> None:
    time.sleep(40)


def stall_with_the_lock() -> None:
    ctypes.PyDLL(None).sleep(40)


RAISED: list[BaseException] = [
    RuntimeError("the simulator broke"), SystemExit("the simulator broke"), KeyboardInterrupt("the simulator broke"),
    StopIteration("the simulator broke"),
]  # fmt: skip


def raise_each() -> None:
    """Raise another exception than the last time in this process."""
    RAISED.append(RAISED.pop(0))
    raise RAISED[-1]


def give_nan() -> None:
    """Do nothing: :meth:`FaultyCartPole.step` returns the observation."""


FAULTS: dict[str, Callable[[], None]] = {
    f.__name__: f
    for f in (
        raise_error, lose_a_pipe, kill, segfault, kill_in_push, give_nan, abort, read_null, hang, hold_the_lock,
        raise_each, stall, stall_with_the_lock,
    )
}  # fmt: skip


class FaultyCartPole(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole of one worker; see :class:`FaultyEnvs`."""

    def __init__(self, plan: FaultyEnvs, index: int, fault: str | None) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.plan = plan
        self.index = index
        self.fault = fault
        self.steps = 0
        self.log = plan.folder / f"{index}-{os.getpid()}.log"

    def note(self, text: str) -> None:
        with self.log.open("a") as log:
            log.write(text + " ")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        obs, info = self.env.reset(seed=seed)
        failed = len(list(self.plan.folder.glob("*.failed_reset")))
        if self.fault == "resets" and (failed or seed is None) and failed < 3:
            (self.plan.folder / f"{time.monotonic()}.failed_reset").touch()
            raise_error()
        if self.steps == 0:
            self.note(f"seed={seed} obs={obs.tolist()}")
        return obs, info

    def step(self, action: Any) -> Any:
        self.steps += 1
        obs, *rest = self.env.step(action)
        if self.steps <= 20:
            self.note(f"{action}")
        if self.steps == self.plan.after and self.fault not in (None, "resets"):
            (self.plan.folder / f"{self.index}.failed").write_text(str(time.time()))
            with (self.plan.folder / f"{self.index}.faults").open("a") as file:
                file.write(f"{os.getpid()}\n")
            FAULTS[str(self.fault)]()
            if self.fault == "give_nan":
                obs = np.array([0.0, np.nan, 0.0, 0.0], np.float32)
        if self.fault is None and self.plan.wait_for_all:
            self.wait_for_all()
        return (obs, *rest)

    def wait_for_all(self) -> None:
        """Wait until every worker that failed has been replaced."""
        (self.plan.folder / f"{self.index}.replaced").touch()
        deadline = time.monotonic() + 60
        while len(list(self.plan.folder.glob("*.replaced"))) < len(self.plan.faults):
            assert time.monotonic() < deadline, "a worker was not replaced"
            time.sleep(0.02)


@dataclass(frozen=True)
class FaultyEnvs:
    """Makes environments that fail in step ``after`` of worker i by ``faults[i]``; outside of workers they do not."""

    folder: Path
    faults: tuple[str, ...]
    after: int = 30
    only_once: bool = False
    """A replaced worker does not fail."""
    wait_for_all: bool = False
    """A replaced worker waits in its first step until all workers have been replaced."""

    def __call__(self) -> gym.Env[Any, Any]:
        index = worker_index()
        if index is None:
            return gym.make("CartPole-v1")
        fault = self.faults[index]
        if fault == "constructor":
            raise RuntimeError("no license for the simulator")
        has_failed = self.only_once and (self.folder / f"{index}.failed").exists()
        return FaultyCartPole(self, index, None if has_failed else fault)


class AlwaysRaises(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole that raises in step 40 of a worker."""

    def __init__(self) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.steps = 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps == 40 and worker_index() is not None:
            raise_error()
        return self.env.step(action)


class Stuck(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole whose step 40 touches ``file`` and does not return, in a worker."""

    def __init__(self, file: str) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.file = file
        self.steps = 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps == 40 and worker_index() is not None:
            Path(self.file).touch()
            time.sleep(600)
        return self.env.step(action)


class HugeReward(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole whose rewards are finite, but their squares are not."""

    def __init__(self) -> None:
        super().__init__(gym.make("CartPole-v1"))

    def step(self, action: Any) -> Any:
        obs, _, *rest = self.env.step(action)
        return (obs, 1e30, *rest)


class AbortsOnce(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole whose C code ends the main process in the 400th step there; not in a process that finds ``file``."""

    steps = 0

    def __init__(self, file: str) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.file = Path(file)

    def step(self, action: Any) -> Any:
        AbortsOnce.steps += worker_index() is None
        if AbortsOnce.steps == 400 and not self.file.exists():
            self.file.touch()
            abort()
        return self.env.step(action)
