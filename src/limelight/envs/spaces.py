"""Which spaces Limelight can learn from, and their JSON form in a saved agent. For make.py and agent.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space
from numpy.typing import NDArray

from limelight.config import ConfigError

_OBSERVATIONS = (Box, Discrete, MultiDiscrete)
_ACTIONS = (Discrete,)


def check_spaces(observation_space: Space[Any], action_space: Space[Any], env_id: str) -> None:
    """Refuse what the networks and distributions cannot take.

    Raises: ConfigError naming the space and what is supported.
    """
    for role, space, supported in (
        ("observation", observation_space, _OBSERVATIONS),
        ("action", action_space, _ACTIONS),
    ):
        if type(space) not in supported:
            names = ", ".join(kind.__name__ for kind in supported)
            raise ConfigError(
                f"env_id = {env_id}: {role} space {describe_space(space)} is not supported "
                f"(supported: {names}); wrap the environment so that it has one of these"
            )
    shape = observation_space.shape or ()
    if 0 in shape or observation_space.dtype is None or observation_space.dtype.kind not in "biuf":
        raise ConfigError(
            f"env_id = {env_id}: observation space {describe_space(observation_space)} is not supported; "
            "an observation must hold at least one real number"
        )


def describe_space(space: Space[Any]) -> str:
    """A space in a few words: gymnasium prints large boxes over many lines."""
    name = type(space).__name__
    if isinstance(space, Discrete):
        return f"{name}({space.n}{f', start={space.start}' if space.start else ''})"
    if isinstance(space, MultiDiscrete):
        return f"{name}({' '.join(str(space.nvec.tolist()).split())})"
    if isinstance(space, Box):
        return f"{name}{space.shape} {space.dtype}"
    return name


def space_to_json(space: Space[Any]) -> dict[str, Any]:
    """A Box, Discrete or MultiDiscrete as plain JSON data, exact in bounds, dtype, shape and start.

    Raises: TypeError for any other space.
    """
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
    """The space of :func:`space_to_json`.

    Raises: ConfigError when ``data`` describes no known space.
    """
    kind, dtype = data.get("space"), np.dtype(data.get("dtype", "f4"))
    if kind == "Box":
        shape = tuple(data["shape"])
        return Box(_bounds(data["low"], shape, dtype), _bounds(data["high"], shape, dtype), shape, dtype.type)
    if kind == "Discrete":
        return Discrete(data["n"], start=data["start"], dtype=dtype.type)
    if kind == "MultiDiscrete":
        return MultiDiscrete(np.array(data["nvec"]), dtype=dtype.type, start=np.array(data["start"]))
    raise ConfigError(f"space = {kind!r}: must be Box, Discrete or MultiDiscrete; the saved agent is damaged")


def _bounds_to_json(bounds: NDArray[Any]) -> Any:
    """Nested lists, or one number where all are the same (images); infinities as text, which JSON lacks."""
    if bounds.size and (bounds == bounds.flat[0]).all():
        bounds = bounds.reshape(-1)[0]
    return _texts(bounds.tolist())


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(v) for v in value]
    return str(value) if value in (float("inf"), float("-inf")) else value


def _bounds(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    # from text to number through dtype.type, so that "inf" and 64-bit integers both come back exactly
    return np.broadcast_to(np.array(value, object).astype(dtype), shape).copy()
