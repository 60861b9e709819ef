"""Exploration noise of continuous actions that is correlated in time. Used by policy.py while training."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from limelight.config import ConfigError
from limelight.nn.distributions import ActionDistribution, Gaussian


class CorrelatedNoise:
    """zₜ = ρ zₜ₋₁ + √(1 − ρ²) εₜ with ε of the distribution, standard normal: every zₜ is so too, and drifts.

    Each action has the distribution that the policy says, so the learner's log π stays as it is; only consecutive
    actions are no longer independent. That explores where white noise averages out, as in MountainCarContinuous.
    Source: Uhlenbeck & Ornstein 1930, in discrete time; Lillicrap et al. 2016, section 7.
    """

    def __init__(self, distribution: ActionDistribution, rng: np.random.Generator, correlation: float) -> None:
        if not isinstance(distribution, Gaussian):
            raise ConfigError(
                f"noise_correlation = {correlation:g}: only a Box of continuous actions has noise that can drift; "
                "set it to 0"
            )
        self._distribution, self._rng = distribution, rng
        self._keep, self._new = np.float32(correlation), np.float32(math.sqrt(1.0 - correlation**2))
        self.last: NDArray[np.float32] | None = None
        """z of the last step, [B, D]."""

    def __call__(self, batch: int) -> NDArray[np.float32]:
        """The noise of the next step, [batch, D]; drifts on over the ends of episodes."""
        fresh = self._distribution.noise(self._rng, batch)
        self.last = fresh if self.last is None else self._keep * self.last + self._new * fresh
        return self.last
