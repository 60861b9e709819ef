"""Flat parameters and the optimizers over them. Called by learner.py alone.

All parameters of a module are views into one vector and all gradients into another, so that a pull is one copy,
clipping one norm, an optimizer step a handful of vector operations, and the shared state one storage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from limelight.config import OptimConfig


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
        if any(a.stop != b.start for a, b in zip(spans, spans[1:], strict=False)):
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
    """A rule that moves ``params`` by ``grads``, both [n], in place; state tensors are made at construction."""

    state: dict[str, Tensor]
    """Everything the rule remembers, by name; shareable, saved in checkpoints."""

    def step(self, params: Tensor, grads: Tensor, learning_rates: Sequence[tuple[slice, float]]) -> None:
        """One update; each slice of the vector has its own learning rate."""


class RMSprop:
    """RMSprop:  g ← αg + (1 − α)∇²,  θ ← θ − η ∇ / (√g + ε);  ``tf``: √(g + ε), and g starts at 1, not 0.

    The TF form is the one of the A3C paper (ε inside the root); it damps the first steps.
    Source: Tieleman & Hinton 2012; Mnih et al. 2016, section 4.
    """

    def __init__(self, params: Tensor, alpha: float, eps: float, tf: bool = False) -> None:
        self.alpha, self.eps, self.tf = alpha, eps, tf
        square_avg = torch.ones_like(params) if tf else torch.zeros_like(params)
        self.state = {"square_avg": square_avg}
        self._denominator = torch.empty_like(params)

    def step(self, params: Tensor, grads: Tensor, learning_rates: Sequence[tuple[slice, float]]) -> None:
        """One update; see :class:`Optimizer`."""
        g = self.state["square_avg"]
        g.mul_(self.alpha).addcmul_(grads, grads, value=1.0 - self.alpha)
        if self.tf:
            denominator = torch.add(g, self.eps, out=self._denominator).sqrt_()
        else:
            denominator = torch.sqrt(g, out=self._denominator).add_(self.eps)
        for span, learning_rate in learning_rates:
            params[span].addcdiv_(grads[span], denominator[span], value=-learning_rate)


class Adam:
    """Adam with bias correction:  θ ← θ − η m̂ / (√v̂ + ε).

    Source: Kingma & Ba 2015, algorithm 1.
    """

    def __init__(self, params: Tensor, beta1: float, beta2: float, eps: float) -> None:
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.state = {
            "exp_avg": torch.zeros_like(params),
            "exp_avg_sq": torch.zeros_like(params),
            "step": torch.zeros((), dtype=torch.int64),
        }
        self._denominator = torch.empty_like(params)

    def step(self, params: Tensor, grads: Tensor, learning_rates: Sequence[tuple[slice, float]]) -> None:
        """One update; see :class:`Optimizer`."""
        m, v = self.state["exp_avg"], self.state["exp_avg_sq"]
        self.state["step"] += 1
        step = int(self.state["step"])
        m.lerp_(grads, 1.0 - self.beta1)
        v.mul_(self.beta2).addcmul_(grads, grads, value=1.0 - self.beta2)
        root_correction = math.sqrt(1.0 - self.beta2**step)
        denominator = torch.sqrt(v, out=self._denominator).div_(root_correction).add_(self.eps)
        for span, learning_rate in learning_rates:
            step_size = learning_rate / (1.0 - self.beta1**step)
            params[span].addcdiv_(m[span], denominator[span], value=-step_size)


def make_optimizer(config: OptimConfig, params: Tensor) -> Optimizer:
    """The optimizer of ``config`` with its state allocated for ``params`` [n]."""
    if config.optimizer == "adam":
        return Adam(params, config.adam_beta1, config.adam_beta2, config.optim_eps)
    return RMSprop(params, config.rms_alpha, config.optim_eps, tf=config.optimizer == "rmsprop_tf")


def schedule(kind: Literal["constant", "linear"], progress: float) -> float:
    """Factor on the learning rate after ``progress`` (0 to 1) of the step budget; linear ends at 0."""
    return 1.0 if kind == "constant" else max(0.0, 1.0 - progress)
