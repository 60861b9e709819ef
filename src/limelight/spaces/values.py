"""Values of simple spaces: which can be stored in the space's dtype without becoming another value."""

from __future__ import annotations

from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from numpy.typing import NDArray

from limelight.spaces.images import is_categorical_image, is_image

NUMBERS = "biuf"
"""Kinds of NumPy dtypes that are real numbers."""


class Misfit(NamedTuple):
    """A number, or an array, that is no value of its space."""

    row: int
    """The row of the batch that holds it."""
    words: str
    """What it is and what it must be, to follow the name of the array: ``[2] = 300: must be …``."""


class Limits(NamedTuple):
    """Limits of the whole numbers of a space."""

    low: Any
    """Smallest value, one or [*shape]."""
    high: Any
    """Largest value, one or [*shape]."""


def limits(space: Space[Any]) -> Limits | None:
    """Return between which whole numbers an agent can tell values apart; None for a Box of floats, which takes all.

    A Box of integers takes all that its dtype holds, whatever its bounds, unless it is an image of categories, which
    becomes planes up to its bounds.
    """
    if isinstance(space, Discrete):
        return Limits(int(space.start), int(space.start) + int(space.n) - 1)
    if isinstance(space, MultiDiscrete):
        return Limits(space.start, space.start + space.nvec - 1)
    if isinstance(space, MultiBinary):
        return Limits(0, 1)
    if not isinstance(space, Box) or space.dtype.kind not in "iub":
        return None
    if is_image(space) and is_categorical_image(space):
        return Limits(space.low, space.high)
    if space.dtype.kind == "b":
        return Limits(0, 1)
    return Limits(int(np.iinfo(space.dtype).min), int(np.iinfo(space.dtype).max))


def misfit(space: Space[Any], values: Any, rows: int) -> Misfit | None:
    """Return the first of ``rows`` values, [rows, *shape], that is no value of a simple space; None if all are.

    Numbers may have any dtype: what counts is the value. Floats of a Box may be outside its bounds, and not finite.
    """
    shape = (rows, *(space.shape or ()))
    must = f"must be {describe_simple(space)}"
    array = np.asarray(values)
    if is_masked(values) and array.shape == shape:
        row, *index = (int(i) for i in np.argwhere(np.ma.getmaskarray(values))[0])
        return Misfit(row, f"{index or ''} is masked: {must}; return its numbers, observation.filled(0)")
    if array.shape[1:] != shape[1:]:
        return Misfit(
            0, f" has shape {array.shape[1:]}: {must}{'' if isinstance(space, Box) else f', of shape {shape[1:]}'}"
        )
    if array.shape != shape:
        return Misfit(0, f" has {len(array)} rows: must have {rows}")
    if array.dtype.kind not in NUMBERS:
        return Misfit(0, f" is of {_kind(array)}: {must}")
    bounds = limits(space)
    if bounds is None:
        return None
    if array.dtype.kind == "f":  # as floats, the highest numbers of integers are rounded up, to what is beyond them
        ok = (array >= bounds.low) & (array < np.asarray(bounds.high, np.float64) + 1.0) & (np.floor(array) == array)
    else:
        ok = (array >= bounds.low) & (array <= bounds.high)
    if ok.all():
        return None
    row, *index = (int(i) for i in np.argwhere(~ok)[0])
    hint = "; for brightness from 0 to 1, return (255 * obs).astype(np.uint8)" if _is_dim(space, array[row]) else ""
    return Misfit(row, f"{index or ''} = {array[(row, *index)]}: {must}{_range(space, bounds, index)}{hint}")


def is_masked(value: Any) -> bool:
    """Return whether numbers of an array are masked (``numpy.ma``): what lies under the mask is no value."""
    if isinstance(value, list | tuple):
        return any(map(is_masked, value))
    return isinstance(value, np.ma.MaskedArray) and bool(np.ma.getmaskarray(value).any())


def _kind(array: NDArray[Any]) -> str:
    """Return in words what an array holds that are no numbers of NumPy."""
    if array.dtype.kind != "O":
        return str(array.dtype)
    return next((type(item).__name__ for item in array.flat if not isinstance(item, Real)), "dtype object")


def is_share(array: NDArray[Any]) -> bool:
    """Return whether all numbers are between 0 and 1."""
    return bool(((array >= 0) & (array <= 1)).all())


def _is_dim(space: Space[Any], array: NDArray[Any]) -> bool:
    """Return whether ``array`` is an image in floats up to 1, where bytes up to 255 were declared."""
    return is_image(space) and array.dtype.kind == "f" and is_share(array)


def first_misfit(space: Space[Any], values: list[Any]) -> Misfit | None:
    """Return the first of single values, each [*shape], that is no value of a simple space; None if all are."""
    for row, value in enumerate(values):
        try:
            array: Any = np.ma.array(value) if is_masked(value) else np.asarray(value)
            found = misfit(space, array[None], 1)
        except Exception as error:  # ragged lists, and what other libraries raise
            why = "" if isinstance(error, ValueError) else f" ({type(error).__name__}: {' '.join(str(error).split())})"
            found = Misfit(0, f" is no array{why}: must be {describe_simple(space)}")
        if found is not None:
            return Misfit(row, found.words)
    return None


def _range(space: Space[Any], bounds: Limits, index: list[int]) -> str:
    """Return the range of one number in words."""
    low, high = (np.broadcast_to(bound, space.shape or ())[tuple(index)] for bound in bounds)
    return f", whole numbers {low} … {high}"


def describe_simple(space: Space[Any]) -> str:
    """Describe a simple space in a few words: gymnasium prints large boxes over many lines."""
    name = type(space).__name__
    if isinstance(space, Discrete):
        return f"{name}({space.n}{f', start={space.start}' if space.start else ''})"
    if isinstance(space, MultiDiscrete):
        return f"{name}({' '.join(str(space.nvec.tolist()).split())})"
    if isinstance(space, MultiBinary):
        return f"{name}({space.n})"
    if isinstance(space, Box):
        return f"{name}{space.shape} {space.dtype}"
    return name
