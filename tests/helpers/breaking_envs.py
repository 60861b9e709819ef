"""Environments that break at random moments, drawn from their seed, in a chosen way."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete


class Panic(BaseException):
    """An exception that is no Exception."""


def spin() -> None:
    while True:
        pass


WAYS: dict[str, Any] = {
    "hang": lambda: time.sleep(600),
    "spin": spin,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "abort": lambda: os.abort(),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}
RAISED: dict[str, type[BaseException]] = {
    kind.__name__: kind for kind in (ValueError, SystemExit, KeyboardInterrupt, StopIteration, Panic, MemoryError)
}


def break_by(how: str) -> None:
    if how in RAISED:
        raise RAISED[how]("the simulator broke")
    WAYS[how]()


class Breaking(gym.Env[Any, Any]):
    """Episodes of 20 steps that pay 1 each; a step or a reset breaks with a probability."""

    observation_space = Box(-1.0, 1.0, (3,), np.float32)
    broken: list[tuple[str, int]] = []  # noqa: RUF012  # call and step, of all copies of this process
    pictures = 0

    def __init__(self, how: str = "ValueError", step: float = 0.0, reset: float = 0.0, close: str = "") -> None:
        self.action_space = Discrete(2)
        self.how, self.step_share, self.reset_share, self.close_how = how, step, reset, close
        self.steps = 0
        self.render_mode = "rgb_array"
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        self._perhaps(self.reset_share, "reset")
        return self._obs(), {}

    def _obs(self) -> Any:
        return self.np_random.random(3).astype(np.float32)

    def _perhaps(self, share: float, call: str) -> None:
        if share and self.np_random.random() < share:
            Breaking.broken.append((call, self.steps))
            break_by(self.how)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self._perhaps(self.step_share, "step")
        return self._obs(), 1.0, False, self.steps >= 20, {}

    def render(self) -> Any:
        Breaking.pictures += 1
        if self.close_how == "render" and Breaking.pictures > 3:  # the run begins only if it can draw
            break_by(self.how)
        return np.zeros((16, 16, 3), np.uint8)

    def close(self) -> None:
        if self.close_how == "close":
            break_by(self.how)


class NoLicense(Breaking):
    """Once a 5th step broke (it kills the process), making an environment raises ``times`` times, in any process."""

    def __init__(self, folder: str, times: int, how: str = "kill") -> None:
        super().__init__(how)
        self.folder = Path(folder)
        killed, refused = (self.folder / "killed").exists(), len(list(self.folder.glob("refused*")))
        if killed and refused < times:
            (self.folder / f"refused{refused}").touch()
            raise RuntimeError("no license for the simulator")

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.steps == 4 and not (self.folder / "killed").exists():
            (self.folder / "killed").touch()
            break_by(self.how)
        return super().step(action)


class ResetFails(Breaking):
    """The first ``times`` resets of this process break."""

    left = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if ResetFails.left > 0:
            ResetFails.left -= 1
            break_by(self.how)
        return super().reset(seed=seed)


class Sized(Breaking):
    """A constructor that checks its argument."""

    def __init__(self, size: int = 5) -> None:
        if size < 1:
            raise ValueError(f"size {size} is less than 1")
        super().__init__()


class RefusesInProcesses(Breaking):
    """The first ``times`` constructors in processes of environments raise, or hang."""

    def __init__(self, folder: str, times: int, how: str) -> None:
        super().__init__()
        if multiprocessing.parent_process() is None:
            return
        for i in range(times):
            with contextlib.suppress(FileExistsError):
                (Path(folder) / f"refused{i}").touch(exist_ok=False)
                break_by(how)
