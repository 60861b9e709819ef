"""Environments that make a run fail, as users have reported them; each is the smallest one that shows the fault.

Only Gymnasium and NumPy are imported. explain.py has the true cause of each.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, Space

Result = tuple[Any, float, bool, bool, dict[str, Any]]


class Reported(gym.Env[Any, Any]):
    """Episodes of 20 steps over three numbers that say nothing; subclasses change one thing."""

    observation_space: Space[Any] = Box(-1.0, 1.0, (3,), np.float32)
    action_space: Space[Any] = Discrete(2)
    length = 20

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def step(self, action: Any) -> Result:
        """Take a step."""
        self.steps += 1
        return self.observe(), self.pay(int(action)), False, self.steps >= self.length, {}

    def observe(self) -> Any:
        """Return the observation."""
        return np.zeros(3, np.float32)

    def pay(self, action: int) -> float:
        """Return the reward."""
        return float(action)


class Endless(Reported):
    """No episode ends: a constant 1 is paid, there is neither a goal nor a time limit."""

    length = 10**9

    def pay(self, action: int) -> float:
        """Return 1."""
        return 1.0


class Sensor(Reported):
    """A sensor returns NaN now and then, once in some hundred steps."""

    seen = 0

    def observe(self) -> Any:
        """Return the share of the episode, and NaN in the 410th observation."""
        self.seen += 1
        values = np.full(3, self.steps / self.length, np.float32)
        values[1] = np.nan if self.seen == 410 else values[1]
        return values


class Trader(Reported):
    """A Sharpe ratio is paid at the end: 0 / 0 for a policy that has learnt not to trade."""

    length = 50

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start without a trade."""
        self.gains: list[float] = []
        return super().reset(seed=seed, options=options)

    def pay(self, action: int) -> float:
        """Return the ratio of mean and deviation of the gains at the end."""
        self.gains.append(float(self.np_random.normal(-0.5, 1.0)) * action)
        if self.steps < self.length:
            return 0.0
        with np.errstate(all="ignore"):
            return float(np.mean(self.gains) / np.std(self.gains))


class Opponent(Reported):
    """The opponent plays at random, so that no action pays more than another."""

    def pay(self, action: int) -> float:
        """Return 1 where the opponent has happened to choose the same action."""
        return float(action == self.np_random.integers(2))


class States(Reported):
    """Twenty thousand states, and a reward that was forgotten."""

    observation_space = Discrete(20_000)

    def observe(self) -> Any:
        """Return a random state."""
        return int(self.np_random.integers(20_000))

    def pay(self, action: int) -> float:
        """Return 0."""
        return 0.0
