"""Return estimators on small cases computed by hand, for NumPy and torch."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from limelight.algo import returns
from limelight.algo.returns import discounts_and_traces, gae, monte_carlo, n_step, standardize, td0, td_lambda, vtrace

AS = {"numpy": lambda x: np.array(x, np.float32), "torch": lambda x: torch.tensor(x, dtype=torch.float32)}


@pytest.fixture(params=AS)
def column(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """``column(1, 2, 3)`` is [T, 1] of the library under test."""
    return lambda *rows: AS[request.param](rows)[:, None]


def rows(x: Any) -> list[float]:
    return [float(v) for v in x[:, 0]]


class Stream:
    """Rewards 1 and 2, an end, an invalid row and a step of the next episode; V = 8 everywhere."""

    def __init__(self, column: Callable[..., Any], terminated: float, truncated: float) -> None:
        self.rewards = column(1, 2, 0, 4)
        self.values = column(8, 8, 8, 8)
        self.next_values = column(8, 8, 8, 8)
        self.terminated = column(0, terminated, 0, 0)
        self.truncated = column(0, truncated, 0, 0)
        self.valid = column(1, 1, 0, 1)
        self.discounts, self.traces = discounts_and_traces(self.terminated, self.truncated, self.valid, 0.5, 1.0)
        self.ends = (self.discounts, self.traces, self.valid)

    def args(self, lam: float) -> tuple[Any, ...]:
        """Arguments of the estimators for γ = ½ and λ."""
        return (self.rewards, self.values, self.next_values, self.discounts, lam * self.traces, self.valid)


def test_returns_end_at_a_termination(column: Callable[..., Any]) -> None:
    s = Stream(column, terminated=1, truncated=0)
    assert rows(monte_carlo(s.rewards, s.next_values, *s.ends)) == [1 + 0.5 * 2, 2, 0, 4 + 0.5 * 8]
    assert rows(gae(*s.args(1.0))) == [2 - 8, 2 - 8, 0, 8 - 8]
    assert rows(gae(*s.args(0.0))) == [1 + 4 - 8, 2 - 8, 0, 0]
    assert rows(n_step(*s.args(1.0), 1)) == [5, 2, 8, 8]
    assert rows(n_step(*s.args(1.0), 2)) == [2, 2, 8, 8]
    assert rows(td0(s.rewards, s.next_values, s.discounts))[:2] == [5, 2]


def test_truncation_bootstraps_from_the_final_observation(column: Callable[..., Any]) -> None:
    s = Stream(column, terminated=0, truncated=1)
    truncated = 2 + 0.5 * 8
    assert rows(monte_carlo(s.rewards, s.next_values, *s.ends)) == [1 + 0.5 * truncated, truncated, 0, 8]
    assert rows(gae(*s.args(1.0))) == [1 + 0.5 * truncated - 8, truncated - 8, 0, 0]
    assert rows(n_step(*s.args(1.0), 9)) == [1 + 0.5 * truncated, truncated, 8, 8]
    assert rows(td0(s.rewards, s.next_values, s.discounts))[:2] == [5, truncated]


def test_terminated_and_truncated_at_once_is_terminated(column: Callable[..., Any]) -> None:
    s = Stream(column, terminated=1, truncated=1)
    assert rows(monte_carlo(s.rewards, s.next_values, *s.ends))[:2] == [2, 2]
    assert rows(td_lambda(*s.args(1.0))) == [2, 2, 8, 8]


def test_td_lambda_mixes_n_step_returns(column: Callable[..., Any]) -> None:
    s = Stream(column, terminated=0, truncated=1)
    first = 0.5 * (1 + 0.5 * 8) + 0.5 * (1 + 0.5 * 6)  # half the one-step return, half the full return
    assert rows(td_lambda(*s.args(0.5))) == [first, 6, 8, 8]


def test_vtrace_clips_ratios(column: Callable[..., Any]) -> None:
    s = Stream(column, terminated=1, truncated=0)
    ratios = column(3.0, 0.5, 7.0, 0.25)
    targets, advantages = vtrace(*s.args(1.0), ratios, max_rho=2.0, max_c=1.0)
    last = 0.5 * (2 - 8)  # ρδ of the terminal row
    assert rows(targets) == [8 + 2 * (1 + 4 - 8) + 0.5 * 1.0 * last, 8 + last, 8, 8]
    assert rows(advantages) == [2 * (1 + 0.5 * (8 + last) - 8), 0.5 * (2 - 8), 0, 0]


@pytest.mark.parametrize("kind", AS)
def test_standardize_uses_valid_rows_only(kind: str) -> None:
    x, valid = AS[kind]([[1.0, 3.0], [500.0, 5.0]]), AS[kind]([[1.0, 1.0], [0.0, 1.0]])
    result = standardize(x, valid)
    root = (8.0 / 3.0) ** 0.5
    np.testing.assert_allclose(np.asarray(result), [[-2 / root, 0], [0, 2 / root]], rtol=1e-6)
    assert not np.asarray(standardize(x, valid * 0.0)).any()
    assert not np.asarray(standardize(x[:1, :1], valid[:1, :1])).any()


def test_arguments_are_not_modified(column: Callable[..., Any]) -> None:
    s = Stream(column, terminated=0, truncated=1)
    ratios = column(1, 1, 1, 1)
    before = [x.tolist() for x in (s.rewards, s.values, s.next_values, *s.ends, ratios)]
    monte_carlo(s.rewards, s.next_values, *s.ends)
    n_step(*s.args(1.0), 2)
    td_lambda(*s.args(0.5))
    vtrace(*s.args(1.0), ratios)
    for x, y in zip(before, (s.rewards, s.values, s.next_values, *s.ends, ratios), strict=True):
        assert x == y.tolist()


@pytest.mark.parametrize(
    "estimator", ["gae", "td_lambda", "n_step", "monte_carlo", "td0", "vtrace", "standardize", "discounts_and_traces"]
)
def test_shapes_must_agree(estimator: str, column: Callable[..., Any]) -> None:
    good, bad = column(1, 2, 3), column(1, 2)
    count = {"monte_carlo": 5, "td0": 3, "vtrace": 7, "standardize": 2, "discounts_and_traces": 3}.get(estimator, 6)
    settings = {"n_step": (2,), "discounts_and_traces": (0.9, 0.9)}
    call = getattr(returns, estimator)
    call(*[good] * count, *settings.get(estimator, ()))
    for wrong in range(count):
        arrays = [bad if i == wrong else good for i in range(count)]
        with pytest.raises(ValueError, match="shapes differ"):
            call(*arrays, *settings.get(estimator, ()))


def test_n_step_needs_n_of_1_or_more(column: Callable[..., Any]) -> None:
    x = column(1, 2)
    with pytest.raises(ValueError, match="n = 0: must be at least 1"):
        n_step(x, x, x, x, x, x, 0)


def test_docstring_examples_hold() -> None:
    outcome = doctest.testmod(returns)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def ring_error(gae_lambda: float) -> float:
    """Learn the values of a ring of 5 states (reward 1, γ = 0.99) with a target critic; return the relative error."""
    n, T, value = 5, 16, 100.0
    values, target_values = np.zeros((2, n))
    one, zero = np.ones((T, 1)), np.zeros((T, 1))
    ends = discounts_and_traces(zero, zero, one, 0.99, gae_lambda)
    for update in range(400):
        states = (update * T + np.arange(T + 1)) % n
        now, following = values[states[:-1], None], target_values[states[1:], None]
        targets = td_lambda(one, now, following, *ends, one)
        for state, target in zip(states[:-1], targets[:, 0], strict=True):
            values[state] += 0.1 * (target - values[state])
        target_values += 0.05 * (values - target_values)
    return float(np.abs(values - value).mean()) / value


def test_with_a_target_critic_a_larger_lambda_learns_sooner() -> None:
    """Where −V of later states stays in the target, λ has almost no effect, and λ = 1 diverges."""
    one_step, most, all_of_it = (ring_error(gae_lambda) for gae_lambda in (0.0, 0.95, 1.0))
    assert one_step > 0.8
    assert most < 0.4
    assert all_of_it < 0.3
