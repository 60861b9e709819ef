"""Conversion of sampled actions to those of the environment: the bounds of a Box, the shape and dtype of a space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from numpy.typing import NDArray

from limelight.errors import ConfigError
from limelight.spaces.packed import Packed

ToEnv = Callable[[NDArray[Any]], NDArray[Any]]
"""Converts sampled actions [B, *action_shape] to the environments' actions [B, *space.shape]."""
Bounds = Literal["auto", "clip", "rescale", "squash"]
_NEAR_ONE = 1.0 - 2.0**-24
"""The float32 next to 1, halfway: tanh of sampled numbers rounds to 1 beyond it."""


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
    low, high, centre, half = flat_bounds(space)

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


def as_sampled(space: Space[Any], bounds: Bounds, actions: NDArray[Any]) -> NDArray[Any]:
    """Return actions as the distribution samples them, [B, *action_shape]: the inverse of ``to_env``.

    Args:
        space: of the actions, simple or packed.
        bounds: of continuous actions.
        actions: in the environment's units, [B, *space.shape].
    Raises: ValueError for an action out of the bounds that squashed actions never leave.
    """
    if isinstance(space, Packed):
        columns = [
            as_sampled(leaf.space, bounds, actions[:, leaf.part].reshape(-1, *(leaf.space.shape or ()))).reshape(
                len(actions), -1
            )
            for leaf in space.leaves
        ]
        return np.concatenate(columns, 1)
    flat = actions if isinstance(space, Discrete) else actions.reshape(len(actions), -1)
    return _as_sampled_reals(space, bounds, flat) if isinstance(space, Box) else flat


def _as_sampled_reals(space: Box, bounds: Bounds, actions: NDArray[Any]) -> NDArray[Any]:
    """Return continuous actions [B, A] before they were rescaled or squashed; a bound itself is not infinite."""
    chosen = choose_bounds(space, bounds)
    if chosen == "clip":
        return actions.astype(np.float32)
    low, high, centre, half = (bound.astype(np.float64) for bound in flat_bounds(space))
    unit = (actions - centre) / np.where(half == 0.0, 1.0, half)
    if chosen == "squash":
        if (np.abs(unit) > 1.0 + 1e-6).any():
            row, column = (int(i) for i in np.argwhere(np.abs(unit) > 1.0 + 1e-6)[0])
            raise ValueError(
                f"action[{column}] = {actions[row, column]:g}: is out of the bounds {low[column]:g} … {high[column]:g}"
            )
        unit = np.arctanh(np.clip(unit, -_NEAR_ONE, _NEAR_ONE))
    return unit.astype(np.float32)


def log_half_ranges(space: Box, bounds: Bounds) -> float | None:
    """Return Σ log ½ (high − low) if actions are squashed, for log π in the environment's units; else None."""
    if choose_bounds(space, bounds) != "squash":
        return None
    half = flat_bounds(space)[-1]
    return float(np.log(half.astype(np.float64)).sum())


def unchanged(actions: NDArray[Any]) -> NDArray[Any]:
    """Return ``actions``: the environment takes them as they are sampled."""
    return actions


def shaped(space: Space[Any]) -> ToEnv:
    """Return the function from flat actions [B, A] to [B, *space.shape] in the dtype of the space."""
    shape, dtype = space.shape or (), space.dtype
    return lambda actions: actions.reshape(-1, *shape).astype(dtype, copy=False)


def flat_bounds(space: Box) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return low, high, their midpoint and half their distance, each [A]."""
    dtype = np.promote_types(space.dtype, np.float32)
    low, high = (bound.reshape(-1).astype(dtype) for bound in (space.low, space.high))
    with np.errstate(invalid="ignore"):  # the midpoint of −∞ … ∞ is NaN; clip does not use it
        return low, high, 0.5 * low + 0.5 * high, 0.5 * high - 0.5 * low
