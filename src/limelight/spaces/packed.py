"""Composite spaces (Dict, Tuple, nested) as one flat vector with known parts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from numpy.typing import NDArray

from limelight.errors import EnvError
from limelight.spaces.values import Misfit, first_misfit, misfit

Path = tuple[str | int, ...]
MaskSource = Literal["observation", "info"]

SIMPLE = (Box, Discrete, MultiDiscrete, MultiBinary)
"""The spaces that a composite space may contain."""
MASK_KEY = "action_mask"


class Leaf(NamedTuple):
    """A simple space inside a composite one."""

    path: Path
    """The keys and indices that lead to the leaf."""
    space: Space[Any]
    start: int
    """Index of its first number in the packed vector."""
    size: int
    """How many numbers it has; a Discrete value is one number, the environment's own."""

    @property
    def part(self) -> slice:
        """Slice of its numbers in the packed vector."""
        return slice(self.start, self.start + self.size)


class Packed(Box):
    """A composite space as vectors [D]: float32, or uint8 if every leaf fits in a byte.

    Args:
        original: a composite of simple spaces; integers beyond 2²⁴ lose their last digits in float32.
        mask: where the top-level key ``action_mask`` comes from, if it is a mask of legal actions: the environment's
            observation, or its info (then ``original`` is Dict(observation=…, action_mask=…), made by with_mask).
    Raises: EnvError if ``original`` holds another kind of space.
    """

    def __init__(self, original: Space[Any], mask: MaskSource | None = None) -> None:
        self.original = original
        self.mask_source = mask
        leaves: list[Leaf] = []
        start = 0
        for path, space in walk(original):
            if not isinstance(space, SIMPLE):
                raise EnvError(f"space {space} at {path_name(path)}: cannot be a part of a packed space")
            leaves.append(Leaf(path, space, start, math.prod(space.shape or ())))
            start += leaves[-1].size
        self.leaves = tuple(leaves)
        self.mask = next((leaf for leaf in leaves if leaf.path == (MASK_KEY,)), None) if mask else None
        """The part that is the mask of legal actions."""
        if all(_fits_byte(leaf.space) for leaf in leaves):
            super().__init__(0, 255, (start,), np.uint8)
        else:
            super().__init__(-np.inf, np.inf, (start,), np.float32)

    @property
    def visible(self) -> tuple[Leaf, ...]:
        """The leaves that are observations: all but the mask."""
        return tuple(leaf for leaf in self.leaves if leaf is not self.mask)

    def pack(self, value: Any) -> NDArray[Any]:
        """Return the vector [D] of a value of ``original``.

        Raises: ValueError naming the part that is missing, has another shape, or is outside its space.
        """
        vector = np.empty(self.shape, self.dtype)
        for leaf in self.leaves:
            part = part_of(value, leaf.path)
            _refuse(leaf, first_misfit(leaf.space, [part]))
            vector[leaf.part] = np.ravel(part)
        return vector

    def pack_batch(self, value: Any) -> NDArray[Any]:
        """Return the vectors [B, D] of nested arrays with a leading B.

        Raises: ValueError as :meth:`pack`, or if the parts differ in B.
        """
        parts = [_array(leaf, part_of(value, leaf.path)) for leaf in self.leaves]
        B = len(np.atleast_1d(parts[0]))
        vectors = np.empty((B, *self.shape), self.dtype)
        for leaf, part in zip(self.leaves, parts, strict=True):
            _refuse(leaf, misfit(leaf.space, part, B))
            vectors[:, leaf.part] = np.asarray(part).reshape(B, -1)
        return vectors

    def unpack(self, vectors: NDArray[Any]) -> Any:
        """Return the value of ``original`` in the dtypes of its spaces; of vectors [..., D], arrays [..., *shape]."""
        lead = vectors.shape[:-1]

        def leaf_value(leaf: Leaf) -> Any:
            space = leaf.space
            array = vectors[..., leaf.part].reshape((*lead, *(space.shape or ()))).astype(space.dtype)
            return array[()] if isinstance(space, Discrete) else array

        return self.nest([leaf_value(leaf) for leaf in self.leaves])

    def nest(self, values: Sequence[Any]) -> Any:
        """Return one value per leaf, in their order, nested as ``original`` is."""
        return _nested(self.original, iter(values))

    def sample(self, mask: Any = None, probability: Any = None) -> NDArray[Any]:
        """Draw a random value of ``original`` and pack it."""
        return self.pack(self.original.sample(mask=mask, probability=probability))

    def seed(self, seed: Any = None) -> Any:
        """Seed :meth:`sample`."""
        return self.original.seed(seed)

    def __repr__(self) -> str:
        return f"Packed({self.original})"

    def __eq__(self, other: object) -> bool:
        # Leaves are compared too: Dict spaces are equal in any order of keys, vectors are not.
        return (
            isinstance(other, Packed)
            and (self.leaves, self.mask_source) == (other.leaves, other.mask_source)
            and self.original == other.original
        )


