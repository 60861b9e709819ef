"""Environments with numbers of their own in ``info``, alone and vectorised."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

LENGTH = 3
"""Steps of an episode."""


def info_of(episode: int, step: int, end: bool) -> dict[str, Any]:
    """Return the info of a step: every second episode succeeds, ``rare`` is in every third, ``cost`` in each step."""
    info: dict[str, Any] = {"cost": np.float32(0.5 * step)}
    if end:
        info |= {"is_success": np.bool_(episode % 2 == 0), "distance": np.array([episode / 4]), "text": "far"}
        info |= {"undefined": float("nan")}
        if episode % 3 == 0:
            info["rare"] = episode
    return info


class Informs(gym.Env[NDArray[np.float32], np.int64]):
    """Episodes of three steps; ``level`` is an attribute for others to change, and the reward."""

    def __init__(self, level: float = 1.0, render_mode: str | None = None) -> None:
        self.observation_space = Box(0.0, 1.0, (1,), np.float32)
        self.action_space = Discrete(2)
        self.level = level
        self.render_mode = render_mode
        self.episode = -1
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode += 1
        self.steps = 0
        return np.zeros(1, np.float32), {"cost": 1000.0}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        end = self.steps == LENGTH
        return (
            np.full(1, self.steps / LENGTH, np.float32),
            self.level,
            end,
            False,
            info_of(self.episode, self.steps, end),
        )

    def raise_level(self, by: float) -> float:
        """Return the level after adding to it."""
        self.level += by
        return self.level

    def broken(self) -> None:
        """Fail."""
        raise RuntimeError("no such thing")


class InformsVector(VectorEnv[Any, Any, Any]):
    """The same as a vectorised class, in mode NEXT_STEP, with or without the masks of Gymnasium."""

    def __init__(self, num_envs: int = 2, masks: bool = True) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.num_envs = num_envs
        single = Informs()
        self.single_observation_space, self.single_action_space = single.observation_space, single.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.masks = masks
        self.steps = 0
        self.episode = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.steps, self.episode = 0, 0
        return np.zeros((self.num_envs, 1), np.float32), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        n = self.num_envs
        if self.steps == LENGTH:  # resets
            self.steps, self.episode = 0, self.episode + 1
            zeros = np.zeros(n, np.bool_)
            return np.zeros((n, 1), np.float32), np.zeros(n), zeros, zeros, {"cost": np.full(n, 1000.0)}
        self.steps += 1
        end = self.steps == LENGTH
        infos: dict[str, Any] = {}
        for key, value in info_of(self.episode, self.steps, end).items():
            infos[key] = np.array([value] * n)
            if self.masks:
                infos[f"_{key}"] = np.ones(n, np.bool_)
        ends = np.full(n, end)
        obs = np.full((n, 1), self.steps / LENGTH, np.float32)
        return obs, np.ones(n), ends, np.zeros(n, np.bool_), infos
