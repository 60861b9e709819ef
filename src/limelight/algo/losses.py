"""Losses of actor-critic learning, to be minimised: pure functions on ``[T, B]`` arrays, NumPy's or PyTorch's.

They take log-probabilities and entropies, so any action distribution fits; ratios and exponentials come in as
arguments. Means run over valid rows: w is 0 on the others, whose numbers may be anything finite. Each loss has its
derivative beside it; the learner hands the derivatives to the network's backward pass.
"""

from __future__ import annotations

from limelight.typing import Array


def mask_weights(valid: Array) -> Array:
    """Return validₜ / Σ valid, [T, B]: Σ x · w is the mean of x over valid rows; 0 if there are none."""
    return valid / max(float(valid.sum()), 1.0)


def policy_gradient_loss(log_probs: Array, advantages: Array, w: Array) -> Array:
    """−mean(log π(aₜ|sₜ) · Âₜ), whose gradient is the policy gradient estimate.

    Args:
        log_probs: log π(aₜ|sₜ), [T, B].
        advantages: Âₜ, constant, [T, B]; in the plain actor-critic the return estimate Q̂ instead.
        w: :func:`mask_weights` of the valid rows, [T, B].
    Returns: scalar loss.
    Source: Williams 1992; Sutton et al. 2000.
    """
    return -(log_probs * advantages * w).sum()


def policy_gradient_loss_grad(advantages: Array, w: Array) -> Array:
    """∂ policy_gradient_loss / ∂ log_probs, [T, B]."""
    return -advantages * w


def value_loss(values: Array, returns: Array, w: Array, huber_delta: float | None = None) -> Array:
    """Mean loss of V(sₜ) against the constant Gₜ, scalar: (V − G)², or Huber's with ``huber_delta`` δ.

    Huber's loss of the error e is e² up to |e| = δ and 2δ|e| − δ² beyond: twice the textbook form, so that it equals
    the squared loss for small errors and ``vf_coef`` keeps its meaning. values, returns, w: [T, B].
    Source: Huber 1964.
    """
    error = values - returns
    if huber_delta is None:
        return (error**2 * w).sum()
    inside = error.clip(-huber_delta, huber_delta)
    return (inside * (2.0 * error - inside) * w).sum()


def value_loss_grad(values: Array, returns: Array, w: Array, huber_delta: float | None = None) -> Array:
    """∂ value_loss / ∂ values, [T, B]."""
    error = values - returns
    return 2.0 * (error if huber_delta is None else error.clip(-huber_delta, huber_delta)) * w


def entropy_loss(entropies: Array, w: Array) -> Array:
    """−mean H(π(·|sₜ)), scalar: minimising it keeps the policy exploring. entropies, w: [T, B].

    Source: Williams & Peng 1991; Mnih et al. 2016, section 4.
    """
    return -(entropies * w).sum()


def entropy_loss_grad(w: Array) -> Array:
    """∂ entropy_loss / ∂ entropies, [T, B]."""
    return -w


def explained_variance(values: Array, returns: Array, w: Array) -> Array:
    """1 − Var(G − V) / Var(G) over valid rows, a scalar metric: 1 is a perfect critic, 0 as good as a constant."""
    error = returns - values
    variance = ((returns - (returns * w).sum()) ** 2 * w).sum()
    residual = ((error - (error * w).sum()) ** 2 * w).sum()
    return 1.0 - residual / (variance + 1e-8)
