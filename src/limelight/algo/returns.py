"""Return and advantage estimators: pure functions on time-major ``[T, B]`` arrays, NumPy's or PyTorch's.

Episode ends are folded once, by :func:`discounts_and_traces`, into two arrays that every estimator takes:

- ``discounts`` γ (1 − terminated): the weight of V(sₜ₊₁). A terminal state has value 0; a truncated episode has the
  value of its final observation, which ``next_values`` holds.
- ``traces`` γ λ cₜ, where cₜ is 0 where the episode ended in either way, and on invalid rows: the weight of the rows
  after t in the estimate of row t.

``valid`` is 0 where no transition happened (the row only reset an environment): the advantage is 0 there, the target
V(sₜ), so the row has no gradient. ``next_values`` may come from a target critic V⁻; every identity below holds for it.
"""

from __future__ import annotations

from limelight.typing import Array


def discounts_and_traces(
    terminated: Array, truncated: Array, valid: Array, gamma: float, gae_lambda: float
) -> tuple[Array, Array]:
    """Fold episode ends into the discount of the next value and the weight of the next row's estimate.

    Args:
        terminated: 1 where the step reached a terminal state, [T, B].
        truncated: 1 where a time limit ended the episode, [T, B].
        valid: 0 where the step only reset an environment, [T, B].
        gamma: discount factor γ.
        gae_lambda: λ; 1 for estimators that have none.
    Returns: (discounts, traces), each [T, B].
    Raises: ValueError if the shapes differ.
    """
    _require_same_shape(terminated, truncated, valid)
    continues = (1.0 - terminated) * (1.0 - truncated) * valid
    return gamma * (1.0 - terminated), gamma * gae_lambda * continues


def gae(rewards: Array, values: Array, next_values: Array, discounts: Array, traces: Array, valid: Array) -> Array:
    """Advantages of the λ-return,  Âₜ = Gₜ − V(sₜ)  with Gₜ of :func:`td_lambda`.

    Computed as  Âₜ = δₜ + γλcₜ (Âₜ₊₁ + V(sₜ₊₁) − V⁻(sₜ₊₁))  with  δₜ = rₜ₊₁ + γ(1−dₜ) V⁻(sₜ₊₁) − V(sₜ). Without a
    target critic V⁻ = V and this is generalised advantage estimation. λ = 0 is the one-step TD error; λ = 1 is the
    n-step return up to the end of the rollout minus V (Monte Carlo, where the episode ends inside the rollout).

    Args:
        rewards: rₜ₊₁ for t = 0..T-1, as the learner sees them, [T, B].
        values: V(sₜ), [T, B].
        next_values: V⁻(sₜ₊₁), of the final observation on truncated rows, [T, B].
        discounts, traces: of :func:`discounts_and_traces`, [T, B].
        valid: 0 where the step only reset an environment, [T, B].
    Returns: advantages, [T, B]; 0 on invalid rows.
    Raises: ValueError if the shapes differ.
    Source: Schulman et al. 2016, eq. 16; Sutton & Barto 2018, eq. 12.3.

    >>> import numpy as np
    >>> one, zero = np.ones((3, 1), np.float32), np.zeros((3, 1), np.float32)
    >>> discounts, traces = discounts_and_traces(zero, zero, one, gamma=0.5, gae_lambda=1.0)
    >>> gae(one, zero, zero, discounts, traces, one)[:, 0].tolist()
    [1.75, 1.5, 1.0]
    """
    _require_same_shape(rewards, values, next_values, discounts, traces, valid)
    advantages = (rewards + discounts * next_values - values) * valid
    if len(rewards) > 1:
        # The next row's advantage is relative to V(sₜ₊₁), the bootstrap value it replaces is V⁻(sₜ₊₁)
        advantages[:-1] += traces[:-1] * (values[1:] - next_values[:-1])
        for t in range(len(rewards) - 2, -1, -1):
            advantages[t] += traces[t] * advantages[t + 1]
    return advantages


def td_lambda(
    rewards: Array, values: Array, next_values: Array, discounts: Array, traces: Array, valid: Array
) -> Array:
    """λ-returns  Gₜ = rₜ₊₁ + γ(1−dₜ) [(1 − λcₜ) V⁻(sₜ₊₁) + λcₜ Gₜ₊₁],  the targets of the values.

    λ = 0 is the TD(0) target rₜ₊₁ + γ V⁻(sₜ₊₁); λ = 1 is :func:`n_step` with n ≥ T.

    Args and raises: as :func:`gae`.
    Returns: targets, [T, B]; V(sₜ) on invalid rows.
    Source: Sutton & Barto 2018, eq. 12.18.
    """
    return values + gae(rewards, values, next_values, discounts, traces, valid)


def td0(rewards: Array, next_values: Array, discounts: Array) -> Array:
    """One-step targets  Gₜ = rₜ₊₁ + γ (1 − dₜ) V⁻(sₜ₊₁),  [T, B]; meaningless on invalid rows.

    Source: Sutton & Barto 2018, eq. 6.2.
    """
    _require_same_shape(rewards, next_values, discounts)
    return rewards + discounts * next_values


