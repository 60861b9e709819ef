"""The first layer of a network whose output is not finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from limelight.nn.model import ActorCritic
from limelight.typing import FloatArray


class LayerFault(NamedTuple):
    """An output that is not finite."""

    place: str
    value: float
    row: int
    env: int | None


class LayerCheck:
    """Runs a model over observations, and searches the outputs of all its layers.

    The pass is PyTorch's, whatever engine computes the model: both compute over the same parameters.
    """

    def __init__(self, model: ActorCritic) -> None:
        self.model = model
        self.names = {module: name for name, module in model.named_modules() if name}

    def __call__(self, obs: NDArray[Any], state: FloatArray | None, starts: FloatArray) -> LayerFault | None:
        """Return the first fault in [T, B, *obs_shape]: the earliest row, then the first layer; None without any.

        ``state`` [B, S] is before the first row; ``starts`` [T, B] is 1 where it is zeroed.
        """
        if self._first(obs, state, starts, lambda name, output: name) is None:
            return None
        for row in range(len(obs)):
            batch = obs.shape[1]
            found = self._first(
                obs[row : row + 1], state, starts[row : row + 1],
                lambda name, output, row=row, batch=batch: _fault(name, output, row, batch),  # type: ignore[misc]
            )  # fmt: skip
            if found is not None:
                return found
            state = self._state_after(obs[row : row + 1], state, starts[row : row + 1])
        return None

    def _first(
        self, obs: NDArray[Any], state: FloatArray | None, starts: FloatArray, make: Callable[[str, Tensor], Any]
    ) -> Any:
        """Return ``make(name, output)`` of the first layer with an output that is not finite."""
        found: list[Any] = []

        def look(module: nn.Module, _inputs: Any, outputs: Any) -> None:
            for output in outputs if isinstance(outputs, tuple | list) else [outputs]:
                if not found and isinstance(output, Tensor) and not torch.isfinite(output).all():
                    found.append(make(f"{self.names[module]} ({type(module).__name__})", output))

        handles = [module.register_forward_hook(look) for module in self.names]
        try:
            self._run(obs, state, starts)
        finally:
            for handle in handles:
                handle.remove()
        return found[0] if found else None

    def _state_after(self, obs: NDArray[Any], state: FloatArray | None, starts: FloatArray) -> FloatArray | None:
        if not self.model.state_size:
            return None
        after: FloatArray = self._run(obs, state, starts).recurrent_state.cpu().numpy()
        return after

    def _run(self, obs: NDArray[Any], state: FloatArray | None, starts: FloatArray) -> Any:
        """Run the model without changing anything in it: no dropout, no statistics of a batch."""
        device, was_training = next(self.model.parameters()).device, self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                recurrent = None if state is None else torch.from_numpy(state.copy()).to(device)
                return self.model(
                    torch.from_numpy(obs.copy()).to(device), recurrent, torch.from_numpy(starts.copy()).to(device)
                )
        finally:
            self.model.train(was_training)


def _fault(name: str, output: Tensor, row: int, batch: int) -> LayerFault:
    """Return the first number of one row's output that is not finite, and its environment where the shape tells it."""
    bad = torch.nonzero(~torch.isfinite(output))[0].tolist()
    value = float(output[tuple(bad)])
    axis = next((i for i, size in enumerate(output.shape[:2]) if size == batch), None)
    env = 0 if batch == 1 else None if axis is None else int(bad[axis])
    return LayerFault(f"layer {name}", value, row, env)
