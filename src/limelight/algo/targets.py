"""Targets of the values and weights of ∇log π: the return estimator and the policy weight that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from limelight.algo.last_update import Targets
from limelight.algo.returns import gae, monte_carlo, n_step, standardize, td0
from limelight.settings.schema import AlgorithmConfig
from limelight.typing import FloatArray


class Inputs(NamedTuple):
    """Inputs of an estimator, each [T, B]; see :func:`limelight.algo.returns.gae`."""

    rewards: FloatArray
    values: FloatArray
    """V(sₜ), or q(sₜ, aₜ) of an action-value critic."""
    next_values: FloatArray
    discounts: FloatArray
    traces: FloatArray
    """For the λ of :func:`trace_lambda`."""
    valid: FloatArray


def trace_lambda(a: AlgorithmConfig) -> float:
    """Return the λ of the traces; estimators without λ follow the whole episode."""
    return a.gae_lambda if a.returns == "gae" else 1.0


def make_targets(x: Inputs, a: AlgorithmConfig, expected_values: Callable[[], FloatArray] | None = None) -> Targets:
    """Return the targets of a rollout, before its weights are normalised.

    With an action-value critic every return is of the pair (sₜ, aₜ), and all later actions are the policy's own, so
    λ-returns and n-step returns need no correction.

    Args:
        x: arrays of the rollout.
        a: settings.
        expected_values: returns Σ π(a|sₜ) q(sₜ, a) of an action-value critic, [T, B]; None: the critic computes V(s).
    """
    advantages = estimate(x, a)
    returns = x.values + advantages
    if a.normalize_returns:
        returns = standardize(returns, x.valid) + (1.0 - x.valid) * x.values
        advantages = (returns - x.values) * x.valid
    if expected_values is None:
        return Targets(returns, advantages if a.policy_weight == "advantage" else returns * x.valid)
    if a.policy_weight == "advantage":
        return Targets(returns, (x.values - expected_values()) * x.valid)
    return Targets(returns, advantages if a.policy_weight == "td_error" else x.values * x.valid)


def estimate(x: Inputs, a: AlgorithmConfig) -> FloatArray:
    """Return Gₜ − V(sₜ) by the estimator that ``returns`` names, [T, B]; 0 on invalid rows."""
    if a.returns == "gae":
        return gae(*x)
    if a.returns == "n_step":
        returns = n_step(*x, n=a.return_steps or len(x.rewards))
    elif a.returns == "mc":
        returns = monte_carlo(x.rewards, x.next_values, x.discounts, x.traces, x.valid)
    else:
        returns = td0(x.rewards, x.next_values, x.discounts)
    return (returns - x.values) * x.valid
