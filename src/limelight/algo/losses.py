"""Losses of actor-critic learning, to be minimised: free functions on ``[T, B]`` tensors, torch only.

They take log-probabilities and entropies, so any action distribution fits. Means run over valid rows; no row
of a reset, and no padding, counts. Each has its derivative beside it, for networks whose backward pass is
written out (nn/numpy_mlp.py); the tests hold the two together.
"""

from __future__ import annotations

from limelight.typing import Array


def row_weights(valid: Array) -> Array:
    """validₜ / Σ valid, [T, B]: Σ x · row_weights is the mean of x over valid rows; all 0 if there is none."""
    return valid / max(float(valid.sum()), 1.0)


def policy_gradient_loss(log_probs: Array, weights: Array, rows: Array) -> Array:
    """−mean(log π(aₜ|sₜ) · wₜ), whose gradient is the policy gradient estimate.

    Args:
        log_probs: log π(aₜ|sₜ), [T, B].
        weights:   wₜ, constant: the return estimate Q̂ (plain actor-critic) or the advantage Â (A2C, A3C), [T, B].
        rows:      :func:`row_weights` of the valid rows, [T, B].
    Returns: scalar loss.
    Source: Williams 1992; Sutton et al. 2000.
    """
    return -(log_probs * weights * rows).sum()


def policy_gradient_loss_grad(weights: Array, rows: Array) -> Array:
    """∂ policy_gradient_loss / ∂ log_probs, [T, B]."""
    return -weights * rows


def squared_value_loss(values: Array, targets: Array, rows: Array) -> Array:
    """Mean (V(sₜ) − Gₜ)², scalar; targets are constant. values, targets, rows: [T, B]."""
    return ((values - targets) ** 2 * rows).sum()


def squared_value_loss_grad(values: Array, targets: Array, rows: Array) -> Array:
    """∂ squared_value_loss / ∂ values, [T, B]."""
    return 2.0 * (values - targets) * rows


def huber_value_loss(values: Array, targets: Array, rows: Array, delta: float) -> Array:
    """Mean Huber loss with e = V(sₜ) − Gₜ: e² up to |e| = δ, 2δ|e| − δ² beyond.  Scalar.

    Twice the textbook form, so that it equals the squared loss for small errors and ``vf_coef`` keeps its meaning.
    Source: Huber 1964.
    """
    error = values - targets
    inside = error.clip(-delta, delta)
    return (inside * (2.0 * error - inside) * rows).sum()


def huber_value_loss_grad(values: Array, targets: Array, rows: Array, delta: float) -> Array:
    """∂ huber_value_loss / ∂ values, [T, B]."""
    return 2.0 * (values - targets).clip(-delta, delta) * rows


def entropy_loss(entropies: Array, rows: Array) -> Array:
    """−mean H(π(·|sₜ)): minimising it explores. entropies, rows: [T, B]. Scalar.

    Source: Williams & Peng 1991; Mnih et al. 2016, section 4.
    """
    return -(entropies * rows).sum()


def entropy_loss_grad(rows: Array) -> Array:
    """∂ entropy_loss / ∂ entropies, [T, B]."""
    return -rows


def explained_variance(values: Array, targets: Array, rows: Array) -> Array:
    """1 − Var(G − V) / Var(G) over valid rows, scalar: 1 is a perfect critic, 0 as good as a constant; a metric."""
    error = targets - values
    variance = ((targets - (targets * rows).sum()) ** 2 * rows).sum()
    residual = ((error - (error * rows).sum()) ** 2 * rows).sum()
    return 1.0 - residual / (variance + 1e-8)
