"""Layers in NumPy: their derivatives by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from limelight.nn.numpy_engine.layers import Layer


@pytest.mark.parametrize("activation", ["tanh", "relu", "leaky_relu", None])
@pytest.mark.parametrize("normalizes", [False, True])
@pytest.mark.parametrize("rows", [1, 4])
def test_derivatives_are_finite_differences(
    activation: str | None, normalizes: bool, rows: int, rng: np.random.Generator
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(5, 7)
    for p in linear.parameters():
        p.grad = torch.zeros_like(p)
    layer = Layer(linear, activation, normalizes)
    x, c = (rng.standard_normal((rows, n)).astype(np.float32) for n in (5, 7))

    def loss() -> float:
        return float((layer.forward(x).astype(np.float64) * c).sum())

    dx = layer.backward(x, layer.forward(x), c.copy(), need_dx=True)
    assert dx is not None
    h = 1e-3
    for values, grads in ((layer.weight, layer.weight_grad), (layer.bias, layer.bias_grad), (x, dx)):
        direction = rng.standard_normal(values.shape).astype(np.float32)
        middle, sides = values.copy(), []
        for sign in (h, -h):
            values[...] = middle + sign * direction
            sides.append(loss())
        values[...] = middle
        along = float((grads.astype(np.float64) * direction).sum())
        assert (sides[0] - sides[1]) / (2 * h) == pytest.approx(along, rel=5e-3, abs=5e-3)
