"""Where the network computes and in what its convolutional layers do, where that is left to us. Asked by train.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.spaces import Box, Space

from limelight.nn.activation_cache import make_caching_encoder
from limelight.nn.encoders import is_builtin
from limelight.nn.images import ImageEncoder
from limelight.settings.schema import ModelConfig
from limelight.spaces.images import MIN_CNN_SIZE, image_size, is_categorical_image, is_image
from limelight.spaces.packed import Packed
from limelight.threads import single_threaded

_MIN_SPEEDUP = 1.2
"""Times as fast that bfloat16 must be: processors that gain by it gain more, and timing is not exact on a busy one."""
_REPEATS = 3


def choose_device(
    device: Literal["auto", "cpu", "cuda"], has_workers: bool, config: ModelConfig, get_spaces: Callable[[], Space[Any]]
) -> tuple[Literal["cpu", "cuda"], str | None]:
    """``device`` with ``auto`` filled in, and a line on it where there was a GPU to choose.

    An H200 learnt from Pong 5.3 times as fast as a core beside it (A2C, 64 × 5, Nature's network), and from CartPole at
    a fifth of its speed: launching a kernel costs more than the product of small matrices.

    Args:
        device: what was asked for.
        has_workers: other processes act, or act and learn.
        config, get_spaces: as for :func:`choose_precision`.
    """
    if device != "auto":
        return device, None
    if not torch.cuda.is_available():
        return "cpu", None
    if has_workers:
        return "cpu", "device cpu: there is a GPU, but workers compute on cores; algo a2c on this machine would take it"
    if convolved_pictures(get_spaces(), config):
        return "cuda", "device cuda: there is a GPU, which is several times as fast with pictures"
    return "cpu", "device cpu: there is a GPU, but networks as small as this one are faster without it"


def choose_precision(
    config: ModelConfig, device: str, get_spaces: Callable[[], Space[Any]]
) -> tuple[Literal["float32", "bfloat16"], str | None]:
    """``config.precision`` with ``auto`` filled in, and a line on it where there was a choice.

    A processor may have the instructions and be no faster by them (one of Intel's without AMX was not), so it is timed.

    Args:
        config: of the network.
        device: cpu or cuda.
        get_spaces: tells the observation space; makes an environment, so it is only asked where the processor
        leaves it open.
    """
    native = has_bfloat16(device)
    if config.precision == "bfloat16" and not native:
        return "bfloat16", "precision bfloat16: this processor emulates it, which is slow; float32 would be faster"
    if config.precision == "auto" and native and (pictures := convolved_pictures(get_spaces(), config)):
        if device == "cuda":
            return "bfloat16", "precision bfloat16: for the convolutions, as this GPU has instructions for it"
        gain = bfloat16_speedup(pictures[0], config.encoder)
        taken: Literal["float32", "bfloat16"] = "bfloat16" if gain > _MIN_SPEEDUP else "float32"
        return taken, f"precision {taken}: bfloat16 was just timed at {gain:.1f} × the speed of float32"
    return "bfloat16" if config.precision == "bfloat16" else "float32", None


def has_bfloat16(device: str) -> bool:
    """Whether the processor of ``device`` (cpu or cuda) has instructions for bfloat16: AVX512-BF16, AMX, or a GPU's."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Private names: a PyTorch that has them not gets float32, which is right everywhere.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def bfloat16_speedup(picture: Box, network: str | None) -> float:
    """Seconds that the CPU takes for the network in float32 over those in bfloat16; impala takes some seconds itself.

    It is of the network itself, as neither is the faster one for all (see :class:`limelight.nn.images.ImageEncoder`),
    and on one thread, as runs compute. The two take turns, and other processes' time is not counted.
    """
    with torch.random.fork_rng(devices=[]):  # whoever draws numbers after this gets those he would have got
        encoders = [ImageEncoder(picture, network, precision) for precision in ("float32", "bfloat16")]
    with single_threaded():
        work = [_acting_and_learning(encoder) for encoder in encoders]
        turns = [[_seconds(once) for once in work] for _ in range(_REPEATS + 1)]
    one, other = (min(found) for found in zip(*turns[1:], strict=True))  # the first turn prepares
    return one / other


def _acting_and_learning(encoder: ImageEncoder) -> Callable[[], None]:
    """Acts and learns once on 16 pictures, as a run does."""
    obs = np.full((2, 16, *encoder.space.shape), 128, np.uint8)
    kept = make_caching_encoder(encoder, len(obs) - 1)

    def once() -> None:
        if kept is None:
            features = encoder(torch.from_numpy(obs))
        else:
            kept.rows.begin()
            for row in obs[:-1]:
                kept.act(row)
            features = kept.unroll(obs)
        torch.autograd.grad(features.sum(), list(encoder.parameters()))

    return once


def _seconds(once: Callable[[], None]) -> float:
    """Of this thread."""
    start = time.thread_time()
    once()
    return time.thread_time() - start


def convolved_pictures(space: Space[Any], config: ModelConfig) -> list[Box]:
    """The pictures that layers of ours would convolve: brightness, with sides of 36 pixels or more."""
    spaces = [leaf.space for leaf in space.visible] if isinstance(space, Packed) else [space]
    return [
        part
        for part in spaces
        if is_builtin(config.encoder) and isinstance(part, Box) and is_image(part) and not is_categorical_image(part)
        and min(image_size(part)[1:]) >= MIN_CNN_SIZE
    ]  # fmt: skip
