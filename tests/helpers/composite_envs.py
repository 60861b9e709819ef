"""Small environments with composite spaces and masks of actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Text, Tuple

ROOM = Dict(
    {
        "camera": Box(0, 255, (8, 9, 3), np.uint8),
        "inside": Tuple([Discrete(3, start=-1), Dict({"bits": MultiBinary([2, 2]), "dials": MultiDiscrete([2, 5])})]),
        "speed": Box(-np.inf, np.inf, (2,), np.float64),
        "height": Box(0.0, 9.0, (), np.float32),
        "lamp": Box(0, 1, (2,), np.bool_),
        "count": Box(-9, 9, (1,), np.int16),
    }
)
"""A nested space with every kind of leaf."""


class Room(gym.Env[Any, Any]):
    """Shows random observations of :data:`ROOM`, pays 1 for action 1, and truncates after 5 steps.

    With a ``fault``, the observation of the third step lacks a part, or has one of another shape or outside its space.
    """

    def __init__(self, fault: str = "") -> None:
        self.observation_space: Space[Any] = Dict(dict(ROOM.spaces))
        self.action_space: Space[Any] = Discrete(2)
        self.fault, self.steps = fault, 0

    def _obs(self) -> dict[str, Any]:
        room: dict[str, Any] = ROOM.sample()
        if self.steps == 3 and self.fault == "missing":
            del room["speed"]
        if self.steps == 3 and self.fault == "shape":
            room["speed"] = np.zeros(3)
        if self.steps == 3 and self.fault == "value":
            room["inside"] = (7, room["inside"][1])
        return room

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        if seed is not None:
            ROOM.seed(seed)
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._obs(), float(action == 1), False, self.steps >= 5, {}


class Doors(gym.Env[Any, Any]):
    """Doors, some of which are closed by the mask; an action that chooses a closed one raises.

    The observation is the step, of 6; ``where`` is the place of the mask: observation, info or nowhere. Door 0 pays 1.
    With a ``fault``, the mask of step 2 is missing, has another shape, or leaves no action. At the end of an episode it
    always leaves none. Several ``choices`` make the action MultiDiscrete.
    """

    def __init__(self, where: str = "info", fault: str = "", choices: tuple[int, ...] = (5,)) -> None:
        self.action_space: Space[Any] = Discrete(choices[0]) if len(choices) == 1 else MultiDiscrete(choices)
        self.where, self.fault, self.choices, self.steps = where, fault, choices, 0
        self.mask = np.ones(sum(choices), np.int8)
        self.observation_space: Space[Any] = Discrete(7)
        if where == "observation":
            self.observation_space = Dict({"time": Discrete(7), "action_mask": MultiBinary(sum(choices))})

    def _see(self) -> tuple[Any, dict[str, Any]]:
        parts = [(self.np_random.random(n) < 0.4).astype(np.int8) for n in self.choices]
        for part in parts:
            part[self.np_random.integers(1, len(part))] = 1
        self.mask = np.concatenate(parts) * (self.steps < 6)
        if self.steps == 2 and self.fault == "empty":
            self.mask[: self.choices[0]] = 0
        mask: Any = self.mask[1:] if self.steps == 2 and self.fault == "shape" else self.mask
        if self.where == "observation":
            return {"time": self.steps, "action_mask": mask}, {}
        missing = self.where != "info" or self.steps == 6 or (self.steps == 2 and self.fault == "missing")
        return np.int64(self.steps), {} if missing else {"action_mask": mask}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._see()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        offsets = np.cumsum([0, *self.choices[:-1]])
        if self.where != "nowhere" and not self.mask[offsets + action].all():
            raise RuntimeError(f"walked into door {action}")
        self.steps += 1
        obs, info = self._see()
        return obs, float(np.sum(action) == 0), self.steps >= 6, False, info


class Observed(Doors):
    """Doors with the mask in the observation; a class of its own, to be named on the command line."""

    def __init__(self) -> None:
        super().__init__("observation")


class Gripper(gym.Env[Any, Any]):
    """Takes Dict actions and keeps them."""

    def __init__(self) -> None:
        self.observation_space: Space[Any] = Box(-1.0, 1.0, (2,))
        self.action_space: Space[Any] = Dict({"grip": Discrete(2), "dials": MultiDiscrete([3, 2])})
        self.taken: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.taken.append(action)
        return np.zeros(2, np.float32), 0.0, False, False, {}


class Reader(gym.Env[str, np.int64]):
    """Shows texts, which are not supported as observations."""

    def __init__(self) -> None:
        self.observation_space, self.action_space = Text(3), Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Return the only observation."""
        super().reset(seed=seed)
        return "abc", {}

    def step(self, action: np.int64) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """End the episode."""
        return "abc", 0.0, True, False, {}
