"""Values of final observations, for bootstrapping truncated episodes; both engines use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from limelight.nn.model import ActorCritic, Critic, ValueHead
from limelight.typing import FloatArray

if TYPE_CHECKING:
    from limelight.algo.rollout import FinalObs


def with_final_values(
    next_values: FloatArray, final: FinalObs | None, model: ActorCritic, target_critic: ValueHead | Critic | None
) -> FloatArray:
    """Return V(sₜ₊₁) [T, B] with V(final observation) on truncated rows whose next row is another episode's.

    Final observations are rare enough for PyTorch on every engine.
    """
    if final is None or not len(final.obs):
        return next_values
    obs, state = _inputs(final, model)
    with torch.no_grad():
        if target_critic is None:
            values = model(obs, state).values[0]
        else:
            values = target_critic(obs, model.split_state(state)[1])[0]
    next_values = next_values.copy()
    next_values[final.t, final.b] = values.cpu().numpy()
    return next_values


def with_final_action_values(
    next_params: FloatArray,
    next_q: FloatArray,
    final: FinalObs | None,
    model: ActorCritic,
    target_critic: ValueHead | Critic | None,
) -> tuple[FloatArray, FloatArray]:
    """Return the logits of π(·|sₜ₊₁) and q(sₜ₊₁, ·), each [T, B, n], with those of final observations.

    Rows are replaced as in :func:`with_final_values`.
    """
    if final is None or not len(final.obs):
        return next_params, next_q
    obs, state = _inputs(final, model)
    with torch.no_grad():
        output = model(obs, state)
        q = output.action_values if target_critic is None else target_critic(obs, model.split_state(state)[1])
    next_params, next_q = next_params.copy(), next_q.copy()
    next_params[final.t, final.b] = output.params[0].cpu().numpy()
    next_q[final.t, final.b] = q[0].cpu().numpy()
    return next_params, next_q


def _inputs(final: FinalObs, model: ActorCritic) -> tuple[Tensor, Tensor | None]:
    """Return the final observations [1, K, *obs_shape] and the recurrent state before them [K, S], on the device."""
    device = next(model.parameters()).device
    obs = torch.from_numpy(final.obs).to(device)[None]
    return obs, None if final.recurrent_state is None else torch.from_numpy(final.recurrent_state).to(device)
