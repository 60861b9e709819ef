"""The network as the learner sees it, and the choice of the engine that computes it.

Two engines compute an actor-critic over the same parameters: PyTorch's autograd (any model, any device), and passes
written out in NumPy (small MLPs, and the heads behind a convolutional encoder). Arrays that go in and out are NumPy's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

from numpy.typing import NDArray
from torch import Tensor

from limelight.nn.activation_cache import make_caching_encoder
from limelight.nn.model import ActorCritic, Critic, ValueHead
from limelight.nn.noise import Noise
from limelight.nn.numpy_engine.cells import RecurrentActor
from limelight.nn.numpy_engine.cells import supports as supports_recurrent
from limelight.nn.numpy_engine.network import NumpyNetwork, supports
from limelight.nn.torch_engine import TorchNetwork
from limelight.spaces.images import PixelScale
from limelight.typing import FloatArray

if TYPE_CHECKING:
    from limelight.algo.rollout import Rollout

Engine = Literal["auto", "numpy", "autograd"]


class Network(Protocol):
    """An actor-critic on one engine. T steps, B environments, S numbers of recurrent state."""

    model: ActorCritic
    """The parameters; ``parameters_changed`` must follow every change of them."""
    target_critic: ValueHead | Critic | None

    def begin_rollout(self) -> None:
        """Keep the activations of the next T calls of :meth:`act`: they are the rows of the rollout learnt next."""

    def act(
        self, obs: NDArray[Any], state: FloatArray | None, episode_start: FloatArray, noise: Noise | None
    ) -> tuple[NDArray[Any], FloatArray | None]:
        """Return actions [B, *action_shape] and the recurrent state after the observations, [B, S].

        Args:
            obs: [B, *obs_shape].
            state: the recurrent state before them, [B, S]; None is zeros, or no memory. It is not modified.
            episode_start: 1 where the state is zeroed first, [B].
            noise: the randomness of the actions; None takes the most probable ones.
        """

    def values(self, rollout: Rollout, next_noise: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
        """Run the network over a rollout; return V(sₜ) and V(sₜ₊₁), each [T, B].

        V(sₜ₊₁) is for bootstrapping: of the target critic where there is one, of the final observation where the
        episode was truncated. An action-value critic has q(sₜ, aₜ) for V(sₜ), and for V(sₜ₊₁) the expectation
        Σ π(a|sₜ₊₁) q(sₜ₊₁, a), or q(sₜ₊₁, ã) of the action that ``next_noise`` [T B, 1] draws from the policy.
        """

    def expected_values(self) -> FloatArray:
        """Return Σ π(a|sₜ) q(sₜ, a), [T, B], of the rollout last given to :meth:`values`, by an action-value critic."""

    def log_probs(self) -> FloatArray:
        """Return log π(aₜ|sₜ), [T, B], of the rollout last given to :meth:`values`."""

    def backward(
        self, d_log_probs: FloatArray, d_entropies: FloatArray, d_values: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Write the gradients of all parameters; return log π(aₜ|sₜ) and the entropies, each [T, B].

        Args: ∂L/∂ log π(aₜ|sₜ), ∂L/∂H(π(·|sₜ)) and ∂L/∂V(sₜ) (or q(sₜ, aₜ)), each [T, B], for the rollout last given to
        :meth:`values`.
        """

    def parameters_changed(self) -> None:
        """Discard activations that were kept: they are of other parameters."""

    def set_image_scale(self, scale: PixelScale) -> None:
        """Normalise images by this mean and scale from now on, when acting and when learning."""

    def dead_filters(self) -> float | None:
        """Return the share of convolutional filters that were 0 everywhere in the rollout; None if not observed."""


def make_network(
    model: ActorCritic,
    num_steps: int = 0,
    grads: Tensor | None = None,
    target_critic: ValueHead | Critic | None = None,
    engine: Engine = "auto",
) -> Network:
    """Return ``model`` on the fastest engine that computes it; the only place that asks which.

    Args:
        model: the parameters.
        num_steps: T of the rollouts that are learnt from; 0: the network only acts.
        grads: the gradients of all parameters as one vector, of which each parameter's ``grad`` is a view.
        target_critic: a slow copy of the critic, for bootstrapping.
        engine: ``autograd`` keeps no activations and writes nothing out; ``numpy`` requires the NumPy engine.
    """
    if engine == "autograd":
        return TorchNetwork(model, grads, target_critic)
    encoder = make_caching_encoder(model.encoder, num_steps) if num_steps else None
    if engine == "numpy" or supports(model, encoder):
        return NumpyNetwork(model, num_steps, target_critic, encoder)
    actor = RecurrentActor(model) if supports_recurrent(model) else None
    return TorchNetwork(model, grads, target_critic, encoder, actor)
