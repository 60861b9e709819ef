"""Return estimators compared with O(T²) oracles written from the definitions, and identities between estimators.

The oracles are plain Python loops over one environment. They read the ends of episodes from flags, not from masks.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from limelight.algo.returns import discounts_and_traces, gae, monte_carlo, n_step, standardize, td0, td_lambda, vtrace

Floats = NDArray[np.float64]

CONTINUES, TERMINATED, TRUNCATED, BOTH, RESET = "continues", "terminated", "truncated", "both", "reset"


@dataclass(frozen=True)
class Rows:
    """One rollout; every array [T, B]."""

    rewards: Floats
    values: Floats
    next_values: Floats
    terminated: Floats
    truncated: Floats
    valid: Floats
    ratios: Floats

    @property
    def shape(self) -> tuple[int, int]:
        return self.rewards.shape

    def gae_args(self, gamma: float, lam: float) -> tuple[Any, ...]:
        ends = discounts_and_traces(self.terminated, self.truncated, self.valid, gamma, lam)
        return (self.rewards, self.values, self.next_values, *ends, self.valid)

    def mc_args(self, gamma: float) -> tuple[Any, ...]:
        ends = discounts_and_traces(self.terminated, self.truncated, self.valid, gamma, 1.0)
        return (self.rewards, self.next_values, *ends, self.valid)

    def map(self, f: Callable[[Any], Any]) -> Rows:
        return Rows(*(f(getattr(self, field.name)) for field in fields(self)))

    def ends(self, t: int, b: int) -> bool:
        """Whether nothing of the same episode follows row t in this rollout."""
        return bool(self.terminated[t, b] or self.truncated[t, b]) or t == len(self.rewards) - 1

    def bootstrap(self, t: int, b: int) -> float:
        return 0.0 if self.terminated[t, b] else float(self.next_values[t, b])

    def delta(self, t: int, b: int, gamma: float) -> float:
        return float(self.rewards[t, b] + gamma * self.bootstrap(t, b) - self.values[t, b])

    def last(self, t: int, b: int) -> int:
        """The last row of the episode of row t within the rollout."""
        return t if self.ends(t, b) else self.last(t + 1, b)


# --------------------------------------------------------------------------- oracles


def per_row(rows: Rows, of_valid: Callable[[int, int], float], invalid: Floats | float) -> Floats:
    result = np.zeros(rows.shape) + invalid
    for t, b in np.ndindex(rows.shape):
        if rows.valid[t, b]:
            result[t, b] = of_valid(t, b)
    return result


def n_step_return(rows: Rows, t: int, b: int, gamma: float, n: int) -> float:
    stop = min(t + n - 1, rows.last(t, b))
    paid = sum(gamma ** (k - t) * float(rows.rewards[k, b]) for k in range(t, stop + 1))
    return paid + gamma ** (stop - t + 1) * rows.bootstrap(stop, b)


def oracle_n_step(rows: Rows, gamma: float, n: int) -> Floats:
    return per_row(rows, lambda t, b: n_step_return(rows, t, b, gamma, n), invalid=rows.values)


def oracle_td_lambda(rows: Rows, gamma: float, lam: float) -> Floats:
    """The λ-return as the weighted mean of all n-step returns, each bootstrapped by ``next_values``."""

    def mixture(t: int, b: int) -> float:
        longest = rows.last(t, b) - t + 1
        returns = [n_step_return(rows, t, b, gamma, n) for n in range(1, longest + 1)]
        return (1 - lam) * sum(lam**i * g for i, g in enumerate(returns[:-1])) + lam ** (longest - 1) * returns[-1]

    return per_row(rows, mixture, invalid=rows.values)


def oracle_gae(rows: Rows, gamma: float, lam: float) -> Floats:
    return (oracle_td_lambda(rows, gamma, lam) - rows.values) * rows.valid


def oracle_monte_carlo(rows: Rows, gamma: float) -> Floats:
    return per_row(rows, lambda t, b: n_step_return(rows, t, b, gamma, len(rows.rewards)), invalid=0.0)


def oracle_vtrace(rows: Rows, gamma: float, lam: float, max_rho: float, max_c: float) -> tuple[Floats, Floats]:
    def target(t: int, b: int) -> float:
        ratio = float(rows.ratios[t, b])
        total = float(rows.values[t, b]) + min(max_rho, ratio) * rows.delta(t, b, gamma)
        if not rows.ends(t, b):
            total += gamma * lam * min(max_c, ratio) * (target(t + 1, b) - rows.bootstrap(t, b))
        return total

    def advantage(t: int, b: int) -> float:
        following = rows.bootstrap(t, b)
        if not rows.ends(t, b):
            following = (1 - lam) * following + lam * target(t + 1, b)
        rho = min(max_rho, float(rows.ratios[t, b]))
        return rho * (float(rows.rewards[t, b]) + gamma * following - float(rows.values[t, b]))

    return per_row(rows, target, invalid=rows.values), per_row(rows, advantage, invalid=0.0)


# --------------------------------------------------------------------------- generated rollouts


@st.composite
def rollouts(
    draw: st.DrawFn, streams: tuple[str, ...] = ("next_step", "same_step"), one_value_function: bool = False
) -> Rows:
    """A rollout of up to 9 steps of up to 3 environments, whose episodes end in all ways and at several rates.

    ``next_step``: each row after an end is a reset, and the rollout may begin with one; ``same_step``: no resets.
    ``one_value_function``: V(sₜ₊₁) is ``values[t + 1]`` while the episode goes on (no target critic).
    """
    T, B = draw(st.sampled_from([6, 1, 2, 3, 9])), draw(st.sampled_from([2, 1, 3]))
    stream, rate = draw(st.sampled_from(streams)), draw(st.sampled_from([0.4, 0.8, 0.15]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = np.empty((T, B), object)
    for b in range(B):
        reset_next = stream == "next_step" and rng.random() < 0.3
        for t in range(T):
            ends = rng.random() < rate
            kinds[t, b] = RESET if reset_next else rng.choice([TERMINATED, TRUNCATED, BOTH]) if ends else CONTINUES
            reset_next = stream == "next_step" and kinds[t, b] in (TERMINATED, TRUNCATED, BOTH)
    valid = kinds != RESET
    values, next_values = 5.0 * rng.standard_normal((2, T, B))
    if one_value_function:
        inside = kinds[:-1] == CONTINUES
        next_values[:-1][inside] = values[1:][inside]
    return Rows(
        rewards=3.0 * rng.standard_normal((T, B)) * valid,
        values=values,
        next_values=next_values,
        terminated=((kinds == TERMINATED) | (kinds == BOTH)).astype(float),
        truncated=((kinds == TRUNCATED) | (kinds == BOTH)).astype(float),
        valid=valid.astype(float),
        ratios=np.exp(rng.standard_normal((T, B))),
    )


FACTORS, CLIPS = st.sampled_from([0.9, 1.0, 0.5, 0.99, 0.0]), st.sampled_from([0.5, 1.0, 2.0])
LIBRARIES = {
    "numpy": lambda x: x,
    "numpy float32": lambda x: x.astype(np.float32),
    "torch": lambda x: torch.from_numpy(x.astype(np.float32)),
}


def assert_agree(result: Any, expected: Floats) -> None:
    """Equal to the precision of the result's type."""
    result = np.asarray(result)
    single = result.dtype == np.float32
    tolerance = 2e-5 if single else 1e-11
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=5 * tolerance)


