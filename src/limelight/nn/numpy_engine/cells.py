"""Acting with memory in NumPy: small MLPs and one step of an LSTM or GRU, over the model's own parameters.

policy.py takes this path where :func:`supports` says so; the tests hold it to ``ActorCritic``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from limelight.nn.cores import Recurrent
from limelight.nn.encoders import MLP
from limelight.nn.model import ActorCritic, Critic
from limelight.nn.numpy_engine.distributions import numpy_distribution, sigmoid
from limelight.nn.numpy_engine.layers import MAX_WIDTH, Trunk, flattener, make_head
from limelight.nn.numpy_engine.network import Float, has_small_mlp

State = NDArray[np.float32]
CellStep = Callable[[Float, State], State]


def supports(model: ActorCritic) -> bool:
    """Whether this path computes the model: our small MLP on the CPU, and a core that remembers."""
    return isinstance(model.core, Recurrent) and model.core.num_features <= MAX_WIDTH and has_small_mlp(model)


class NumpyRecurrent:
    """One step (T = 1) of an ActorCritic that :func:`supports` accepts, without its values."""

    # From observations to actions with two layers of 64 and an LSTM of 64: one 146 µs, by torch 396; 16 251 and 449.
    def __init__(self, model: ActorCritic) -> None:
        towers = [model, model.critic] if isinstance(model.critic, Critic) else [model]
        self.trunks = [Trunk(cast(MLP, tower.encoder)) for tower in towers]
        self.steps = [cell_step(cast(Recurrent, tower.core)) for tower in towers]
        self.flatten = flattener(cast(MLP, model.encoder).flatten)
        self.policy_head = make_head(model.policy_head)
        distribution = numpy_distribution(model.distribution)
        assert distribution is not None
        self.distribution = distribution
        self.size = model.core.state_size
        self.num_features = model.core.num_features

    def step(self, obs: NDArray[Any], state: State | None, episode_start: NDArray[np.float32]) -> tuple[Float, State]:
        """Parameters [B, K], which the next step overwrites, and the new state [B, S], as ``forward``."""
        x, size = self.flatten(obs), self.size
        if state is None:
            state = np.zeros((len(obs), size * len(self.steps)), np.float32)
        elif episode_start.any():
            state = state * (1.0 - episode_start)[:, None]
        parts = [
            step(trunk.forward(x), state[:, i * size : (i + 1) * size])
            for i, (trunk, step) in enumerate(zip(self.trunks, self.steps, strict=True))
        ]
        params = self.policy_head.forward(parts[0][:, : self.num_features])
        return params, parts[0] if len(parts) == 1 else np.concatenate(parts, 1)


def cell_step(core: Recurrent) -> CellStep:
    """The step of a core: features [B, F] and state [B, S] → state [B, S], the output h first."""
    cell, H = core.cell, core.num_features
    w_x, w_h, b_x, b_h = (p.detach().numpy() for p in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh))

    def lstm(x: Float, state: State) -> State:
        z = x @ w_x.T
        z += state[:, :H] @ w_h.T
        z += b_x
        z += b_h
        g = np.tanh(z[:, 2 * H : 3 * H])
        sigmoid(z, out=z)
        g *= z[:, :H]
        after = np.empty_like(state, order="C")
        c = np.multiply(z[:, H : 2 * H], state[:, H:], out=after[:, H:])
        c += g
        np.multiply(z[:, 3 * H :], np.tanh(c), out=after[:, :H])
        return after

    def gru(x: Float, h: State) -> State:
        z_x, z_h = x @ w_x.T, h @ w_h.T
        z_x += b_x
        z_h += b_h
        gates = sigmoid(z_x[:, : 2 * H] + z_h[:, : 2 * H])
        n = gates[:, :H] * z_h[:, 2 * H :]
        n += z_x[:, 2 * H :]
        np.tanh(n, out=n)
        after: State = n + gates[:, H:] * (h - n)
        return after

    return lstm if isinstance(cell, nn.LSTMCell) else gru
