"""Acting with memory in NumPy: a small MLP and one step of an LSTM or GRU, over the model's own parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from limelight.nn.cores import Recurrent
from limelight.nn.encoders import MLP, FeaturesMLP
from limelight.nn.model import ActorCritic, Critic
from limelight.nn.noise import Noise
from limelight.nn.numpy_engine.distributions import numpy_distribution, sigmoid
from limelight.nn.numpy_engine.inputs import hide, illegal, make_input_reader
from limelight.nn.numpy_engine.layers import MAX_WIDTH, Trunk, has_small_mlp, make_head
from limelight.typing import FloatArray

CellStep = Callable[[FloatArray, FloatArray], FloatArray]
SUPPORTED_CELLS = (nn.LSTMCell, nn.GRUCell)
"""Cells of which :func:`make_cell_step` has a step; a model with another one acts by PyTorch."""


def supports(model: ActorCritic) -> bool:
    """Whether :class:`RecurrentActor` computes a model: a small built-in MLP on the CPU, and a recurrent core."""
    core = model.core
    has_step = isinstance(core, Recurrent) and type(core.cell) in SUPPORTED_CELLS
    return has_step and core.num_features <= MAX_WIDTH and has_small_mlp(model)


class RecurrentActor:
    """Acts with a recurrent model that :func:`supports` accepts; the values of the model are not computed."""

    def __init__(self, model: ActorCritic) -> None:
        towers = [model, model.critic] if isinstance(model.critic, Critic) else [model]
        self.trunks = [Trunk(cast(MLP | FeaturesMLP, tower.encoder)) for tower in towers]
        self.steps = [make_cell_step(cast(Recurrent, tower.core)) for tower in towers]
        self.read = make_input_reader(cast(MLP | FeaturesMLP, model.encoder))
        self.policy_head = make_head(model.policy_head)
        distribution = numpy_distribution(model.distribution)
        assert distribution is not None
        self.distribution = distribution
        self.state_size = model.core.state_size
        self.num_features = model.core.num_features
        self.mask = model.mask

    def act(
        self, obs: NDArray[Any], state: FloatArray | None, episode_start: FloatArray, noise: Noise | None
    ) -> tuple[NDArray[Any], FloatArray]:
        """Return actions [B, *action_shape] and the new state [B, S]; see :meth:`limelight.nn.network.Network.act`."""
        params, state = self.forward(obs, state, episode_start)
        drawn = None if noise is None else noise(state[:, : self.num_features])
        return self.distribution.act(params, drawn), state

    def forward(
        self, obs: NDArray[Any], state: FloatArray | None, episode_start: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return parameters [B, K], in a buffer that the next step overwrites, and the new state [B, S]."""
        x, size = self.read(obs), self.state_size
        if state is None:
            state = np.zeros((len(obs), size * len(self.steps)), np.float32)
        elif episode_start.any():
            state = state * (1.0 - episode_start)[:, None]
        parts = [
            step(trunk.forward(x), state[:, i * size : (i + 1) * size])
            for i, (trunk, step) in enumerate(zip(self.trunks, self.steps, strict=True))
        ]
        params = self.policy_head.forward(parts[0][:, : self.num_features])
        if self.mask is not None:
            hide(params, illegal(obs, self.mask))
        return params, parts[0] if len(parts) == 1 else np.concatenate(parts, 1)


def make_cell_step(core: Recurrent) -> CellStep:
    """Return the step of a core: features [B, F] and state [B, S] → state [B, S], the output h first."""
    cell, H = core.cell, core.num_features
    w_x, w_h, b_x, b_h = (p.detach().numpy() for p in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh))

    def lstm(x: FloatArray, state: FloatArray) -> FloatArray:
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

    def gru(x: FloatArray, h: FloatArray) -> FloatArray:
        z_x, z_h = x @ w_x.T, h @ w_h.T
        z_x += b_x
        z_h += b_h
        gates = sigmoid(z_x[:, : 2 * H] + z_h[:, : 2 * H])
        n = gates[:, :H] * z_h[:, 2 * H :]
        n += z_x[:, 2 * H :]
        np.tanh(n, out=n)
        after: FloatArray = n + gates[:, H:] * (h - n)
        return after

    return {nn.LSTMCell: lstm, nn.GRUCell: gru}[type(cell)]
