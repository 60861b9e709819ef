"""The NumPy engine: acting, forward pass and written-out backward pass over the model's own memory.

For networks of a few thousand parameters PyTorch's overhead per call is several times the arithmetic
(benchmarks/throughput.py, column "by autograd"); the same holds for the heads of a convolutional network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from limelight.nn.action_values import make_action_values
from limelight.nn.activation_cache import CachingEncoder, RolloutRows
from limelight.nn.bootstrap import with_final_values
from limelight.nn.cores import FeedForward
from limelight.nn.encoders import MLP, FeaturesMLP
from limelight.nn.images import set_image_scale
from limelight.nn.model import ActorCritic, Critic, ValueHead
from limelight.nn.noise import Noise
from limelight.nn.numpy_engine.distributions import numpy_distribution
from limelight.nn.numpy_engine.inputs import Inputs, hide, illegal, make_input_reader
from limelight.nn.numpy_engine.layers import Layer, Trunk, has_small_mlp, make_head
from limelight.spaces.images import PixelScale
from limelight.typing import FloatArray

if TYPE_CHECKING:
    from limelight.algo.rollout import Rollout


def supports(model: ActorCritic, encoder: CachingEncoder | None = None) -> bool:
    """Whether this engine computes a model: a small MLP, or heads behind a caching encoder; without memory."""
    if not isinstance(model.core, FeedForward):
        return False
    if encoder is None:
        return has_small_mlp(model)
    return isinstance(model.critic, ValueHead) and numpy_distribution(model.distribution) is not None


class NumpyNetwork:
    """See :class:`limelight.nn.network.Network`.

    Args:
        model: the parameters, which :func:`supports` accepts.
        num_steps: T of the rollouts that are learnt from.
        target_critic: for bootstrapping.
        encoder: the model's convolutional encoder with its cache, where only the heads are computed here.
    """

    def __init__(
        self,
        model: ActorCritic,
        num_steps: int = 0,
        target_critic: ValueHead | Critic | None = None,
        encoder: CachingEncoder | None = None,
    ) -> None:
        self.model = model
        self.target_critic = target_critic
        # SARSA draws the action after the rollout's last from the policy there
        actor_only = isinstance(model.critic, Critic) and model.config.critic_output == "v"
        self._front: _MlpFront | _CachedFront = (
            _CachedFront(encoder)
            if encoder is not None
            else _MlpFront(cast(MLP | FeaturesMLP, model.encoder), num_steps, actor_only)
        )
        self.policy_head = make_head(model.policy_head)
        distribution = numpy_distribution(model.distribution)
        assert distribution is not None
        self.distribution = distribution
        self.critic = NumpyCritic(model.critic)
        self.target = None if target_critic is None else NumpyCritic(target_critic)
        self._action_values = make_action_values(model, target_critic)
        self._illegal: NDArray[np.bool_] | None = None  # [T B, K], of the rollout last given to values
        self._params_of = self._all_params if model.mask is None else self._legal_params
        # Of the rollout last given to values: features [N, F], parameters [T B, K], actions [T B, *action_shape]
        self._features: FloatArray = np.zeros((0, 0), np.float32)
        self._params: FloatArray = np.zeros((0, 0), np.float32)
        self._actions: NDArray[Any] = np.zeros(0)
        self._shape = (0, 0)

    def begin_rollout(self) -> None:
        """Keep the activations of the coming rollout."""
        self._front.rows.begin()

    def parameters_changed(self) -> None:
        """Discard the activations that were kept."""
        self._front.rows.clear()

    def act(
        self, obs: NDArray[Any], state: FloatArray | None, episode_start: FloatArray, noise: Noise | None
    ) -> tuple[NDArray[Any], FloatArray | None]:
        """Act without memory."""
        features = self._front.act(obs)
        params = self._params_of(features, obs)
        return self.distribution.act(params, None if noise is None else noise(features)), state

    def forward(self, obs: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
        """Return distribution parameters [N, K] and values [N], or [N, n], of observations [N, *obs_shape]."""
        x, self._features = self._front.forward(obs)
        return self._params_of(self._features, obs), self.critic.forward(x, self._features)

    def _all_params(self, features: FloatArray, obs: NDArray[Any]) -> FloatArray:
        """Return distribution parameters [N, K] of features [N, F]."""
        return self.policy_head.forward(features)

    def _legal_params(self, features: FloatArray, obs: NDArray[Any]) -> FloatArray:
        """Return parameters with illegal actions masked by packed observations [N, D]."""
        params = self.policy_head.forward(features)
        self._illegal = illegal(obs, cast(slice, self.model.mask))
        hide(params, self._illegal)
        return params

    def values(self, rollout: Rollout, next_noise: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
        """Run the forward pass over the rollout; rows that acting has computed are not computed again."""
        T, B = self._shape = rollout.rewards.shape
        obs = rollout.obs.reshape((T + 1) * B, *rollout.obs.shape[2:])
        params, flat_values = self.forward(obs)
        self._params = params[: T * B]
        self._actions = rollout.actions.reshape(T * B, *rollout.actions.shape[2:])
        values = flat_values.reshape(T + 1, B, *flat_values.shape[1:])
        next_values = values[1:]
        if self.target is not None:
            next_values = self.target.forward(self._front.read(obs[B:])).reshape(next_values.shape)
        if self._action_values is not None:
            params = params.reshape(T + 1, B, -1)
            return self._action_values.read(params, values[:-1], next_values, rollout, next_noise)
        return values[:-1], with_final_values(next_values, rollout.final_obs, self.model, self.target_critic)

    def expected_values(self) -> FloatArray:
        """Compute Σ π q."""
        assert self._action_values is not None
        return self._action_values.expected()

    def log_probs(self) -> FloatArray:
        """Compute log π of the rollout's actions; their derivatives are discarded."""
        zeros = np.zeros(len(self._params), np.float32)
        return self.distribution.grad(self._params, self._actions, zeros, zeros)[0].reshape(self._shape)

    def backward(
        self, d_log_probs: FloatArray, d_entropies: FloatArray, d_values: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Run the written-out backward pass: heads, then trunks."""
        log_probs, entropies, d_params = self.distribution.grad(
            self._params, self._actions, d_log_probs.reshape(-1), d_entropies.reshape(-1)
        )
        if self._illegal is not None:  # no gradient reaches the logit of an illegal action
            np.putmask(d_params, self._illegal[: len(d_params)], np.float32(0.0))
        if self._action_values is not None:
            d_values = self._action_values.spread(d_values)
        self.backward_heads(d_params, d_values.reshape(len(d_params), -1))
        return log_probs.reshape(self._shape), entropies.reshape(self._shape)

    def backward_heads(self, d_params: FloatArray, d_outputs: FloatArray) -> None:
        """Write all gradients from ∂L/∂params [n, K] and ∂L/∂outputs of the critic, [n] or [n, m], of n rows."""
        features = self._features[: len(d_params)]
        d_features = cast(FloatArray, self.policy_head.backward(features, features, d_params, need_dx=True))
        d_shared = self.critic.backward(features, d_outputs)
        if d_shared is not None:
            d_features += d_shared
        self._front.backward(d_features)

    def set_image_scale(self, scale: PixelScale) -> None:
        """Set it in the model's encoder, the only one behind these heads."""
        set_image_scale(self.model, scale)

    def dead_filters(self) -> float | None:
        """Ask the encoder's cache."""
        return self._front.dead_filters()


class _MlpFront:
    """The shared part before the heads: an MLP whose activations stay where acting wrote them.

    ``actor_only``: the critic has a network of its own, so nothing reads the features of a rollout's last observations.
    """

    def __init__(self, encoder: MLP | FeaturesMLP, num_steps: int, actor_only: bool) -> None:
        self.read = make_input_reader(encoder)
        self.trunk = Trunk(encoder)
        self.actor_only = actor_only
        # Layers that normalise keep what backward needs of one pass, which acting is only if it is all of the rollout
        keeps = not self.trunk.normalizes or (actor_only and num_steps == 1)
        self.rows = RolloutRows(num_steps if keeps else 0)

    def act(self, obs: NDArray[Any]) -> FloatArray:
        """Return features [B, F]."""
        x: Any = self.read(obs)
        rows = self.rows.next(len(x))
        if rows is None and self.trunk.normalizes:
            self.rows.clear()
        total = (self.rows.num_steps + 1) * len(x)
        for layer in self.trunk.layers:
            x = layer.forward(x, None if rows is None else layer.buffer(total)[rows])
        return x

    def forward(self, obs: NDArray[Any]) -> tuple[Inputs, FloatArray]:
        """Return the inputs of the first layer and features [N, F]."""
        x, known = self.read(obs), self.rows.known(len(obs))
        return x, self.trunk.forward(x, known, known if known and self.actor_only else None)

    def backward(self, d_features: FloatArray) -> None:
        """Write the gradients of the trunk."""
        self.trunk.backward(d_features)

    def dead_filters(self) -> None:
        """Return None: there are no filters."""


class _CachedFront:
    """The shared part before the heads: a convolutional encoder with an activation cache."""

    def __init__(self, encoder: CachingEncoder) -> None:
        self.encoder = encoder
        self.rows = encoder.rows

    def read(self, obs: NDArray[Any]) -> FloatArray:
        """Return observations as they are: a target critic behind an encoder is not computed here."""
        return obs

    def act(self, obs: NDArray[Any]) -> FloatArray:
        """Return features [B, F]."""
        features: FloatArray = self.encoder.act(obs).numpy()
        return features

    def forward(self, obs: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
        """Return features [N, F], twice."""
        features: FloatArray = self.encoder.forward(obs).numpy()
        return features, features

    def backward(self, d_features: FloatArray) -> None:
        """Write the gradients of the encoder."""
        self.encoder.backward(torch.from_numpy(d_features))

    def dead_filters(self) -> float | None:
        """Return the share of filters that were 0 everywhere."""
        return self.encoder.dead_filters()


class NumpyCritic:
    """The critic: a head on the shared features, or a network of its own (a target critic too)."""

    def __init__(self, critic: nn.Module) -> None:
        self.trunk = Trunk(cast(MLP | FeaturesMLP, critic.encoder)) if isinstance(critic, Critic) else None
        head = critic.value_head if isinstance(critic, Critic) else critic
        self.head = Layer(cast(ValueHead, head).linear, None)
        self._is_state_value = cast(ValueHead, head).num_actions is None
        self._features: FloatArray = np.zeros((0, 0), np.float32)

    def forward(self, x: Inputs, shared_features: FloatArray | None = None) -> FloatArray:
        """Return values [N], or action values [N, n], of N inputs (or of the shared trunk's features [N, F])."""
        self._features = cast(FloatArray, shared_features) if self.trunk is None else self.trunk.forward(x)
        outputs = self.head.forward(self._features)
        return outputs[:, 0] if self._is_state_value else outputs

    def backward(self, shared_features: FloatArray, d_outputs: FloatArray) -> FloatArray | None:
        """Write the critic's gradients from ∂L/∂outputs, [n] or [n, m].

        Returns: ∂L/∂(shared features) where the trunk is shared, else None.
        """
        features = self._features[: len(d_outputs)]
        dy = d_outputs.reshape(len(d_outputs), -1)
        d_features = cast(FloatArray, self.head.backward(features, features, dy, need_dx=True))
        if self.trunk is None:
            return d_features
        self.trunk.backward(d_features)
        return None
