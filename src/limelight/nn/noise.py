"""Exploration noise of actions: independent from step to step, or correlated in time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from limelight.errors import ConfigError
from limelight.nn.distributions import ActionDistribution, Gaussian
from limelight.nn.policy_head import PolicyHead

Features = NDArray[np.floating] | Tensor
Noise = Callable[[Features], NDArray[np.float32]]
"""Returns the noise of the next actions, [B, A], for the inputs [B, F] of the policy head."""


def white_noise(distribution: ActionDistribution, rng: np.random.Generator) -> Noise:
    """Return the noise of ``distribution``, drawn independently at every step."""
    return lambda features: distribution.noise(rng, len(features))


class CorrelatedNoise:
    """Draws standard normal noise zₜ = ρ zₜ₋₁ + √(1 − ρ²) εₜ with independent standard normal εₜ.

    Each action has the distribution of the policy, so the learner's log π is unchanged; only consecutive actions are no
    longer independent. This explores where white noise averages out, as in MountainCarContinuous.
    With :class:`~limelight.nn.policy_head.Gsde` the correlated numbers are weights θ [B, A, F] of the features z from
    which σ is computed, and the noise of an action is Σᵢ θⱼᵢ zᵢ e^(Lᵢⱼ) / √(Σᵢ (zᵢ e^(Lᵢⱼ))²): a smooth function of the
    state, also standard normal.
    Source: Uhlenbeck & Ornstein 1930, in discrete time; Lillicrap et al. 2016, section 7; Raffin et al. 2021.

    Raises: ConfigError if the distribution is not Gaussian.
    """

    def __init__(
        self, distribution: ActionDistribution, head: PolicyHead, rng: np.random.Generator, correlation: float
    ) -> None:
        if not isinstance(distribution, Gaussian):
            raise ConfigError(
                f"noise_correlation = {correlation:g}: only a Box of continuous actions has noise that can be "
                "correlated; set it to 0"
            )
        self._shape: tuple[int, ...] = (distribution.size,)
        self._log_std = head.gsde.log_std.detach().T if head.gsde is not None else None
        if self._log_std is not None:
            self._shape = tuple(self._log_std.shape)
        self._rng = rng
        self._correlation = np.float32(correlation)
        self._innovation = np.float32(math.sqrt(1.0 - correlation**2))
        self.last: NDArray[np.float32] | None = None
        """zₜ of the last step, [B, A], or θ, [B, A, F]; None before the first step."""

    def __call__(self, features: Features) -> NDArray[np.float32]:
        """Return the noise of the next step, [B, A]; it stays correlated across the ends of episodes."""
        fresh = self._rng.standard_normal((len(features), *self._shape), dtype=np.float32)
        self.last = fresh if self.last is None else self._correlation * self.last + self._innovation * fresh
        return self.last if self._log_std is None else self._weigh(features, self.last)

    def _weigh(self, features: Features, theta: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the standard normal noise [B, A] of features [B, F] with weights ``theta`` [B, A, F]."""
        assert self._log_std is not None
        z = features if isinstance(features, np.ndarray) else features.float().cpu().numpy()
        scale = np.exp(self._log_std.cpu().numpy())
        # Matrix products are faster than sums over [B, A, F]
        noise: NDArray[np.float32] = np.matmul(theta * scale, z[:, :, None])[:, :, 0]
        noise /= np.maximum(np.sqrt((z * z) @ (scale * scale).T), np.float32(1e-12))
        return noise
