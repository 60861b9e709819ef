"""The autograd engine: an actor-critic computed and differentiated by PyTorch, for any model on any device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limelight.nn.action_values import make_action_values
from limelight.nn.activation_cache import CachingEncoder
from limelight.nn.bootstrap import with_final_values
from limelight.nn.images import set_image_scale
from limelight.nn.model import ActorCritic, Critic, ValueHead
from limelight.nn.noise import Noise
from limelight.nn.numpy_engine.cells import RecurrentActor
from limelight.spaces.images import PixelScale
from limelight.typing import FloatArray

if TYPE_CHECKING:
    from limelight.algo.rollout import Rollout


class TorchNetwork:
    """See :class:`limelight.nn.network.Network`.

    Args:
        model: the parameters.
        grads: their gradients as one vector; None if the network only acts.
        target_critic: for bootstrapping.
        encoder: the model's encoder with an activation cache, if it has one.
        actor: acts in NumPy in place of the model, if it can.
    """

    def __init__(
        self,
        model: ActorCritic,
        grads: Tensor | None = None,
        target_critic: ValueHead | Critic | None = None,
        encoder: CachingEncoder | None = None,
        actor: RecurrentActor | None = None,
    ) -> None:
        self.model = model
        self.target_critic = target_critic
        self.device = next(model.parameters()).device
        self._grads = grads
        self._encoder = encoder
        self._actor = actor
        self._action_values = make_action_values(model, target_critic)
        # Of the rollout last given to values, with the graph that leads to the parameters
        self._params: Tensor | None = None
        self._values: Tensor | None = None
        self._actions: Tensor | None = None

    def begin_rollout(self) -> None:
        """Keep the encoder's activations of the coming rollout, where it has a cache."""
        if self._encoder is not None:
            self._encoder.rows.begin()

    def parameters_changed(self) -> None:
        """Discard the activations that were kept."""
        if self._encoder is not None:
            self._encoder.rows.clear()

    def act(
        self, obs: NDArray[Any], state: FloatArray | None, episode_start: FloatArray, noise: Noise | None
    ) -> tuple[NDArray[Any], FloatArray | None]:
        """Act by one forward pass of the model with T = 1."""
        if self._actor is not None:
            return self._actor.act(obs, state, episode_start, noise)
        with torch.inference_mode():
            features = None if self._encoder is None else self._encoder.act(obs)[None]
            if self.model.state_size:
                output = self.model(self._row(obs), self._tensor(state), self._row(episode_start), features)
                params, core_features = output.params[0], output.features[0]
                state = output.recurrent_state.cpu().numpy()
            else:
                both = self.model.policy(self._row(obs), features)
                params, core_features = both[0][0], both[1][0]
            if noise is None:
                actions = self.model.distribution.mode(params)
            else:
                drawn = torch.from_numpy(noise(core_features)).to(self.device)
                actions = self.model.distribution.sample(params, drawn)
            return actions.cpu().numpy(), state

    def values(self, rollout: Rollout, next_noise: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
        """Run the model over the rollout and keep the graph."""
        obs = torch.from_numpy(rollout.obs).to(self.device)
        state, episode_start = self._tensor(rollout.recurrent_state), None
        if state is not None:
            episode_start = torch.from_numpy(rollout.episode_start).to(self.device)
        features = None if self._encoder is None else self._encoder.unroll(rollout.obs)
        output = self.model(obs, state, episode_start, features)
        outputs = output.values if output.action_values is None else output.action_values
        self._params, self._values = output.params[:-1], outputs[:-1]
        self._actions = torch.from_numpy(rollout.actions).to(self.device)
        with torch.no_grad():
            if self.target_critic is None:
                next_values = outputs[1:]
            elif state is None:
                next_values = self.target_critic(obs[1:])
            else:  # the recurrent state at obs[1] is the one after obs[0]
                next_values = self.target_critic(obs, self.model.split_state(state)[1], episode_start)[1:]
        values, next_values = self._values.detach().cpu().numpy(), next_values.detach().cpu().numpy()
        if self._action_values is not None:
            params = output.params.detach().cpu().numpy()
            return self._action_values.read(params, values, next_values, rollout, next_noise)
        return values, with_final_values(next_values, rollout.final_obs, self.model, self.target_critic)

    def expected_values(self) -> FloatArray:
        """Compute Σ π q in NumPy."""
        assert self._action_values is not None
        return self._action_values.expected()

    def log_probs(self) -> FloatArray:
        """Compute log π of the rollout's actions without gradient."""
        assert self._params is not None
        assert self._actions is not None
        with torch.no_grad():
            log_probs: FloatArray = self.model.distribution.log_prob(self._params, self._actions).cpu().numpy()
            return log_probs

    def backward(
        self, d_log_probs: FloatArray, d_entropies: FloatArray, d_values: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Differentiate log π, entropies and values by autograd."""
        assert self._grads is not None
        assert self._params is not None
        assert self._values is not None
        assert self._actions is not None
        log_probs = self.model.distribution.log_prob(self._params, self._actions)
        entropies = self.model.distribution.entropy(self._params)
        if self._action_values is not None:
            d_values = self._action_values.spread(d_values)
        derivatives = [torch.from_numpy(d).to(self.device) for d in (d_log_probs, d_entropies, d_values)]
        self._grads.zero_()
        torch.autograd.backward((log_probs, entropies, self._values), derivatives)
        self._params = self._values = self._actions = None  # the graph is used up
        return log_probs.detach().cpu().numpy(), entropies.detach().cpu().numpy()

    def set_image_scale(self, scale: PixelScale) -> None:
        """Set it in the model and in the target critic."""
        set_image_scale(self.model, scale)
        if self.target_critic is not None:
            set_image_scale(self.target_critic, scale)

    def dead_filters(self) -> float | None:
        """Ask the encoder's cache."""
        return None if self._encoder is None else self._encoder.dead_filters()

    def _tensor(self, array: FloatArray | None) -> Tensor | None:
        return None if array is None else torch.from_numpy(array).to(self.device)

    def _row(self, array: NDArray[Any]) -> Tensor:
        """Return [B, ...] as [1, B, ...] on the model's device; float64 becomes float32, as rollouts store it."""
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        return torch.from_numpy(array).to(self.device)[None]
