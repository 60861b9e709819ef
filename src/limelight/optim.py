"""Flat parameters and the optimizers over them. Called by learner.py alone.

All parameters of a module are views into one vector and all gradients into another, so that a pull is one copy,
clipping one norm, an optimizer step a handful of vector operations, and the shared state one storage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.adam import adam

from limelight.config import OptimConfig
from limelight.envs.base import State


class FlatParameters:
    """The parameters of a module as views of ``params`` [n], their gradients as views of ``grads`` [n].

    Order and layout are those of ``module.parameters()``. Moving the module to another device, or setting a
    ``.grad`` to None, breaks the views: make this last, and clear gradients with ``grads.zero_()``.
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
        """The slice of the vector that holds exactly these parameters.

        Raises: ValueError if they do not lie side by side.
        """
        spans = sorted((self._span[id(p)] for p in parameters), key=lambda s: s.start)
        if any(a.stop != b.start for a, b in pairwise(spans)):
            raise ValueError("these parameters are not contiguous in the flat vector")
        return slice(spans[0].start, spans[-1].stop)


def clip_by_norm(grads: Tensor, max_norm: float | None) -> float:
    """Scale ``grads`` [n] in place to an L2 norm of at most ``max_norm``; the norm before, as a float.

    Not finite if any gradient is not. ``max_norm`` None only measures.
    """
    norm = math.sqrt(float(torch.dot(grads, grads)))
    if max_norm is not None and max_norm < norm < math.inf:
        grads.mul_(max_norm / (norm + 1e-6))
    return norm


class Optimizer(Protocol):
    """A rule that moves a flat parameter vector [n]; it is given its state, which may live in shared memory."""

    state: dict[str, Tensor]
    """Everything the rule remembers, by name, as :func:`initial_state` made it; shareable, saved in checkpoints."""

    def step(self, learning_rates: Sequence[tuple[slice, float]]) -> None:
        """One update from the gradients as they are now; each slice of the vector has its own learning rate."""


class RMSprop:
    """RMSprop:  g ← αg + (1 − α)∇²,  θ ← θ − η ∇ / (√g + ε);  ``tf``: √(g + ε), and g starts at 1, not 0.

    The TF form is the one of the A3C paper (ε inside the root); it damps the first steps.
    Source: Tieleman & Hinton 2012; Mnih et al. 2016, section 4.
    """

    def __init__(
        self, params: Tensor, grads: Tensor, state: dict[str, Tensor], alpha: float, eps: float, tf: bool = False
    ) -> None:
        self.alpha, self.eps, self.tf = alpha, eps, tf
        self.state = state
        self._params, self._grads, self._g = vectors(params, grads, state["square_avg"])
        self._xp, self._step = scratch(self._params)

    def step(self, learning_rates: Sequence[tuple[slice, float]]) -> None:
        """One update; see :class:`Optimizer`."""
        xp, grads, g, step = self._xp, self._grads, self._g, self._step
        g *= self.alpha
        xp.multiply(grads, grads, out=step)
        step *= 1.0 - self.alpha
        g += step
        if self.tf:
            xp.add(g, self.eps, out=step)
            xp.sqrt(step, out=step)
        else:
            xp.sqrt(g, out=step)
            step += self.eps
        xp.divide(grads, step, out=step)
        descend(self._params, step, learning_rates)


class Adam:
    """Adam with bias correction:  θ ← θ − η m̂ / (√v̂ + ε).

    PyTorch's own in one pass over the vectors: 0.5 ms for 677,000 numbers where NumPy's thirteen operations took 2.6,
    28 µs where they took 55 for 4,675. Source: Kingma & Ba 2015, algorithm 1.
    """

    def __init__(
        self, params: Tensor, grads: Tensor, state: dict[str, Tensor], beta1: float, beta2: float, eps: float
    ) -> None:
        self.state = state
        self._vectors = params, grads, state["exp_avg"], state["exp_avg_sq"]
        self._before = torch.zeros((), device=params.device)  # steps made, in the type that PyTorch wants
        self._step = partial(
            adam, max_exp_avg_sqs=[], state_steps=[self._before], beta1=beta1, beta2=beta2, eps=eps,
            weight_decay=0.0, amsgrad=False, maximize=False, fused=True,
        )  # fmt: skip

    def step(self, learning_rates: Sequence[tuple[slice, float]]) -> None:
        """One update; see :class:`Optimizer`."""
        self.state["step"] += 1
        before = int(self.state["step"]) - 1  # read once: other workers may count in between
        for span, learning_rate in learning_rates:
            self._before.fill_(before)
            params, grads, m, v = ([vector[span]] for vector in self._vectors)
            self._step(params, grads, m, v, lr=learning_rate)


