"""Convolutional encoders of images: preprocessing, and the networks by name."""

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
    highest_values,
    image_axes,
    image_size,
    is_categorical_image,
)


class _Stack(NamedTuple):
    """How frames are gathered into channels: by a permutation of [N, *shape], then by a shape [N, H, W, C]."""

    order: tuple[int, ...]
    shape: tuple[int, ...]


class ImagePreprocessor(nn.Module):
    """Converts images [N, *shape] to planes [N, C, H, W]; the frames of a stack become channels.

    An image of categories becomes one-hot: one plane for every category of every channel. Brightness is divided by its
    upper bound, so that it lies in 0 … 1, or standardised after :meth:`standardize` was called.
    """

    scale: Tensor
    mean: Tensor | None
    channels: Tensor
    """The channel of every one-hot plane."""
    categories: Tensor
    """The category of every one-hot plane."""

    def __init__(self, space: Box) -> None:
        super().__init__()
        C, H, W = image_size(space)
        others, sides = image_axes(space)
        self.is_grey = not others
        self.to_chw = (0, 3, 1, 2) if others == (2,) else None
        self.stack = _Stack((0, *(axis + 1 for axis in (*sides, *others))), (-1, H, W, C)) if len(others) > 1 else None
        highest = highest_values(space)
        self.is_categorical_image = is_categorical_image(space)
        if self.is_categorical_image:
            channels = np.repeat(np.arange(C), highest + 1)
            categories = np.concatenate([np.arange(number + 1) for number in highest])
            self.register_buffer("channels", torch.from_numpy(channels), persistent=False)
            self.register_buffer("categories", torch.from_numpy(categories)[:, None, None], persistent=False)
        else:
            scale = (1.0 / highest).astype(np.float32)[:, None, None]
            self.register_buffer("scale", torch.from_numpy(scale), persistent=False)
            # Bytes are multiplied by one number faster than by one number for each channel
            self.one_scale = 1.0 / int(highest[0]) if (highest == highest[0]).all() else None
        self.register_buffer("mean", None, persistent=False)
        self.factor = 1.0
        self.limit = float("inf")
        self.num_planes = len(self.categories) if self.is_categorical_image else C

    def standardize(self, scale: PixelScale) -> None:
        """Standardise planes by ``scale`` from now on."""
        mean = self._planes(torch.from_numpy(scale.mean)[None])
        self.mean = mean.to(self.scale.device).contiguous(memory_format=torch.channels_last)
        self.factor, self.limit = scale.factor, scale.limit

    def forward(self, obs: Tensor, out: Tensor | None = None) -> Tensor:
        """Return planes [N, C, H, W], float32; written into ``out``, in its dtype, if given."""
        images = self._planes(obs)
        if self.is_categorical_image:
            planes = (images[:, self.channels] == self.categories).float()
            return planes if out is None else out.copy_(planes)
        if self.to_chw is None and self.stack is None and not self.is_grey:
            images = _channels_last(images)
        if self.mean is not None:
            in_place = out is not None and out.dtype == torch.float32
            planes = out.copy_(images) if in_place else images.float()  # type: ignore[union-attr]
            planes.sub_(self.mean).mul_(self.factor).clamp_(-self.limit, self.limit)
            return planes if in_place or out is None else out.copy_(planes)
        return torch.mul(images, self.scale if self.one_scale is None else self.one_scale, out=out)

    def _planes(self, obs: Tensor) -> Tensor:
        """Return images [N, *shape] as [N, C, H, W]: a view, or of a stack a copy in channels_last memory."""
        if self.stack is not None:
            return obs.permute(self.stack.order).reshape(self.stack.shape).permute(0, 3, 1, 2)
        return obs[:, None] if self.is_grey else obs.permute(self.to_chw) if self.to_chw else obs


def set_image_scale(network: nn.Module, scale: PixelScale) -> None:
    """Set ``scale`` in every image encoder of ``network``; see :meth:`ImagePreprocessor.standardize`."""
    for module in network.modules():
        if isinstance(module, ImagePreprocessor):
            module.standardize(scale)


def _channels_last(images: Tensor) -> Tensor:
    """Return images [N, C, H, W] in channels_last memory; this is faster for bytes than for float32."""
    if images.device.type != "cpu" or torch.compiler.is_compiling():
        return images.contiguous(memory_format=torch.channels_last)
    N, C, H, W = images.shape
    planes = images.numpy()
    interleaved = np.empty((N, H, W, C), planes.dtype)
    for c in range(C):  # NumPy is faster here than torch.stack
        interleaved[..., c] = planes[:, c]
    return torch.from_numpy(interleaved).permute(0, 3, 1, 2)


