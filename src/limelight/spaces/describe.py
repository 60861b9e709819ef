"""Supported spaces: the check, a short description, and the JSON form in a saved agent."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from numpy.typing import NDArray

from limelight.errors import CheckpointError, EnvError
from limelight.spaces.packed import SIMPLE, Packed, path_name, walk
from limelight.spaces.values import describe_simple, limits

LARGEST_CODE = 2**24
"""Whole numbers up to this are different from each other in float32."""


def check_spaces(observation_space: Space[Any], action_space: Space[Any], env_id: str) -> None:
    """Refuse spaces that the networks and distributions cannot take.

    Raises: EnvError naming the space, its place in a Dict or Tuple, and what is supported.
    """
    for role, space in (("observation", observation_space), ("action", action_space)):
        is_packed = isinstance(space, Packed | Dict | Tuple)
        space = space.original if isinstance(space, Packed) else space
        parts = list(walk(space))
        if not parts:
            raise EnvError(f"env_id = {env_id}: {role} space {describe_space(space)} is empty; it must hold a number")
        for path, part in parts:
            obstacle = _obstacle(part) or (_large_codes(part) if is_packed else None)
            if obstacle is not None:
                where = f" at {path_name(path)}" if path else ""
                raise EnvError(f"env_id = {env_id}: {role} space {describe_space(part)}{where} {obstacle}")


def _obstacle(space: Space[Any]) -> str | None:
    """Return why a space that is no Dict or Tuple is not supported, and what would help; None if it is."""
    if not isinstance(space, SIMPLE):
        names = ", ".join(kind.__name__ for kind in SIMPLE)
        if not isinstance(space, Space):
            return f"is no gymnasium.Space; set it to one of {names}, or to a Dict or Tuple of these"
        is_foreign = type(space).__name__ in (kind.__name__ for kind in SIMPLE)
        origin = f"is of {type(space).__module__} and not of gymnasium.spaces, and " if is_foreign else ""
        return (
            f"{origin}is not supported (supported: {names}, and Dict and Tuple of these); wrap the environment so "
            "that it has one of these, e.g. in gymnasium.wrappers.TransformObservation or FilterObservation"
        )
    if 0 in (space.shape or ()) or space.dtype is None or space.dtype.kind not in "biuf":
        return "is not supported; it must hold at least one real number"
    return None


def _large_codes(space: Space[Any]) -> str | None:
    """Return why the codes of a part of a Dict or Tuple would become others; None if they stay as they are."""
    bounds = limits(space) if isinstance(space, Discrete | MultiDiscrete) else None
    if bounds is None or max(np.abs(bounds.low).max(), np.abs(bounds.high).max()) <= LARGEST_CODE:
        return None
    return f"has codes beyond {LARGEST_CODE:,}, which its vector of float32 does not hold; count from a smaller start"


def describe_space(space: Space[Any]) -> str:
    """Describe a space in a few words: gymnasium prints large boxes over many lines."""
    name = type(space).__name__
    if isinstance(space, Packed):
        return describe_space(space.original)
    if isinstance(space, Dict):
        return f"{name}({', '.join(f'{key}: {describe_space(part)}' for key, part in space.spaces.items())})"
    if isinstance(space, Tuple):
        return f"{name}({', '.join(map(describe_space, space.spaces))})"
    return describe_simple(space)


def space_difference(first: Space[Any], second: Space[Any], float_bounds: bool = True) -> str | None:
    """Return in a few words how two spaces differ, by the first part that does; None if they are equal.

    ``float_bounds``: whether the bounds of Boxes of real numbers count; networks do not see those of observations.
    """
    left, right = (space.original if isinstance(space, Packed) else space for space in (first, second))
    pairs = list(zip(walk(left), walk(right), strict=False))
    same_paths = [path for path, _ in walk(left)] == [path for path, _ in walk(right)]
    if not same_paths or isinstance(first, Packed) != isinstance(second, Packed):
        return f"{describe_space(first)} and {describe_space(second)}"
    if isinstance(first, Packed) and isinstance(second, Packed) and first.mask_source != second.mask_source:
        return f"action masks from {first.mask_source} and from {second.mask_source}"
    for (path, a), (_, b) in pairs:
        difference = _leaf_difference(a, b, float_bounds)
        if difference is not None:
            return f"{difference} at {path_name(path)}" if path else difference
    return None


def _leaf_difference(a: Space[Any], b: Space[Any], float_bounds: bool) -> str | None:
    if a == b:
        return None
    kinds = [next((kind for kind in SIMPLE if isinstance(space, kind)), type(space)) for space in (a, b)]
    differs = a.shape != b.shape or describe_space(a) != describe_space(b)
    if kinds[0] is not kinds[1] or (differs and not _same_numbers(a, b)):
        return f"{describe_space(a)} and {describe_space(b)}"
    if a.dtype != b.dtype:
        return f"dtype {a.dtype} and {b.dtype}"
    if isinstance(a, Box) and isinstance(b, Box):
        if not float_bounds and a.dtype.kind == "f":
            return None
        where = tuple(int(i) for i in np.argwhere((a.low != b.low) | (a.high != b.high))[0])
        bounds = [f"[{box.low[where]:g}, {box.high[where]:g}]" for box in (a, b)]
        return f"bounds {bounds[0]} and {bounds[1]} of number {list(where)}"
    return f"{a} and {b}"


def _same_numbers(a: Space[Any], b: Space[Any]) -> bool:
    """Return whether two simple spaces of one kind, perhaps of classes of their own, hold numbers of one form."""
    return isinstance(a, Box) and a.shape == b.shape and a.dtype == b.dtype


def space_to_json(space: Space[Any]) -> dict[str, Any]:
    """Return a supported space as plain JSON data, exact in bounds, dtype, shape, start and order of keys.

    Raises: TypeError for any other space.
    """
    if isinstance(space, Packed):
        return {"space": "Packed", "original": space_to_json(space.original), "mask": space.mask_source}
    if isinstance(space, Dict):
        return {"space": "Dict", "spaces": [[key, space_to_json(part)] for key, part in space.spaces.items()]}
    if isinstance(space, Tuple):
        return {"space": "Tuple", "spaces": [space_to_json(part) for part in space.spaces]}
    if isinstance(space, MultiBinary):
        return {"space": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
    if isinstance(space, Box):
        return {
            "space": "Box",
            "shape": list(space.shape),
            "dtype": space.dtype.str,
            "low": _bounds_to_json(space.low),
            "high": _bounds_to_json(space.high),
        }
    if isinstance(space, Discrete):
        return {"space": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": space.dtype.str}
    if isinstance(space, MultiDiscrete):
        return {
            "space": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
            "dtype": np.dtype(space.dtype).str,
        }
    raise TypeError(f"no JSON form for space {describe_space(space)}")


def space_from_json(data: dict[str, Any]) -> Space[Any]:
    """Return the space of :func:`space_to_json`.

    Raises: CheckpointError if ``data`` describes no known space.
    """
    kind, dtype = data.get("space"), np.dtype(data.get("dtype", "f4"))
    if dtype.kind not in "biuf":  # of which one value may take any memory
        raise CheckpointError(f"dtype = {str(dtype)[:100]}: must be one of numbers; the saved agent is damaged")
    if kind == "Box":
        shape = tuple(data["shape"])
        return Box(_bounds(data["low"], shape, dtype), _bounds(data["high"], shape, dtype), shape, dtype.type)
    if kind == "Discrete":
        return _discrete(data["n"], data["start"], dtype)
    if kind == "MultiDiscrete":
        return MultiDiscrete(np.array(data["nvec"]), dtype=dtype.type, start=np.array(data["start"]))
    if kind == "MultiBinary":
        return MultiBinary(data["n"])
    if kind == "Dict":
        return Dict([(key, space_from_json(part)) for key, part in data["spaces"]])
    if kind == "Tuple":
        return Tuple([space_from_json(part) for part in data["spaces"]])
    if kind == "Packed":
        return Packed(space_from_json(data["original"]), data["mask"])
    names = ", ".join(space.__name__ for space in (*SIMPLE, Dict, Tuple, Packed))
    raise CheckpointError(f"space = {kind!r}: must be one of {names}; the saved agent is damaged")


def _discrete(n: int, start: int, dtype: np.dtype[Any]) -> Discrete:
    """Return the space.

    Raises: CheckpointError for another dtype than int64 with Gymnasium before 1.2.2, which has no other.
    """
    if dtype == np.int64:
        return Discrete(n, start=start)
    if "dtype" not in inspect.signature(Discrete).parameters:
        raise CheckpointError(f"a Discrete space of {dtype} needs Gymnasium 1.2.2 or newer: pip install -U gymnasium")
    return Discrete(n, start=start, dtype=dtype.type)


def size_of_json(data: Any) -> int:
    """Return how many numbers and categories the space of :func:`space_to_json` has, without making it."""
    if isinstance(data, list):
        return sum(map(size_of_json, data))
    if not isinstance(data, dict):
        return 0
    n = data.get("n", 0)
    own = (  # negative numbers, which no space has, must not make up for others
        abs(math.prod(data.get("shape", ())))
        + abs(math.prod(n) if isinstance(n, list) else n)
        + sum(map(abs, np.array(data.get("nvec", 0)).reshape(-1).tolist()))
    )
    return int(own) + size_of_json([data.get("original"), data.get("spaces")])


def leaves_of_json(data: Any) -> tuple[int, int]:
    """Return how many parts the space of :func:`space_to_json` has, and how many of them may be images."""
    if isinstance(data, list):
        found = [leaves_of_json(part) for part in data]
        return sum(leaves for leaves, _ in found), sum(images for _, images in found)
    if not isinstance(data, dict):
        return 0, 0
    inner = [part for part in (data.get("original"), data.get("spaces")) if part is not None]
    if inner:
        return leaves_of_json(inner)
    return 1, int(data.get("space") == "Box" and len(data.get("shape", ())) > 1 and data.get("dtype") == "|u1")


def _bounds_to_json(bounds: NDArray[Any]) -> Any:
    """Return nested lists, or one number if all are the same (images); infinities as text, as JSON has none."""
    if bounds.size and (bounds == bounds.flat[0]).all():
        bounds = bounds.reshape(-1)[0]
    return _texts(bounds.tolist())


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(v) for v in value]
    return str(value) if value in (float("inf"), float("-inf")) else value


def _bounds(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    # from text to number by the dtype, which reads both "inf" and 64-bit integers exactly
    return np.broadcast_to(np.array(value, object).astype(dtype), shape).copy()
