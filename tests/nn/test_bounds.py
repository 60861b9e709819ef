"""Conversion of samples to actions of a Box: the arithmetic, refused settings, and that no action leaves the space."""

from __future__ import annotations

import math
from typing import Any

import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from gymnasium.spaces import Box, MultiBinary, MultiDiscrete
from hypothesis import strategies as st

from limelight.errors import ConfigError
from limelight.nn.bounds import choose_bounds, log_half_ranges, make_to_env, shaped

INF = float("inf")
BOX = Box(np.float32([-1.0, 0.0]), np.float32([1.0, 10.0]))
SAMPLED = np.float32([[-2.0, -2.0], [0.0, 0.0], [0.5, 0.5], [3.0, 3.0]])


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ("clip", [[-1, 0], [0, 0], [0.5, 0.5], [1, 3]]),
        ("rescale", [[-1, 0], [0, 5], [0.5, 7.5], [1, 10]]),
        ("auto", [[-1, 0], [0, 5], [0.5, 7.5], [1, 10]]),
        ("squash", np.tanh(SAMPLED) * [1, 5] + [0, 5]),
    ],
)
def test_sampled_actions_are_clipped_rescaled_or_squashed(bounds: Any, expected: Any) -> None:
    before = SAMPLED.copy()
    np.testing.assert_allclose(make_to_env(BOX, bounds)(SAMPLED), expected, rtol=1e-6)
    np.testing.assert_array_equal(SAMPLED, before)  # the learner needs the sampled actions


@pytest.mark.parametrize(("low", "high"), [(-INF, INF), (0.0, INF), (-INF, 2.0)])
def test_without_finite_bounds_only_clip_works(low: float, high: float) -> None:
    space = Box(low, high, (1,))
    assert choose_bounds(space, "auto") == "clip"
    played = make_to_env(space, "auto")(np.float32([[-50.0], [50.0]]))
    assert played[:, 0].tolist() == [max(-50.0, low), min(50.0, high)]
    for bounds in ("rescale", "squash"):
        with pytest.raises(ConfigError, match=f"action_bounds = {bounds}: needs finite bounds on both sides"):
            make_to_env(space, bounds)  # type: ignore[arg-type]


def test_auto_clips_if_one_dimension_is_infinite() -> None:
    assert choose_bounds(Box(np.float32([0, -1]), np.float32([INF, 1])), "auto") == "clip"


def test_equal_bounds_cannot_be_squashed() -> None:
    space = Box(np.float32([0.0, 3.0]), np.float32([1.0, 3.0]))
    for bounds in ("clip", "rescale"):
        assert make_to_env(space, bounds)(SAMPLED)[:, 1].tolist() == [3.0] * 4  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="squash: some bounds of the action space allow only one value"):
        make_to_env(space, "squash")


def test_nan_becomes_the_lower_bound() -> None:
    """The collector refuses the sampled action."""
    nan = np.full((2, 2), np.nan, np.float32)
    for bounds in ("clip", "rescale", "squash"):
        np.testing.assert_array_equal(make_to_env(BOX, bounds)(nan), [[-1, 0], [-1, 0]])  # type: ignore[arg-type]


def test_only_squashed_densities_have_a_scale() -> None:
    assert log_half_ranges(BOX, "squash") == pytest.approx(math.log(1.0) + math.log(5.0))
    assert log_half_ranges(BOX, "clip") is None
    assert log_half_ranges(BOX, "auto") is None


def test_flat_actions_take_the_shape_and_dtype_of_the_space() -> None:
    flat = np.arange(12).reshape(3, 4) % 2
    for space in (MultiBinary((2, 2)), MultiDiscrete([[2, 2], [2, 2]], dtype=np.int32)):
        shaped_actions = shaped(space)(flat)
        assert shaped_actions.shape == (3, 2, 2)
        assert all(space.contains(action) for action in shaped_actions)


def test_a_box_without_dimensions_is_rescaled() -> None:
    played = make_to_env(Box(-1.0, 3.0, ()), "rescale")(np.float32([[0.0], [9.0]]))
    assert played.tolist() == [1.0, 3.0]


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Boxes of any float dtype and shape; bounds may be equal, or not representable in float32."""
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    shape = draw(st.sampled_from([(), (1,), (3,), (2, 2), (1, 2, 1)]))
    bits = np.dtype(dtype).itemsize * 8
    limit = 2.0**15 if bits == 16 else 2.0**100
    number = st.floats(-limit, limit, allow_subnormal=False, width=bits)  # type: ignore[arg-type]
    a, b = (draw(hnp.arrays(dtype, shape, elements=number)) for _ in range(2))
    return Box(np.minimum(a, b), np.maximum(a, b), shape, dtype)  # type: ignore[arg-type]


@hypothesis.given(boxes(), st.sampled_from(["clip", "rescale", "squash"]), st.integers(0, 2**32 - 1))
def test_no_action_leaves_the_space(space: Box, bounds: Any, seed: int) -> None:
    """Samples far outside and exactly on the bounds are included."""
    if bounds == "squash" and (space.low == space.high).any():
        bounds = "rescale"
    rng, size = np.random.default_rng(seed), math.prod(space.shape)
    scale = 10.0 ** rng.integers(-3, 6, size=(8, 1))
    samples = np.concatenate([scale * rng.standard_normal((8, size)), np.ones((1, size)), -np.ones((1, size))])
    played = make_to_env(space, bounds)(samples.astype(np.float32))
    assert played.shape == (10, *space.shape)
    assert played.dtype == space.dtype
    for action in played:
        assert space.contains(np.asarray(action))
