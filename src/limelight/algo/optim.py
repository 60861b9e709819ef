"""Optimizers over one flat parameter vector, gradient clipping, and schedules.

As all parameters are views of one vector, clipping is one norm and an optimizer step a handful of vector operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam

from limelight.settings.schema import OptimConfig


def clip_by_norm(grads: Tensor, max_norm: float | None) -> float:
    """Scale ``grads`` [n] in place to an L2 norm of at most ``max_norm`` and return the norm before.

    The norm is not finite if any gradient is not. With ``max_norm`` None nothing is scaled.
    """
    norm = math.sqrt(float(torch.dot(grads, grads)))
    if max_norm is not None and max_norm < norm < math.inf:
        grads.mul_(max_norm / (norm + 1e-6))
    return norm


class Optimizer(Protocol):
    """An update rule for a flat parameter vector [n]. Its state is given to it and may lie in shared memory."""

    state: dict[str, Tensor]
    """The optimizer state by name, as :func:`initial_state` makes it; saved in checkpoints."""

    def step(self, learning_rates: Sequence[tuple[slice, float]]) -> None:
        """Make one update from the present gradients; each slice of the vector has its own learning rate."""


class RMSprop:
    """RMSprop is  g ← αg + (1 − α)∇²,  θ ← θ − η ∇ / (√g + ε).

    With ``tf`` the denominator is √(g + ε) and g starts at 1, as in the A3C paper, which damps the first steps.
    Source: Tieleman & Hinton 2012; Mnih et al. 2016, section 4.
    """

    def __init__(
        self, params: Tensor, grads: Tensor, state: dict[str, Tensor], alpha: float, eps: float, tf: bool = False
    ) -> None:
        self.alpha = alpha
        self.eps = eps
        self.tf = tf
        self.state = state
        self._params, self._grads, self._g = as_arrays(params, grads, state["square_avg"])
        self._xp, self._step = workspace(self._params)

    def step(self, learning_rates: Sequence[tuple[slice, float]]) -> None:
        """Make one update; see :class:`Optimizer`."""
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
        apply_step(self._params, step, learning_rates)


class Adam:
    """Adam is  θ ← θ − η m̂ / (√v̂ + ε)  with bias-corrected moments.

    PyTorch's fused kernel makes one pass over the vectors, which is faster than separate NumPy operations.
    Source: Kingma & Ba 2015, algorithm 1.
    """

    def __init__(
        self, params: Tensor, grads: Tensor, state: dict[str, Tensor], beta1: float, beta2: float, eps: float
    ) -> None:
        self.state = state
        self._vectors = params, grads, state["exp_avg"], state["exp_avg_sq"]
        self._before = torch.zeros((), device=params.device)  # steps before this one, as PyTorch's kernel takes it
        self._step = partial(
            adam, max_exp_avg_sqs=[], state_steps=[self._before], beta1=beta1, beta2=beta2, eps=eps,
            weight_decay=0.0, amsgrad=False, maximize=False, fused=True,
        )  # fmt: skip

    def step(self, learning_rates: Sequence[tuple[slice, float]]) -> None:
        """Make one update; see :class:`Optimizer`."""
        self.state["step"] += 1
        before = int(self.state["step"]) - 1  # read once: other workers may count in between
        for span, learning_rate in learning_rates:
            self._before.fill_(before)
            params, grads, m, v = ([vector[span]] for vector in self._vectors)
            self._step(params, grads, m, v, lr=learning_rate)


class ObGD:
    """Overshooting-bounded gradient descent, on the actor and on the critic each:

    e ← γλ e + ∇,   η′ = min(η, 1 / (κ max(|δ|, 1) ‖e‖₁)),   θ ← θ − η′ δ e,   and e ← 0 where the episode ended.

    δ is the TD error of the step and ∇ the gradient of −log π (with its entropy bonus) and of −V. The bound keeps a
    step from moving the prediction of its own sample beyond the target.
    Source: Elsayed, Vasan & Mahmood 2024, algorithm 3.

    Args:
        params, grads, state: as of every optimizer; the state is the trace e.
        parts: the slice of each part of the vector, and its κ: the actor's, then the critic's.
        decay: γλ.
    """

    def __init__(
        self,
        params: Tensor,
        grads: Tensor,
        state: dict[str, Tensor],
        parts: Sequence[tuple[slice, float]],
        decay: float,
    ) -> None:
        self.state = state
        self._decay = decay
        self._grads, self._trace = grads, state["trace"]
        self._parts = [(params[span], self._trace[span], kappa) for span, kappa in parts]
        self._norms = [0.0] * len(self._parts)
        self._td_error = 0.0
        self._ended = False

    def observe(self, td_error: float, episode_ended: bool) -> None:
        """Take the TD error δ of the step whose gradient is applied next, and whether it ended the episode."""
        self._td_error, self._ended = td_error, episode_ended

    def accumulate(self) -> float:
        """Add the gradient to the traces; return ‖e‖₁ of all, which is not finite if a gradient or δ is not."""
        torch.add(self._grads, self._trace, alpha=self._decay, out=self._trace)
        self._norms = [float(torch.linalg.vector_norm(trace, 1)) for _, trace, _ in self._parts]
        return sum(self._norms) + 0.0 * self._td_error

    def step(self, learning_rates: Sequence[tuple[slice, float]]) -> None:
        """Make one update, after :meth:`accumulate`; see :class:`Optimizer`."""
        td_error = self._td_error
        for (params, trace, kappa), norm, (_, rate) in zip(self._parts, self._norms, learning_rates, strict=True):
            bound = kappa * max(abs(td_error), 1.0) * norm
            step_size = rate if rate * bound <= 1.0 else 1.0 / bound
            params.add_(trace, alpha=-step_size * td_error)
        if self._ended:
            self._trace.zero_()


def clipping(optimizer: Optimizer, grads: Tensor, max_norm: float | None) -> Callable[[], float]:
    """Return the function that prepares ``grads`` [n] for a step: it clips them, or adds them to the traces.

    The function returns a norm that is not finite if any gradient is not.
    """
    return optimizer.accumulate if isinstance(optimizer, ObGD) else partial(clip_by_norm, grads, max_norm)


def as_arrays(*tensors: Tensor) -> tuple[Any, ...]:
    """Return the same memory as NumPy arrays on the CPU, where their arithmetic is faster; else the tensors."""
    return tuple(t.numpy() for t in tensors) if tensors[0].device.type == "cpu" else tensors


def workspace(params: Any) -> tuple[Any, Any]:
    """Return the module whose functions take these vectors, and room for a step: pages that are there already.

    New memory for every intermediate result of 690,000 numbers took ten times as long as the arithmetic.
    """
    xp = torch if isinstance(params, Tensor) else np
    return xp, xp.empty_like(params)


def apply_step(params: Any, step: Any, learning_rates: Sequence[tuple[slice, float]]) -> None:
    """Move θ ← θ − η · step in place, slice by slice; ``step`` is overwritten."""
    for span, learning_rate in learning_rates:
        step[span] *= learning_rate
    params -= step


def initial_state(config: OptimConfig, params: Tensor) -> dict[str, Tensor]:
    """Return the optimizer state of ``config`` before the first step on ``params`` [n]."""
    if config.optimizer == "obgd":
        return {"trace": torch.zeros_like(params)}
    if config.optimizer == "adam":
        return {
            "exp_avg": torch.zeros_like(params),
            "exp_avg_sq": torch.zeros_like(params),
            "step": torch.zeros((), dtype=torch.int64),
        }
    return {"square_avg": torch.ones_like(params) if config.optimizer == "rmsprop_tf" else torch.zeros_like(params)}


def make_optimizer(
    config: OptimConfig,
    params: Tensor,
    grads: Tensor,
    state: dict[str, Tensor],
    critic: slice = slice(0),
    trace_decay: float = 0.0,
) -> Optimizer:
    """Make the optimizer of ``config`` that moves ``params`` [n] by ``grads`` [n] and keeps its state in ``state``.

    ``critic``, ``trace_decay``: the critic's slice, the last, and γλ, for an optimizer with eligibility traces.
    """
    if config.optimizer == "obgd":
        parts = [(slice(0, critic.start), config.actor_kappa), (critic, config.critic_kappa)]
        return ObGD(params, grads, state, parts, trace_decay)
    if config.optimizer == "adam":
        return Adam(params, grads, state, config.adam_beta1, config.adam_beta2, config.optim_eps)
    return RMSprop(params, grads, state, config.rms_alpha, config.optim_eps, tf=config.optimizer == "rmsprop_tf")


def schedule(kind: Literal["constant", "linear"], progress: float) -> float:
    """Return the factor on a scheduled setting (learning rate, entropy bonus).

    ``progress``: the share of the step budget that is used, 0 to 1; linear ends at 0.
    """
    return 1.0 if kind == "constant" else max(0.0, 1.0 - progress)