def assert_agree_everywhere(estimator: Callable[[Rows], Any], rows: Rows, expected: Floats, where: Any = ...) -> None:
    """``estimator`` of ``rows``, as arrays of every library, is ``expected``."""
    for convert in LIBRARIES.values():
        assert_agree(np.asarray(estimator(rows.map(convert)))[where], expected[where])


many, few = settings(max_examples=200), settings(max_examples=100)


@many
@given(rollouts(), FACTORS, FACTORS)
def test_gae_equals_its_definition(rows: Rows, gamma: float, lam: float) -> None:
    assert_agree_everywhere(lambda r: gae(*r.gae_args(gamma, lam)), rows, oracle_gae(rows, gamma, lam))


@many
@given(rollouts(), FACTORS, FACTORS)
def test_td_lambda_equals_its_definition(rows: Rows, gamma: float, lam: float) -> None:
    assert_agree_everywhere(lambda r: td_lambda(*r.gae_args(gamma, lam)), rows, oracle_td_lambda(rows, gamma, lam))


@many
@given(rollouts(), FACTORS, st.integers(1, 12))
def test_n_step_equals_its_definition(rows: Rows, gamma: float, n: int) -> None:
    assert_agree_everywhere(lambda r: n_step(*r.gae_args(gamma, 1.0), n), rows, oracle_n_step(rows, gamma, n))


