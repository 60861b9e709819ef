"""The numbers that a learner takes from q(s, ·): q(sₜ, aₜ), bootstrap values, and expectations under the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from limelight.nn.bootstrap import with_final_action_values
from limelight.nn.distributions import Categorical
from limelight.nn.model import ActorCritic, Critic, ValueHead
from limelight.nn.numpy_engine.distributions import NumpyCategorical
from limelight.typing import FloatArray

if TYPE_CHECKING:
    from limelight.algo.rollout import Rollout


class ActionValues:
    """Reads the q(s, ·) of an action-value critic, in NumPy on every engine. T steps, B environments, n actions.

    Args:
        model: whose critic has one output per action.
        target_critic: q⁻, for bootstrapping.
    """

    def __init__(self, model: ActorCritic, target_critic: ValueHead | Critic | None) -> None:
        self.model = model
        self.target_critic = target_critic
        distribution = cast(Categorical, model.distribution)
        self._start = distribution.start
        self._sampler = NumpyCategorical(distribution)
        # Of the rollout last read
        self._params: FloatArray = np.zeros((0, 0, 0), np.float32)
        self._q: FloatArray = np.zeros((0, 0, 0), np.float32)
        self._taken = self._q.astype(np.intp)

    def read(
        self, params: FloatArray, q: FloatArray, next_q: FloatArray, rollout: Rollout, noise: FloatArray | None
    ) -> tuple[FloatArray, FloatArray]:
        """Return q(sₜ, aₜ) and the bootstrap value of sₜ₊₁, each [T, B].

        The latter is of the final observation where the episode was truncated.

        Args:
            params: logits of π(·|sₜ), those of illegal actions hidden, [T+1, B, n].
            q: q(sₜ, ·), [T, B, n].
            next_q: q⁻(sₜ₊₁, ·), [T, B, n].
            rollout: its actions and final observations.
            noise: uniform numbers [T B, 1], from which an action of π(·|sₜ₊₁) is drawn that is not executed; None
                takes the expectation Σ π(a|sₜ₊₁) q⁻(sₜ₊₁, a).
        """
        self._params, self._q = params[:-1], q
        self._taken = (rollout.actions - self._start)[..., None]
        next_params, next_q = with_final_action_values(
            params[1:], next_q, rollout.final_obs, self.model, self.target_critic
        )
        values = np.take_along_axis(q, self._taken, -1)[..., 0]
        if noise is None:
            return values, expectation(next_params, next_q)
        drawn = self._sampler.act(next_params.reshape(len(noise), -1).copy(), noise) - self._start  # act overwrites
        return values, np.take_along_axis(next_q, drawn.reshape(*values.shape, 1), -1)[..., 0]

    def expected(self) -> FloatArray:
        """Return Σ π(a|sₜ) q(sₜ, a) of the rollout last read, [T, B]."""
        return expectation(self._params, self._q)

    def spread(self, d_values: FloatArray) -> FloatArray:
        """Return ∂L/∂q(sₜ, ·) [T, B, n] from ∂L/∂q(sₜ, aₜ) [T, B]: 0 for the actions that were not taken."""
        d_q = np.zeros(self._q.shape, d_values.dtype)
        np.put_along_axis(d_q, self._taken, d_values[..., None], -1)
        return d_q


def expectation(params: FloatArray, q: FloatArray) -> FloatArray:
    """Return Σ p(a) q(a), [...], with p = softmax(params); params, q: [..., n]."""
    p = np.exp(params - params.max(-1, keepdims=True))
    weighted: FloatArray = (p * q).sum(-1) / p.sum(-1)
    return weighted


def make_action_values(model: ActorCritic, target_critic: ValueHead | Critic | None) -> ActionValues | None:
    """Return the reader of a model's action values; None if its critic computes V(s)."""
    return ActionValues(model, target_critic) if model.config.critic_output == "q" else None
