"""Type aliases that several packages share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", "torch.Tensor", "NDArray[Any]")
"""A tensor or a NumPy array: formulas over it are arithmetic that both understand."""
FloatArray = NDArray[np.floating[Any]]
AnyEnv = gym.Env[Any, Any]
EnvFactory = Callable[[], AnyEnv]
"""Makes an environment; given by the user as a Python object and not by name."""
Metrics = dict[str, float]
"""Scalars by the names under which they are logged."""
State = Mapping[str, Any]
"""A part of a checkpoint: plain values, arrays, and mappings and lists of these."""