@many
@given(rollouts(), FACTORS)
def test_monte_carlo_equals_its_definition(rows: Rows, gamma: float) -> None:
    assert_agree_everywhere(lambda r: monte_carlo(*r.mc_args(gamma)), rows, oracle_monte_carlo(rows, gamma))


@many
@given(rollouts(), FACTORS)
def test_td0_equals_its_definition(rows: Rows, gamma: float) -> None:
    expected, valid = oracle_n_step(rows, gamma, 1), rows.valid > 0
    assert_agree_everywhere(
        lambda r: td0(r.rewards, r.next_values, gamma * (1.0 - r.terminated)), rows, expected, valid
    )


@many
@given(rollouts(), FACTORS, FACTORS, CLIPS, CLIPS)
def test_vtrace_equals_its_definition(rows: Rows, gamma: float, lam: float, max_rho: float, max_c: float) -> None:
    expected = oracle_vtrace(rows, gamma, lam, max_rho, max_c)
    for i in (0, 1):  # targets, advantages
        assert_agree_everywhere(
            lambda r, i=i: vtrace(*r.gae_args(gamma, lam), r.ratios, max_rho, max_c)[i], rows, expected[i]
        )


@many
@given(rollouts())
def test_standardize_equals_its_definition(rows: Rows) -> None:
    seen = [float(v) for v in rows.values[rows.valid > 0]]
    mean, std = (statistics.fmean(seen), statistics.pstdev(seen)) if seen else (0.0, 1.0)
    if len(seen) == 1:
        std = 1.0  # the deviation of one number is 0
    expected = (rows.values - mean) / (std + 1e-8) * rows.valid
    assert_agree_everywhere(lambda r: standardize(r.values, r.valid), rows, expected)


# --------------------------------------------------------------------------- identities


@few
@given(rollouts(), FACTORS)
def test_lambda_1_is_monte_carlo_minus_v(rows: Rows, gamma: float) -> None:
    expected = (monte_carlo(*rows.mc_args(gamma)) - rows.values) * rows.valid
    assert_agree(gae(*rows.gae_args(gamma, 1.0)), expected)


@few
@given(rollouts(), FACTORS)
def test_lambda_0_is_the_td_error(rows: Rows, gamma: float) -> None:
    error = (td0(rows.rewards, rows.next_values, gamma * (1.0 - rows.terminated)) - rows.values) * rows.valid
    assert_agree(gae(*rows.gae_args(gamma, 0.0)), error)


@few
@given(rollouts(), FACTORS, st.integers(0, 3))
def test_n_of_t_or_more_is_lambda_1(rows: Rows, gamma: float, more: int) -> None:
    assert_agree(n_step(*rows.gae_args(gamma, 1.0), len(rows.rewards) + more), td_lambda(*rows.gae_args(gamma, 1.0)))


@few
@given(rollouts(), FACTORS)
def test_n_1_is_td0(rows: Rows, gamma: float) -> None:
    one_step = td0(rows.rewards, rows.next_values, gamma * (1.0 - rows.terminated))
    assert_agree(n_step(*rows.gae_args(gamma, 1.0), 1), np.where(rows.valid > 0, one_step, rows.values))


@few
@given(rollouts(), FACTORS, FACTORS)
def test_vtrace_on_policy_is_td_lambda(rows: Rows, gamma: float, lam: float) -> None:
    targets, _ = vtrace(*rows.gae_args(gamma, lam), np.ones(rows.shape))
    assert_agree(targets, td_lambda(*rows.gae_args(gamma, lam)))


