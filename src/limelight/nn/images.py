"""Convolutional features of images: their planes, and the networks by name. Used by encoders.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.spaces import Box, Space
from torch import Tensor, nn

from limelight.errors import ConfigError
from limelight.spaces.images import (
    MIN_CNN_SIZE,
    MIN_IMAGE_SIZE,
    PixelScale,
    channels_first,
    highest_values,
    image_size,
    is_categorical_image,
)


class ImagePreprocessor(nn.Module):
    """Images [N, *shape] → planes [N, C, H, W]: one plane for each code, or brightness, which is in 0 … 1 by its bound,
    or standardised, once :meth:`standardize` has said by what.
    """

    scale: Tensor
    mean: Tensor | None
    channels: Tensor
    codes: Tensor

    def __init__(self, space: Box) -> None:
        super().__init__()
        C = image_size(space)[0]
        self.is_grey = len(space.shape) == 2
        self.to_chw = (0, 3, 1, 2) if not self.is_grey and not channels_first(space) else None
        highest = highest_values(space)
        self.is_categorical_image = is_categorical_image(space)
        if self.is_categorical_image:
            channels = np.repeat(np.arange(C), highest + 1)
            codes = np.concatenate([np.arange(number + 1) for number in highest])
            self.register_buffer("channels", torch.from_numpy(channels), persistent=False)
            self.register_buffer("codes", torch.from_numpy(codes)[:, None, None], persistent=False)
        else:
            scale = (1.0 / highest).astype(np.float32)[:, None, None]
            self.register_buffer("scale", torch.from_numpy(scale), persistent=False)
            # Of bytes, a product with one number is four times as fast as one with a number for each channel.
            self.one_scale = 1.0 / int(highest[0]) if (highest == highest[0]).all() else None
        self.register_buffer("mean", None, persistent=False)
        self.factor, self.limit = 1.0, float("inf")
        self.num_planes = len(self.codes) if self.is_categorical_image else C

    def standardize(self, scale: PixelScale) -> None:
        """From now on planes are standardised by ``scale``."""
        mean = self._planes(torch.from_numpy(scale.mean)[None])
        self.mean = mean.to(self.scale.device).contiguous(memory_format=torch.channels_last)
        self.factor, self.limit = scale.factor, scale.limit

    def forward(self, obs: Tensor, out: Tensor | None = None) -> Tensor:
        """ImagePreprocessor [N, C, H, W], float32; in ``out`` if that is given, in its type."""
        images = self._planes(obs)
        if self.is_categorical_image:
            planes = (images[:, self.channels] == self.codes).float()
            return planes if out is None else out.copy_(planes)
        if self.to_chw is None and not self.is_grey:
            images = _interleaved(images)
        if self.mean is not None:
            in_place = out is not None and out.dtype == torch.float32
            planes = out.copy_(images) if in_place else images.float()  # type: ignore[union-attr]
            planes.sub_(self.mean).mul_(self.factor).clamp_(-self.limit, self.limit)
            return planes if in_place or out is None else out.copy_(planes)
        return torch.mul(images, self.scale if self.one_scale is None else self.one_scale, out=out)

    def _planes(self, obs: Tensor) -> Tensor:
        """[N, *shape] → [N, C, H, W]."""
        return obs[:, None] if self.is_grey else obs.permute(self.to_chw) if self.to_chw else obs


def set_image_scale(network: nn.Module, scale: PixelScale) -> None:
    """Tell every encoder of pictures in ``network``; see :meth:`ImagePreprocessor.standardize`."""
    for module in network.modules():
        if isinstance(module, ImagePreprocessor):
            module.standardize(scale)


def _interleaved(images: Tensor) -> Tensor:
    """Images [N, C, H, W] in channels_last memory, while they are bytes: faster than as numbers."""
    if images.device.type != "cpu":
        return images.contiguous(memory_format=torch.channels_last)
    N, C, H, W = images.shape
    apart = images.numpy()
    together = np.empty((N, H, W, C), apart.dtype)
    for c in range(C):  # NumPy takes three quarters of the time that torch.stack does
        together[..., c] = apart[:, c]
    return torch.from_numpy(together).permute(0, 3, 1, 2)


class ImageEncoder(nn.Module):
    """An image [..., *shape] → features [..., F], by one of :data:`NETWORKS` or, for small ones, by :data:`SMALL`.

    The layers compute in bfloat16 where ``precision`` says so, otherwise in float32; features are float32 anyway.

    Args:
        space: of the image (:func:`limelight.spaces.images.is_image`).
        network: a name; None is nature for pictures from 36 pixels on, and the small network below that.
        precision: bfloat16, or anything else for float32.
    Raises: ConfigError where the image is smaller than the network's kernels.
    """

    def __init__(self, space: Space[Any], network: str | None = None, precision: str = "float32") -> None:
        super().__init__()
        assert isinstance(space, Box)
        _, H, W = image_size(space)
        self.space = space
        self.network = network or ("nature" if min(H, W) >= MIN_CNN_SIZE else None)
        """The network's name; None is the small one."""
        self.dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self.planes = ImagePreprocessor(space)
        make, smallest = NETWORKS[self.network] if self.network else SMALL
        if min(H, W) < smallest:
            fit = " or ".join(name for name, other in NETWORKS.items() if min(H, W) >= other.smallest)
            raise ConfigError(
                f"encoder = {network!r}: needs pictures of {smallest} × {smallest} pixels or more, and these have "
                f"{H} × {W}; use {fit}, or larger pictures"
            )
        self.layers = nn.Sequential(*make(self.planes.num_planes, H, W))
        self.num_features = _width(self.layers, self.planes.num_planes, H, W)

    def forward(self, obs: Tensor) -> Tensor:
        """Features [..., F]."""
        lead = obs.shape[: obs.ndim - len(self.space.shape)]
        x = self.input(obs.reshape(-1, *self.space.shape))
        with self.autocast(obs.device.type):
            features: Tensor = self.layers(x)
        return features.float().reshape(*lead, -1)

    def input(self, obs: Tensor, out: Tensor | None = None) -> Tensor:
        """What the first layer takes of images [N, *shape]: planes in channels_last memory, in the encoder's dtype.

        In ``out``, if that is given.
        """
        planes: Tensor = self.planes(obs, out)
        return planes.to(self.dtype).contiguous(memory_format=torch.channels_last)

    def autocast(self, device_type: str) -> torch.autocast:
        """Within it, the layers compute in the encoder's dtype."""
        return torch.autocast(device_type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)


