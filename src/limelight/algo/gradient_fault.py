"""The origin of a gradient that is not finite, searched in the arrays of the update once it is known to be there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from limelight.algo.last_update import LastUpdate, loss_metrics
from limelight.nn.model import ActorCritic
from limelight.settings.schema import AlgorithmConfig
from limelight.typing import FloatArray


def origin_of(updates: Sequence[LastUpdate], algorithm: AlgorithmConfig, model: ActorCritic) -> str:
    """Return the first number of an update that is not finite, ``V(s) = nan in row 3 of environment 0``.

    The order is that of the computation: values, targets, log π, entropy, losses, gradients.

    Args:
        updates: the arrays of the update; none where they are in another process.
        algorithm: settings of the losses.
        model: whose gradients were refused.
    """
    for update in updates[-1:]:
        for name, array in _arrays(update):
            bad = np.argwhere(~np.isfinite(array))
            if len(bad):
                row, env, *_ = (*(int(i) for i in bad[0]), 0)
                return f"{name} = {array[tuple(bad[0])]} in row {row} of environment {env}"
        with np.errstate(all="ignore"):
            losses = loss_metrics(update, algorithm)
        for key, name in (("train/policy_loss", "the policy loss"), ("train/value_loss", "the value loss")):
            if not np.isfinite(losses[key]):
                return f"{name} = {losses[key]}"
    return _parameter(model)


def _arrays(update: LastUpdate) -> Iterator[tuple[str, FloatArray]]:
    """Yield the arrays of an update with their names, each after those that it is computed from."""
    yield "V(s)", update.values
    yield "the return target", update.targets.returns
    yield "the advantage", update.targets.advantages
    yield "log π", update.log_probs
    yield "the entropy", update.entropies
    if update.ratios is not None:
        yield "π/π_old", update.ratios


def _parameter(model: ActorCritic) -> str:
    """Return the first parameter whose gradient is not finite; where all are, the one with the largest."""
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, gradient in gradients.items():
        if not torch.isfinite(gradient).all():
            return f"the gradient of parameter {name}"
    if not gradients:
        return "the gradient"
    largest = max(gradients, key=lambda name: float(gradients[name].abs().max()))
    return f"the norm of the gradient, largest in parameter {largest}"
