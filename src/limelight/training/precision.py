"""The device and the arithmetic of a run, where the settings leave them to the machine."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from gymnasium.spaces import Box, Space

from limelight.nn.encoders import is_builtin
from limelight.settings.schema import ModelConfig
from limelight.spaces.images import MIN_CNN_SIZE, image_size, is_categorical_image, is_image
from limelight.spaces.packed import Packed

CPUINFO = Path("/proc/cpuinfo")


def choose_device(
    device: Literal["auto", "cpu", "cuda"], has_workers: bool, config: ModelConfig, get_space: Callable[[], Space[Any]]
) -> tuple[Literal["cpu", "cuda"], str | None]:
    """Return ``device`` with ``auto`` filled in, and a line on the choice if the machine has a GPU.

    A GPU is for convolutions (docs/atari.md, "On a GPU"): starting a kernel takes longer than a product of small
    matrices.

    Args:
        device: the setting.
        has_workers: other processes act, or act and learn.
        config: the network.
        get_space: returns the observation space; it makes an environment, so it is called only when needed.
    """
    if device != "auto":
        return device, None
    if not torch.cuda.is_available():
        return "cpu", None
    if has_workers:
        return "cpu", "device cpu: there is a GPU, but workers compute on cores; algo a2c would use it"
    if has_convolutions(get_space(), config):
        return "cuda", "device cuda: there is a GPU, which is several times as fast with images"
    return "cpu", "device cpu: there is a GPU, but networks as small as this one are faster without it"


def choose_precision(
    config: ModelConfig, device: Literal["cpu", "cuda"], get_space: Callable[[], Space[Any]]
) -> tuple[Literal["float32", "bfloat16"], str | None]:
    """Return ``config.precision`` with ``auto`` filled in, and a line on the choice if there was one.

    ``auto`` is bfloat16 for convolutions on a processor that computes it faster (:func:`prefers_bfloat16`).

    Args:
        config: the network.
        device: the chosen device.
        get_space: as for :func:`choose_device`.
    """
    name = {"cpu": "processor", "cuda": "GPU"}[device]
    if config.precision == "float32":
        return "float32", None
    if config.precision == "bfloat16":
        slow = f"precision bfloat16: this {name} computes it slower than float32; with precision float32 it is faster"
        return "bfloat16", None if prefers_bfloat16(device) else slow
    if prefers_bfloat16(device) and has_convolutions(get_space(), config):
        return "bfloat16", f"precision bfloat16: for the convolutions, which this {name} computes faster with it"
    return "float32", None


def prefers_bfloat16(device: Literal["cpu", "cuda"]) -> bool:
    """Return whether convolutions on ``device`` are faster in bfloat16 than in float32.

    They are on GPUs that have it natively, on processors with AMX, and on AMD's with AVX512-BF16. On Intel's with
    AVX512-BF16 but without AMX they are slower (docs/atari.md), and without either instruction bfloat16 is emulated.
    """
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # These functions are private: without them, an older or newer PyTorch computes in float32
    has_amx, has_avx512 = (
        bool(getattr(torch.cpu, function, bool)())
        for function in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )
    return has_amx or (has_avx512 and is_amd())


def is_amd() -> bool:
    """Return whether AMD made the processor."""
    vendor = "AuthenticAMD"
    if CPUINFO.exists():
        return vendor in CPUINFO.read_text(encoding="utf-8", errors="replace")
    return vendor in platform.processor()


def has_convolutions(space: Space[Any], config: ModelConfig) -> bool:
    """Return whether built-in layers convolve a part of the observations: images of 36 pixels or more, no codes."""
    spaces = [leaf.space for leaf in space.visible] if isinstance(space, Packed) else [space]
    return is_builtin(config.encoder) and any(
        isinstance(part, Box)
        and is_image(part)
        and not is_categorical_image(part)
        and min(image_size(part)[1:]) >= MIN_CNN_SIZE
        for part in spaces
    )