class Flat(nn.Module):
    """[N, C, H, W] → [N, H W C], the order in which channels_last memory holds it, so that nothing is copied."""

    def forward(self, x: Tensor) -> Tensor:
        """Rows of numbers."""
        return x.permute(0, 2, 3, 1).flatten(1)


class Residual(nn.Module):
    """x + conv(ReLU(conv(ReLU(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)]
        self.layers = nn.Sequential(nn.ReLU(), convolutions[0], nn.ReLU(), convolutions[1])

    def forward(self, x: Tensor) -> Tensor:
        """As large as x."""
        y: Tensor = x + self.layers(x)
        return y


Layers = list[nn.Module]


def _a3c(channels: int, height: int, width: int) -> Layers:
    layers = _convolutions(nn.ReLU, (channels, 16, 8, 4, 0), (16, 32, 4, 2, 0))
    return _with_hidden(layers, channels, height, width, 256)


def _a3c_half(channels: int, height: int, width: int) -> Layers:
    layers = _convolutions(nn.ReLU, (channels, 16, 4, 2, 0), (16, 32, 4, 2, 0))
    return _with_hidden(layers, channels, height, width, 256)


def _nature(channels: int, height: int, width: int) -> Layers:
    layers = _convolutions(nn.ReLU, (channels, 32, 8, 4, 0), (32, 64, 4, 2, 0), (64, 64, 3, 1, 0))
    return _with_hidden(layers, channels, height, width, 512)


def _universe(channels: int, height: int, width: int) -> Layers:
    return [*_convolutions(nn.ELU, (channels, 32, 3, 2, 1), *[(32, 32, 3, 2, 1)] * 3), Flat()]


def _impala(channels: int, height: int, width: int) -> Layers:
    layers: Layers = []
    for before, after in ((channels, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.MaxPool2d(3, 2, 1), Residual(after), Residual(after)]
    return _with_hidden([*layers, nn.ReLU()], channels, height, width, 256)


def _small(channels: int, height: int, width: int) -> Layers:
    layers = _convolutions(nn.ReLU, (channels, 16, 2, 1, 0), (16, 32, 2, 1, 0), (32, 64, 2, 1, 0))
    pooled = [*layers[:2], nn.MaxPool2d(2), *layers[2:]] if min(height, width) >= 7 else layers
    return [*pooled, Flat()]


class Network(NamedTuple):
    """What an image goes through."""

    layers: Callable[[int, int, int], Layers]
    """Made for so many planes, rows and columns."""
    smallest: int
    """The shorter side that its kernels need, in pixels."""


NETWORKS = {
    "a3c": Network(_a3c, 20),
    "a3c-half": Network(_a3c_half, 10),
    "nature": Network(_nature, MIN_CNN_SIZE),
    "universe": Network(_universe, 1),
    "impala": Network(_impala, 1),
}
"""The networks for pictures, by name.

a3c: 16 8×8/4, 32 4×4/2, 256 (Mnih et al. 2016). a3c-half: 16 4×4/2, 32 4×4/2, 256: the same for half the side, as
the shapes behind the first layer tell. nature: 32 8×8/4, 64 4×4/2, 64 3×3/1, 512 (Mnih et al. 2015).
universe: four times 32 3×3/2 with ELU, for 42 × 42 (OpenAI's universe-starter-agent). impala: three times a convolution
of 16, 32, 32 channels, pooled, with two residual blocks each, then 256 (Espeholt et al. 2018). ReLU but for universe.
"""
SMALL = Network(_small, MIN_IMAGE_SIZE)
"""16 2×2, pooled from 7 pixels on, 32 2×2, 64 2×2: torch-ac's for MiniGrid."""


def _convolutions(activation: type[nn.Module], *sizes: tuple[int, int, int, int, int]) -> Layers:
    """Convolution + activation for every (channels in, out, kernel, stride, padding)."""
    return [layer for size in sizes for layer in (nn.Conv2d(*size), activation())]


def _with_hidden(layers: Layers, channels: int, height: int, width: int, hidden: int) -> Layers:
    """The layers, then a hidden one of so many units on all they make."""
    flat = [*layers, Flat()]
    return [*flat, nn.Linear(_width(nn.Sequential(*flat), channels, height, width), hidden), nn.ReLU()]


def _width(layers: nn.Module, channels: int, height: int, width: int) -> int:
    with torch.no_grad():
        return int(layers(torch.zeros(1, channels, height, width)).shape[-1])
