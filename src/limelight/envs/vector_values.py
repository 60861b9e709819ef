"""What a third party's vectorised class returns at a step: numbers and ends of B environments, or an error."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from limelight.envs.faults import how_to_fix
from limelight.errors import EnvError
from limelight.spaces.values import NUMBERS, is_masked


def checked_result(result: Any, num_envs: int, name: str) -> tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], Any]:
    """Return (observations, rewards [B], terminated [B], truncated [B], infos) of a vectorised step.

    Raises: EnvError if there are other parts, or one is not an array of B real numbers, or B truth values.
    """
    if not isinstance(result, tuple) or len(result) != 5:
        given = f"{len(result)} values" if isinstance(result, tuple) else f"one {type(result).__name__}"
        must = "must be (observations, rewards, terminated, truncated, infos)"
        raise EnvError(f"{name}: step() of its vectorised class returned {given}: {must}; {how_to_fix(name)}")
    obs, rewards, terminated, truncated, infos = result
    return (
        obs,
        _row(rewards, num_envs, name, "rewards", NUMBERS),
        _row(terminated, num_envs, name, "terminated", "b"),
        _row(truncated, num_envs, name, "truncated", "b"),
        infos,
    )


def _row(values: Any, num_envs: int, name: str, part: str, kinds: str) -> NDArray[Any]:
    """Return ``values`` as an array [B] whose dtype is of one of the kinds."""
    array = np.asarray(values)
    if array.shape == (num_envs,) and not is_masked(values) and array.dtype.kind in kinds:
        return array
    masked = ", with masked values" if is_masked(values) else ""
    must = f"an array [{num_envs}] of {'truth values' if kinds == 'b' else 'real numbers'}"
    raise EnvError(
        f"{name}: step() of its vectorised class returned {part} of shape {array.shape} and dtype {array.dtype}"
        f"{masked}: must be {must}; {how_to_fix(name)}"
    )
