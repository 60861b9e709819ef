"""Targets of the values and weights of ∇log π: the return estimator and the policy weight that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from limelight.algo.last_update import Targets
from limelight.algo.returns import discounts_and_traces, gae, monte_carlo, n_step, standardize, td0, vtrace
from limelight.algo.rollout import Rollout
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
    """With λ = 1 for estimators that have none."""
    valid: FloatArray


def estimator_inputs(
    rollout: Rollout, rewards: FloatArray, values: FloatArray, next_values: FloatArray, a: AlgorithmConfig
) -> Inputs:
    """Return the inputs for the estimator that the settings name; rewards as the learner sees them."""
    trace_lambda = a.gae_lambda if a.returns == "gae" else 1.0
    ends = rollout.terminated, rollout.truncated, rollout.valid
    discounts, traces = discounts_and_traces(*ends, a.gamma, trace_lambda)
    return Inputs(rewards, values, next_values, discounts, traces, rollout.valid)


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


def vtrace_targets(x: Inputs, ratios: FloatArray) -> Targets:
    """Return the targets of a rollout of an older policy μ; ``ratios`` π(aₜ|sₜ)/μ(aₜ|sₜ), [T, B]."""
    return Targets(*vtrace(*x, ratios))


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
