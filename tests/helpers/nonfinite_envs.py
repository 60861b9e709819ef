"""Environments that return a number that is not finite at a chosen step of the process."""

from __future__ import annotations

from typing import Any

import numpy as np

from helpers.rude_envs import Plain


class BadAt(Plain):
    """Returns ``value`` as the reward or in the observation at every step of the process that ``every`` divides."""

    def __init__(self, where: str = "reward", value: float = float("nan"), every: int = 150) -> None:
        super().__init__()
        self.where, self.value, self.every = where, value, every
        self.total = 0

    def step(self, action: Any) -> Any:
        self.total += 1
        obs, reward, *rest = super().step(action)
        if self.total % self.every == 0:
            if self.where == "reward":
                reward = self.value
            else:
                obs = np.array([0.0, self.value, 0.0])
        return (obs, reward, *rest)
