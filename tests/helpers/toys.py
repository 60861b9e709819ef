"""Tiny environments with known values, or with scripted episodes, for several tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from limelight.envs.toy import StepResult, Values

ScriptRow = tuple[float, float, bool, bool]
"""Observation, reward, terminated, truncated."""


class Corridor(gym.Env[np.int64, np.int64]):
    """A corridor of ``length`` places, walked from the left end to the right one; only the last step pays, 1.

    Observation: the place. Actions: 0 left (not beyond the wall), 1 right. Terminates on the last place.
    V*(s) = γ^(length − 2 − s), where the exponent is the number of steps after the next one.
    """

    def __init__(self, length: int = 6) -> None:
        self.observation_space = Discrete(length)
        self.action_space = Discrete(2)
        self.length = length
        self.place = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Start on the left."""
        super().reset(seed=seed)
        self.place = 0
        return np.int64(0), {}

    def step(self, action: np.int64) -> StepResult:
        """Move one place to the left or right."""
        self.place = max(0, self.place + (1 if action == 1 else -1))
        arrived = self.place == self.length - 1
        return np.int64(self.place), float(arrived), arrived, False, {}

    def value(self, gamma: float) -> Values:
        """Return V* of every place but the terminal one, [length − 1]."""
        return np.asarray(gamma ** np.arange(self.length - 2, -1, -1, dtype=np.float64))


class Bandit(gym.Env[NDArray[np.float32], np.int64]):
    """Episodes of one step: arm a pays ``means[a]`` plus ``noise`` times a standard normal number.

    Observation: always [1]. V* = max(means).
    """

    def __init__(self, means: Sequence[float] = (0.0, 0.5, 1.0), noise: float = 0.0) -> None:
        self.observation_space = Box(1.0, 1.0, (1,))
        self.action_space = Discrete(len(means))
        self.means = tuple(map(float, means))
        self.noise = noise

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Return the only observation."""
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action: np.int64) -> StepResult:
        """Pull an arm."""
        reward = self.means[int(action)] + self.noise * float(self.np_random.standard_normal())
        return np.ones(1, np.float32), reward, True, False, {}

    def value(self, gamma: float) -> Values:
        """Return V*, [1]; γ has no effect on one step."""
        return np.array([max(self.means)])


class TwoState(gym.Env[np.int64, np.int64]):
    """State 0 pays 1, then ends with probability ``p_end`` or goes to state 1, which pays 0 and goes back.

    Actions change nothing, so V is the same for every policy:
    V(0) = 1 / (1 − γ² (1 − p_end)), V(1) = γ V(0).
    """

    def __init__(self, p_end: float = 0.5) -> None:
        self.observation_space = Discrete(2)
        self.action_space = Discrete(2)
        self.p_end = p_end
        self.state = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Start in state 0."""
        super().reset(seed=seed)
        self.state = 0
        return np.int64(0), {}

    def step(self, action: np.int64) -> StepResult:
        """Leave the state; the final observation is 1, and its value does not count."""
        if self.state == 1:
            self.state = 0
            return np.int64(0), 0.0, False, False, {}
        self.state = 1
        return np.int64(1), 1.0, bool(self.np_random.random() < self.p_end), False, {}

    def value(self, gamma: float) -> Values:
        """Return V of both states, [2]."""
        first = 1.0 / (1.0 - gamma**2 * (1.0 - self.p_end))
        return np.array([first, gamma * first])


class Scripted(gym.Env[NDArray[np.float32], np.int64]):
    """Plays given episodes.

    An episode is rows of (obs, reward, terminated, truncated); its first row is the reset, of which only ``obs``
    counts, and its last one must end the episode. ``reset(seed=s)`` starts with episode s mod the number of episodes;
    each later reset plays the next one. ``action_reward`` times the action is added to each reward, so that a check of
    rewards also checks the actions. A step after the end of an episode raises RuntimeError.
    """

    def __init__(self, episodes: Sequence[Sequence[ScriptRow]], action_reward: float = 0.0) -> None:
        self.observation_space = Box(-np.inf, np.inf, (1,))
        self.action_space = Discrete(4)
        self.episodes = [list(episode) for episode in episodes]
        if any(not (rows[-1][2] or rows[-1][3]) or len(rows) < 2 for rows in self.episodes):
            raise ValueError("episodes: each needs a reset row and a last row that is terminated or truncated")
        self.action_reward = action_reward
        self.episode = -1
        self.row = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Return the first observation of the next episode (of episode ``seed``, if given)."""
        super().reset(seed=seed)
        self.episode = (self.episode + 1 if seed is None else seed) % len(self.episodes)
        self.row = 0
        return self._obs(), {"episode": self.episode}

    def step(self, action: np.int64) -> StepResult:
        """Return the next row of the script."""
        self.row += 1
        if self.row >= len(self.episodes[self.episode]):
            raise RuntimeError("stepped on after the end of the episode")
        _, reward, terminated, truncated = self.episodes[self.episode][self.row]
        return (
            self._obs(),
            reward + self.action_reward * int(action),
            terminated,
            truncated,
            {"row": self.row},
        )

    def _obs(self) -> NDArray[np.float32]:
        return np.array([self.episodes[self.episode][self.row][0]], np.float32)
