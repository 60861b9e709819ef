"""In what the convolutional layers compute, where that is left to us. Asked by train.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from gymnasium.spaces import Box, Space
from torch import nn

from limelight.config import ModelConfig
from limelight.nn.encoders import is_own
from limelight.packed import Packed
from limelight.pixels import PICTURE_SIZE, image_size, is_coded, is_image

_SHAPES = (16, 4, 8, 8), (256, 6400)
"""Of the filters and of the weights that are timed."""


def choose_precision(
    config: ModelConfig, device: str, look: Callable[[], Space[Any]]
) -> tuple[Literal["float32", "bfloat16"], str | None]:
    """``config.precision`` with ``auto`` filled in, and a line on it where there was a choice.

    A processor may have the instructions and be no faster by them (one of Intel's without AMX was not), so it is timed.

    Args:
        config: of the network.
        device: cpu or cuda.
        look: tells the observation space; makes an environment, so it is only asked where the processor leaves it open.
    """
    native = has_bfloat16(device)
    if config.precision == "bfloat16" and not native:
        return "bfloat16", "precision bfloat16: this processor emulates it, which is slow; float32 would be faster"
    if config.precision == "auto" and native and convolves_pictures(look(), config):
        gain = gain_of_bfloat16(device)
        taken: Literal["float32", "bfloat16"] = "bfloat16" if gain > 1.0 else "float32"
        return taken, f"precision {taken}: bfloat16 was just timed at {gain:.1f} × the speed of float32"
    return "bfloat16" if config.precision == "bfloat16" else "float32", None


def has_bfloat16(device: str) -> bool:
    """Whether the processor of ``device`` (cpu or cuda) has instructions for bfloat16: AVX512-BF16, AMX, or a GPU's."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Private names: a PyTorch that has them not gets float32, which is right everywhere.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def gain_of_bfloat16(device: str) -> float:
    """Seconds of a convolution and a linear layer in float32 over those in bfloat16, forward and backward.

    Of 32 pictures of 84 × 84 in the first layer of the A3C paper's network, and its hidden layer; takes a tenth of a
    second on a CPU.
    """
    seconds = {dtype: _fastest(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _fastest(device: str, dtype: torch.dtype, repeats: int = 5) -> float:
    """Seconds of the fastest of so many turns, after one that prepares. Takes no random numbers from anybody."""
    pictures = torch.full((32, 4, 84, 84), 0.5, device=device, dtype=dtype).contiguous(
        memory_format=torch.channels_last
    )
    filters, weights = (torch.full(shape, 0.01, device=device, requires_grad=True) for shape in _SHAPES)
    found = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
            maps = nn.functional.conv2d(pictures, filters, stride=4).relu()
            features = nn.functional.linear(maps.flatten(1), weights)
        gradients = torch.autograd.grad(features.float().sum(), (filters, weights))
        float(gradients[0].sum())  # a GPU is waited for
        found.append(time.perf_counter() - start)
    return min(found[1:])


def convolves_pictures(space: Space[Any], config: ModelConfig) -> bool:
    """Whether layers of ours would convolve pictures: brightness, with sides of 36 pixels or more."""
    spaces = [leaf.space for leaf in space.visible] if isinstance(space, Packed) else [space]
    return is_own(config.encoder) and any(
        isinstance(part, Box) and is_image(part) and not is_coded(part) and min(image_size(part)[1:]) >= PICTURE_SIZE
        for part in spaces
    )
