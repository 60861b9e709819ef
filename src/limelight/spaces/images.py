"""What counts as an image among observations, and how it lies in its array.

Asked by nn/images.py, which encodes images, and envs/normalize.py, which standardises them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box, Space
from numpy.typing import NDArray

MIN_CNN_SIZE = 36
"""The shorter side from which two dimensions are a picture: the kernels of nature need 36 pixels."""
MIN_IMAGE_SIZE = 4
"""Three 2 × 2 kernels need as many."""
MAX_CATEGORIES = 32
"""Images whose values stay below this hold codes, as MiniGrid's do, and not brightness."""


class PixelScale(NamedTuple):
    """What a picture is standardised by: (brightness − mean) · factor, cut to ± limit."""

    mean: NDArray[np.float32]
    """Of each pixel, [*shape]."""
    factor: float
    """1/deviation of all pixels."""
    limit: float


def is_image(space: Space[Any]) -> bool:
    """Bytes in two dimensions of 36 or more, or in three: sides of 4 or more, and channels, first or last."""
    if not isinstance(space, Box) or space.dtype != np.uint8 or len(space.shape) not in (2, 3):
        return False
    smallest = MIN_CNN_SIZE if len(space.shape) == 2 else MIN_IMAGE_SIZE
    return min(image_size(space)[1:]) >= smallest


def image_size(space: Box) -> tuple[int, int, int]:
    """(channels, height, width)."""
    if len(space.shape) == 2:
        return 1, space.shape[0], space.shape[1]
    a, b, c = space.shape
    return (a, b, c) if channels_first(space) else (c, a, b)


def channels_first(space: Box) -> bool:
    """Whether three dimensions are C × H × W: square sides tell, else the smaller end is the channels."""
    a, b, c = space.shape
    return b == c if (a == b) != (b == c) else a < c


def highest_values(space: Box) -> NDArray[np.int64]:
    """The largest value of each channel of an image, at least 1, [C]."""
    grey = len(space.shape) == 2
    high = space.high[None] if grey else np.moveaxis(space.high, 0 if channels_first(space) else -1, 0)
    return np.maximum(high.reshape(len(high), -1).max(1), 1).astype(np.int64)


def is_categorical_image(space: Box) -> bool:
    """Whether an image holds codes, of which 2 is no more than 1, and not brightness."""
    return bool(1 < highest_values(space).max() < MAX_CATEGORIES)
