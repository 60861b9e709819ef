"""The policy head: features [..., F] → parameters of the action distribution [..., K]."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from limelight.nn.distributions import ActionDistribution, Gaussian

GSDE_EPS = 1e-6
"""Added to σ², so that log σ is finite when all features are 0."""


class Gsde(nn.Module):
    """Computes log σ [..., A] of features z [..., F]: σⱼ² = 1/F Σᵢ (zᵢ e^(Lᵢⱼ))² with parameters L [F, A].

    This is the variance of Σᵢ θᵢⱼ zᵢ e^(Lᵢⱼ) / √F for standard normal θ, from which
    :class:`~limelight.nn.noise.CorrelatedNoise` is made. No gradient flows through σ into the features.
    Source: Raffin, Kober & Stulp 2021, *Smooth exploration for robotic reinforcement learning*. The factor 1/F is not
    in the paper: with it σ starts near e^log_std_init at any width.
    """

    def __init__(self, num_features: int, num_actions: int, log_std_init: float) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.full((num_features, num_actions), log_std_init))

    def forward(self, features: Tensor) -> Tensor:
        """Return log σ, [..., A]."""
        variance = features.detach().square() @ (2.0 * self.log_std).exp() / features.shape[-1]
        return 0.5 * (variance + GSDE_EPS).log()


class PolicyHead(nn.Module):
    """Computes distribution parameters: linear outputs, then state-independent parameters or the log σ of Gsde."""

    def __init__(self, num_features: int, distribution: ActionDistribution) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, distribution.num_outputs)
        outputs, state_independent = np.split(distribution.initial, [distribution.num_outputs])
        self.state_independent = (
            nn.Parameter(torch.from_numpy(state_independent.copy())) if len(state_independent) else None
        )
        self.gsde: Gsde | None = None
        if isinstance(distribution, Gaussian) and distribution.gsde_init is not None:
            self.gsde = Gsde(num_features, distribution.size, distribution.gsde_init)
        self._initial_bias = torch.from_numpy(outputs.copy())

    def add_initial_bias(self) -> None:
        """Add the distribution's initial parameters to the bias; call it once, after all weights are initialised."""
        with torch.no_grad():
            self.linear.bias.add_(self._initial_bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return distribution parameters, [..., K]."""
        outputs: Tensor = self.linear(features)
        if self.gsde is not None:
            return torch.cat((outputs, self.gsde(features)), -1)
        if self.state_independent is None:
            return outputs
        return torch.cat((outputs, self.state_independent.expand(*outputs.shape[:-1], -1)), -1)
