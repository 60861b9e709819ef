"""Return and advantage estimators: free functions on time-major ``[T, B]`` arrays, without state or settings.

Called by learner.py. They use arithmetic and indexing only, so NumPy arrays and torch tensors both work.
Masks are zeros and ones of the rewards' type. Three of them say all there is to say of an episode's end:

- ``terminated``: the next state has value 0. The discount of the row is 0.
- ``truncated``: the next state has a value, and ``next_values`` holds V(final observation). Only the trace is cut.
- ``valid = 0``: no transition happened (the row reset a finished environment). Advantage 0, target V(s): no gradient.
"""

from __future__ import annotations

from limelight.typing import Array


def gae(
    rewards: Array,
    values: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    valid: Array,
    gamma: float,
    gae_lambda: float,
) -> Array:
    """Generalised advantage estimates  Âₜ = δₜ + γ λ cₜ Âₜ₊₁  with  δₜ = rₜ₊₁ + γ (1 − dₜ) V(sₜ₊₁) − V(sₜ).

    dₜ is ``terminated``; cₜ is 0 where the episode ended in any way, else 1. λ = 0 is the one-step TD error,
    λ = 1 the n-step return up to the end of the rollout minus V (Monte Carlo, where the episode ends inside it).

    Args:
        rewards:     rₜ₊₁ for t = 0..T-1, as the learner sees them, [T, B].
        values:      V(sₜ), [T, B].
        next_values: V(sₜ₊₁); on truncated rows V of the final observation, [T, B]. May come from a target critic.
        terminated:  1 where the step reached a terminal state, [T, B].
        truncated:   1 where a time limit cut the episode, [T, B].
        valid:       0 where the step only reset an environment, [T, B].
        gamma:       discount factor γ.
        gae_lambda:  λ.
    Returns: advantages, [T, B]; 0 on invalid rows.
    Raises: ValueError if the shapes differ.
    Source: Schulman et al. 2016, eq. 16.

    >>> import numpy as np
    >>> one, zero = np.ones((3, 1), np.float32), np.zeros((3, 1), np.float32)
    >>> gae(one, zero, zero, zero, zero, one, gamma=0.5, gae_lambda=1.0)[:, 0].tolist()
    [1.75, 1.5, 1.0]
    """
    _require_same_shape(rewards, values, next_values, terminated, truncated, valid)
    advantages = (rewards + gamma * (1.0 - terminated) * next_values - values) * valid
    if len(rewards) > 1 and gae_lambda > 0.0:
        trace = gamma * gae_lambda * ((1.0 - terminated) * (1.0 - truncated) * valid)
        for t in range(len(rewards) - 2, -1, -1):
            advantages[t] += trace[t] * advantages[t + 1]
    return advantages


def td_lambda(
    rewards: Array,
    values: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    valid: Array,
    gamma: float,
    gae_lambda: float,
) -> Array:
    """TD(λ) return targets  Gₜ = V(sₜ) + Âₜ  with Âₜ of :func:`gae` (same arguments).

    λ = 0 is the TD(0) target rₜ₊₁ + γ V(sₜ₊₁).

    Returns: targets, [T, B]; V(sₜ) on invalid rows.
    Source: Sutton & Barto 2018, eq. 12.3.
    """
    return values + gae(rewards, values, next_values, terminated, truncated, valid, gamma, gae_lambda)


def td0(rewards: Array, next_values: Array, terminated: Array, gamma: float) -> Array:
    """One-step targets  Gₜ = rₜ₊₁ + γ (1 − dₜ) V(sₜ₊₁),  [T, B]; meaningless on invalid rows.

    Source: Sutton & Barto 2018, eq. 6.2.
    """
    _require_same_shape(rewards, next_values, terminated)
    return rewards + gamma * (1.0 - terminated) * next_values


def n_step(
    rewards: Array,
    values: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    valid: Array,
    gamma: float,
    n: int,
) -> Array:
    """n-step targets  Gₜ = rₜ₊₁ + … + γⁿ⁻¹ rₜ₊ₙ + γⁿ V(sₜ₊ₙ),  shorter at the end of an episode or rollout.

    Args: as :func:`gae`; ``n`` ≥ 1 rewards are summed before bootstrapping. n ≥ T is λ = 1.
    Returns: targets, [T, B]; V(sₜ) on invalid rows.
    Raises: ValueError if the shapes differ or n < 1.
    Source: Sutton & Barto 2018, eq. 7.1.
    """
    _require_same_shape(rewards, values, next_values, terminated, truncated, valid)
    if n < 1:
        raise ValueError(f"n = {n}: must be at least 1")
    T = len(rewards)
    one_step = rewards + gamma * (1.0 - terminated) * next_values
    ended = 1.0 - (1.0 - terminated) * (1.0 - truncated)
    # k-step returns from (k-1)-step returns of the next row. A row bootstraps from next_values where its
    # episode or the rollout ends: G⁽ᵏ⁾ₜ = rₜ₊₁ + γ G⁽ᵏ⁻¹⁾ₜ₊₁ elsewhere.
    targets = one_step * 1.0
    for _ in range(min(n, T) - 1):
        longer = rewards[:-1] + gamma * targets[1:]
        targets[:-1] = ended[:-1] * one_step[:-1] + (1.0 - ended[:-1]) * longer
    return valid * targets + (1.0 - valid) * values


