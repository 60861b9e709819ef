"""Cores stand between encoder and heads and may remember: features [T, B, F] → features [T, B, F'], and a state.

Built by model.py. The state is one tensor [B, S], so that a rollout and a checkpoint hold it as one array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from limelight.settings.schema import ModelConfig

Parts = tuple[Tensor, ...]
"""A state in its parts [B, H]: the output first (LSTM: h and c; GRU: h)."""
Step = Callable[[Tensor, Tensor, Parts], Parts]
"""One row: what inputs and the last output (overwritten) give to the gates, [B, G H] each, and the state before it."""


class Core(Protocol):
    """A memory (or none) unrolled over time."""

    num_features: int
    """F'."""
    state_size: int
    """S; 0 where there is no memory."""

    def initial_state(self, batch: int) -> Tensor | None:
        """The state before the first observation of ``batch`` episodes; None where there is no memory."""

    def __call__(
        self, features: Tensor, state: Tensor | None, episode_start: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Features after the memory [T, B, F'] and the state after the last row; ``episode_start`` [T, B] resets it."""


class FeedForward:
    """No memory: features pass as they are."""

    state_size = 0

    def __init__(self, num_features: int) -> None:
        self.num_features = num_features

    def initial_state(self, batch: int) -> None:
        """None: nothing to remember."""
        return

    def __call__(
        self, features: Tensor, state: Tensor | None, episode_start: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The features themselves and the state as given."""
        return features, state


class Recurrent(nn.Module):
    """An LSTM (S = 2H: h and c side by side) or GRU (S = H) cell, stepped over time:

    (hₜ, cₜ) = cell(xₜ, (1 − episode_startₜ) · (hₜ₋₁, cₜ₋₁)).

    Source: Hochreiter & Schmidhuber 1997; Cho et al. 2014.
    """

    # A loop, and not nn.LSTM on the rows between any two resets: with H = 64 and 16 × 64 rows that took half the time
    # where there were resets every 200 steps, but half as much again with resets every 20; 256 × 5 rows took it longer.
    def __init__(self, cell: nn.LSTMCell | nn.GRUCell) -> None:
        super().__init__()
        self.cell = cell
        self.num_features = cell.hidden_size
        self.num_gates = 4 if isinstance(cell, nn.LSTMCell) else 3
        self.state_size = 2 * cell.hidden_size if isinstance(cell, nn.LSTMCell) else cell.hidden_size
        self._step: Step = _lstm_step if isinstance(cell, nn.LSTMCell) else _gru_step

    def initial_state(self, batch: int) -> Tensor:
        """Zeros, [batch, S]."""
        return self.cell.weight_hh.new_zeros(batch, self.state_size)

    def forward(
        self, features: Tensor, state: Tensor | None = None, episode_start: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Outputs h [T, B, H] of features [T, B, F], and the state after the last row [B, S].

        Args:
            features: [T, B, F].
            state: before the first row, [B, S]; None is zeros.
            episode_start: 1 where a row begins an episode, and so must not see the state before it, [T, B] float32;
                None is nowhere.
        """
        cell, linear = self.cell, nn.functional.linear
        if state is None:
            state = self.initial_state(features.shape[1])
        parts: Parts = state.chunk(self.state_size // cell.hidden_size, -1)
        any_start = [] if episode_start is None else episode_start.any(1).tolist()
        outputs = []
        # The inputs' share of the gates is known of all rows at once: one product instead of T, forward and backward.
        for t, gates_x in enumerate(linear(features, cell.weight_ih, cell.bias_ih).unbind()):
            if episode_start is not None and any_start[t]:
                keep = (1.0 - episode_start[t]).unsqueeze(-1)
                parts = tuple(part * keep for part in parts)
            parts = self._step(gates_x, linear(parts[0], cell.weight_hh, cell.bias_hh), parts)
            outputs.append(parts[0])
        return torch.stack(outputs), torch.cat(parts, -1)

    def initialize(self) -> None:
        """Orthogonal weights of gain 1, gate by gate, and zero biases, but 1 for an LSTM's forget gate.

        So that it begins by keeping three quarters of its state and not half of it: gradients reach farther back.
        Source: Gers et al. 2000; Jozefowicz et al. 2015.
        """
        for weight in (self.cell.weight_ih, self.cell.weight_hh):
            for gate in weight.data.chunk(self.num_gates):
                nn.init.orthogonal_(gate)
        nn.init.zeros_(self.cell.bias_ih)
        nn.init.zeros_(self.cell.bias_hh)
        if isinstance(self.cell, nn.LSTMCell):
            nn.init.ones_(self.cell.bias_ih.data.chunk(4)[1])


# unsafe_chunk: the gates are activated in place, each by itself, as torch.lstm_cell and torch.gru_cell do it.


def _lstm_step(gates_x: Tensor, gates_h: Tensor, parts: Parts) -> Parts:
    i, f, g, o = gates_h.add_(gates_x).unsafe_chunk(4, -1)
    c = (f.sigmoid_() * parts[1]).add_(i.sigmoid_() * g.tanh_())
    return o.sigmoid_() * c.tanh(), c


def _gru_step(gates_x: Tensor, gates_h: Tensor, parts: Parts) -> Parts:
    (r_x, z_x, n_x), (r_h, z_h, n_h) = gates_x.unsafe_chunk(3, -1), gates_h.unsafe_chunk(3, -1)
    r, z = r_h.add_(r_x).sigmoid_(), z_h.add_(z_x).sigmoid_()
    n = n_x.add(n_h.mul_(r)).tanh_()
    return ((parts[0] - n).mul_(z).add_(n),)


def make_core(num_features: int, config: ModelConfig) -> Core:
    """The core of ``config`` for features [T, B, ``num_features``]."""
    if config.core == "feedforward":
        return FeedForward(num_features)
    kind = nn.LSTMCell if config.core == "lstm" else nn.GRUCell
    return Recurrent(kind(num_features, config.core_size))
