"""Environments that fail, or take long, in Ray workers only."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

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