def vectors(*tensors: Tensor) -> tuple[Any, ...]:
    """The same memory as NumPy arrays on the CPU, where they are faster at every length; else the tensors.

    A step of RMSprop took 30 µs on arrays against 58 for 4,675 numbers, 1,480 against 2,330 for 690,000.
    """
    return tuple(t.numpy() for t in tensors) if tensors[0].device.type == "cpu" else tensors


def scratch(params: Any) -> tuple[Any, Any]:
    """The module whose functions take these vectors, and room for a step: pages that are there already.

    New memory for every intermediate result of 690,000 numbers took ten times as long as the arithmetic.
    """
    xp = torch if isinstance(params, Tensor) else np
    return xp, xp.empty_like(params)


def descend(params: Any, step: Any, learning_rates: Sequence[tuple[slice, float]]) -> None:
    """θ ← θ − η · step, in place, slice by slice; ``step`` is used up."""
    for span, learning_rate in learning_rates:
        step[span] *= learning_rate
    params -= step


def initial_state(config: OptimConfig, params: Tensor) -> dict[str, Tensor]:
    """What the optimizer of ``config`` remembers before its first step on ``params`` [n]."""
    if config.optimizer == "adam":
        return {
            "exp_avg": torch.zeros_like(params),
            "exp_avg_sq": torch.zeros_like(params),
            "step": torch.zeros((), dtype=torch.int64),
        }
    return {"square_avg": torch.ones_like(params) if config.optimizer == "rmsprop_tf" else torch.zeros_like(params)}


def make_optimizer(config: OptimConfig, params: Tensor, grads: Tensor, state: dict[str, Tensor]) -> Optimizer:
    """The optimizer of ``config`` that moves ``params`` [n] by ``grads`` [n] and remembers in ``state``."""
    if config.optimizer == "adam":
        return Adam(params, grads, state, config.adam_beta1, config.adam_beta2, config.optim_eps)
    return RMSprop(params, grads, state, config.rms_alpha, config.optim_eps, tf=config.optimizer == "rmsprop_tf")


@dataclass(frozen=True)
class Master:
    """What updates move. A learner's own parameters, or vectors in shared memory that several learners pull from."""

    params: Tensor
    """The parameters, [n]."""
    target_params: Tensor | None
    """The target critic's parameters, [m], if there is one."""
    optimizer_state: dict[str, Tensor]
    """From :func:`initial_state`."""

    def get_state(self) -> State:
        """Copies of everything."""
        return {
            "params": self.params.clone(),
            "target_params": None if self.target_params is None else self.target_params.clone(),
            "optimizer": {name: tensor.clone() for name, tensor in self.optimizer_state.items()},
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`; copies into the tensors that are there."""
        self.params.copy_(torch.as_tensor(state["params"]))
        if self.target_params is not None:
            self.target_params.copy_(torch.as_tensor(state["target_params"]))
        for name, tensor in self.optimizer_state.items():
            tensor.copy_(torch.as_tensor(state["optimizer"][name]))


def copy_into(tensor: Tensor, array: NDArray[Any]) -> None:
    """Overwrite a tensor on any device; the array may be read-only, of which PyTorch makes no tensor without a copy."""
    if tensor.device.type == "cpu":
        np.copyto(tensor.numpy(), array)
    else:
        tensor.copy_(torch.tensor(array))


def schedule(kind: Literal["constant", "linear"], progress: float) -> float:
    """Factor on the learning rate after ``progress`` (0 to 1) of the step budget; linear ends at 0."""
    return 1.0 if kind == "constant" else max(0.0, 1.0 - progress)
