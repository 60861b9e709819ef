"""Tiny environments with known values, for tests, examples and a first look at an algorithm.

None is registered with Gymnasium; name them as ``limelight.envs.toy:Ring`` or pass the class itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from numpy.typing import NDArray

from limelight.spaces.packed import part_of, walk

StepResult = tuple[Any, float, bool, bool, dict[str, Any]]
Values = NDArray[np.float64]


class Ring(gym.Env[np.int64, np.int64]):
    """Walk round ``size`` places; every step pays 1 and nothing ever ends but the clock.

    Observation: the place. Actions: 0 stays, 1 moves on. Truncated after ``max_steps`` steps, so that
    V = 1 / (1 − γ) everywhere, but only for a learner that bootstraps through truncation.
    """

    def __init__(self, size: int = 3, max_steps: int = 20) -> None:
        self.observation_space, self.action_space = Discrete(size), Discrete(2)
        self.size, self.max_steps, self.place, self.steps = size, max_steps, 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Start at a random place."""
        super().reset(seed=seed)
        self.place, self.steps = int(self.np_random.integers(self.size)), 0
        return np.int64(self.place), {}

    def step(self, action: np.int64) -> StepResult:
        """Stay or move on, for 1."""
        self.place, self.steps = (self.place + int(action)) % self.size, self.steps + 1
        return np.int64(self.place), 1.0, False, self.steps >= self.max_steps, {}

    def value(self, gamma: float) -> Values:
        """V of every policy at every place, [size]: 1 / (1 − γ)."""
        return np.full(self.size, 1.0 / (1.0 - gamma))


class Corridor(gym.Env[np.int64, np.int64]):
    """Reach the right end of ``length`` places from the left one; only the last step pays, 1.

    Observation: the place. Actions: 0 left (the wall holds), 1 right. Terminates on the last place.
    V*(s) = γ^(length − 2 − s): the number of steps still to go after the next one.
    """

    def __init__(self, length: int = 6) -> None:
        self.observation_space, self.action_space = Discrete(length), Discrete(2)
        self.length, self.place = length, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Start on the left."""
        super().reset(seed=seed)
        self.place = 0
        return np.int64(0), {}

    def step(self, action: np.int64) -> StepResult:
        """One place to the left or right."""
        self.place = max(0, self.place + (1 if action == 1 else -1))
        arrived = self.place == self.length - 1
        return np.int64(self.place), float(arrived), arrived, False, {}

    def value(self, gamma: float) -> Values:
        """V* of every place but the terminal one, [length − 1]."""
        return np.asarray(gamma ** np.arange(self.length - 2, -1, -1, dtype=np.float64))


class Bandit(gym.Env[NDArray[np.float32], np.int64]):
    """One step, one choice: arm a pays ``means[a]`` plus ``noise`` times a standard normal, and that was all.

    Observation: always [1]. V* = max(means).
    """

    def __init__(self, means: Sequence[float] = (0.0, 0.5, 1.0), noise: float = 0.0) -> None:
        self.observation_space, self.action_space = Box(1.0, 1.0, (1,)), Discrete(len(means))
        self.means, self.noise = tuple(map(float, means)), noise

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The one observation there is."""
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action: np.int64) -> StepResult:
        """Pull an arm."""
        reward = self.means[int(action)] + self.noise * float(self.np_random.standard_normal())
        return np.ones(1, np.float32), reward, True, False, {}

    def value(self, gamma: float) -> Values:
        """V*, [1]; γ plays no part in one step."""
        return np.array([max(self.means)])