def monte_carlo(
    rewards: Array, next_values: Array, terminated: Array, truncated: Array, valid: Array, gamma: float
) -> Array:
    """Discounted returns  Gₜ = rₜ₊₁ + γ Gₜ₊₁  of each episode, bootstrapped only where it was cut.

    A truncated row, and the last row of the rollout if its episode goes on, use ``next_values`` for what is unseen.

    Returns: returns, [T, B]; 0 on invalid rows.
    Source: Sutton & Barto 2018, eq. 3.9.

    >>> import numpy as np
    >>> one, zero = np.ones((3, 1), np.float32), np.zeros((3, 1), np.float32)
    >>> monte_carlo(one, zero, zero, zero, one, gamma=0.5)[:, 0].tolist()
    [1.75, 1.5, 1.0]
    """
    _require_same_shape(rewards, next_values, terminated, truncated, valid)
    returns = (rewards + gamma * (1.0 - terminated) * next_values) * valid
    goes_on = (1.0 - terminated) * (1.0 - truncated) * valid
    for t in range(len(rewards) - 2, -1, -1):
        longer = rewards[t] + gamma * returns[t + 1]
        returns[t] += goes_on[t] * (longer - returns[t])
    return returns


def vtrace(
    rewards: Array,
    values: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    valid: Array,
    ratios: Array,
    gamma: float,
    gae_lambda: float = 1.0,
    max_rho: float = 1.0,
    max_c: float = 1.0,
) -> tuple[Array, Array]:
    """V-trace targets and advantages for rollouts of an older policy μ than the learner's π.

    vₜ = V(sₜ) + Σₖ γᵏ⁻ᵗ (Πᵢ cᵢ) ρₖ δₖ with ρ = min(max_rho, π/μ), c = λ min(max_c, π/μ), and
    advantages ρₜ (rₜ₊₁ + γ vₜ₊₁ − V(sₜ)). On-policy (ratios = 1) the targets are those of :func:`td_lambda`.

    Args: as :func:`gae`; ``ratios`` π(aₜ|sₜ)/μ(aₜ|sₜ), [T, B].
    Returns: (targets [T, B], V(sₜ) on invalid rows; advantages [T, B], 0 on invalid rows).
    Raises: ValueError if the shapes differ.
    Source: Espeholt et al. 2018, eq. 1 and section 4.2.
    """
    _require_same_shape(rewards, values, next_values, terminated, truncated, valid, ratios)
    rho = ratios.clip(max=max_rho)
    goes_on = (1.0 - terminated) * (1.0 - truncated) * valid
    trace = gamma * gae_lambda * ratios.clip(max=max_c) * goes_on
    corrections = rho * (rewards + gamma * (1.0 - terminated) * next_values - values) * valid
    for t in range(len(rewards) - 2, -1, -1):
        corrections[t] += trace[t] * corrections[t + 1]
    targets = values + corrections
    # vₜ₊₁ inside the episode; V(next) where the episode or the rollout ends.
    next_targets = next_values * 1.0
    next_targets[:-1] += goes_on[:-1] * (targets[1:] - next_values[:-1])
    advantages = rho * (rewards + gamma * (1.0 - terminated) * next_targets - values) * valid
    return targets, advantages


def standardize(x: Array, valid: Array, eps: float = 1e-8) -> Array:
    """(x − mean) / (std + ε) over the valid rows, [T, B]; 0 on invalid rows.

    Returns: standardised x; x · 0 where only one row is valid (its deviation from its own mean).
    """
    _require_same_shape(x, valid)
    count = valid.sum().clip(min=1)
    mean = (x * valid).sum() / count
    centred = (x - mean) * valid
    std = ((centred * centred).sum() / count) ** 0.5
    return centred / (std + eps)


def _require_same_shape(*arrays: Array) -> None:
    if len({a.shape for a in arrays}) > 1:
        raise ValueError(f"shapes differ: {[tuple(a.shape) for a in arrays]}")
