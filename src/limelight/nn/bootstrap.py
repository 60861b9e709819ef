"""Values of final observations, for bootstrapping truncated episodes; both engines use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

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
    device = next(model.parameters()).device
    obs = torch.from_numpy(final.obs).to(device)[None]
    state = None if final.recurrent_state is None else torch.from_numpy(final.recurrent_state).to(device)
    with torch.no_grad():
        if target_critic is None:
            values = model(obs, state).values[0]
        else:
            values = target_critic(obs, model.split_state(state)[1])[0]
    next_values = next_values.copy()
    next_values[final.t, final.b] = values.cpu().numpy()
    return next_values