@few
@given(rollouts(), FACTORS, FACTORS)
def test_vtrace_advantages_on_policy_are_those_of_gae(rows: Rows, gamma: float, lam: float) -> None:
    _, advantages = vtrace(*rows.gae_args(gamma, lam), np.ones(rows.shape))
    assert_agree(advantages, gae(*rows.gae_args(gamma, lam)))


@few
@given(rollouts(one_value_function=True), FACTORS, FACTORS)
def test_without_a_target_critic_gae_is_a_sum_of_td_errors(rows: Rows, gamma: float, lam: float) -> None:
    """Schulman et al. 2016, eq. 16: Σ (γλ)ᵏ δₜ₊ₖ, which holds where V(sₜ₊₁) is the next row's V."""

    def sum_of_errors(t: int, b: int) -> float:
        following = range(t, rows.last(t, b) + 1)
        return sum((gamma * lam) ** (k - t) * rows.delta(k, b, gamma) for k in following)

    assert_agree(gae(*rows.gae_args(gamma, lam)), per_row(rows, sum_of_errors, invalid=0.0))


@few
@given(rollouts(), FACTORS, FACTORS, st.data())
def test_a_rollout_can_be_split_at_any_row(rows: Rows, gamma: float, lam: float, data: st.DataObject) -> None:
    """The first part, bootstrapped from the estimates of the second part, has the estimates of the whole."""
    cut = data.draw(st.integers(0, len(rows.rewards)))
    first, second = rows.map(lambda x: x[:cut]), rows.map(lambda x: x[cut:])
    advantages, returns = gae(*rows.gae_args(gamma, lam)), monte_carlo(*rows.mc_args(gamma))
    assert_agree(gae(*second.gae_args(gamma, lam)), advantages[cut:])
    assert_agree(monte_carlo(*second.mc_args(gamma)), returns[cut:])
    if cut in (0, len(rows.rewards)):
        return
    goes_on = rows.terminated[cut - 1] + rows.truncated[cut - 1] == 0
    lambda_bootstrap, mc_bootstrap = first.next_values.copy(), first.next_values.copy()
    lambda_bootstrap[-1] += goes_on * lam * (advantages[cut] + rows.values[cut] - rows.next_values[cut - 1])
    mc_bootstrap[-1] = np.where(goes_on & (rows.valid[cut] > 0), returns[cut], mc_bootstrap[-1])
    assert_agree(gae(*replace(first, next_values=lambda_bootstrap).gae_args(gamma, lam)), advantages[:cut])
    assert_agree(monte_carlo(*replace(first, next_values=mc_bootstrap).mc_args(gamma)), returns[:cut])


@few
@given(rollouts(), FACTORS, FACTORS, st.integers(1, 12), st.sampled_from([-1e30, 1e30]))
def test_invalid_rows_do_not_change_valid_ones(rows: Rows, gamma: float, lam: float, n: int, garbage: float) -> None:
    def with_garbage(x: Floats) -> Floats:
        return np.where(rows.valid > 0, x, garbage)

    changed = replace(
        rows,
        rewards=with_garbage(rows.rewards),
        values=with_garbage(rows.values),
        next_values=with_garbage(rows.next_values),
        ratios=with_garbage(rows.ratios),
    )
    valid = rows.valid > 0
    estimators: list[Callable[[Rows], Any]] = [
        lambda r: gae(*r.gae_args(gamma, lam)),
        lambda r: td_lambda(*r.gae_args(gamma, lam)),
        lambda r: n_step(*r.gae_args(gamma, 1.0), n),
        lambda r: monte_carlo(*r.mc_args(gamma)),
        lambda r: vtrace(*r.gae_args(gamma, lam), r.ratios)[0],
        lambda r: vtrace(*r.gae_args(gamma, lam), r.ratios)[1],
        lambda r: standardize(r.values, r.valid),
    ]
    for estimator in estimators:
        np.testing.assert_array_equal(estimator(changed)[valid], estimator(rows)[valid])


