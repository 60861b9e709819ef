"""Observations of B environments as one array: read in one pass, and refused where they are not in their space.

The contract is that of docs/environments.md. A batch is read by one call of NumPy for each part of the space, with
casts that cannot change a value; only where such a call fails is the batch converted with care, and searched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import numpy as np
from gymnasium.spaces import Space
from numpy.typing import NDArray

from limelight.spaces.packed import Leaf, Packed, part_of, path_name
from limelight.spaces.values import Limits, Misfit, first_misfit, is_masked, limits, misfit

_PLAIN = {np.ndarray, float, int, np.float64, np.float32, np.int64, np.int32}
"""Types of values whose numbers cannot be masked."""


class MisfitError(ValueError):
    """An observation that is not in its space; ``row`` is its place in the batch."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


@final
class ObservationReader:
    """Reads B observations of a space into an array [B, *shape], which the next call overwrites.

    Args:
        space: simple, or packed; observations of a packed space are those of its original.
        batch: B.
    """

    def __init__(self, space: Space[Any], batch: int) -> None:
        self._leaves = [LeafReader(leaf, batch) for leaf in leaves_of(space)]
        self._vectors = np.zeros((batch, *(space.shape or ())), space.dtype)
        self._copies: list[tuple[LeafReader, NDArray[Any], NDArray[Any]]] = []
        """Each reader of a packed space, the columns that it fills, and its array."""
        if isinstance(space, Packed):
            self._copies = [
                (reader, self._vectors[:, reader.leaf.part], reader.array.reshape(batch, -1)) for reader in self._leaves
            ]
        self.read = self._read_parts if isinstance(space, Packed) else self._leaves[0].read
        """Return [B, *shape] of a list of B observations. Raises: MisfitError."""

    def _read_parts(self, observations: Sequence[Any]) -> NDArray[Any]:
        for reader, columns, array in self._copies:
            reader.read(self._parts(observations, reader.leaf))
            columns[...] = array
        return self._vectors

    def _parts(self, observations: Sequence[Any], leaf: Leaf) -> list[Any]:
        """Return the values of one leaf in each observation."""
        try:
            first, *others = leaf.path
            values = [observation[first] for observation in observations]
            for key in others:
                values = [value[key] for value in values]
            return values
        except (KeyError, IndexError, TypeError):
            for row, observation in enumerate(observations):
                try:
                    part_of(observation, leaf.path)
                except ValueError as error:
                    raise MisfitError(row, f"observation: {error}") from None
            raise


@final
class LeafReader:
    """Reads B values of one simple space."""

    def __init__(self, leaf: Leaf, batch: int) -> None:
        space = leaf.space
        shape = space.shape or ()
        self.leaf = leaf
        self.array = np.zeros((batch, *shape), space.dtype)
        self._lengths = list(shape[:1]) * batch
        self._rows = self.array.reshape(batch * shape[0], *shape[1:]) if shape else self.array
        self._casting: Any = "same_kind" if self.array.dtype.kind == "f" else "safe"
        bounds = limits(space)
        self._low: Any = None
        self._span: Any = None
        """Distance of the highest value from the lowest, unsigned; None where the dtype holds nothing beyond them."""
        if bounds is not None and not _is_whole_dtype(bounds, space):
            self._low = bounds.low
            self._span = np.subtract(bounds.high, bounds.low, dtype=np.int64).astype(np.uint64)
        self._is_shifted = self._low is not None and bool(np.any(self._low))
        self._has_one_span = np.ndim(self._span) == 0

    def read(self, values: Sequence[Any]) -> NDArray[Any]:
        """Fill ``array`` [B, *shape] with the values and return it.

        Raises: MisfitError.
        """
        if not set(map(type, values)) <= _PLAIN and self._is_masked(values):
            return self._convert(values)
        try:
            if self._lengths:
                # Values of these lengths fit together into the array only if each has its shape
                if list(map(len, values)) != self._lengths:
                    return self._convert(values)
                np.concatenate(values, out=self._rows, casting=self._casting)
            else:
                np.copyto(self.array, self._scalars(values), self._casting)
        except Exception:  # observations of other libraries may raise anything when they become arrays
            return self._convert(values)
        return self._within_limits(self.array)

    def check(self, array: Any) -> NDArray[Any]:
        """Return values [B, *shape] in the dtype of the space.

        Raises: MisfitError.
        """
        mine = self.array
        if type(array) is np.ndarray and array.dtype == mine.dtype and array.shape == mine.shape:
            return self._within_limits(array)
        found = misfit(self.leaf.space, array, len(mine))
        if found is not None:
            raise self._error(found)
        return np.asarray(array, mine.dtype)

    def _is_masked(self, values: Sequence[Any]) -> bool:
        """Return whether a value has masked numbers, which NumPy would replace by those under the mask."""
        holds_arrays = self.array.ndim > 2  # other lists hold numbers, which are many
        return any(is_masked(value) for value in values if holds_arrays or not isinstance(value, list | tuple))

    def _scalars(self, values: Sequence[Any]) -> NDArray[Any]:
        array = np.array(values)
        if array.shape != self.array.shape:
            raise ValueError
        return array

    def _within_limits(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the array, whose dtype is right; raise if a number is outside the limits of its space."""
        if self._span is None:
            return array
        # Below the low limit, the distance wraps around to a large number: one comparison instead of two
        distance = np.subtract(array, self._low, dtype=np.int64) if self._is_shifted else array
        distance = distance.view(f"u{distance.itemsize}")
        is_outside = (
            np.maximum.reduce(distance, axis=None) > self._span
            if self._has_one_span
            else np.logical_or.reduce(distance > self._span, axis=None)
        )
        if is_outside:
            found = misfit(self.leaf.space, array, len(array))
            assert found is not None
            raise self._error(found)
        return array

    def _convert(self, values: Sequence[Any]) -> NDArray[Any]:
        """Convert values of another dtype; raise for the first that is not in the space."""
        space, mine = self.leaf.space, self.array
        try:
            array = np.zeros(0) if self._is_masked(values) else np.array(values)
        except Exception:  # of different shapes, or as in read
            array = np.zeros(0)
        if array.shape != mine.shape or misfit(space, array, len(mine)) is not None:
            found = first_misfit(space, list(values))
            assert found is not None
            raise self._error(found)
        with np.errstate(over="ignore"):  # an infinity, which training refuses
            mine[...] = array
        return mine

    def _error(self, found: Misfit) -> MisfitError:
        return MisfitError(found.row, f"observation{path_name(self.leaf.path)}{found.words}")


def leaves_of(space: Space[Any]) -> tuple[Leaf, ...]:
    """Return the leaves of a packed space; a simple space is its own leaf."""
    return space.leaves if isinstance(space, Packed) else (whole(space),)


def whole(space: Space[Any]) -> Leaf:
    """Return a space as its own leaf: a simple one, or the vectors of a packed one."""
    return Leaf((), space, 0, math.prod(space.shape or ()))


def _is_whole_dtype(bounds: Limits, space: Space[Any]) -> bool:
    """Return whether the dtype of the space holds nothing outside the limits."""
    dtype = np.dtype(space.dtype)
    if dtype.kind == "b":
        return True
    info = np.iinfo(dtype)
    return bool(np.all(bounds.low == info.min) and np.all(bounds.high == info.max))
