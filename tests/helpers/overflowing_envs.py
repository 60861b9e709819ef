"""Environments whose numbers overflow after some steps."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete


class Overflows(gym.Env[np.ndarray, Any]):
    """Episodes of 10 steps of three small numbers. In step ``after`` of the copy, something overflows.

    ``what``: ``obs`` (finite, but not its dot product in float32), ``nan`` (an observation), ``reward`` (inf),
    ``large`` (a reward whose square is not finite in float32), or ``nothing``. Continuous actions where ``reals``.
    """

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)

    def __init__(self, what: str = "nothing", after: int = 44, reals: bool = False) -> None:
        self.action_space = Box(-1.0, 1.0, (2,)) if reals else Discrete(3)
        self.what, self.after, self.steps = what, after, 0

    def _see(self) -> np.ndarray:
        return self.np_random.normal(size=3).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.in_episode = 0
        return self._see(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.in_episode += 1
        obs, reward = self._see(), 1.0
        if self.steps == self.after:
            if self.what == "obs":
                obs = np.full(3, 3e38, np.float32)
            elif self.what == "nan":
                obs[1] = np.nan
            elif self.what == "reward":
                reward = np.inf
            elif self.what == "large":
                reward = 3e38
        return obs, reward, self.in_episode >= 10, False, {}

    def take(self, things: Any) -> None:
        """Do nothing with them."""


class Pays(gym.Env[np.ndarray, Any]):
    """Episodes of 10 steps that each pay ``reward``, whatever is done."""

    observation_space = Box(-1.0, 1.0, (3,), np.float32)

    def __init__(self, reward: float = 0.0) -> None:
        self.action_space = Discrete(3)
        self.reward = reward
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.random(3).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self.np_random.random(3).astype(np.float32), self.reward, self.steps >= 10, False, {}
