"""Environments that fail, or take long, in Ray workers only."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np


def in_ray_worker() -> bool:
    return sys.argv[0].endswith("default_worker.py")


class Fails(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole that fails in step ``after`` of a Ray worker.

    Args:
        how: ``raise``, ``kill``, ``nan`` or ``constructor``.
        after: the step.
        once: a file; with it, only the first worker that can create it fails.
    """

    def __init__(self, how: str = "raise", after: int = 40, once: str = "") -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.how = how
        self.after = after
        self.once = once
        self.steps = 0
        if how == "constructor" and in_ray_worker():
            raise RuntimeError("no license for the simulator")

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps == self.after and in_ray_worker() and self._is_due():
            if self.how == "raise":
                raise RuntimeError("the simulator broke")
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
        obs, *rest = self.env.step(action)
        return (obs * np.nan if self.how == "nan" and self.steps == self.after and in_ray_worker() else obs, *rest)

    def _is_due(self) -> bool:
        if self.once:
            try:
                Path(self.once).touch(exist_ok=False)  # atomic: of several workers, one succeeds
            except FileExistsError:
                return False
        return True


class Waits(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole that sleeps ``seconds`` in every step."""

    def __init__(self, seconds: float = 0.01) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.seconds = seconds

    def step(self, action: Any) -> Any:
        time.sleep(self.seconds)
        return self.env.step(action)


RAISES = {
    "ValueError": ValueError,
    "SystemExit": SystemExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "StopIteration": StopIteration,
    "GeneratorExit": GeneratorExit,
}


class FailsInTurn(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole that raises in every 25th step and every 5th reset of a Ray worker, another exception each time."""

    failures: ClassVar = {"step": 0, "reset": 0}
    resets = 0

    def __init__(self) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.steps = 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps % 25 == 0 and in_ray_worker():
            self._fail("step")
        return self.env.step(action)

    def reset(self, **kwargs: Any) -> Any:
        FailsInTurn.resets += 1
        if FailsInTurn.resets % 5 == 0 and in_ray_worker():
            self._fail("reset")
        return self.env.reset(**kwargs)

    def _fail(self, call: str) -> None:
        name = list(RAISES)[self.failures[call] % len(RAISES)]
        self.failures[call] += 1
        raise RAISES[name](f"failure {self.failures[call]} of this process")


class Hangs(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole whose 30th step hangs in the Ray worker that can create the file ``once``.

    Args:
        once: the file.
        holds_lock: in C code that holds Python's lock.
        seconds: of the hang.
    """

    def __init__(self, once: str, holds_lock: bool = False, seconds: int = 600) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.once = Path(once)
        self.holds_lock = holds_lock
        self.seconds = seconds
        self.steps = 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps == 30 and in_ray_worker():
            try:
                self.once.touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                (ctypes.PyDLL(None).sleep if self.holds_lock else time.sleep)(self.seconds)
        return self.env.step(action)


class Large(gym.Env[Any, Any]):
    """Episodes of 20 steps whose observations have 40 kB."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (10_000,), np.float32)

    def __init__(self) -> None:
        self.action_space = gym.spaces.Discrete(2)
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._obs(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self._obs(), 1.0, False, self.steps == 20, {}

    def _obs(self) -> Any:
        return np.full(10_000, self.steps / 20, np.float32)


class Allocates(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole whose 30th step takes 100 MB after 100 MB, up to 3 GB, in the Ray worker that can create ``once``."""

    def __init__(self, once: str) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.once = Path(once)
        self.steps = 0
        self.taken: list[Any] = []

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps == 30 and in_ray_worker():
            try:
                self.once.touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                for _ in range(30):
                    self.taken.append(np.ones(100 << 20, np.uint8))
                    time.sleep(0.1)
                time.sleep(60)
        return self.env.step(action)
