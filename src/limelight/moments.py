"""Running moments that the learner keeps: of the policy's weights, and of discounted returns. For learner.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limelight.envs.base import State
from limelight.envs.normalize import ObservationNormalizer
from limelight.losses import Array
from limelight.rollout import Rollout


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


class RewardNormalizer:
    """Divides rewards by the deviation of discounted returns  Gₜ = rₜ + γ Gₜ₋₁,  Gₜ of one episode alone.

    The rewards' mean stays: taking it away would change what is worth living for. Clipped to ±10.
    Source: Engstrom et al. 2020, section 3; VecNormalize of OpenAI Baselines.
    """

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self.moments = ObservationNormalizer(())
        """Of the returns seen; one number, not an observation."""
        self._returns: NDArray[np.float64] | None = None

    def __call__(self, rollout: Rollout, rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """``rewards`` [T, B] of a rollout, normalised by moments that take them in first."""
        if self._returns is None:
            self._returns = np.zeros(rewards.shape[1])
        returns, seen = self._returns, np.empty(rewards.shape)
        keep = self.gamma * (1.0 - rollout.episode_start[:-1])  # invalid rows have reward 0 and are not taken in
        for t, reward in enumerate(rewards):
            returns *= keep[t]
            returns += reward
            seen[t] = returns
        self.moments.update(seen[rollout.valid > 0.0])
        scale = 1.0 / math.sqrt(float(self.moments.moments.var) + 1e-8)
        return np.clip(rewards * np.float32(scale), -10.0, 10.0)

    def get_state(self) -> State:
        """Moments and running returns."""
        return {"moments": self.moments.get_state(), "returns": self._returns}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self.moments.set_state(state["moments"])
        returns = state["returns"]
        self._returns = None if returns is None else np.array(returns, np.float64)


def _decayed(total: float, weight: float, new: float, decay: float) -> tuple[float, float]:
    """Running sum and its weight after one more value."""
    return decay * total + (1.0 - decay) * new, decay * weight + (1.0 - decay)