def walk(space: Space[Any], path: Path = ()) -> Iterator[tuple[Path, Space[Any]]]:
    """Yield the path and space of every leaf of Dict and Tuple spaces, in their order; of others the space itself."""
    if isinstance(space, Dict):
        for key, part in space.spaces.items():
            yield from walk(part, (*path, key))
    elif isinstance(space, Tuple):
        for i, part in enumerate(space.spaces):
            yield from walk(part, (*path, i))
    else:
        yield path, space


def path_name(path: Path) -> str:
    """Return a path as in Python: ``['camera'][0]``."""
    return "".join(f"[{key!r}]" for key in path)


def place_name(space: Space[Any] | None, index: Sequence[int]) -> str:
    """Return the place of one number of an observation [*shape]: its index, behind the path of its leaf if packed."""
    if not isinstance(space, Packed):
        return str(list(index)) if index else ""
    (column,) = index
    leaf = next(leaf for leaf in space.leaves if column < leaf.part.stop)
    inside = [int(i) for i in np.unravel_index(column - leaf.start, leaf.space.shape or (1,))]
    return path_name(leaf.path) + (str(inside) if leaf.space.shape else "")


def part_of(value: Any, path: Path) -> Any:
    """Return the value at ``path`` in nested dicts and tuples.

    Raises: ValueError naming what is missing.
    """
    for depth, key in enumerate(path):
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            keys = f"has {', '.join(map(repr, value))}" if isinstance(value, dict) else f"is a {type(value).__name__}"
            where = path_name(path[:depth])
            raise ValueError(f"no {path_name(path[: depth + 1])}: {where or 'the value'} {keys}") from None
    return value


def _array(leaf: Leaf, value: Any) -> NDArray[Any]:
    """Return a value as an array, masked if it is; raise ValueError for what is none."""
    try:
        return np.asanyarray(value)
    except Exception as error:  # ragged lists, and what other libraries raise
        raise ValueError(f"{path_name(leaf.path)} is no array ({' '.join(str(error).split())})") from None


def _refuse(leaf: Leaf, found: Misfit | None) -> None:
    """Raise ValueError if there is a misfit."""
    if found is not None:
        raise ValueError(f"{path_name(leaf.path) or 'the value'}{found.words}")


def _nested(space: Space[Any], values: Iterator[Any]) -> Any:
    """Return leaf values, given in the order of :func:`walk`, nested as ``space`` is."""
    if isinstance(space, Dict):
        return {key: _nested(part, values) for key, part in space.spaces.items()}
    if isinstance(space, Tuple):
        return tuple(_nested(part, values) for part in space.spaces)
    return next(values)


def _fits_byte(space: Space[Any]) -> bool:
    if isinstance(space, Box):
        return space.dtype in (np.uint8, np.bool_)
    if isinstance(space, Discrete):
        return bool(space.start >= 0 and space.start + space.n <= 256)
    if isinstance(space, MultiDiscrete):
        return bool((space.start >= 0).all() and (space.start + space.nvec <= 256).all())
    return True
