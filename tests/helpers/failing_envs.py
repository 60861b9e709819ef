"""Small environments on which training fails in a known way, for the rules of the diagnosis."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete


class Small(gym.Env[np.ndarray, Any]):
    """Two numbers are seen, one of ``actions`` is chosen; episodes are cut after ``length`` steps (0: never).

    ``pays``: nothing, ``noise`` (of deviation ``scale``), ``context`` (what is seen), ``lock`` (1 at the end of an
    episode in which every action was 0), or ``fading`` (1 for action 0 in the first 800 steps). ``ends``: the last step
    terminates the episode instead of cutting it.
    """

    observation_space = Box(-10.0, 10.0, (2,), np.float32)

    def __init__(
        self, pays: str = "nothing", length: int = 5, actions: int = 2, scale: float = 1.0, ends: bool = False,
        seconds: float = 0.0,
    ) -> None:  # fmt: skip
        self.action_space = Discrete(actions)
        self.pays, self.length, self.scale, self.ends, self.seconds = pays, length, scale, ends, seconds
        self.total = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps, self.opened, self.context = 0, True, float(self.np_random.normal())
        return self._see(), {}

    def _see(self) -> np.ndarray:
        second = self.context if self.pays == "context" else float(self.np_random.normal())
        return np.array([1.0, np.clip(second, -10.0, 10.0)], np.float32)

    def step(self, action: Any) -> Any:
        if self.seconds:
            time.sleep(self.seconds)
        self.steps += 1
        self.total += 1
        self.opened &= int(action) == 0
        over = bool(self.length) and self.steps >= self.length
        reward = {
            "nothing": 0.0,
            "noise": self.scale * float(self.np_random.normal()),
            "context": self.context,
            "lock": float(over and self.opened),
            "fading": float(action == 0 and self.total < 800),
        }[self.pays]
        return self._see(), reward, over and self.ends, over and not self.ends, {}


class SlowOnce(Small):
    """Of all copies in all processes the first to be stepped is slow; it makes the file ``taken``."""

    def __init__(self, taken: str) -> None:
        super().__init__("context")
        self.taken = taken
        self.is_first: bool | None = None

    def step(self, action: Any) -> Any:
        if self.is_first is None:
            try:
                with open(self.taken, "x"):
                    self.is_first = True
            except FileExistsError:
                self.is_first = False
            self.seconds = 0.02 * self.is_first
        return super().step(action)


class Aliased(gym.Env[np.ndarray, np.int64]):
    """The short corridor: three places that look alike; in the second, left and right are swapped.

    Only a policy that chooses by chance reaches the end; each step costs 1, and 40 steps are the limit.
    Source: Sutton & Barto 2018, example 13.1.
    """

    observation_space = Box(-1.0, 1.0, (1,), np.float32)
    action_space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place = self.steps = 0
        return np.ones(1, np.float32), {}

    def step(self, action: np.int64) -> Any:
        self.steps += 1
        right = (action == 1) != (self.place == 1)
        self.place = self.place + 1 if right else max(0, self.place - 1)
        return np.ones(1, np.float32), -1.0, self.place == 3, self.steps >= 40, {}


class Breaks(Small):
    """Raises after 300 steps; where it ``overflows``, it pays 1e37 in every fiftieth step instead."""

    def __init__(self, overflows: bool = False) -> None:
        super().__init__("noise")
        self.overflows = overflows

    def step(self, action: Any) -> Any:
        if self.total == 300 and not self.overflows:
            raise ZeroDivisionError("no price for this day")
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, 1e37 if self.overflows and self.total % 50 == 0 else reward, terminated, truncated, info
