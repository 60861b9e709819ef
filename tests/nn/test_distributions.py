"""Every family against torch.distributions and Monte Carlo, and sampling as a function of the noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import Tensor

from limelight.config import ConfigError
from limelight.nn.distributions import Categorical, make_distribution

LARGEST_NOISE = 1.0 - 2.0**-24  # the largest float32 that Generator.random gives


@pytest.fixture
def logits() -> Tensor:
    """[T, B, n], from nearly uniform to nearly certain."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([0.01, 1.0, 10.0, 50.0])[:, None, None]
    return torch.randn(4, 5, 6, generator=generator) * scale


def test_log_prob_entropy_and_mode(logits: Tensor) -> None:
    ours, theirs = Categorical(6), torch.distributions.Categorical(logits=logits)
    actions = torch.arange(20).reshape(4, 5) % 6
    torch.testing.assert_close(ours.log_prob(logits, actions), theirs.log_prob(actions))
    torch.testing.assert_close(ours.log_prob(logits, actions.int()), theirs.log_prob(actions))
    torch.testing.assert_close(ours.entropy(logits), theirs.entropy())
    assert torch.equal(ours.mode(logits), theirs.mode)
    assert ours.mode(torch.zeros(1, 6)).tolist() == [0]


def test_gradients_at_extreme_logits_are_finite() -> None:
    logits = torch.tensor([[0.0, -1e4, 1e4]], requires_grad=True)
    distribution = Categorical(3)
    (distribution.log_prob(logits, torch.tensor([2])) + distribution.entropy(logits)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_sampling_frequencies() -> None:
    distribution, n = Categorical(4), 100_000
    params = torch.tensor([1.0, 0.0, -1.0, 2.0])
    noise = torch.from_numpy(distribution.noise(np.random.default_rng(0), n))
    actions = distribution.sample(params.expand(n, 4), noise)
    assert actions.dtype == torch.int64
    frequencies = torch.bincount(actions, minlength=4) / n
    torch.testing.assert_close(frequencies, params.softmax(-1), atol=0.006, rtol=0.0)  # 4 standard errors


def test_noise() -> None:
    distribution = Categorical(4)
    noise = distribution.noise(np.random.default_rng(0), 1000)
    assert noise.shape == (1000, 1)
    assert noise.dtype == np.float32
    assert noise.min() >= 0.0
    assert noise.max() < 1.0
    np.testing.assert_array_equal(noise, distribution.noise(np.random.default_rng(0), 1000))


@pytest.mark.parametrize("n", [2, 3, 7, 18])
def test_the_edges_of_the_noise_choose_the_first_and_last_possible_action(n: int) -> None:
    """Possible is what has a probability that float32 sees; rounding must not let the others out."""
    generator = torch.Generator().manual_seed(n)
    inner = torch.randn(2000, n, generator=generator)
    impossible = torch.full((2000, 1), -300.0)
    params = torch.cat([impossible, inner, impossible], -1)
    distribution = Categorical(n + 2)
    assert (distribution.sample(params, torch.zeros(2000, 1)) == 1).all()
    assert (distribution.sample(params, torch.full((2000, 1), LARGEST_NOISE)) == n).all()
    assert (Categorical(n).sample(inner, torch.full((2000, 1), LARGEST_NOISE)) == n - 1).all()


def test_noise_between_the_cumulative_probabilities() -> None:
    params = torch.tensor([0.2, 0.5, 0.3]).log()
    noise = torch.tensor([[0.0], [0.19], [0.21], [0.69], [0.71], [LARGEST_NOISE]])
    assert Categorical(3).sample(params.expand(6, 3), noise).tolist() == [0, 0, 1, 1, 2, 2]


def test_actions_may_start_anywhere() -> None:
    """The same distribution over other numbers."""
    params = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    plain, shifted = Categorical(4), Categorical(4, start=-7)
    noise = torch.from_numpy(plain.noise(np.random.default_rng(0), 50))
    actions = plain.sample(params, noise)
    assert torch.equal(shifted.sample(params, noise), actions - 7)
    assert torch.equal(shifted.mode(params), plain.mode(params) - 7)
    assert torch.equal(shifted.log_prob(params, actions - 7), plain.log_prob(params, actions))
    assert torch.equal(shifted.entropy(params), plain.entropy(params))


def test_families_by_space() -> None:
    distribution = make_distribution(Discrete(7, start=2))
    assert isinstance(distribution, Categorical)
    assert distribution.num_params == 7
    assert distribution.start == 2


@pytest.mark.parametrize("space", [Box(-1.0, 1.0, (2,)), MultiDiscrete([2, 3])])
def test_unsupported_spaces_are_named(space: Box | MultiDiscrete) -> None:
    with pytest.raises(ConfigError, match=type(space).__name__) as error:
        make_distribution(space)
    assert "supported are Discrete" in str(error.value)
