"""The room for exploration in an action space: its greatest entropy, its continuous actions, its masks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space

from limelight.spaces.packed import Packed


def greatest_entropy(space: Space[Any]) -> float | None:
    """Return the entropy of equally likely actions in nats; None if a part of them is continuous."""
    total = 0.0
    for part in parts_of(space):
        if isinstance(part, Discrete):
            total += math.log(int(part.n))
        elif isinstance(part, MultiDiscrete):
            total += float(np.log(part.nvec).sum())
        elif isinstance(part, MultiBinary):
            total += math.prod(part.shape) * math.log(2.0)
        else:
            return None
    return total


def num_actions(space: Space[Any]) -> int:
    """Return the number of continuous actions."""
    return sum(math.prod(part.shape) for part in parts_of(space) if isinstance(part, Box))


def parts_of(space: Space[Any]) -> list[Space[Any]]:
    """Return the leaves of a packed space, or the space itself."""
    return [leaf.space for leaf in space.leaves] if isinstance(space, Packed) else [space]


def has_action_mask(space: Space[Any]) -> bool:
    """Return whether observations contain an action mask."""
    return isinstance(space, Packed) and space.mask is not None
