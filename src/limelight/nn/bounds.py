"""Conversion of sampled actions to those of the environment: the bounds of a Box, the shape and dtype of a space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from gymnasium.spaces import Box, Space
from numpy.typing import NDArray

from limelight.errors import ConfigError

ToEnv = Callable[[NDArray[Any]], NDArray[Any]]
"""Converts sampled actions [B, *action_shape] to the environments' actions [B, *space.shape]."""
Bounds = Literal["auto", "clip", "rescale", "squash"]


def choose_bounds(space: Box, bounds: Bounds) -> Bounds:
    """Return ``bounds``; ``auto`` becomes rescale if every bound is finite, and clip otherwise.

    Raises: ConfigError if the space does not allow ``bounds``.
    """
    finite = bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())
    if bounds == "auto":
        return "rescale" if finite else "clip"
    if bounds != "clip" and not finite:
        raise ConfigError(
            f"action_bounds = {bounds}: needs finite bounds on both sides, but the action space is "
            f"[{space.low.min():g}, {space.high.max():g}]; use clip, or bound the space (gymnasium's RescaleAction)"
        )
    if bounds == "squash" and (space.low == space.high).any():
        raise ConfigError(
            "action_bounds = squash: some bounds of the action space allow only one value, which has no density; "
            "use clip or rescale, or leave these actions out"
        )
    return bounds


def make_to_env(space: Box, bounds: Bounds) -> ToEnv:
    """Return the function from sampled actions to the environment's.

    clip:    min(max(a, low), high).
    rescale: −1 … 1 becomes low … high; the rest is clipped.
    squash:  tanh, then rescale.

    Computed in float64 if the space is float64, else in float32, so that rounding never leaves the bounds. NaN becomes
    the lower bound: the collector refuses the sampled action, and no simulator receives NaN.
    """
    chosen = choose_bounds(space, bounds)
    low, high, centre, half = _flat_bounds(space)

    def clip(actions: NDArray[Any]) -> NDArray[Any]:
        return np.fmin(np.fmax(actions, low), high)

    def rescale(actions: NDArray[Any]) -> NDArray[Any]:
        return clip(actions * half + centre)

    def squash(actions: NDArray[Any]) -> NDArray[Any]:
        return clip(np.tanh(actions) * half + centre)

    function: ToEnv = {"clip": clip, "rescale": rescale, "squash": squash}[chosen]
    if space.shape == low.shape and space.dtype == np.float32:
        return function
    to_shape = shaped(space)
    return lambda actions: to_shape(function(actions))


def log_half_ranges(space: Box, bounds: Bounds) -> float | None:
    """Return Σ log ½ (high − low) if actions are squashed, for log π in the environment's units; else None."""
    if choose_bounds(space, bounds) != "squash":
        return None
    half = _flat_bounds(space)[-1]
    return float(np.log(half.astype(np.float64)).sum())


def unchanged(actions: NDArray[Any]) -> NDArray[Any]:
    """Return ``actions``: the environment takes them as they are sampled."""
    return actions


def shaped(space: Space[Any]) -> ToEnv:
    """Return the function from flat actions [B, A] to [B, *space.shape] in the dtype of the space."""
    shape, dtype = space.shape or (), space.dtype
    return lambda actions: actions.reshape(-1, *shape).astype(dtype, copy=False)


def _flat_bounds(space: Box) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return low, high, their midpoint and half their distance, each [A]."""
    dtype = np.promote_types(space.dtype, np.float32)
    low, high = (bound.reshape(-1).astype(dtype) for bound in (space.low, space.high))
    with np.errstate(invalid="ignore"):  # the midpoint of −∞ … ∞ is NaN; clip does not use it
        return low, high, 0.5 * low + 0.5 * high, 0.5 * high - 0.5 * low
