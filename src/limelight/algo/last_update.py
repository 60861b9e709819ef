"""The arrays of the last update, and the metrics that are computed from them on demand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np

from limelight.algo import losses
from limelight.settings.schema import AlgorithmConfig
from limelight.typing import FloatArray, Metrics

CLIPPED_WEIGHT = 0.01
"""Weight of an update in the running share of clipped gradients."""


class Targets(NamedTuple):
    """What the loss compares the network with: constants, [T, B]."""

    returns: FloatArray
    """Targets of the values."""
    advantages: FloatArray
    """Weights of ∇log π."""


class LastUpdate(NamedTuple):
    """The arrays of the last gradients, from which metrics are computed on demand; each [T, B]."""

    log_probs: FloatArray
    entropies: FloatArray
    values: FloatArray
    targets: Targets
    w: FloatArray
    """Weight of each row in the loss."""
    log_ratios: FloatArray | None = None
    """log π(aₜ|sₜ) − log π_old(aₜ|sₜ); None where the loss has no ratio."""
    ratios: FloatArray | None = None
    """Their exponentials."""
    old_values: FloatArray | None = None
    """V(sₜ) before the first update from the rollout; None where the loss does not clip values."""


@final
class Applied:
    """Gradient norm and step size of the last update that was applied, and the running share of clipped gradients.

    ``max_norm``: gradients of a larger norm are clipped; None: none are.
    """

    def __init__(self, max_norm: float | None) -> None:
        self.max_norm = max_norm
        self.clipped: float | None = None
        """Weighted mean over updates, the last one with weight ``CLIPPED_WEIGHT``; None before the first."""
        self._last: tuple[float, float] | None = None

    def note(self, norm: float, learning_rate: float) -> None:
        """Note an update by its gradient's norm before clipping, and its step size."""
        self._last = norm, learning_rate
        if self.max_norm is not None:
            clipped = float(norm > self.max_norm)
            share = clipped if self.clipped is None else self.clipped
            self.clipped = share + CLIPPED_WEIGHT * (clipped - share)

    def metrics(self) -> Metrics:
        """Return the metrics of the last update."""
        last = {} if self._last is None else {"train/grad_norm": self._last[0], "train/learning_rate": self._last[1]}
        return last if self.clipped is None else {**last, "train/grads_clipped": self.clipped}


def joined(updates: Sequence[LastUpdate]) -> LastUpdate:
    """Return minibatches as one, [N] each, whose weighted sums are the means of theirs."""
    if len(updates) == 1:
        return updates[0]

    def rows(arrays: Sequence[FloatArray]) -> FloatArray:
        return np.concatenate([array.reshape(-1) for array in arrays])

    def known(arrays: Sequence[FloatArray | None]) -> FloatArray | None:
        present = [array for array in arrays if array is not None]
        return rows(present) if present else None

    log_probs, entropies, values, targets, w, log_ratios, ratios, old_values = zip(*updates, strict=True)
    returns, advantages = zip(*targets, strict=True)
    return LastUpdate(
        rows(log_probs), rows(entropies), rows(values), Targets(rows(returns), rows(advantages)),
        rows(w) / len(updates), known(log_ratios), known(ratios), known(old_values),
    )  # fmt: skip


def loss_metrics(last: LastUpdate, a: AlgorithmConfig) -> Metrics:
    """Return the terms of the loss, the mean value, the explained variance and the spread of G − V of an update.

    With a ratio there are the estimate of KL(π_old ‖ π) and the share of clipped rows, too.
    """
    values, (returns, advantages), w = last.values, last.targets, last.w
    huber_delta = a.huber_delta if a.value_loss == "huber" else None
    ratios = last.ratios
    if ratios is None or a.clip_ratio is None:
        policy_loss = losses.policy_gradient_loss(last.log_probs, advantages, w)
    else:
        policy_loss = losses.clipped_policy_gradient_loss(ratios, advantages, w, a.clip_ratio)
    if last.old_values is None or a.value_clip is None:
        value_loss = losses.value_loss(values, returns, w, huber_delta)
    else:
        value_loss = losses.clipped_value_loss(values, last.old_values, returns, w, a.value_clip, huber_delta)
    metrics = {
        "train/policy_loss": float(policy_loss),
        "train/value_loss": float(value_loss),
        "train/entropy": -float(losses.entropy_loss(last.entropies, w)),
        "train/value_mean": float((values * w).sum()),
    }
    if w.size > 1:  # one transition has no variance to explain
        metrics["train/explained_variance"] = float(losses.explained_variance(values, returns, w))
        metrics["train/advantage_std"] = float(np.sqrt(losses.variance(returns - values, w)))
    if ratios is not None and last.log_ratios is not None:
        metrics["train/approx_kl"] = float(losses.approx_kl(last.log_ratios, ratios, w))
        if a.clip_ratio is not None:
            metrics["train/clip_fraction"] = float(losses.clip_fraction(ratios, w, a.clip_ratio))
    return metrics
