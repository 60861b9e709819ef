"""Action distributions over the policy head's outputs; no torch.distributions in the inner loop.

Noise is drawn from the run's own NumPy generator and turned into actions by a pure function, so that every
acting path (torch, NumPy) takes the same actions from the same random stream.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from gymnasium.spaces import Discrete, Space
from numpy.typing import NDArray
from torch import Tensor

from limelight.config import ConfigError


class ActionDistribution(Protocol):
    """A family of distributions π(·|params) over one action space. ``params`` is the policy head's output [..., K]."""

    num_params: int
    """K."""

    def noise(self, rng: np.random.Generator, batch: int) -> NDArray[np.float32]:
        """The randomness of ``batch`` samples."""

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Actions [..., *action_shape] as a deterministic function of ``noise``."""

    def mode(self, params: Tensor) -> Tensor:
        """The most probable actions [..., *action_shape]."""

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Log π(action), [...]."""

    def entropy(self, params: Tensor) -> Tensor:
        """Entropy in nats, [...]."""


class Categorical:
    """One of the n actions start .. start + n − 1; ``params`` are unnormalised log-probabilities (logits) [..., n]."""

    def __init__(self, n: int, start: int = 0) -> None:
        self.num_params, self.start = n, start

    def noise(self, rng: np.random.Generator, batch: int) -> NDArray[np.float32]:
        """One uniform number in [0, 1) per sample, [batch, 1]."""
        return rng.random((batch, 1), dtype=np.float32)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Inverse transform: the first action whose cumulative probability exceeds the noise, int64 [...]."""
        cumulative = (params - params.amax(-1, keepdim=True)).exp().cumsum(-1)
        # Normalising would round: sums below 1 would let noise near 1 choose an action of probability 0.
        return (cumulative[..., :-1] <= noise * cumulative[..., -1:]).sum(-1) + self.start

    def mode(self, params: Tensor) -> Tensor:
        """The action of the largest logit (the first of equals), int64 [...]."""
        return params.argmax(-1) + self.start

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Log softmax(params)[action], [...]."""
        return params.log_softmax(-1).gather(-1, (actions.long() - self.start).unsqueeze(-1)).squeeze(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """−Σ p log p, [...]."""
        log_p = params.log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)


def make_distribution(space: Space[Any]) -> ActionDistribution:
    """The distribution family of an action space.

    Raises: ConfigError for a space that has none yet.
    """
    if isinstance(space, Discrete):
        return Categorical(int(space.n), int(space.start))
    raise ConfigError(f"action space {space}: not supported; supported are Discrete")
