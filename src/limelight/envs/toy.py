"""Tiny environments with known values, for tests, examples and first experiments.

None is registered with Gymnasium; their ids are paths such as ``limelight.envs.toy:Ring``, or pass the class itself.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from numpy.typing import NDArray

from limelight.spaces.packed import part_of, walk

StepResult = tuple[Any, float, bool, bool, dict[str, Any]]
Values = NDArray[np.float64]


class Ring(gym.Env[np.int64, np.int64]):
    """A ring of ``size`` places; every step pays 1, and episodes end only by truncation after ``max_steps`` steps.

    Observation: the place. Actions: 0 stays, 1 moves on. V = 1 / (1 − γ) everywhere, but only for a learner that
    bootstraps at truncation.
    """

    def __init__(self, size: int = 3, max_steps: int = 20) -> None:
        self.observation_space = Discrete(size)
        self.action_space = Discrete(2)
        self.size = size
        self.max_steps = max_steps
        self.place = 0
        self.steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Start at a random place."""
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(self.size))
        self.steps = 0
        return np.int64(self.place), {}

    def step(self, action: np.int64) -> StepResult:
        """Stay or move on, for 1."""
        self.place = (self.place + int(action)) % self.size
        self.steps += 1
        return np.int64(self.place), 1.0, False, self.steps >= self.max_steps, {}

    def value(self, gamma: float) -> Values:
        """Return V of every policy at every place, [size]: 1 / (1 − γ)."""
        return np.full(self.size, 1.0 / (1.0 - gamma))


class Aim(gym.Env[NDArray[np.float32], Any]):
    """Episodes of one step, whose action should equal ``target``, a value of ``action_space`` (random if None).

    The action space may be any, also nested. Every real number costs its squared error, every other choice 1 if it is
    wrong. Observation: always [1]. V* = 0.
    """

    def __init__(self, action_space: Space[Any] | None = None, target: Any = None, seed: int = 0) -> None:
        self.observation_space = Box(1.0, 1.0, (1,))
        self.action_space: Space[Any] = Box(-1.0, 1.0, (2,)) if action_space is None else action_space
        if target is None:
            self.action_space.seed(seed)
            target = self.action_space.sample()
        self.target = target

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Return the only observation."""
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action: Any) -> StepResult:
        """Pay minus the error of the action."""
        reward = 0.0
        for path, space in walk(self.action_space):
            error = np.asarray(part_of(action, path), np.float64) - part_of(self.target, path)
            reward -= float(np.sum(error**2 if isinstance(space, Box) else error != 0))
        return np.ones(1, np.float32), reward, True, False, {}

    def value(self, gamma: float) -> Values:
        """Return V*, [1]; γ has no effect on one step."""
        return np.zeros(1)


class Recall(gym.Env[np.int64, np.int64]):
    """A test of memory: a cue, ``delay`` blank observations, a query; the answer to the query pays 1 if it is the cue.

    Observation: the cue (0 … num_cues − 1, drawn evenly), then ``delay`` times blank (num_cues), then the query
    (num_cues + 1), whose step terminates. Actions: one for each cue; those before the query change nothing.
    With memory, V* before step t of the delay + 2 of an episode is γ^(delay + 1 − t), so γ^(delay + 1) at its start.
    Without memory, no policy has a higher value at the query than 1 / num_cues.
    """

    def __init__(self, num_cues: int = 2, delay: int = 3) -> None:
        self.observation_space = Discrete(num_cues + 2)
        self.action_space = Discrete(num_cues)
        self.num_cues = num_cues
        self.delay = delay
        self.cue = 0
        self.steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Show a cue."""
        super().reset(seed=seed)
        self.cue = int(self.np_random.integers(self.num_cues))
        self.steps = 0
        return np.int64(self.cue), {}

    def step(self, action: np.int64) -> StepResult:
        """Wait, or answer the query; the final observation is blank."""
        self.steps += 1
        asked = self.steps == self.delay + 1
        answered = self.steps == self.delay + 2
        reward = float(answered and int(action) == self.cue)
        return np.int64(self.num_cues + asked), reward, answered, False, {}

    def value(self, gamma: float) -> Values:
        """Return V* before each step of an episode, for a policy that remembers the cue, [delay + 2]."""
        return np.asarray(gamma ** np.arange(self.delay + 1, -1, -1, dtype=np.float64))


