"""Losses compared with their formulas, derivatives compared with autograd, and invalid rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from limelight.algo import losses
from limelight.algo.losses import (
    clipped_policy_gradient_loss,
    clipped_policy_gradient_loss_grad,
    clipped_value_loss,
    clipped_value_loss_grad,
    entropy_loss,
    explained_variance,
    mask_weights,
    policy_gradient_loss,
    value_loss,
    value_loss_grad,
)

T, B = 6, 4
DELTA = 0.7


class Data:
    """Random [T, B] arrays with a third of the rows invalid, in float64."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.x, self.y = rng.standard_normal((2, T, B))  # log-probabilities, values or entropies; weights or targets
        self.valid = (rng.random((T, B)) < 0.67).astype(np.float64)
        self.rows = mask_weights(self.valid)

    def pairs(self) -> list[tuple[float, float]]:
        """(x, y) of the valid rows."""
        return [(float(self.x[i]), float(self.y[i])) for i in np.ndindex(T, B) if self.valid[i]]


@pytest.fixture
def data() -> Data:
    return Data()


def huber(error: float) -> float:
    return error**2 if abs(error) <= DELTA else 2 * DELTA * abs(error) - DELTA**2


EPSILON, VALUE_CLIP = 0.2, 0.3


def ratio(x: Any) -> Any:
    """e^x of log-ratios; garbage in invalid rows stays finite."""
    x = x.clip(-9.0, 9.0)
    return x.exp() if isinstance(x, Tensor) else np.exp(x)


def clipped_policy_term(x: float, advantage: float) -> float:
    r = math.exp(x)
    return -min(r * advantage, min(max(r, 1 - EPSILON), 1 + EPSILON) * advantage)


def clipped_value_term(v: float, g: float, loss: Callable[[float], float]) -> float:
    """Of the old value −g / 2."""
    clipped = -0.5 * g + min(max(v + 0.5 * g, -VALUE_CLIP), VALUE_CLIP)
    return max(loss(v - g), loss(clipped - g))


