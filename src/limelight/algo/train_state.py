"""The parameters of a network as one flat vector, and all that updates move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from limelight.settings.schema import ModelConfig
from limelight.typing import State


class FlatParameters:
    """Makes the parameters of a module views of ``params`` [n] and their gradients views of ``grads`` [n].

    The order is that of ``module.parameters()``. Moving the module to another device, or setting a ``.grad`` to None,
    breaks the views: construct this last, and clear gradients with ``grads.zero_()``.
    """

    def __init__(self, module: nn.Module) -> None:
        parameters = list(module.parameters())
        self.params = torch.cat([p.detach().reshape(-1) for p in parameters])
        self.grads = torch.zeros_like(self.params)
        self._span: dict[int, slice] = {}
        start = 0
        for p in parameters:
            self._span[id(p)] = span = slice(start, start + p.numel())
            p.data = self.params[span].view_as(p)
            p.grad = self.grads[span].view_as(p)
            start = span.stop

    def __len__(self) -> int:
        return self.params.numel()

    def span(self, parameters: Iterable[nn.Parameter]) -> slice:
        """Return the slice of the vector that holds exactly these parameters.

        Raises: ValueError if they do not lie side by side.
        """
        spans = sorted((self._span[id(p)] for p in parameters), key=lambda s: s.start)
        if any(a.stop != b.start for a, b in pairwise(spans)):
            raise ValueError("these parameters are not contiguous in the flat vector")
        return slice(spans[0].start, spans[-1].stop)


@dataclass(frozen=True)
class TrainState:
    """All that updates move: a learner's own parameters, or vectors in shared memory that learners pull from."""

    params: Tensor
    """The parameters, [n]."""
    target_params: Tensor | None
    """The target critic's parameters, [m], if there is one."""
    optimizer_state: dict[str, Tensor]
    """The optimizer's state as :func:`limelight.algo.optim.initial_state` makes it."""

    def get_state(self) -> State:
        """Return copies of everything."""
        return {
            "params": self.params.clone(),
            "target_params": None if self.target_params is None else self.target_params.clone(),
            "optimizer": {name: tensor.clone() for name, tensor in self.optimizer_state.items()},
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`; the values are copied into the existing tensors."""
        self.params.copy_(torch.as_tensor(state["params"]))
        if self.target_params is not None:
            self.target_params.copy_(torch.as_tensor(state["target_params"]))
        for name, tensor in self.optimizer_state.items():
            tensor.copy_(torch.as_tensor(state["optimizer"][name]))


class TargetClock:
    """Counts updates or finished episodes until the target critic moves: θ⁻ ← (1 − τ) θ⁻ + τ θ."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.count = 0
        """Updates or episodes since the last move."""

    def is_due(self, episodes_ended: int) -> bool:
        """Count an update that counts ``episodes_ended`` finished episodes; return whether the critic moves now."""
        self.count += 1 if self.config.target_update_at == "updates" else episodes_ended
        if self.count < self.config.target_update_every:
            return False
        self.count = 0
        return True


def copy_into(tensor: Tensor, array: NDArray[Any]) -> None:
    """Overwrite a tensor on any device; torch.from_numpy would reject a read-only array."""
    if tensor.device.type == "cpu":
        np.copyto(tensor.numpy(), array)
    else:
        tensor.copy_(torch.tensor(array))
