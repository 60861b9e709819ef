"""Images among observation spaces: which Boxes are images, and the layout of their arrays."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box, Space
from numpy.typing import NDArray

MIN_CNN_SIZE = 36
"""The shorter side from which a Box of two dimensions is an image: the kernels of the Nature network need 36 pixels."""
MIN_IMAGE_SIZE = 4
"""The shorter side from which a Box of three dimensions is an image: three 2 × 2 kernels need 4 pixels."""
MAX_CATEGORIES = 32
"""Images with values below this hold categories, as MiniGrid's do, and not brightness."""


class PixelScale(NamedTuple):
    """Standardises an image: (brightness − mean) · factor, clipped to ± limit."""

    mean: NDArray[np.float32]
    """Mean of each pixel, [*shape]."""
    factor: float
    """1 / standard deviation of all pixels."""
    limit: float


def is_image(space: Space[Any]) -> bool:
    """Return whether ``space`` is an image, or a stack of images: bytes with sides that are long enough.

    Sides of 36 pixels without channels, of 4 with channels first or last, of 36 in a stack: four dimensions of which
    two neighbours are the sides, and the others, frames and channels, are less than half as long.
    """
    if not isinstance(space, Box) or space.dtype != np.uint8 or len(space.shape) not in (2, 3, 4):
        return False
    sides = _sides(space.shape)
    if sides is None:
        return False
    smallest = MIN_IMAGE_SIZE if len(space.shape) == 3 else MIN_CNN_SIZE
    return min(space.shape[side] for side in sides) >= smallest


def is_flat_image(space: Space[Any]) -> bool:
    """Return whether ``space`` may be an image, or a stack of images, that is not recognised: it will be flattened."""
    if not isinstance(space, Box) or len(space.shape) not in (2, 3, 4) or is_image(space):
        return False
    sides = sorted(space.shape)
    large = MIN_CNN_SIZE if space.dtype != np.uint8 else MIN_CNN_SIZE // 2
    return sides[-2] >= large


def explain_flat_image(space: Box) -> str:
    """Return what to do about a space of :func:`is_flat_image`, to follow its description."""
    if space.dtype != np.uint8:
        factor = "255 * obs" if 0 < space.high.max() <= 1 else "obs"
        return f"is flattened; if it is an image, return ({factor}).astype(np.uint8) and declare Box(0, 255) of uint8"
    if len(space.shape) == 2:
        return f"is flattened; if it is an image, return obs[..., None], or {MIN_CNN_SIZE} x {MIN_CNN_SIZE} or more"
    return f"is flattened; if it is an image, make it H x W x C, a stack {MIN_CNN_SIZE} x {MIN_CNN_SIZE} or more"


def image_size(space: Box) -> tuple[int, int, int]:
    """Return (channels, height, width); the channels of all frames of a stack."""
    others, sides = image_axes(space)
    height, width = (space.shape[side] for side in sides)
    return math.prod(space.shape[axis] for axis in others), height, width


def image_axes(space: Box) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Return the axes of frames and channels, none to two, and those of height and width, of an image."""
    sides = _sides(space.shape)
    assert sides is not None
    return tuple(axis for axis in range(len(space.shape)) if axis not in sides), sides


def _sides(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return the axes of height and width of two to four dimensions; None for four that are no stack of images."""
    if len(shape) == 2:
        return 0, 1
    if len(shape) == 3:  # by the square sides, else the smaller end is the channels
        a, b, c = shape
        return (1, 2) if (b == c if (a == b) != (b == c) else a < c) else (0, 1)
    for first in range(3):
        height, width = shape[first : first + 2]
        others = shape[:first] + shape[first + 2 :]
        if 2 * max(others) < min(height, width):
            return first, first + 1
    return None


def highest_values(space: Box) -> NDArray[np.int64]:
    """Return the largest value of each channel of an image, at least 1, [C]."""
    others, sides = image_axes(space)
    high = space.high.transpose(*others, *sides).reshape(image_size(space)[0], -1)
    return np.maximum(high.max(1), 1).astype(np.int64)


def is_categorical_image(space: Box) -> bool:
    """Return whether an image holds categories, whose codes have no order, and not brightness."""
    return bool(1 < highest_values(space).max() < MAX_CATEGORIES)
