"""Running mean and variance of the policy's weights, for learner.py: where a batch is too small to have its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from limelight.envs.base import State
from limelight.losses import Array


class RunningMoments:
    """Standardises by a running mean and a slower running variance: for batches too small to have their own.

    (w − m) / √v. The mean m is of earlier updates only, so it does not depend on this update's actions: for the policy
    gradient it is a baseline, and leaves the gradient unbiased. v is the decayed mean of (w − m)², ``decay`` 0.999.
    """

    def __init__(self, mean_decay: float, decay: float = 0.999) -> None:
        self.mean_decay, self.decay = mean_decay, decay
        self.mean = self.variance = 0.0
        self.mean_weight = self.variance_weight = 0.0  # Σ of the weights so far, for the bias correction

    def __call__(self, x: Array, valid: Array) -> Array:
        """``x`` [T, B] standardised by the moments before it, which then take it in; 0 on invalid rows."""
        count = float(valid.sum())
        if count == 0.0:
            return x * 0.0
        batch_mean = float((x * valid).sum()) / count
        mean = self.mean / self.mean_weight if self.mean_weight else batch_mean
        centred = (x - mean) * valid
        self.mean, self.mean_weight = _decayed(self.mean, self.mean_weight, batch_mean, self.mean_decay)
        square = float((centred * centred).sum()) / count
        self.variance, self.variance_weight = _decayed(self.variance, self.variance_weight, square, self.decay)
        return centred / (math.sqrt(self.variance / self.variance_weight) + 1e-8)

    def get_state(self) -> State:
        """The four sums."""
        return {name: getattr(self, name) for name in ("mean", "variance", "mean_weight", "variance_weight")}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        for name, value in state.items():
            setattr(self, name, float(value))


def _decayed(total: float, weight: float, new: float, decay: float) -> tuple[float, float]:
    """Running sum and its weight after one more value."""
    return decay * total + (1.0 - decay) * new, decay * weight + (1.0 - decay)