class ImageEncoder(nn.Module):
    """Encodes images [..., *shape] as features [..., F] by a convolutional network of :data:`NETWORKS`.

    The default network is nature, or :data:`SMALL` for images with a side of less than 36 pixels. The layers compute in
    bfloat16 if ``precision`` is ``bfloat16``, otherwise in float32; features are float32 in both cases.

    Args:
        space: of the image (:func:`limelight.spaces.images.is_image`).
        network: a name, or None for the default.
        precision: ``bfloat16``, or any other text for float32.

    Raises: ConfigError if the image is smaller than the network's kernels require.
    """

    def __init__(self, space: Space[Any], network: str | None = None, precision: str = "float32") -> None:
        super().__init__()
        assert isinstance(space, Box)
        _, H, W = image_size(space)
        self.space = space
        self.network = network or ("nature" if min(H, W) >= MIN_CNN_SIZE else None)
        """The network's name; None for the small one."""
        self.dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self.planes = ImagePreprocessor(space)
        make_layers, min_side = NETWORKS[self.network] if self.network else SMALL
        if min(H, W) < min_side:
            fit = " or ".join(name for name, other in NETWORKS.items() if min(H, W) >= other.min_side)
            raise ConfigError(
                f"encoder = {network!r}: needs images of {min_side} × {min_side} pixels or more, and these have "
                f"{H} × {W}; use {fit}, or larger images"
            )
        self.layers = nn.Sequential(*make_layers(self.planes.num_planes, H, W))
        self.num_features = _num_outputs(self.layers, self.planes.num_planes, H, W)

    def forward(self, obs: Tensor) -> Tensor:
        """Return features, [..., F]."""
        lead = obs.shape[: obs.ndim - len(self.space.shape)]
        x = self.input(obs.reshape(-1, *self.space.shape))
        with self.autocast(obs.device.type):
            features: Tensor = self.layers(x)
        return features.float().reshape(*lead, -1)

    def input(self, obs: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the input of the first layer for images [N, *shape], written into ``out`` if given.

        It is planes [N, C, H, W] in channels_last memory, in the encoder's dtype.
        """
        planes: Tensor = self.planes(obs, out)
        return planes.to(self.dtype).contiguous(memory_format=torch.channels_last)

    def autocast(self, device_type: str) -> torch.autocast:
        """Return the context in which the layers compute in the encoder's dtype."""
        return torch.autocast(device_type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)


class Flat(nn.Module):
    """Flattens planes [N, C, H, W] to rows [N, H W C] in the order of channels_last memory, so without a copy."""

    def forward(self, x: Tensor) -> Tensor:
        """Return rows, [N, H W C]."""
        return x.permute(0, 2, 3, 1).flatten(1)


class Residual(nn.Module):
    """Computes x + conv(ReLU(conv(ReLU(x)))) with as many channels as x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)]
        self.layers = nn.Sequential(nn.ReLU(), convolutions[0], nn.ReLU(), convolutions[1])

    def forward(self, x: Tensor) -> Tensor:
        """Return planes of the shape of ``x``."""
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


class ConvNetwork(NamedTuple):
    """A convolutional architecture."""

    make_layers: Callable[[int, int, int], Layers]
    """Returns the layers for C planes of H × W pixels."""
    min_side: int
    """Shortest side in pixels that the kernels allow."""


NETWORKS = {
    "a3c": ConvNetwork(_a3c, 20),
    "a3c-half": ConvNetwork(_a3c_half, 10),
    "nature": ConvNetwork(_nature, MIN_CNN_SIZE),
    "universe": ConvNetwork(_universe, 1),
    "impala": ConvNetwork(_impala, 1),
}
"""The networks for images, by name; 16 8×8/4 is a convolution of 16 filters of 8 × 8 pixels with stride 4.

a3c: 16 8×8/4, 32 4×4/2, then 256 units (Mnih et al. 2016).
a3c-half: 16 4×4/2, 32 4×4/2, 256: a3c for images of half the side; the shapes behind the first layer are the same.
nature: 32 8×8/4, 64 4×4/2, 64 3×3/1, 512 (Mnih et al. 2015).
universe: four times 32 3×3/2 with ELU, for 42 × 42 (OpenAI's universe-starter-agent).
impala: three times a convolution of 16, 32, 32 channels, pooling and two residual blocks, then 256 (Espeholt et al.
2018).
All but universe have ReLU.
"""
SMALL = ConvNetwork(_small, MIN_IMAGE_SIZE)
"""Convolutions 16 2×2, pooled if the sides are 7 or more, 32 2×2, 64 2×2: the network of torch-ac for MiniGrid."""


def _convolutions(activation: type[nn.Module], *sizes: tuple[int, int, int, int, int]) -> Layers:
    """Return a convolution and an activation for every (channels in, out, kernel, stride, padding)."""
    return [layer for size in sizes for layer in (nn.Conv2d(*size), activation())]


def _with_hidden(layers: Layers, channels: int, height: int, width: int, hidden: int) -> Layers:
    """Return the layers, then a hidden layer of ``hidden`` units on their flattened output."""
    flat = [*layers, Flat()]
    return [*flat, nn.Linear(_num_outputs(nn.Sequential(*flat), channels, height, width), hidden), nn.ReLU()]


def _num_outputs(layers: nn.Module, channels: int, height: int, width: int) -> int:
    """Return F of the layers' output [N, F] for planes [N, channels, height, width]."""
    with torch.no_grad():
        return int(layers(torch.zeros(1, channels, height, width)).shape[-1])
