"""The same small MLP in NumPy: acting, forward and a written-out backward over the model's own flat vectors.

For networks of a few thousand parameters PyTorch's per-call overhead is several times the arithmetic; so it is for the
heads of a convolutional network. learner.py takes this path where :func:`supports` says so; the tests hold it to
``ActorCritic`` and to autograd.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray
from torch import nn

from limelight.nn.activation_cache import Acted, CachingEncoder
from limelight.nn.cores import FeedForward
from limelight.nn.encoders import MLP
from limelight.nn.model import ActorCritic, Critic, ValueHead
from limelight.nn.noise import Noise
from limelight.nn.numpy_engine.distributions import numpy_distribution
from limelight.nn.numpy_engine.layers import MAX_WIDTH, Layer, Trunk, flattener, make_head

Float = NDArray[np.floating[Any]]


def supports(model: ActorCritic, kept: CachingEncoder | None = None) -> bool:
    """Whether the NumPy path computes this model: a small MLP, or heads on a ``kept`` encoder alone, without memory."""
    if not isinstance(model.core, FeedForward):
        return False
    if kept is None:
        return has_small_mlp(model)
    return isinstance(model.critic, ValueHead) and numpy_distribution(model.distribution) is not None


def has_small_mlp(model: ActorCritic) -> bool:
    """Whether encoder and distribution have a NumPy form: our MLP with tanh or ReLU, not too wide, on the CPU."""
    return (
        numpy_distribution(model.distribution) is not None
        and model.config.encoder is None  # a user's may be, or derive from, our MLP with other settings
        and isinstance(model.encoder, MLP)
        and isinstance(model.encoder.flatten.space, Box | Discrete)
        and model.config.activation in ("tanh", "relu")
        and max(model.config.hidden_sizes) <= MAX_WIDTH
        and next(model.parameters()).device.type == "cpu"
    )


class NumpyActorCritic:
    """Forward, act and backward of an ActorCritic that :func:`supports` accepts, over the same memory."""

    def __init__(self, model: ActorCritic, num_steps: int = 0, kept: CachingEncoder | None = None) -> None:
        """``num_steps``: T of the rollouts that are learnt from; where acting leaves its activations for them.

        ``kept``: the model's encoder, where that is a convolutional one and only the heads are computed here.
        """
        self.kept = kept
        if kept is None:
            encoder = cast(MLP, model.encoder)
            self.acted, self.flatten, self.trunk = Acted(num_steps), flattener(encoder.flatten), Trunk(encoder)
        self.policy_head = make_head(model.policy_head)
        distribution = numpy_distribution(model.distribution)
        assert distribution is not None
        self.distribution = distribution
        self.value = NumpyCritic(model.critic)
        self._features: Float = np.zeros((0, 0), np.float32)

    def act(self, obs: NDArray[Any], noise: Noise | None) -> NDArray[Any]:
        """Sampled actions [B, *action_shape] for the distribution's noise, or the most probable ones without."""
        features = self._act_trunk(obs) if self.kept is None else self.kept.act(obs).numpy()
        return self.distribution.act(self.policy_head.forward(features), None if noise is None else noise(features))

    def _act_trunk(self, obs: NDArray[Any]) -> Float:
        x = self.flatten(obs)
        rows = self.acted.next_rows(obs)
        for layer in self.trunk.layers:
            x = layer.forward(x, layer.buffer((self.acted.num_steps + 1) * len(x))[rows] if rows else None)
        return x

    def forward(self, obs: NDArray[Any]) -> tuple[Float, Float]:
        """Distribution parameters [N, K] and values [N] of observations [N, *obs_shape]."""
        if self.kept is None:
            x = self.flatten(obs)
            self._features = self.trunk.forward(x, self.acted.known_rows(obs))
        else:
            x = self._features = self.kept.forward(obs).numpy()
        return self.policy_head.forward(self._features), self.value.forward(x, self._features)

    def backward(self, d_params: Float, d_values: Float) -> None:
        """Write all gradients, given ∂L/∂params [n, K] and ∂L/∂values [n] of the first n rows of the last forward."""
        features = self._features[: len(d_params)]
        d_features = cast(Float, self.policy_head.backward(features, features, d_params, need_dx=True))
        d_trunk = self.value.backward(features, d_values)
        if d_trunk is not None:
            d_features += d_trunk
        if self.kept is None:
            self.trunk.backward(d_features)
        else:
            self.kept.backward(torch.from_numpy(d_features))

    def forget(self) -> None:
        """What acting has computed is of no use once parameters change."""
        (self.acted if self.kept is None else self.kept.acted).forget()


class NumpyCritic:
    """The value half: a head on the shared features, or a network of its own (a target critic too)."""

    def __init__(self, critic: nn.Module) -> None:
        self.trunk = Trunk(cast(MLP, critic.encoder)) if isinstance(critic, Critic) else None
        head = critic.value_head if isinstance(critic, Critic) else critic
        self.head = Layer(cast(ValueHead, head).linear, None)
        self._features: Float = np.zeros((0, 0), np.float32)

    def forward(self, x: Float, shared_features: Float | None = None) -> Float:
        """Values [N] of flat observations [N, D] (or of the shared trunk's features [N, F])."""
        self._features = cast(Float, shared_features) if self.trunk is None else self.trunk.forward(x)
        return self.head.forward(self._features)[:, 0]

    def backward(self, shared_features: Float, d_values: Float) -> Float | None:
        """Write the critic's gradients; ∂L/∂(shared features) where the trunk is shared, else None."""
        features = self._features[: len(d_values)]
        d_features = cast(Float, self.head.backward(features, features, d_values[:, None], need_dx=True))
        if self.trunk is None:
            return d_features
        self.trunk.backward(d_features)
        return None