def n_step(
    rewards: Array, values: Array, next_values: Array, discounts: Array, traces: Array, valid: Array, n: int
) -> Array:
    """n-step targets  Gₜ = rₜ₊₁ + … + γⁿ⁻¹ rₜ₊ₙ + γⁿ V⁻(sₜ₊ₙ),  shorter at the end of an episode or rollout.

    Args: as :func:`gae`, with ``traces`` for λ = 1; ``n`` ≥ 1 rewards are summed before bootstrapping.
    Returns: targets, [T, B]; V(sₜ) on invalid rows.
    Raises: ValueError if the shapes differ or n < 1.
    Source: Sutton & Barto 2018, eq. 7.1.
    """
    _require_same_shape(rewards, values, next_values, discounts, traces, valid)
    if n < 1:
        raise ValueError(f"n = {n}: must be at least 1")
    one_step = rewards + discounts * next_values
    # The k-step return follows from the (k-1)-step return of the next row: G⁽ᵏ⁾ₜ = rₜ₊₁ + γ G⁽ᵏ⁻¹⁾ₜ₊₁ where the
    # trace goes on, and the one-step target where it is cut.
    targets = one_step * 1.0
    for _ in range(min(n, len(rewards)) - 1):
        targets[:-1] = one_step[:-1] + traces[:-1] * (targets[1:] - next_values[:-1])
    return valid * targets + (1.0 - valid) * values


def monte_carlo(rewards: Array, next_values: Array, discounts: Array, traces: Array, valid: Array) -> Array:
    """Discounted returns  Gₜ = rₜ₊₁ + γ Gₜ₊₁  of each episode, bootstrapped only where the rollout or a limit cut it.

    Args: as :func:`gae`, with ``traces`` for λ = 1.
    Returns: returns, [T, B]; 0 on invalid rows.
    Source: Sutton & Barto 2018, eq. 3.9.

    >>> import numpy as np
    >>> one, zero = np.ones((3, 1), np.float32), np.zeros((3, 1), np.float32)
    >>> discounts, traces = discounts_and_traces(zero, zero, one, gamma=0.5, gae_lambda=1.0)
    >>> monte_carlo(one, zero, discounts, traces, one)[:, 0].tolist()
    [1.75, 1.5, 1.0]
    """
    _require_same_shape(rewards, next_values, discounts, traces, valid)
    returns = (rewards + discounts * next_values) * valid
    for t in range(len(rewards) - 2, -1, -1):
        returns[t] += traces[t] * (returns[t + 1] - next_values[t])
    return returns


def vtrace(
    rewards: Array,
    values: Array,
    next_values: Array,
    discounts: Array,
    traces: Array,
    valid: Array,
    ratios: Array,
    max_rho: float = 1.0,
    max_c: float = 1.0,
) -> tuple[Array, Array]:
    """V-trace targets and advantages for rollouts of an older policy μ than the learner's π.

    vₜ = V(sₜ) + ρₜδₜ + γλcₜ min(max_c, πₜ/μₜ) (vₜ₊₁ − V⁻(sₜ₊₁))  with  ρ = min(max_rho, π/μ), and advantages
    ρₜ (rₜ₊₁ + γ(1−dₜ) [(1 − λcₜ) V⁻(sₜ₊₁) + λcₜ vₜ₊₁] − V(sₜ)). On-policy (ratios = 1) the targets are those of
    :func:`td_lambda` and the advantages those of :func:`gae`.

    Args: as :func:`gae`; ``ratios`` π(aₜ|sₜ)/μ(aₜ|sₜ), [T, B].
    Returns: (targets [T, B], V(sₜ) on invalid rows; advantages [T, B], 0 on invalid rows).
    Raises: ValueError if the shapes differ.
    Source: Espeholt et al. 2018, eq. 1 and section 4.2, with λ as in rlax.
    """
    _require_same_shape(rewards, values, next_values, discounts, traces, valid, ratios)
    rho = ratios.clip(max=max_rho)
    one_step = rewards + discounts * next_values
    corrections = rho * (one_step - values) * valid
    corrected_traces = traces * ratios.clip(max=max_c)
    corrections[:-1] += corrected_traces[:-1] * (values[1:] - next_values[:-1])
    for t in range(len(rewards) - 2, -1, -1):
        corrections[t] += corrected_traces[t] * corrections[t + 1]
    targets = values + corrections
    # In the advantage, the next state's value is the λ-mixture of V⁻ and the target
    bootstrapped = one_step * 1.0
    bootstrapped[:-1] += traces[:-1] * (targets[1:] - next_values[:-1])
    return targets, rho * (bootstrapped - values) * valid


def standardize(x: Array, valid: Array, eps: float = 1e-8) -> Array:
    """Return (x − mean) / (std + ε) over the valid rows, [T, B]; 0 on invalid rows.

    With a single valid row the result is 0, its deviation from its own mean.
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
