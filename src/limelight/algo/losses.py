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


def clipped_policy_gradient_loss(ratios: Array, advantages: Array, w: Array, clip_ratio: float) -> Array:
    """−mean min(rₜ Âₜ, clip(rₜ, 1−ε, 1+ε) Âₜ), scalar: no reward for moving a probability by more than the factor 1±ε.

    Args:
        ratios: rₜ = π(aₜ|sₜ) / π_old(aₜ|sₜ), [T, B]; π_old is constant.
        advantages: Âₜ, constant, [T, B].
        w: :func:`mask_weights` of the valid rows, [T, B].
        clip_ratio: ε.
    Source: Schulman et al. 2017, eq. 7.
    """
    raised = ratios.clip(max=1.0 + clip_ratio) * advantages.clip(min=0.0)
    lowered = ratios.clip(min=1.0 - clip_ratio) * advantages.clip(max=0.0)
    return -((raised + lowered) * w).sum()


def clipped_policy_gradient_loss_grad(ratios: Array, advantages: Array, w: Array, clip_ratio: float) -> Array:
    """∂ clipped_policy_gradient_loss / ∂ log π, [T, B], with ∂r/∂ log π = r; at r = 1 that of the plain loss."""
    raised = (advantages > 0.0) * (ratios <= 1.0 + clip_ratio)
    lowered = (advantages < 0.0) * (ratios >= 1.0 - clip_ratio)
    return -advantages * ratios * (raised + lowered) * w


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


def clipped_value_loss(
    values: Array, old_values: Array, returns: Array, w: Array, value_clip: float, huber_delta: float | None = None
) -> Array:
    """Mean of the larger of the losses of V(sₜ) and of V_old + clip(V − V_old, −c, c), scalar.

    A value that has moved by more than c towards Gₜ gains nothing more.

    Args:
        values, returns, w, huber_delta: as for :func:`value_loss`.
        old_values: V(sₜ) before the first update from the rollout, constant, [T, B].
        value_clip: c.
    Source: ``ppo2`` of OpenAI Baselines.
    """
    clipped, counts = _clip_values(values, old_values, returns, value_clip)
    return value_loss(clipped + counts * (values - clipped), returns, w, huber_delta)


def clipped_value_loss_grad(
    values: Array, old_values: Array, returns: Array, w: Array, value_clip: float, huber_delta: float | None = None
) -> Array:
    """∂ clipped_value_loss / ∂ values, [T, B]: 0 where the value is beyond c and the clipped one is farther from Gₜ."""
    return value_loss_grad(values, returns, w, huber_delta) * _clip_values(values, old_values, returns, value_clip)[1]


def _clip_values(values: Array, old_values: Array, returns: Array, value_clip: float) -> tuple[Array, Array]:
    """Return the clipped values, and whether V itself is counted: the one that is farther from Gₜ, [T, B].

    Both losses grow with the distance. Within the clip the two are equal but for rounding, and V is counted.
    """
    moves = values - old_values
    clipped = old_values + moves.clip(-value_clip, value_clip)
    return clipped, (abs(moves) <= value_clip) | (abs(values - returns) >= abs(clipped - returns))


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
    return 1.0 - variance(returns - values, w) / (variance(returns, w) + 1e-8)


def variance(x: Array, w: Array) -> Array:
    """Var(x) over valid rows, scalar. x, w: [T, B]."""
    return ((x - (x * w).sum()) ** 2 * w).sum()


def approx_kl(log_ratios: Array, ratios: Array, w: Array) -> Array:
    """Mean of (r − 1) − log r, a scalar metric: an estimate of KL(π_old ‖ π) that is never negative.

    Source: Schulman 2020, "Approximating KL divergence".
    """
    return ((ratios - 1.0 - log_ratios) * w).sum()


def clip_fraction(ratios: Array, w: Array, clip_ratio: float) -> Array:
    """Share of the rows with |r − 1| > ε, a scalar metric."""
    return ((abs(ratios - 1.0) > clip_ratio) * w).sum()
