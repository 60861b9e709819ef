"""Which distributions have a NumPy form; tests/equivalence/test_engine_copies.py compares their formulas."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium.spaces import Discrete

from limelight.nn.distributions import FactorizedDistribution, make_distribution
from limelight.nn.numpy_engine.distributions import numpy_distribution, sigmoid
from limelight.settings.schema import ModelConfig


def test_a_product_with_a_factor_without_a_numpy_form_has_none() -> None:
    class Other:
        num_outputs, initial = 1, np.zeros(1, np.float32)
        action_shape, action_dtype = (1,), np.float32

    known = make_distribution(Discrete(2), ModelConfig())
    assert numpy_distribution(Other()) is None  # type: ignore[arg-type]
    assert numpy_distribution(FactorizedDistribution([known, Other()])) is None  # type: ignore[list-item]
    assert numpy_distribution(FactorizedDistribution([known, known])) is not None


def test_sigmoid_does_not_overflow() -> None:
    x = np.float32([-1e4, -1.0, 0.0, 1.0, 1e4])
    expected, before = torch.from_numpy(x.copy()).sigmoid(), x.copy()
    np.testing.assert_allclose(sigmoid(x), expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(x, before)
    assert sigmoid(x, out=x) is x
    np.testing.assert_allclose(x, expected, rtol=1e-6, atol=1e-7)