class Match(gym.Env[np.int64, np.int64]):
    """A test of memory: a cue, ``delay`` blank observations, a second cue; telling whether they are equal pays 1.

    Neither cue is informative without the other (an exclusive or), so there is no learning signal until the state
    holds both. Observation: the first cue (0 or 1, drawn evenly), then ``delay`` times blank (2), then the second
    cue (3 + 0 or 1), whose step terminates. Actions: 1 for equal, 0 for different; those before change nothing.
    With memory, V* before step t of the delay + 2 of an episode is γ^(delay + 1 − t); without, at most half of that.
    """

    def __init__(self, delay: int = 4) -> None:
        self.observation_space = Discrete(5)
        self.action_space = Discrete(2)
        self.delay = delay
        self.first = 0
        self.second = 0
        self.steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Show the first cue."""
        super().reset(seed=seed)
        self.first, self.second = (int(cue) for cue in self.np_random.integers(2, size=2))
        self.steps = 0
        return np.int64(self.first), {}

    def step(self, action: np.int64) -> StepResult:
        """Wait, or tell whether the cues are equal; the final observation is blank."""
        self.steps += 1
        answered = self.steps == self.delay + 2
        obs = 3 + self.second if self.steps == self.delay + 1 else 2
        reward = float(answered and int(action) == int(self.first == self.second))
        return np.int64(obs), reward, answered, False, {}

    def value(self, gamma: float) -> Values:
        """Return V* before each step of an episode for a policy that remembers the first cue, [delay + 2]."""
        return np.asarray(gamma ** np.arange(self.delay + 1, -1, -1, dtype=np.float64))


class Catch(gym.Env[NDArray[np.uint8], np.int64]):
    """A paddle that must catch a ball, which falls one cell per step; the last step pays 1 if it does, else −1.

    Observation: a grey image of ``cells`` × ``cells`` cells of ``scale`` × ``scale`` pixels each. The ball falls from
    a random cell of the top row, the paddle starts in the middle of the bottom row. Actions: 0 left, 1 stay, 2 right.
    V* before step t of the cells − 1 of an episode is γ^(cells − 2 − t), and the return of an episode 1.
    """

    def __init__(self, cells: int = 6, scale: int = 6) -> None:
        self.observation_space = Box(0, 255, (cells * scale,) * 2, np.uint8)
        self.action_space = Discrete(3)
        self.cells = cells
        self.scale = scale
        self.ball = 0
        self.paddle = 0
        self.row = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Place the ball and the paddle."""
        super().reset(seed=seed)
        self.ball = int(self.np_random.integers(self.cells))
        self.paddle = self.cells // 2
        self.row = 0
        return self._image(), {}

    def step(self, action: np.int64) -> StepResult:
        """Move the paddle by at most one cell, not beyond the walls; the ball falls by one."""
        self.paddle = min(max(self.paddle + int(action) - 1, 0), self.cells - 1)
        self.row += 1
        landed = self.row == self.cells - 1
        reward = (1.0 if self.ball == self.paddle else -1.0) if landed else 0.0
        return self._image(), reward, landed, False, {}

    def _image(self) -> NDArray[np.uint8]:
        cells = np.zeros((self.cells, self.cells), np.uint8)
        cells[-1, self.paddle] = 128
        cells[self.row, self.ball] = 255
        return np.kron(cells, np.ones((self.scale, self.scale), np.uint8))

    def value(self, gamma: float) -> Values:
        """Return V* before each step of an episode, [cells − 1]."""
        return np.asarray(gamma ** np.arange(self.cells - 2, -1, -1, dtype=np.float64))
