"""Exploration noise of actions: independent from step to step, or correlated in time. Used by policy.py."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from limelight.errors import ConfigError
from limelight.nn.distributions import ActionDistribution, Gaussian, PolicyHead

Features = NDArray[np.floating] | Tensor
Noise = Callable[[Features], NDArray[np.float32]]
"""The randomness of the next actions, [B, A], whose policy head sees these features [B, F]."""


def white_noise(distribution: ActionDistribution, rng: np.random.Generator) -> Noise:
    """That of the distribution, anew at every step."""
    return lambda features: distribution.noise(rng, len(features))


class CorrelatedNoise:
    """zₜ = ρ zₜ₋₁ + √(1 − ρ²) εₜ with ε of the distribution, standard normal: every zₜ is so too, and drifts.

    Each action has the distribution that the policy says, so the learner's log π stays as it is; only consecutive
    actions are no longer independent. That explores where white noise averages out, as in MountainCarContinuous.
    With :class:`~limelight.nn.distributions.Gsde` what drifts are the weights θ [B, A, F] of the features z that its σ
    is made of, and the noise of an action is Σᵢ θⱼᵢ zᵢ e^(Lᵢⱼ) / √(Σᵢ (zᵢ e^(Lᵢⱼ))²): a smooth function of the state,
    also standard normal.
    Source: Uhlenbeck & Ornstein 1930, in discrete time; Lillicrap et al. 2016, section 7; Raffin et al. 2021.
    """

    def __init__(
        self, distribution: ActionDistribution, head: PolicyHead, rng: np.random.Generator, correlation: float
    ) -> None:
        if not isinstance(distribution, Gaussian):
            raise ConfigError(
                f"noise_correlation = {correlation:g}: only a Box of continuous actions has noise that can drift; "
                "set it to 0"
            )
        self._shape: tuple[int, ...] = (distribution.size,)
        self._log_std = head.gsde.log_std.detach().T if head.gsde is not None else None
        if self._log_std is not None:
            self._shape = tuple(self._log_std.shape)
        self._rng = rng
        self._keep, self._new = np.float32(correlation), np.float32(math.sqrt(1.0 - correlation**2))
        self.last: NDArray[np.float32] | None = None
        """z of the last step, [B, A], or θ, [B, A, F]."""

    def __call__(self, features: Features) -> NDArray[np.float32]:
        """The noise of the next step, [B, A]; drifts on over the ends of episodes."""
        fresh = self._rng.standard_normal((len(features), *self._shape), dtype=np.float32)
        self.last = fresh if self.last is None else self._keep * self.last + self._new * fresh
        return self.last if self._log_std is None else self._of_features(features, self.last)

    def _of_features(self, features: Features, theta: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self._log_std is not None
        z = features if isinstance(features, np.ndarray) else features.float().cpu().numpy()
        scale = np.exp(self._log_std.cpu().numpy())
        # As products of matrices in a seventh of the time that sums over [B, A, F] take.
        noise: NDArray[np.float32] = np.matmul(theta * scale, z[:, :, None])[:, :, 0]
        noise /= np.maximum(np.sqrt((z * z) @ (scale * scale).T), np.float32(1e-12))
        return noise
