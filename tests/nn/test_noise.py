"""Noise that drifts: every draw is standard normal, and consecutive ones are correlated as said."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from limelight.config import ConfigError, ModelConfig
from limelight.nn.distributions import make_distribution
from limelight.nn.noise import CorrelatedNoise

PLANE = make_distribution(Box(-1.0, 1.0, (2,)), ModelConfig())


@pytest.mark.parametrize("correlation", [0.3, 0.9])
def test_it_is_standard_normal_and_correlated_as_said(correlation: float) -> None:
    noise = CorrelatedNoise(PLANE, np.random.default_rng(0), correlation)
    drawn = np.stack([noise(4_000) for _ in range(20)])  # [20, 4000, 2]
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn.mean((1, 2)), 0.0, atol=0.06)
    np.testing.assert_allclose(drawn.std((1, 2)), 1.0, atol=0.05)
    for lag in (1, 2, 5):
        np.testing.assert_allclose((drawn[lag:] * drawn[:-lag]).mean(), correlation**lag, atol=0.02)
    np.testing.assert_allclose((drawn[..., 0] * drawn[..., 1]).mean(), 0.0, atol=0.02)  # dimensions are independent


def test_without_correlation_it_is_the_distributions_own() -> None:
    noise = CorrelatedNoise(PLANE, np.random.default_rng(3), 0.0)
    rng = np.random.default_rng(3)
    for _ in range(3):
        np.testing.assert_array_equal(noise(5), PLANE.noise(rng, 5))


def test_choices_have_no_noise_that_could_drift() -> None:
    with pytest.raises(
        ConfigError, match=r"^noise_correlation = 0.5: only a Box of continuous actions .* set it to 0$"
    ):
        CorrelatedNoise(make_distribution(Discrete(3), ModelConfig()), np.random.default_rng(0), 0.5)
