"""Targets and policy weights: by hand, against the functions of returns.py, and the state of the draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

from limelight.algo.learner import Learner
from limelight.algo.returns import discounts_and_traces, gae, monte_carlo, n_step, td0
from limelight.algo.rollout import Rollout
from limelight.algo.targets import Inputs, estimate, make_targets
from limelight.settings.schema import AlgorithmConfig

BOX = Box(-1.0, 1.0, (4,))
LearnerFactory = Callable[..., Learner]
RolloutFactory = Callable[..., Rollout]


def column(*numbers: float) -> Any:
    return np.array(numbers, np.float32)[:, None]


def test_one_step_of_an_action_value_critic_by_hand() -> None:
    """γ = ½, a reward of 1 a step; row 1 terminates, row 2 only resets, row 3 is cut by a limit, row 4 goes on."""
    q, next_q = column(2, 3, 9, 1, 4), column(6, 8, 9, 2, 10)
    discounts, traces = discounts_and_traces(
        column(0, 1, 0, 0, 0), column(0, 0, 0, 1, 0), column(1, 1, 0, 1, 1), 0.5, 0.0
    )
    x = Inputs(column(1, 1, 0, 1, 1), q, next_q, discounts, traces, column(1, 1, 0, 1, 1))
    expected_q = column(1, 1, 7, 3, 2)
    targets = {
        weight: make_targets(x, AlgorithmConfig(gae_lambda=0.0, policy_weight=weight), lambda: expected_q)  # type: ignore[arg-type]
        for weight in ("td_error", "q", "advantage")
    }
    for returns, _ in targets.values():  # 1 + ½·6, 1 + 0, q itself, 1 + ½·2, 1 + ½·10
        assert returns[:, 0].tolist() == [4.0, 1.0, 9.0, 2.0, 6.0]
    assert targets["td_error"].advantages[:, 0].tolist() == [2.0, -2.0, 0.0, 1.0, 2.0]
    assert targets["q"].advantages[:, 0].tolist() == [2.0, 3.0, 0.0, 1.0, 4.0]
    assert targets["advantage"].advantages[:, 0].tolist() == [1.0, 2.0, 0.0, -2.0, 2.0]


def random_inputs(rollout: Rollout, gae_lambda: float) -> Inputs:
    values, next_values = np.random.default_rng(5).standard_normal((2, *rollout.valid.shape)).astype(np.float32)
    masks = rollout.terminated, rollout.truncated, rollout.valid
    return Inputs(rollout.rewards, values, next_values, *discounts_and_traces(*masks, 0.9, gae_lambda), rollout.valid)


@pytest.mark.parametrize("stream", ["next_step", "same_step"])
def test_every_estimator_is_its_function(make_rollout: RolloutFactory, stream: str) -> None:
    rollout = make_rollout(BOX, stream=stream)
    x, valid = random_inputs(rollout, 1.0), rollout.valid
    short = Inputs(*x[:4], x.traces * np.float32(0.7), valid)

    def by(**settings: Any) -> Any:
        return (x.values + estimate(x, AlgorithmConfig(**settings)))[valid > 0]

    def same(a: Any, b: Any) -> None:
        np.testing.assert_allclose(a, b[valid > 0], rtol=1e-5, atol=1e-6)

    mixed = x.values + estimate(short, AlgorithmConfig())
    np.testing.assert_array_equal(mixed, x.values + gae(*short))
    same(by(returns="mc"), monte_carlo(x.rewards, x.next_values, x.discounts, x.traces, valid))
    same(by(returns="td0"), td0(x.rewards, x.next_values, x.discounts))
    for n in (1, 2, 7):
        same(by(returns="n_step", return_steps=n), n_step(*x, n=n))
    # Identities
    whole = x.values + gae(*x)
    same(by(returns="n_step"), whole)
    same(by(returns="mc"), whole)
    same(by(returns="n_step", return_steps=1), td0(x.rewards, x.next_values, x.discounts))
    assert np.abs(by(returns="n_step", return_steps=2) - whole[valid > 0]).max() > 0.1
    for returns in ("n_step", "mc", "td0"):
        assert not estimate(x, AlgorithmConfig(returns=returns))[valid == 0].any()  # type: ignore[arg-type]


@pytest.mark.parametrize("returns", ["gae", "n_step", "mc", "td0"])
def test_the_learner_makes_the_returns_that_are_set(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, returns: str
) -> None:
    rollout = make_rollout(BOX)
    x = random_inputs(rollout, 0.95 if returns == "gae" else 1.0)
    settings = {"returns": returns, "gamma": 0.9}
    targets = make_learner(BOX, **settings).targets(rollout, x.values, x.next_values)
    advantages = estimate(x, AlgorithmConfig(returns=returns))  # type: ignore[arg-type]
    np.testing.assert_array_equal(targets.returns, x.values + advantages)
    np.testing.assert_array_equal(targets.advantages, advantages)
    # Normalised: mean 0 and deviation 1 over the valid rows, as targets of both
    valid = rollout.valid > 0
    both = make_learner(BOX, normalize_returns=True, **settings).targets(rollout, x.values, x.next_values)
    assert float(both.returns[valid].mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(both.returns[valid].std()) == pytest.approx(1.0, rel=1e-5)
    assert np.corrcoef(both.returns[valid], targets.returns[valid])[0, 1] == pytest.approx(1.0)
    np.testing.assert_allclose(both.advantages[valid], (both.returns - x.values)[valid], rtol=1e-6)
    np.testing.assert_array_equal(both.returns[~valid], x.values[~valid])
    assert not both.advantages[~valid].any()
