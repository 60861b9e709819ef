"""What counts as an image, its planes, and the layers by its size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

from limelight.nn.images import ImageEncoder, Planes, image_size, is_image


def image(*shape: int, high: int = 255) -> Box:
    return Box(0, high, shape, np.uint8)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((84, 84), (1, 84, 84)), ((36, 40), (1, 36, 40)), ((84, 84, 4), (4, 84, 84)), ((4, 84, 84), (4, 84, 84)),
        ((3, 40, 60), (3, 40, 60)), ((40, 60, 3), (3, 40, 60)), ((7, 7, 3), (3, 7, 7)), ((7, 7, 20), (20, 7, 7)),
        ((20, 7, 7), (20, 7, 7)), ((7, 7, 7), (7, 7, 7)), ((4, 5, 1), (1, 4, 5)),
    ],
)  # fmt: skip
def test_images(shape: tuple[int, ...], size: tuple[int, int, int]) -> None:
    assert is_image(image(*shape))
    assert image_size(image(*shape)) == size


@pytest.mark.parametrize(
    "space",
    [
        image(84), image(35, 84), image(3, 3, 3), image(2, 8, 8, 8), Box(0, 1, (84, 84, 3)), Discrete(3),
        Box(0, 1, (84, 84), np.int8), Box(0, 255, (), np.uint8),
    ],
)  # fmt: skip
def test_no_images(space: Box) -> None:
    assert not is_image(space)


@pytest.mark.parametrize("shape", [(5, 6, 3), (3, 5, 6), (40, 41)])
def test_brightness_is_scaled_by_its_bound(shape: tuple[int, ...]) -> None:
    space = image(*shape, high=200)
    obs = torch.from_numpy(np.random.default_rng(0).integers(0, 201, (2, *shape)).astype(np.uint8))
    planes = Planes(space)(obs)
    C, H, W = image_size(space)
    assert planes.shape == (2, C, H, W)
    expected = obs.float() / 200
    if shape[-1] == 3:
        expected = expected.movedim(-1, 1)
    torch.testing.assert_close(planes, expected.reshape(2, C, H, W))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("first", [True, False])
def test_codes_become_a_plane_each(first: bool, dtype: torch.dtype) -> None:
    highest = np.array([10, 5, 3], np.uint8)
    high = np.broadcast_to(highest, (7, 7, 3))
    high = np.moveaxis(high, -1, 0) if first else high
    planes = Planes(Box(np.zeros_like(high), high, dtype=np.uint8))
    assert planes.num_planes == 11 + 6 + 4
    codes = np.random.default_rng(0).integers(0, highest + 1, (2, 7, 7, 3))
    obs = torch.from_numpy(np.moveaxis(codes, -1, 1).copy() if first else codes).to(dtype)
    one_hot = np.concatenate([np.eye(n + 1)[codes[..., c]] for c, n in enumerate(highest)], -1)
    torch.testing.assert_close(planes(obs), torch.from_numpy(one_hot).movedim(-1, 1).float())


def test_black_and_white_is_brightness() -> None:
    assert Planes(image(10, 10, 4, high=1)).num_planes == 4


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
@pytest.mark.parametrize(
    ("shape", "num_features", "convolutions"),
    [
        ((84, 84, 4), 512, [(4, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1)]),
        ((36, 36), 512, [(1, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1)]),
        ((7, 7, 3), 64, [(3, 16, 2, 1), (16, 32, 2, 1), (32, 64, 2, 1)]),
        ((3, 6, 5), 64 * 6, [(3, 16, 2, 1), (16, 32, 2, 1), (32, 64, 2, 1)]),
    ],
)
def test_layers_by_size(
    shape: tuple[int, ...], num_features: int, convolutions: list[tuple[int, ...]], lead: tuple[int, ...]
) -> None:
    encoder = ImageEncoder(image(*shape))
    found = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for m in found] == convolutions
    assert any(isinstance(m, nn.MaxPool2d) for m in encoder.modules()) == (shape == (7, 7, 3))
    obs = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*lead, *shape)).astype(np.uint8))
    features = encoder(obs)
    assert features.shape == (*lead, encoder.num_features) == (*lead, num_features)
    alone = encoder(obs.reshape(-1, *shape)[0])
    torch.testing.assert_close(features.reshape(-1, num_features)[0], alone, atol=1e-5, rtol=1e-5)
