"""Images among observation spaces: which Boxes are images, and the layout of their arrays."""

from __future__ import annotations

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
    """Return whether ``space`` is an image: bytes, 36 × 36 or more, or 4 × 4 or more with channels first or last."""
    if not isinstance(space, Box) or space.dtype != np.uint8 or len(space.shape) not in (2, 3):
        return False
    smallest = MIN_CNN_SIZE if len(space.shape) == 2 else MIN_IMAGE_SIZE
    return min(image_size(space)[1:]) >= smallest


def is_flat_image(space: Space[Any]) -> bool:
    """Return whether ``space`` may be an image, or a stack of images, that is not recognised: it will be flattened."""
    if not isinstance(space, Box) or len(space.shape) not in (2, 3, 4) or is_image(space):
        return False
    sides = sorted(space.shape)
    large = MIN_CNN_SIZE if space.dtype != np.uint8 else MIN_CNN_SIZE // 2
    return sides[-2] >= large


def image_size(space: Box) -> tuple[int, int, int]:
    """Return (channels, height, width)."""
    if len(space.shape) == 2:
        return 1, space.shape[0], space.shape[1]
    a, b, c = space.shape
    return (a, b, c) if channels_first(space) else (c, a, b)


def channels_first(space: Box) -> bool:
    """Return whether three dimensions are C × H × W: by the square sides, else the smaller end is the channels."""
    a, b, c = space.shape
    return b == c if (a == b) != (b == c) else a < c


def highest_values(space: Box) -> NDArray[np.int64]:
    """Return the largest value of each channel of an image, at least 1, [C]."""
    grey = len(space.shape) == 2
    high = space.high[None] if grey else np.moveaxis(space.high, 0 if channels_first(space) else -1, 0)
    return np.maximum(high.reshape(len(high), -1).max(1), 1).astype(np.int64)


def is_categorical_image(space: Box) -> bool:
    """Return whether an image holds categories, whose codes have no order, and not brightness."""
    return bool(1 < highest_values(space).max() < MAX_CATEGORIES)
