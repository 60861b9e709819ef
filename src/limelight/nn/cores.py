"""Cores between encoder and heads: features [T, B, F] → features [T, B, F'], with a recurrent state or without.

The recurrent state is one tensor [B, S], so that a rollout and a checkpoint hold it as one array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from limelight.settings.schema import ModelConfig

Parts = tuple[Tensor, ...]
"""The parts of a recurrent state, each [B, H], the output first: (h, c) of an LSTM, (h,) of a GRU."""
Step = Callable[[Tensor, Tensor, Parts], Parts]
"""One time step of a cell: from the pre-activations of the gates due to the input and due to the last output
(overwritten), [B, G H] each, and the state before the step, to the state after it."""


class Core(Protocol):
    """A layer that is unrolled over time, with memory or without."""

    num_features: int
    """F'."""
    state_size: int
    """S; 0 without memory."""

    def initial_state(self, batch: int) -> Tensor | None:
        """Return the state before the first observations of ``batch`` episodes, [batch, S]; None without memory."""

    def __call__(
        self, features: Tensor, state: Tensor | None, episode_start: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return features [T, B, F'] and the state after the last row; ``episode_start`` [T, B] resets the state."""


class FeedForward:
    """Passes features on unchanged; no memory."""

    state_size = 0

    def __init__(self, num_features: int) -> None:
        self.num_features = num_features

    def initial_state(self, batch: int) -> None:
        """Return None: there is no state."""
        return

    def __call__(
        self, features: Tensor, state: Tensor | None, episode_start: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the arguments ``features`` and ``state``."""
        return features, state


class Recurrent(nn.Module):
    """Unrolls an LSTM (S = 2H: h and c side by side) or GRU (S = H) cell over time:

    (hₜ, cₜ) = cell(xₜ, (1 − episode_startₜ) · (hₜ₋₁, cₜ₋₁)).

    Source: Hochreiter & Schmidhuber 1997; Cho et al. 2014.
    """

    # nn.LSTM between any two resets would be faster only if resets are rare.
    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        kind = CELLS[type(cell)]
        self.cell = cell
        self.num_features = cell.hidden_size
        self.num_gates = kind.num_gates
        self.state_size = kind.num_parts * cell.hidden_size
        self._step = kind.step

    def initial_state(self, batch: int) -> Tensor:
        """Return zeros, [batch, S]."""
        return self.cell.weight_hh.new_zeros(batch, self.state_size)

    def forward(
        self, features: Tensor, state: Tensor | None = None, episode_start: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return outputs h [T, B, H] and the state after the last row, [B, S].

        Args:
            features: [T, B, F].
            state: before the first row, [B, S]; None is zeros.
            episode_start: 1 where a row begins an episode and the state is zeroed first, [T, B] float32; None is 0
                everywhere.
        """
        cell, linear = self.cell, nn.functional.linear
        if state is None:
            state = self.initial_state(features.shape[1])
        parts: Parts = state.chunk(self.state_size // cell.hidden_size, -1)
        any_start = [] if episode_start is None else episode_start.any(1).tolist()
        outputs = []
        # The inputs of all rows are known, so their share of the gates is one product, forward and backward
        for t, gates_x in enumerate(linear(features, cell.weight_ih, cell.bias_ih).unbind()):
            if episode_start is not None and any_start[t]:
                keep = (1.0 - episode_start[t]).unsqueeze(-1)
                parts = tuple(part * keep for part in parts)
            parts = self._step(gates_x, linear(parts[0], cell.weight_hh, cell.bias_hh), parts)
            outputs.append(parts[0])
        return torch.stack(outputs), torch.cat(parts, -1)

    def initialize(self) -> None:
        """Set orthogonal weights of gain 1 gate by gate, and zero biases, except 1 for an LSTM's forget gate.

        With this bias the cell initially keeps about 3/4 of its state per step instead of 1/2, so gradients reach
        farther back.
        Source: Gers et al. 2000; Jozefowicz et al. 2015.
        """
        for weight in (self.cell.weight_ih, self.cell.weight_hh):
            for gate in weight.data.chunk(self.num_gates):
                nn.init.orthogonal_(gate)
        nn.init.zeros_(self.cell.bias_ih)
        nn.init.zeros_(self.cell.bias_hh)
        if isinstance(self.cell, nn.LSTMCell):
            nn.init.ones_(self.cell.bias_ih.data.chunk(4)[1])


# As torch.lstm_cell and torch.gru_cell do, the steps activate each gate in place; unsafe_chunk permits this.


def _lstm_step(gates_x: Tensor, gates_h: Tensor, parts: Parts) -> Parts:
    i, f, g, o = gates_h.add_(gates_x).unsafe_chunk(4, -1)
    c = (f.sigmoid_() * parts[1]).add_(i.sigmoid_() * g.tanh_())
    return o.sigmoid_() * c.tanh(), c


def _gru_step(gates_x: Tensor, gates_h: Tensor, parts: Parts) -> Parts:
    (r_x, z_x, n_x), (r_h, z_h, n_h) = gates_x.unsafe_chunk(3, -1), gates_h.unsafe_chunk(3, -1)
    r, z = r_h.add_(r_x).sigmoid_(), z_h.add_(z_x).sigmoid_()
    n = n_x.add(n_h.mul_(r)).tanh_()
    return ((parts[0] - n).mul_(z).add_(n),)


class CellKind(NamedTuple):
    """Facts about a kind of recurrent cell."""

    num_gates: int
    num_parts: int
    """Parts of the state, of H numbers each: S / H."""
    step: Step


CELLS: dict[type[nn.Module], CellKind] = {
    nn.LSTMCell: CellKind(4, 2, _lstm_step),
    nn.GRUCell: CellKind(3, 1, _gru_step),
}
"""The kinds of cells; acting in NumPy needs a step of each in ``numpy_engine/cells.py``."""
_BY_NAME = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}


def make_core(num_features: int, config: ModelConfig) -> Core:
    """Return the core of ``config`` for features [T, B, ``num_features``]."""
    if config.core == "feedforward":
        return FeedForward(num_features)
    return Recurrent(_BY_NAME[config.core](num_features, config.core_size))