@few
@given(rollouts(), FACTORS)
def test_invalid_rows_have_advantage_0_or_their_value(rows: Rows, gamma: float) -> None:
    invalid = rows.valid == 0
    targets, advantages = vtrace(*rows.gae_args(gamma, 1.0), rows.ratios)
    for zero in (gae(*rows.gae_args(gamma, 0.9)), advantages, monte_carlo(*rows.mc_args(gamma))):
        assert not zero[invalid].any()
    for value in (td_lambda(*rows.gae_args(gamma, 0.9)), targets, n_step(*rows.gae_args(gamma, 1.0), 3)):
        np.testing.assert_array_equal(value[invalid], rows.values[invalid])


@few
@given(rollouts(("next_step",)), FACTORS, FACTORS, st.integers(1, 12), st.floats(-100, 100))
def test_both_autoreset_streams_agree(rows: Rows, gamma: float, lam: float, n: int, next_episode: float) -> None:
    """SAME_STEP has no reset rows; after a termination the next row is the first of the next episode."""
    rows = rows.map(lambda x: x[:, :1])  # one environment: the numbers of valid rows differ
    valid = rows.valid[:, 0] > 0
    if not valid.any():
        return
    same_step = rows.map(lambda x: x[valid])
    same_step.next_values[same_step.terminated > 0] = next_episode  # truncated rows have V(final_obs)
    estimators: list[Callable[[Rows], Any]] = [
        lambda r: gae(*r.gae_args(gamma, lam)),
        lambda r: td_lambda(*r.gae_args(gamma, lam)),
        lambda r: n_step(*r.gae_args(gamma, 1.0), n),
        lambda r: monte_carlo(*r.mc_args(gamma)),
        lambda r: vtrace(*r.gae_args(gamma, lam), r.ratios)[0],
        lambda r: vtrace(*r.gae_args(gamma, lam), r.ratios)[1],
    ]
    for estimator in estimators:
        assert_agree(estimator(same_step), estimator(rows)[valid])


# --------------------------------------------------------------------------- a ring with a time limit


RING_GAMMA, RING_VALUE = 0.98, 50.0


def ring(next_step: bool, V: float, T: int = 40, limit: int = 6) -> Rows:
    """Reward 1 at every step, an episode truncated every ``limit`` steps, and the same V everywhere."""
    kinds = np.arange(T) % (limit + 1 if next_step else limit)
    truncated = (kinds == limit - 1).astype(float)[:, None]
    valid = (kinds != limit).astype(float)[:, None]
    everywhere = np.full((T, 1), V)
    return Rows(valid, everywhere, everywhere.copy(), 0 * valid, truncated, valid, np.ones((T, 1)))


RING_TARGETS: dict[str, Callable[[Rows], Any]] = {
    "td_lambda": lambda r: td_lambda(*r.gae_args(RING_GAMMA, 0.95)),
    "n_step": lambda r: n_step(*r.gae_args(RING_GAMMA, 1.0), 5),
    "td0": lambda r: td0(r.rewards, r.next_values, RING_GAMMA * (1.0 - r.terminated)),
    "monte_carlo": lambda r: monte_carlo(*r.mc_args(RING_GAMMA)),
    "vtrace": lambda r: vtrace(*r.gae_args(RING_GAMMA, 1.0), r.ratios)[0],
}


@pytest.mark.parametrize("next_step", [True, False])
@pytest.mark.parametrize("estimator", RING_TARGETS)
def test_time_limits_do_not_change_the_value_of_the_ring(estimator: str, next_step: bool) -> None:
    """V = 1 / (1 − γ) is the only fixed point: from any other V the targets approach it."""
    target, rows = RING_TARGETS[estimator], ring(next_step, RING_VALUE)
    valid = rows.valid > 0
    np.testing.assert_allclose(target(rows)[valid], RING_VALUE, rtol=1e-12)
    V = 0.0
    for _ in range(400):
        V = float(target(ring(next_step, V))[valid].mean())
    assert RING_VALUE - 0.05 < V < RING_VALUE + 1e-9
    terminal = replace(rows, terminated=rows.truncated, truncated=rows.truncated * 0)
    assert target(terminal)[valid].mean() < RING_VALUE - 1  # the error of treating truncation as termination