class Aim(gym.Env[NDArray[np.float32], Any]):
    """One step, one shot at ``target``, a value of ``action_space`` (any, also nested; a random one if None).

    Every real number costs the square of what it is off, every other choice 1 if it is wrong. Observation: always [1].
    V* = 0.
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
        """The one observation there is."""
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action: Any) -> StepResult:
        """Shoot."""
        reward = 0.0
        for path, space in walk(self.action_space):
            off = np.asarray(part_of(action, path), np.float64) - part_of(self.target, path)
            reward -= float(np.sum(off**2 if isinstance(space, Box) else off != 0))
        return np.ones(1, np.float32), reward, True, False, {}

    def value(self, gamma: float) -> Values:
        """V*, [1]; γ plays no part in one step."""
        return np.zeros(1)


class TwoState(gym.Env[np.int64, np.int64]):
    """State 0 pays 1, then ends with probability ``p_end`` or goes to state 1, which pays 0 and goes back.

    Actions change nothing, so V is the same for every policy:
    V(0) = 1 / (1 − γ² (1 − p_end)), V(1) = γ V(0).
    """

    def __init__(self, p_end: float = 0.5) -> None:
        self.observation_space, self.action_space = Discrete(2), Discrete(2)
        self.p_end, self.state = p_end, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Start in state 0."""
        super().reset(seed=seed)
        self.state = 0
        return np.int64(0), {}

    def step(self, action: np.int64) -> StepResult:
        """Leave the state; the observation of the end is 1, which has no value there."""
        if self.state == 1:
            self.state = 0
            return np.int64(0), 0.0, False, False, {}
        self.state = 1
        return np.int64(1), 1.0, bool(self.np_random.random() < self.p_end), False, {}

    def value(self, gamma: float) -> Values:
        """V of both states, [2]."""
        first = 1.0 / (1.0 - gamma**2 * (1.0 - self.p_end))
        return np.array([first, gamma * first])


class Recall(gym.Env[np.int64, np.int64]):
    """Remember a cue over ``delay`` blank observations; the answer to the query that follows pays 1 if it is the cue.

    Observation: the cue (0 … num_cues − 1, drawn evenly), then ``delay`` times blank (num_cues), then the query
    (num_cues + 1), whose step terminates. Actions: one for each cue; those before the query change nothing.
    With memory, V* before step t of the delay + 2 of an episode is γ^(delay + 1 − t), so γ^(delay + 1) at its start.
    Without, no policy is worth more at the query than 1 / num_cues.
    """

    def __init__(self, num_cues: int = 2, delay: int = 3) -> None:
        self.observation_space, self.action_space = Discrete(num_cues + 2), Discrete(num_cues)
        self.num_cues, self.delay, self.cue, self.steps = num_cues, delay, 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Show a cue."""
        super().reset(seed=seed)
        self.cue, self.steps = int(self.np_random.integers(self.num_cues)), 0
        return np.int64(self.cue), {}

    def step(self, action: np.int64) -> StepResult:
        """Wait, or answer the query; the observation of the end is blank."""
        self.steps += 1
        asked = self.steps == self.delay + 1
        answered = self.steps == self.delay + 2
        reward = float(answered and int(action) == self.cue)
        return np.int64(self.num_cues + asked), reward, answered, False, {}

    def value(self, gamma: float) -> Values:
        """V* before each step of an episode, whatever the cue, for a policy that remembers it, [delay + 2]."""
        return np.asarray(gamma ** np.arange(self.delay + 1, -1, -1, dtype=np.float64))


class Match(gym.Env[np.int64, np.int64]):
    """Remember a cue over ``delay`` blank observations; saying whether the one shown then is the same pays 1 if right.

    Neither cue says anything without the other (an exclusive or), so there is nothing to learn from until both are
    there at once. Observation: the first cue (0 or 1, drawn evenly), then ``delay`` times blank (2), then the second
    cue (3 + 0 or 1), whose step terminates. Actions: 1 is the same, 0 is not; those before change nothing.
    With memory, V* before step t of the delay + 2 of an episode is γ^(delay + 1 − t); without, at most half of that.
    """

    def __init__(self, delay: int = 4) -> None:
        self.observation_space, self.action_space = Discrete(5), Discrete(2)
        self.delay, self.first, self.second, self.steps = delay, 0, 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Show the first cue."""
        super().reset(seed=seed)
        self.first, self.second = (int(cue) for cue in self.np_random.integers(2, size=2))
        self.steps = 0
        return np.int64(self.first), {}

    def step(self, action: np.int64) -> StepResult:
        """Wait, or say whether they are the same; the observation of the end is blank."""
        self.steps += 1
        answered = self.steps == self.delay + 2
        obs = 3 + self.second if self.steps == self.delay + 1 else 2
        reward = float(answered and int(action) == int(self.first == self.second))
        return np.int64(obs), reward, answered, False, {}

    def value(self, gamma: float) -> Values:
        """V* before each step of an episode for a policy that remembers, [delay + 2]."""
        return np.asarray(gamma ** np.arange(self.delay + 1, -1, -1, dtype=np.float64))


