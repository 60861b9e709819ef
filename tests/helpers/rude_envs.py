"""Environments that break the contract of Gymnasium in one way each; importable, so that processes find them."""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete


class Plain(gym.Env[Any, Any]):
    """Episodes of 20 steps whose reward is the action."""

    observation_space = Box(-1.0, 1.0, (3,), np.float32)
    action_space = Discrete(2)

    def __init__(self) -> None:
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return np.zeros(3, np.float32), self.reward(action), False, self.steps >= 20, self.info()

    def reward(self, action: Any) -> Any:
        return float(action)

    def info(self) -> dict[str, Any]:
        return {}


class ExitsInStep(Plain):
    def reward(self, action: Any) -> Any:
        return sys.exit() if self.steps == 5 else 0.0


class ExitsInReset(Plain):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        sys.exit("no display")


class ExitsAtOnce(Plain):
    def __init__(self) -> None:
        sys.exit(0)


class RaisesInStep(Plain):
    def reward(self, action: Any) -> Any:
        return 1 / (self.steps - 5)


class KilledInStep(Plain):
    def reward(self, action: Any) -> Any:
        return os._exit(7) if self.steps == 5 else 0.0


class OldStep(Plain):
    def step(self, action: Any) -> Any:
        return super().step(action)[:4]


class OldReset(Plain):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(seed=seed)[0]


class OldSeed(Plain):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class CannotClose(Plain):
    def close(self) -> None:
        raise ConnectionError("the simulator is gone")


class OddInfos(Plain):
    """Infos that change their shape, hold what cannot be pickled, and repeat Gymnasium's own keys."""

    def info(self) -> dict[str, Any]:
        return {"list": [0] * self.steps, "final_obs": "none", "function": lambda: 0, "_list": self.steps}


class OddRewards(Plain):
    """Rewards in every scalar form."""

    def reward(self, action: Any) -> Any:
        forms = [1, True, np.float32(1), np.array(1.0), np.array([1.0]), np.array([[1]])]
        return forms[self.steps % len(forms)]


class StartsProcess(Plain):
    """Starts a process in every reset, as a simulator may."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        process = multiprocessing.get_context("spawn").Process(target=len, args=("x",))
        process.start()
        process.join()
        assert process.exitcode == 0
        return super().reset(seed=seed)


@dataclass(frozen=True)
class InDict:
    """Makes a copy whose observations are in a Dict, so that wrappers take the values apart."""

    kind: type[Plain]

    def __call__(self) -> gym.Env[Any, Any]:
        env = self.kind()
        space = gym.spaces.Dict({"x": env.observation_space})
        return gym.wrappers.TransformObservation(env, lambda x: {"x": x}, space)
