"""Correlated noise: every draw is standard normal, and consecutive draws have the given correlation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from limelight.errors import ConfigError
from limelight.nn.distributions import make_distribution
from limelight.nn.model import make_model
from limelight.nn.noise import CorrelatedNoise
from limelight.nn.policy_head import PolicyHead
from limelight.settings.schema import ModelConfig

SQUARE = Box(-1.0, 1.0, (2,))
PLANE = make_distribution(SQUARE, ModelConfig())
HEAD = PolicyHead(3, PLANE)


def features(batch: int) -> np.ndarray:
    return np.zeros((batch, 3), np.float32)


@pytest.mark.parametrize("correlation", [0.3, 0.9])
def test_noise_is_standard_normal_and_has_the_given_correlation(correlation: float) -> None:
    noise = CorrelatedNoise(PLANE, HEAD, np.random.default_rng(0), correlation)
    drawn = np.stack([noise(features(4_000)) for _ in range(20)])  # [20, 4000, 2]
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn.mean((1, 2)), 0.0, atol=0.06)
    np.testing.assert_allclose(drawn.std((1, 2)), 1.0, atol=0.05)
    for lag in (1, 2, 5):
        np.testing.assert_allclose((drawn[lag:] * drawn[:-lag]).mean(), correlation**lag, atol=0.02)
    np.testing.assert_allclose((drawn[..., 0] * drawn[..., 1]).mean(), 0.0, atol=0.02)  # dimensions are independent


def test_noise_with_correlation_0_is_that_of_the_distribution() -> None:
    noise = CorrelatedNoise(PLANE, HEAD, np.random.default_rng(3), 0.0)
    rng = np.random.default_rng(3)
    for _ in range(3):
        np.testing.assert_array_equal(noise(features(5)), PLANE.noise(rng, 5))


def test_correlated_noise_is_refused_for_discrete_actions() -> None:
    with pytest.raises(
        ConfigError, match=r"^noise_correlation = 0.5: only a Box of continuous actions .* set it to 0$"
    ):
        CorrelatedNoise(make_distribution(Discrete(3), ModelConfig()), HEAD, np.random.default_rng(0), 0.5)


def gsde_noise(correlation: float, seed: int = 0) -> CorrelatedNoise:
    model = make_model(Box(-1, 1, (4,)), SQUARE, ModelConfig(action_std="gsde", hidden_sizes=(6,)), seed=0)
    with torch.no_grad():
        model.policy_head.gsde.log_std += torch.randn(6, 2, generator=torch.Generator().manual_seed(seed))
    return CorrelatedNoise(model.distribution, model.policy_head, np.random.default_rng(seed), correlation)


def test_noise_of_gsde_is_standard_normal_for_any_features() -> None:
    noise, rng = gsde_noise(0.8), np.random.default_rng(1)
    scales = np.float32([0.01, 1.0, 1.0, 0.0, 3.0, 1.0])
    drawn = np.stack([noise(scales * rng.standard_normal((4_000, 6)).astype(np.float32)) for _ in range(10)])
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn.mean((1, 2)), 0.0, atol=0.06)
    np.testing.assert_allclose(drawn.std((1, 2)), 1.0, atol=0.05)


def test_noise_of_gsde_has_the_given_correlation_for_equal_features() -> None:
    noise, some_features = gsde_noise(0.9), np.random.default_rng(1).standard_normal((4_000, 6)).astype(np.float32)
    first, second, third = noise(some_features), noise(some_features), noise(-some_features)
    np.testing.assert_allclose((first * second).mean(), 0.9, atol=0.03)
    np.testing.assert_allclose((first * third).mean(), -0.81, atol=0.03)


def test_noise_of_gsde_follows_changes_of_the_heads_parameters() -> None:
    """Features with σ ≈ 0 add nothing; the noise does not depend on the size of the only feature with σ > 0."""
    noise, some_features = gsde_noise(0.99), np.random.default_rng(1).standard_normal((50, 6)).astype(np.float32)
    noise(some_features)
    noise._correlation, noise._innovation = np.float32(1.0), np.float32(0.0)  # no new weights from here on
    noise._log_std[:, 1:] = -30.0  # in place, as an update does
    other = some_features.copy()
    other[:, 1:] += 1.0
    other[:, 0] *= 2.0
    np.testing.assert_allclose(noise(other), noise(some_features), rtol=1e-3, atol=1e-5)


def test_noise_of_gsde_is_0_if_all_features_are_0() -> None:
    assert (gsde_noise(0.5)(np.zeros((3, 6), np.float32)) == 0.0).all()