# name → (loss of x, y, rows; its term of one row; its derivative by x)
LOSSES: dict[str, tuple[Callable[..., Any], Callable[[float, float], float], Callable[..., Any]]] = {
    "policy_gradient": (
        policy_gradient_loss,
        lambda log_prob, weight: -log_prob * weight,
        lambda x, y, rows: losses.policy_gradient_loss_grad(y, rows),
    ),
    "squared": (value_loss, lambda v, g: (v - g) ** 2, value_loss_grad),
    "huber": (
        lambda x, y, rows: value_loss(x, y, rows, DELTA),
        lambda v, g: huber(v - g),
        lambda x, y, rows: value_loss_grad(x, y, rows, DELTA),
    ),
    "clipped_policy_gradient": (
        lambda x, y, rows: clipped_policy_gradient_loss(ratio(x), y, rows, EPSILON),
        clipped_policy_term,
        lambda x, y, rows: clipped_policy_gradient_loss_grad(ratio(x), y, rows, EPSILON),
    ),
    "clipped_squared": (
        lambda x, y, rows: clipped_value_loss(x, -0.5 * y, y, rows, VALUE_CLIP),
        lambda v, g: clipped_value_term(v, g, lambda error: error**2),
        lambda x, y, rows: clipped_value_loss_grad(x, -0.5 * y, y, rows, VALUE_CLIP),
    ),
    "clipped_huber": (
        lambda x, y, rows: clipped_value_loss(x, -0.5 * y, y, rows, VALUE_CLIP, DELTA),
        lambda v, g: clipped_value_term(v, g, huber),
        lambda x, y, rows: clipped_value_loss_grad(x, -0.5 * y, y, rows, VALUE_CLIP, DELTA),
    ),
    "entropy": (
        lambda x, y, rows: entropy_loss(x, rows),
        lambda entropy, _: -entropy,
        lambda x, y, rows: losses.entropy_loss_grad(rows),
    ),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


@every_loss
def test_a_loss_is_the_mean_over_valid_rows(name: str, data: Data) -> None:
    loss, term, _ = LOSSES[name]
    pairs = data.pairs()
    expected = sum(term(x, y) for x, y in pairs) / len(pairs)
    assert float(loss(data.x, data.y, data.rows)) == pytest.approx(expected, rel=1e-12)
    in_torch = loss(*map(torch.from_numpy, (data.x, data.y, data.rows)))
    assert float(in_torch) == pytest.approx(expected, rel=1e-12)


@every_loss
def test_derivatives_equal_those_of_autograd(name: str, data: Data) -> None:
    loss, _, derivative = LOSSES[name]
    x = torch.from_numpy(data.x).requires_grad_()
    loss(x, torch.from_numpy(data.y), torch.from_numpy(data.rows)).backward()
    assert x.grad is not None
    np.testing.assert_allclose(derivative(data.x, data.y, data.rows), x.grad.numpy(), rtol=1e-12, atol=1e-15)


@every_loss
def test_derivatives_of_float32_are_float32(name: str, data: Data) -> None:
    x, y, valid = (a.astype(np.float32) for a in (data.x, data.y, data.valid))
    assert LOSSES[name][2](x, y, mask_weights(valid)).dtype == np.float32


@every_loss
def test_invalid_rows_change_nothing(name: str, data: Data) -> None:
    loss, _, derivative = LOSSES[name]
    x, y = (np.where(data.valid > 0, a, 1e30) for a in (data.x, data.y))
    assert loss(x, y, data.rows) == loss(data.x, data.y, data.rows)
    np.testing.assert_array_equal(derivative(x, y, data.rows), derivative(data.x, data.y, data.rows))
    assert not derivative(x, y, data.rows)[data.valid == 0].any()


@every_loss
def test_padding_changes_nothing(name: str, data: Data) -> None:
    loss = LOSSES[name][0]

    def padded(a: NDArray[np.float64], filler: float) -> NDArray[np.float64]:
        return np.concatenate([a, np.full((3, B), filler)])

    rows = mask_weights(padded(data.valid, 0.0))
    assert loss(padded(data.x, 7.0), padded(data.y, -7.0), rows) == pytest.approx(
        float(loss(data.x, data.y, data.rows)), rel=1e-12
    )


@every_loss
def test_the_loss_without_valid_rows_is_0(name: str, data: Data) -> None:
    loss, _, derivative = LOSSES[name]
    rows = mask_weights(data.valid * 0.0)
    assert float(loss(data.x, data.y, rows)) == 0.0
    assert not derivative(data.x, data.y, rows).any()


def test_mask_weights_sum_to_one(data: Data) -> None:
    assert float(data.rows.sum()) == pytest.approx(1.0)
    assert set(np.unique(data.rows)) == {0.0, 1.0 / data.valid.sum()}


def test_the_data_lies_on_all_sides_of_the_clips(data: Data) -> None:
    """Rows of the policy's loss: raised and lowered, with and without gradient; rows of the values' loss: both."""
    r, a, valid = ratio(data.x), data.y, data.valid > 0
    moved = clipped_policy_gradient_loss_grad(r, a, data.rows, EPSILON) != 0
    for side in (a > 0, a < 0):
        assert (moved & side & valid).any()
        assert (~moved & side & valid).any()
    assert (moved & (abs(r - 1) > EPSILON) & valid).any()  # back towards π_old
    moved = clipped_value_loss_grad(data.x, -0.5 * a, a, data.rows, VALUE_CLIP) != 0
    assert (moved & valid).any()
    assert (~moved & valid).any()


def test_at_ratio_1_the_clipped_derivative_is_the_plain_one_bit_for_bit(data: Data) -> None:
    one = np.ones((T, B), np.float32)
    advantages, rows = data.y.astype(np.float32), data.rows.astype(np.float32)
    np.testing.assert_array_equal(
        clipped_policy_gradient_loss_grad(one, advantages, rows, EPSILON),
        losses.policy_gradient_loss_grad(advantages, rows),
    )


def test_the_estimate_of_the_divergence_approaches_it() -> None:
    """KL(π_old ‖ π) of two categorical distributions, from samples of π_old."""
    rng = np.random.default_rng(0)
    old, new = np.array([0.5, 0.3, 0.2]), np.array([0.3, 0.3, 0.4])
    actions = rng.choice(3, size=200_000, p=old)
    log_ratios = np.log(new / old)[actions]
    rows = mask_weights(np.ones(len(actions)))
    exact = float((old * np.log(old / new)).sum())
    assert float(losses.approx_kl(log_ratios, np.exp(log_ratios), rows)) == pytest.approx(exact, rel=0.02)
    assert float(losses.clip_fraction(np.exp(log_ratios), rows, 0.5)) == pytest.approx(0.2, abs=0.01)


def test_huber_is_the_squared_loss_for_small_errors(data: Data) -> None:
    targets = data.x + np.clip(data.y, -DELTA, DELTA)
    assert value_loss(data.x, targets, data.rows, DELTA) == pytest.approx(
        value_loss(data.x, targets, data.rows), rel=1e-12
    )
    np.testing.assert_allclose(
        value_loss_grad(data.x, targets, data.rows, DELTA),
        value_loss_grad(data.x, targets, data.rows),
        atol=1e-15,
    )


def test_huber_grows_linearly_beyond_delta() -> None:
    rows = np.ones((1, 1))
    at = [float(value_loss(rows * error, rows * 0, rows, DELTA)) for error in (10.0, 11.0, -11.0)]
    assert at[1] - at[0] == pytest.approx(2 * DELTA)
    assert at[1] == at[2]


# --------------------------------------------------------------------------- a bandit, in expectation

REWARDS = torch.tensor([[1.0], [-2.0], [0.5], [3.0]], dtype=torch.float64)  # one row for each arm: T = 4, B = 1


def expected_loss_gradient(logits: Tensor, weights: Tensor) -> Tensor:
    """∂/∂logits of the loss over all arms, weighted by their probabilities."""
    log_probs = logits.log_softmax(-1)[:, None]
    (gradient,) = torch.autograd.grad(policy_gradient_loss(log_probs, weights, log_probs.detach().exp()), logits)
    return gradient


@pytest.mark.parametrize("baseline", [0.0, 1.0, -40.0])
def test_the_policy_gradient_of_a_bandit_does_not_depend_on_the_baseline(baseline: float) -> None:
    """∂/∂zₐ Σ π(b) r(b) = π(a) (r(a) − Σ π r)."""
    logits = torch.tensor([0.3, -1.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    p, r = logits.detach().softmax(-1), REWARDS[:, 0]
    ascent = p * (r - (p * r).sum())
    torch.testing.assert_close(expected_loss_gradient(logits, REWARDS - baseline), -ascent)


def test_the_sampled_policy_gradient_approaches_its_expectation() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([0.3, -1.0, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    p, r = logits.detach().softmax(-1), REWARDS[:, 0]
    actions = p.multinomial(100_000, replacement=True, generator=generator)
    loss = policy_gradient_loss(logits.log_softmax(-1)[actions], r[actions], mask_weights(torch.ones(100_000)))
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, -p * (r - (p * r).sum()), atol=0.01, rtol=0.0)


# --------------------------------------------------------------------------- explained variance


def test_explained_variance_equals_its_definition(data: Data) -> None:
    targets = data.y
    valid_targets = targets[data.valid > 0]
    assert float(explained_variance(targets, targets, data.rows)) == pytest.approx(1.0)
    assert float(explained_variance(targets + 5.0, targets, data.rows)) == pytest.approx(1.0)
    assert float(explained_variance(targets * 0 + 3.0, targets, data.rows)) == pytest.approx(0.0, abs=1e-6)
    error = (data.y - data.x)[data.valid > 0]
    expected = 1.0 - float(np.var(error)) / float(np.var(valid_targets))
    assert float(explained_variance(data.x, targets, data.rows)) == pytest.approx(expected, rel=1e-6)
    garbage = np.where(data.valid > 0, data.x, 1e9)
    assert float(explained_variance(garbage, targets, data.rows)) == pytest.approx(expected, rel=1e-6)


def test_explained_variance_of_constant_targets_is_finite() -> None:
    ones = np.ones((2, 2))
    rows = mask_weights(ones)
    assert float(explained_variance(ones, ones, rows)) == 1.0
    assert math.isfinite(float(explained_variance(np.eye(2), ones, rows)))
