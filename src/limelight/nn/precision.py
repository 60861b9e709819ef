"""In what the convolutional layers compute, where that is left to us. Asked by train.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from gymnasium.spaces import Box, Space

from limelight.config import ModelConfig
from limelight.nn.encoders import is_own
from limelight.packed import Packed
from limelight.pixels import PICTURE_SIZE, image_size, is_coded, is_image


def choose_precision(
    config: ModelConfig, device: str, look: Callable[[], Space[Any]]
) -> tuple[Literal["float32", "bfloat16"], str | None]:
    """``config.precision`` with ``auto`` filled in, and a line on it where it is not the usual float32.

    Args:
        config: of the network.
        device: cpu or cuda.
        look: tells the observation space; makes an environment, so it is only asked where the processor leaves it open.
    """
    native = has_bfloat16(device)
    if config.precision == "bfloat16" and not native:
        return "bfloat16", "precision bfloat16: this processor emulates it, which is slow; float32 would be faster"
    if config.precision == "auto" and native and convolves_pictures(look(), config):
        return "bfloat16", "precision bfloat16: for the convolutions, as this processor has instructions for it"
    return "bfloat16" if config.precision == "bfloat16" else "float32", None


def has_bfloat16(device: str) -> bool:
    """Whether the processor of ``device`` (cpu or cuda) has instructions for bfloat16: AVX512-BF16, AMX, or a GPU's."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Private names: a PyTorch that has them not gets float32, which is right everywhere.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def convolves_pictures(space: Space[Any], config: ModelConfig) -> bool:
    """Whether layers of ours would convolve pictures: brightness, with sides of 36 pixels or more."""
    spaces = [leaf.space for leaf in space.visible] if isinstance(space, Packed) else [space]
    return is_own(config.encoder) and any(
        isinstance(part, Box) and is_image(part) and not is_coded(part) and min(image_size(part)[1:]) >= PICTURE_SIZE
        for part in spaces
    )
