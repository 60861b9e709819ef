"""Convolutional features of images: what counts as one, its planes, and the layers by its size. Used by encoders.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Space
from torch import Tensor, nn

PICTURE_SIZE = 36
"""The shorter side from which Nature's CNN takes over: its kernels need 36 pixels."""
SMALLEST_SIZE = 4
"""Three 2 × 2 kernels need as many."""
MOST_CODES = 32
"""Images whose values stay below this hold codes, as MiniGrid's do, and not brightness."""


def is_image(space: Space[Any]) -> bool:
    """Bytes in two dimensions of 36 or more, or in three: sides of 4 or more, and channels, first or last."""
    if not isinstance(space, Box) or space.dtype != np.uint8 or len(space.shape) not in (2, 3):
        return False
    smallest = PICTURE_SIZE if len(space.shape) == 2 else SMALLEST_SIZE
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


class Planes(nn.Module):
    """Images [N, *shape] → planes [N, C, H, W] in 0 … 1: brightness by its bound, or one plane for each code."""

    scale: Tensor
    channels: Tensor
    codes: Tensor

    def __init__(self, space: Box) -> None:
        super().__init__()
        C = image_size(space)[0]
        self.to_chw = (0, 3, 1, 2) if len(space.shape) == 3 and not channels_first(space) else None
        self.is_grey = len(space.shape) == 2
        high = space.high if len(space.shape) == 2 else np.moveaxis(space.high, 0 if channels_first(space) else -1, 0)
        highest = np.maximum(high.reshape(C, -1).max(1), 1).astype(int)
        self.is_coded = bool(1 < highest.max() < MOST_CODES)
        if self.is_coded:
            channels = np.repeat(np.arange(C), highest + 1)
            codes = np.concatenate([np.arange(number + 1) for number in highest])
            self.register_buffer("channels", torch.from_numpy(channels), persistent=False)
            self.register_buffer("codes", torch.from_numpy(codes)[:, None, None], persistent=False)
        else:
            scale = (1.0 / highest).astype(np.float32)[:, None, None]
            self.register_buffer("scale", torch.from_numpy(scale), persistent=False)
        self.num_planes = len(self.codes) if self.is_coded else C

    def forward(self, obs: Tensor) -> Tensor:
        """Planes [N, C, H, W]."""
        images = obs[:, None] if self.is_grey else obs if self.to_chw is None else obs.permute(self.to_chw)
        if self.is_coded:
            return (images[:, self.channels] == self.codes).float()
        return images * self.scale


class ImageEncoder(nn.Module):
    """An image [..., *shape] → features [..., F].

    From 36 pixels on the network of Mnih et al. 2015: 32 8×8/4, 64 4×4/2, 64 3×3/1, 512. Below, that of torch-ac for
    MiniGrid: 16 2×2, pooled from 7 pixels on, 32 2×2, 64 2×2. ReLU everywhere.
    """

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()
        assert isinstance(space, Box)
        self.space = space
        _, H, W = image_size(space)
        self.is_picture = min(H, W) >= PICTURE_SIZE
        self.planes = Planes(space)
        self.layers = nn.Sequential(*(_nature if self.is_picture else _small)(self.planes.num_planes, min(H, W)))
        with torch.no_grad():
            width = self.layers(torch.zeros(1, self.planes.num_planes, H, W)).shape[-1]
        if self.is_picture:
            self.layers.extend([nn.Linear(width, 512), nn.ReLU()])
        self.num_features = 512 if self.is_picture else width

    def forward(self, obs: Tensor) -> Tensor:
        """Features [..., F]."""
        lead = obs.shape[: obs.ndim - len(self.space.shape)]
        features: Tensor = self.layers(self.planes(obs.reshape(-1, *self.space.shape)))
        return features.reshape(*lead, -1)


def _nature(channels: int, size: int) -> list[nn.Module]:
    return _convolutions((channels, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1))


def _small(channels: int, size: int) -> list[nn.Module]:
    layers = _convolutions((channels, 16, 2, 1), (16, 32, 2, 1), (32, 64, 2, 1))
    return [*layers[:2], nn.MaxPool2d(2), *layers[2:]] if size >= 7 else layers


def _convolutions(*sizes: tuple[int, int, int, int]) -> list[nn.Module]:
    """Convolution + ReLU for every (channels in, out, kernel, stride), then flat."""
    pairs = [[nn.Conv2d(c, out, kernel, stride), nn.ReLU()] for c, out, kernel, stride in sizes]
    return [*(layer for pair in pairs for layer in pair), nn.Flatten()]