class Catch(gym.Env[NDArray[np.uint8], np.int64]):
    """Move a paddle under a ball that falls one cell a step; the last step pays 1 if it is caught, else −1.

    Observation: a grey picture of ``cells`` × ``cells`` cells of ``scale`` × ``scale`` pixels each. The ball falls from
    a random cell of the top row, the paddle begins in the middle of the bottom row. Actions: 0 left, 1 stay, 2 right.
    V* before step t of the cells − 1 of an episode is γ^(cells − 2 − t), and the return of an episode 1.
    """

    def __init__(self, cells: int = 6, scale: int = 6) -> None:
        self.observation_space, self.action_space = Box(0, 255, (cells * scale,) * 2, np.uint8), Discrete(3)
        self.cells, self.scale, self.ball, self.paddle, self.row = cells, scale, 0, 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Let a ball fall."""
        super().reset(seed=seed)
        self.ball, self.paddle, self.row = int(self.np_random.integers(self.cells)), self.cells // 2, 0
        return self._picture(), {}

    def step(self, action: np.int64) -> StepResult:
        """Move the paddle by one cell at most (walls hold); the ball falls by one."""
        self.paddle, self.row = min(max(self.paddle + int(action) - 1, 0), self.cells - 1), self.row + 1
        landed = self.row == self.cells - 1
        reward = (1.0 if self.ball == self.paddle else -1.0) if landed else 0.0
        return self._picture(), reward, landed, False, {}

    def _picture(self) -> NDArray[np.uint8]:
        cells = np.zeros((self.cells, self.cells), np.uint8)
        cells[-1, self.paddle], cells[self.row, self.ball] = 128, 255
        return np.kron(cells, np.ones((self.scale, self.scale), np.uint8))

    def value(self, gamma: float) -> Values:
        """V* before each step of an episode, [cells − 1]."""
        return np.asarray(gamma ** np.arange(self.cells - 2, -1, -1, dtype=np.float64))


ScriptRow = tuple[float, float, bool, bool]


class Scripted(gym.Env[NDArray[np.float32], np.int64]):
    """Plays given episodes, to test what steps environments.

    An episode is rows of (obs, reward, terminated, truncated); its first row is the reset, of which only
    ``obs`` counts, and its last one must end it. ``reset(seed=s)`` starts with episode s mod the number of
    them; each later reset plays the next. ``action_reward`` times the action is added to each reward: whoever
    checks rewards then also sees which actions arrived. Stepping on after the end raises RuntimeError.
    """

    def __init__(self, episodes: Sequence[Sequence[ScriptRow]], action_reward: float = 0.0) -> None:
        self.observation_space, self.action_space = Box(-np.inf, np.inf, (1,)), Discrete(4)
        self.episodes = [list(episode) for episode in episodes]
        if any(not (rows[-1][2] or rows[-1][3]) or len(rows) < 2 for rows in self.episodes):
            raise ValueError("episodes: each needs a reset row and a last row that is terminated or truncated")
        self.action_reward, self.episode, self.row = action_reward, -1, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The first observation of the next episode (of episode ``seed``, if given)."""
        super().reset(seed=seed)
        self.episode = (self.episode + 1 if seed is None else seed) % len(self.episodes)
        self.row = 0
        return self._obs(), {"episode": self.episode}

    def step(self, action: np.int64) -> StepResult:
        """The next row of the script."""
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
