"""Tasks of one or two steps with known values, in the spaces of any environment: what settings must learn at least."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

from limelight.spaces.images import is_image
from limelight.spaces.packed import MASK_KEY, Packed, part_of, walk

Task = Literal["constant", "observation", "delay", "action", "both", "memory"]
WIDE = 1e4
"""Bounds of Boxes beyond this stand for any number."""
ON = 0.6
"""The best real action, as a share of the way from the middle of the bounds to an end."""


class ProbeToy(gym.Env[Any, Any]):
    """A task in given spaces. Observations are 0 (``first``), 1 or 2 (``blank``), which look alike in no leaf.

    ``constant``: every step pays 1, and half of the steps end the episode. ``observation``: one step, which pays 1
    where 0 is seen and −1 where 1 is. ``delay``: 0 then 1 is seen, and the second step pays 1. ``action``: one step; it
    pays 1 less the mean error of the action. ``both``: the same, where the right action depends on what is seen.
    ``memory``: the right action of the second step depends on what the first one showed.
    """

    def __init__(self, task: Task, observation_space: Space[Any], action_space: Space[Any]) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self.task = task
        self.which = 0
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; ``options`` may have ``which``, 0 or 1."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2)) if self.task in ("observation", "both", "memory") else 0
        self.which = (options or {}).get("which", drawn)
        self.steps = 0
        return observation(self.observation_space, self.which), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Pay, and end the episode after one or two steps."""
        self.steps += 1
        over = self.steps >= (2 if self.task in ("delay", "memory") else 1)
        if self.task == "constant":
            over, reward, seen = bool(self.np_random.random() < 0.5), 1.0, 0
        elif self.task == "observation":
            reward, seen = 1.0 - 2.0 * self.which, 2
        elif self.task == "delay":
            reward, seen = float(over), 1
        else:
            right = self.which if self.task != "action" else 0
            reward, seen = (1.0 - error(self.action_space, action, right)) if over else 0.0, 2
        return observation(self.observation_space, seen), reward, over, False, {}


def original(space: Space[Any]) -> Space[Any]:
    """Return the space that a packed one was made of, without a mask that infos have."""
    if not isinstance(space, Packed):
        return space
    found: Space[Any] = space.original
    return found["observation"] if space.mask_source == "info" else found  # type: ignore[index]


def known_value(task: Task, gamma: float) -> float:
    """Return the value that is learnt: of ``first`` for the first three tasks, else the return of the best policy."""
    return {"constant": 1.0 / (1.0 - gamma / 2.0), "delay": gamma}.get(task, 1.0)


def observation(space: Space[Any], which: int) -> Any:
    """Return observation 0, 1 or 2 of a space; of spaces with fewer values some are equal."""
    if isinstance(space, Dict):
        return {key: _mask(part) if key == MASK_KEY else observation(part, which) for key, part in space.items()}
    if isinstance(space, Tuple):
        return tuple(observation(part, which) for part in space.spaces)
    if isinstance(space, Discrete):
        return space.dtype.type(space.start + min(which, int(space.n) - 1))
    if isinstance(space, MultiDiscrete):
        return (np.asarray(space.start) + np.minimum(which, space.nvec - 1)).astype(space.dtype)
    if isinstance(space, MultiBinary):
        return np.full(space.shape, which == 0, space.dtype)
    assert isinstance(space, Box)
    if is_image(space):
        return _image(space, which)
    low, high = bounds(space)
    return (low + (high - low) * (0.75, 0.25, 0.5)[which]).astype(space.dtype)


def _mask(space: Space[Any]) -> Any:
    return np.ones(space.shape or (), space.dtype)


def _image(space: Box, which: int) -> Any:
    """Return an image whose left half is bright, or the right one, or none."""
    image = np.array(space.low)
    axis = len(image.shape) - 1 - int(np.argmax(image.shape[::-1]))
    half = image.shape[axis] // 2
    bright = np.moveaxis(image, axis, 0), np.moveaxis(np.asarray(space.high), axis, 0)
    part = (slice(0, half), slice(half, None), slice(0, 0))[which]
    bright[0][part] = bright[1][part]
    return image


def bounds(space: Box) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the bounds of a Box, ±1 where they stand for any number."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    is_wide = (low < -WIDE) | (high > WIDE)
    return np.where(is_wide, np.clip(-1.0, low, high), low), np.where(is_wide, np.clip(1.0, low, high), high)


def error(space: Space[Any], action: Any, which: int) -> float:
    """Return the mean error of an action over its leaves, 0 for the right one; ``which`` says which one is right.

    A real number has its squared distance, in units of half of its range; any other choice 1 if it is wrong.
    """
    errors = []
    for path, leaf in walk(space):
        value = np.asarray(part_of(action, path), np.float64)
        if isinstance(leaf, Box):
            low, high = bounds(leaf)
            half = np.maximum((high - low) / 2.0, 1e-6)
            target = (low + high) / 2.0 + (ON, -ON)[which] * half
            errors.append(float(np.mean(((value - target) / half) ** 2)))
        else:
            errors.append(float(np.mean(value != np.asarray(observation(leaf, which), np.float64))))
    return float(np.mean(errors))
