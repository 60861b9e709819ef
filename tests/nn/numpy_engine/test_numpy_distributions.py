"""The NumPy forms of distributions against torch: the same actions of the same noise, and autograd's gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

from limelight.nn.distributions import FactorizedDistribution, make_distribution
from limelight.nn.numpy_engine.distributions import numpy_distribution, sigmoid
from limelight.settings.schema import ModelConfig
from limelight.spaces.packed import Packed

BOX = Box(np.float32([-2.0, 0.0, -1.0]), np.float32([2.0, 10.0, 1.0]))
MIXED = Packed(
    Dict(a=Discrete(3, start=2), b=BOX, c=MultiBinary([2, 2]), d=Tuple([MultiDiscrete([2, 4]), Box(-1.0, 1.0, ())]))
)
REAL = [
    {"action_std": std, "action_bounds": bounds}
    for std in ("parameter", "exp", "softplus")
    for bounds in ("clip", "squash")
]
CASES: list[tuple[Space[Any], dict[str, Any]]] = [
    (Discrete(4), {}),
    (Discrete(3, start=-2), {}),
    (MultiBinary(5), {}),
    (MultiBinary((2, 3)), {}),
    (MultiDiscrete([2, 1, 5]), {}),
    (MultiDiscrete([[2, 3], [4, 2]], start=[[1, -1], [0, 9]]), {}),
    *((BOX, settings) for settings in REAL),
    *((MIXED, settings) for settings in REAL),
]
every_case = pytest.mark.parametrize(
    ("space", "settings"), CASES, ids=lambda x: "-".join(x.values()) if isinstance(x, dict) else type(x).__name__
)


def forms(space: Space[Any], settings: dict[str, Any]) -> tuple[Any, Any]:
    distribution = make_distribution(space, ModelConfig(**settings))
    form = numpy_distribution(distribution)
    assert form is not None
    return distribution, form


def params_of(distribution: Any, n: int, scale: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (scale * rng.standard_normal((n, len(distribution.initial)))).astype(np.float32)


@every_case
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_actions_are_torchs(space: Space[Any], settings: dict[str, Any], scale: float) -> None:
    distribution, form = forms(space, settings)
    params = params_of(distribution, 400, scale)
    noise = distribution.noise(np.random.default_rng(1), 400)
    for ours, theirs in (
        (form.act(params.copy(), noise), distribution.sample(torch.from_numpy(params), torch.from_numpy(noise))),
        (form.act(params.copy(), None), distribution.mode(torch.from_numpy(params))),
    ):
        assert ours.dtype == theirs.numpy().dtype == distribution.action_dtype
        assert ours.shape == theirs.shape == (400, *distribution.action_shape)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@every_case
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 1000.0])
def test_gradients_are_autograds(space: Space[Any], settings: dict[str, Any], scale: float) -> None:
    """In float64, where torch's are as good as exact; far out, too, where σ is at its limits."""
    distribution, form = forms(space, settings)
    params, rng = params_of(distribution, 60, scale), np.random.default_rng(2)
    noise = torch.from_numpy(distribution.noise(rng, 60))
    actions = distribution.sample(torch.from_numpy(params), noise).numpy()
    d_log_probs, d_entropies = rng.standard_normal((2, 60)).astype(np.float32)
    before = params.copy()
    log_probs, entropies, d_params = form.grad(params, actions, d_log_probs, d_entropies)
    np.testing.assert_array_equal(params, before)
    assert log_probs.dtype == entropies.dtype == d_params.dtype == np.float32

    z = torch.from_numpy(params).double().requires_grad_()
    taken = torch.from_numpy(actions)
    taken = taken.double() if taken.is_floating_point() else taken
    expected_log_probs, expected_entropies = distribution.log_prob(z, taken), distribution.entropy(z)
    loss = expected_log_probs * torch.from_numpy(d_log_probs) + expected_entropies * torch.from_numpy(d_entropies)
    loss.sum().backward()
    assert z.grad is not None
    for ours, theirs in (
        (log_probs, expected_log_probs.detach()),
        (entropies, expected_entropies.detach()),
        (d_params, z.grad),
    ):
        # z = (a − μ)/σ of float32 actions loses as many digits as a has more than σ
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4 * max(1.0, float(theirs.abs().max())))


def test_sigma_at_its_limits_can_come_back() -> None:
    """Exactly there both paths still have a gradient."""
    distribution, form = forms(BOX, {})
    for limit in (-5.0, 2.0):
        params = np.full((1, 6), limit, np.float32)
        actions, ones = np.zeros((1, 3), np.float32), np.ones(1, np.float32)
        z = torch.from_numpy(params).requires_grad_()
        distribution.entropy(z).sum().backward()
        assert z.grad is not None
        np.testing.assert_array_equal(form.grad(params, actions, 0 * ones, ones)[2], z.grad)
        assert z.grad[0, 3:].tolist() == [1.0] * 3


def test_a_part_without_a_numpy_form_leaves_the_whole_without() -> None:
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
