"""The definition of an image, its preprocessing, and the convolutional networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn

from limelight.errors import ConfigError
from limelight.nn.images import NETWORKS, SMALL, ImageEncoder, ImagePreprocessor, set_image_scale
from limelight.nn.model import ActorCritic
from limelight.spaces.images import (
    PixelScale,
    explain_flat_image,
    highest_values,
    image_size,
    is_categorical_image,
    is_flat_image,
    is_image,
)


def image(*shape: int, high: int = 255) -> Box:
    return Box(0, high, shape, np.uint8)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((84, 84), (1, 84, 84)), ((36, 40), (1, 36, 40)), ((84, 84, 4), (4, 84, 84)), ((4, 84, 84), (4, 84, 84)),
        ((3, 40, 60), (3, 40, 60)), ((40, 60, 3), (3, 40, 60)), ((7, 7, 3), (3, 7, 7)), ((7, 7, 20), (20, 7, 7)),
        ((20, 7, 7), (20, 7, 7)), ((7, 7, 7), (7, 7, 7)), ((4, 5, 1), (1, 4, 5)), ((1, 84, 84), (1, 84, 84)),
        ((4, 48, 48, 3), (12, 48, 48)), ((4, 3, 48, 60), (12, 48, 60)), ((40, 36, 3, 4), (12, 40, 36)),
        ((4, 84, 84, 1), (4, 84, 84)),
    ],
)  # fmt: skip
def test_bytes_in_two_to_four_dimensions_are_images(shape: tuple[int, ...], size: tuple[int, int, int]) -> None:
    assert is_image(image(*shape))
    assert image_size(image(*shape)) == size


@pytest.mark.parametrize(
    "space",
    [
        image(84), image(35, 84), image(3, 3, 3), image(2, 8, 8, 8), Box(0, 1, (84, 84, 3)), Discrete(3),
        image(4, 35, 48, 3), image(20, 36, 36, 3), image(48, 4, 48, 3), image(2, 2, 40, 40, 3),
        Box(0, 1, (84, 84), np.int8), Box(0, 255, (), np.uint8),
    ],
)  # fmt: skip
def test_other_spaces_are_not_images(space: Box) -> None:
    assert not is_image(space)


@pytest.mark.parametrize("shape", [(5, 6, 3), (3, 5, 6), (40, 41)])
def test_brightness_is_scaled_by_its_bound(shape: tuple[int, ...]) -> None:
    space = image(*shape, high=200)
    obs = torch.from_numpy(np.random.default_rng(0).integers(0, 201, (2, *shape)).astype(np.uint8))
    planes = ImagePreprocessor(space)(obs)
    C, H, W = image_size(space)
    assert planes.shape == (2, C, H, W)
    expected = obs.float() / 200
    if shape[-1] == 3:
        expected = expected.movedim(-1, 1)
    torch.testing.assert_close(planes, expected.reshape(2, C, H, W))
    halves = obs.float() + 0.5  # float32 is not rounded to bytes
    torch.testing.assert_close(ImagePreprocessor(space)(halves), planes + 0.5 / 200)


@pytest.mark.parametrize(("shape", "order"), [
    ((4, 48, 40, 3), (0, 1, 4, 2, 3)), ((4, 3, 48, 40), (0, 1, 2, 3, 4)), ((48, 40, 3, 4), (0, 3, 4, 1, 2)),
])  # fmt: skip
def test_the_frames_of_a_stack_become_channels(shape: tuple[int, ...], order: tuple[int, ...]) -> None:
    """Each plane is one channel of one frame, standardised by the mean of its own pixels."""
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 256, (2, *shape)).astype(np.uint8)
    expected = obs.transpose(order).reshape(2, 12, 48, 40).astype(np.float32)
    planes = ImagePreprocessor(image(*shape, high=200))
    torch.testing.assert_close(planes(torch.from_numpy(obs)), torch.from_numpy(expected / 200))
    mean = rng.uniform(0, 255, shape).astype(np.float32)
    planes.standardize(PixelScale(mean, 0.01, 10.0))
    centred = torch.from_numpy((expected - mean[None].transpose(order).reshape(1, 12, 48, 40)) * np.float32(0.01))
    torch.testing.assert_close(planes(torch.from_numpy(obs)), centred)


def test_the_bounds_of_a_stack_belong_to_its_frames_and_channels() -> None:
    high = np.broadcast_to(np.array([100, 150, 200], np.uint8), (2, 36, 36, 3)).copy()
    high[1] //= 2
    space = Box(np.zeros_like(high), high, dtype=np.uint8)
    np.testing.assert_array_equal(highest_values(space), [100, 150, 200, 50, 75, 100])


@pytest.mark.parametrize(
    ("space", "advice"),
    [
        (Box(0, 1, (84, 84, 3)), "return (255 * obs).astype(np.uint8)"),
        (Box(0, 255, (4, 84, 84)), "return (obs).astype(np.uint8)"),
        (image(32, 32), "return obs[..., None], or 36 x 36 or more"),
        (image(4, 32, 32, 3), "make it H x W x C"),
    ],
)
def test_what_may_be_an_image_is_explained(space: Box, advice: str) -> None:
    assert is_flat_image(space)
    assert advice in explain_flat_image(space)


@pytest.mark.parametrize("space", [image(84, 84), image(4, 48, 48, 3), Box(-1, 1, (20, 8)), Box(-1, 1, (100,))])
def test_images_and_tables_are_not_explained(space: Box) -> None:
    assert not is_flat_image(space)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels_first", [True, False])
def test_categories_are_one_hot_planes(channels_first: bool, dtype: torch.dtype) -> None:
    highest = np.array([10, 5, 3], np.uint8)
    high = np.broadcast_to(highest, (7, 7, 3))
    high = np.moveaxis(high, -1, 0) if channels_first else high
    planes = ImagePreprocessor(Box(np.zeros_like(high), high, dtype=np.uint8))
    assert planes.num_planes == 11 + 6 + 4
    categories = np.random.default_rng(0).integers(0, highest + 1, (2, 7, 7, 3))
    obs = torch.from_numpy(np.moveaxis(categories, -1, 1).copy() if channels_first else categories).to(dtype)
    one_hot = np.concatenate([np.eye(n + 1)[categories[..., c]] for c, n in enumerate(highest)], -1)
    torch.testing.assert_close(planes(obs), torch.from_numpy(one_hot).movedim(-1, 1).float())


def test_black_and_white_images_are_brightness_not_categories() -> None:
    assert ImagePreprocessor(image(10, 10, 4, high=1)).num_planes == 4
    assert [is_categorical_image(image(10, 10, 4, high=high)) for high in (1, 2, 31, 32, 255)] == [
        False,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("shape", [(5, 6, 3), (3, 5, 6), (40, 41)])
def test_brightness_is_standardised_after_the_scale_is_set(shape: tuple[int, ...]) -> None:
    """Every pixel has its own mean, with channels first or last."""
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 256, (2, *shape)).astype(np.uint8)
    mean = rng.uniform(0, 255, shape).astype(np.float32)
    planes = ImagePreprocessor(image(*shape))
    before = planes(torch.from_numpy(obs))
    set_image_scale(torch.nn.Sequential(planes), PixelScale(mean, 0.1, 10.0))
    expected = torch.from_numpy(np.clip((obs - mean) * 0.1, -10, 10).astype(np.float32))
    expected = expected.movedim(-1, 1) if shape[-1] == 3 else expected
    expected = expected.reshape(2, *image_size(image(*shape)))
    assert expected.abs().max() == 10.0
    torch.testing.assert_close(planes(torch.from_numpy(obs)), expected)
    out = torch.zeros(expected.shape).contiguous(memory_format=torch.channels_last)
    assert planes(torch.from_numpy(obs), out) is out
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(planes(torch.from_numpy(obs), out.bfloat16()), expected.bfloat16())
    assert not torch.equal(before, expected)
    assert not list(planes.parameters())
    assert not planes.state_dict()


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
def test_the_size_of_an_image_determines_its_layers(
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


# --------------------------------------------------------------------------- networks by name

CONVOLUTIONS = {
    "a3c": [(4, 16, 8, 4), (16, 32, 4, 2)],
    "a3c-half": [(4, 16, 4, 2), (16, 32, 4, 2)],
    "nature": [(4, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1)],
    "universe": [(4, 32, 3, 2), *[(32, 32, 3, 2)] * 3],
    "impala": [
        (before, after, 3, 1)
        for first, width in ((4, 16), (16, 32), (32, 32))
        for before, after in [(first, width), *[(width, width)] * 4]
    ],
}
"""(channels in, out, kernel, stride) as in the papers, for images of 4 channels."""
HIDDEN = {
    "a3c": (9 * 9 * 32, 256), "a3c-half": (19 * 19 * 32, 256), "nature": (7 * 7 * 64, 512), "universe": None,
    "impala": (11 * 11 * 32, 256),
}  # fmt: skip
FEATURES = {"a3c": 256, "a3c-half": 256, "nature": 512, "universe": 6 * 6 * 32, "impala": 256}
"""Number of features of images of 84 × 84 pixels."""

every_network = pytest.mark.parametrize("network", NETWORKS)


@every_network
def test_networks_have_the_layers_of_the_papers(network: str) -> None:
    encoder = ImageEncoder(image(4, 84, 84), network)
    found = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for m in found] == CONVOLUTIONS[network]
    linear = [(m.in_features, m.out_features) for m in encoder.modules() if isinstance(m, nn.Linear)]
    assert linear == ([] if HIDDEN[network] is None else [HIDDEN[network]])
    activations = {type(m) for m in encoder.modules() if isinstance(m, nn.ReLU | nn.ELU)}
    assert activations == {nn.ELU if network == "universe" else nn.ReLU}
    assert encoder.num_features == FEATURES[network]
    assert encoder(torch.zeros(2, 3, 4, 84, 84, dtype=torch.uint8)).shape == (2, 3, FEATURES[network])


def test_a3c_half_has_the_shapes_of_a3c_for_images_of_half_the_side() -> None:
    half, whole = ImageEncoder(image(4, 42, 42), "a3c-half"), ImageEncoder(image(4, 84, 84), "a3c")
    assert [p.shape for p in half.parameters()][1:] == [p.shape for p in whole.parameters()][1:]


def test_universe_has_288_features_of_images_of_42_pixels() -> None:
    assert ImageEncoder(image(1, 42, 42), "universe").num_features == 288


def test_residual_blocks_add_to_their_input() -> None:
    """With zero weights the blocks of impala are the identity."""
    encoder = ImageEncoder(image(1, 16, 16), "impala")
    residual = encoder.layers[2]
    x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    first, second = (m for m in residual.modules() if isinstance(m, nn.Conv2d))
    expected = x + second(torch.relu(first(torch.relu(x))))
    torch.testing.assert_close(residual(x), expected)
    assert (expected - x).abs().max() > 0.01
    for parameter in residual.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(residual(x), x)


@every_network
def test_images_that_are_too_small_are_refused(network: str) -> None:
    """The limit is the smallest size that the kernels allow."""
    make, smallest = NETWORKS[network]
    assert nn.Sequential(*make(1, smallest, smallest))(torch.zeros(1, 1, smallest, smallest)).shape[0] == 1
    if smallest <= 4:  # no image is smaller
        return
    with pytest.raises(RuntimeError, match=r"[Kk]ernel size"):
        nn.Sequential(*make(1, smallest - 1, 50))(torch.zeros(1, 1, smallest - 1, 50))
    for shape in ((smallest - 1, 50, 3), (3, 50, smallest - 1)):
        with pytest.raises(ConfigError) as error:
            ImageEncoder(image(*shape), network)
        message = str(error.value)
        assert message.startswith(f"encoder = {network!r}: needs images of {smallest} × {smallest} pixels or more")
        assert "use " in message
        assert network not in message.partition("use ")[2].replace(",", "").split()
        assert "\n" not in message
    assert ImageEncoder(image(smallest, 50, 3), network).num_features > 0


def test_the_small_network_encodes_the_smallest_images() -> None:
    make, smallest = SMALL
    assert nn.Sequential(*make(3, smallest, smallest))(torch.zeros(1, 3, smallest, smallest)).shape == (1, 64)
    with pytest.raises(RuntimeError, match=r"[Kk]ernel size"):
        nn.Sequential(*make(3, smallest - 1, 9))(torch.zeros(1, 3, smallest - 1, 9))


@pytest.mark.parametrize("network", [*NETWORKS, None])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_bfloat16_is_a_rounding_of_float32(network: str | None, dtype: type) -> None:
    """Parameters and features are float32."""
    space = image(4, 40, 40) if network else image(7, 7, 3)
    both = []
    for precision in ("float32", "bfloat16"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            both.append(ImageEncoder(space, network, precision))
    obs = np.random.default_rng(0).integers(0, 256, (5, *space.shape)).astype(dtype)
    obs = obs if dtype is np.uint8 else (obs - 128) / 64
    exact, rounded = (encoder(torch.from_numpy(obs)) for encoder in both)
    assert exact.dtype == rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert (exact - rounded).norm() < 0.02 * exact.norm()
    rounded.sum().backward()
    assert all(p.dtype == torch.float32 and p.grad is not None for p in both[1].parameters())


def unrolled(model: ActorCritic, obs: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Distribution parameters and values, computed row by row."""
    state, outputs = None, []
    for t in range(len(obs)):
        outputs.append(model(obs[t : t + 1], state, start[t : t + 1]))
        state = outputs[-1].recurrent_state
    return torch.cat([o.params for o in outputs]), torch.cat([o.values for o in outputs])


@every_network
@pytest.mark.parametrize("core", ["feedforward", "lstm", "gru"])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 5e-6), ("bfloat16", 0.03)])
def test_one_pass_over_n_rows_equals_n_steps(
    make_actor_critic: Callable[..., ActorCritic], network: str, core: str, precision: str, tolerance: float
) -> None:
    """Acting (T = 1) and learning (T = n) agree for every network with every core; episodes start in the middle."""
    settings: dict[str, Any] = {} if core == "feedforward" else {"core": core, "core_size": 8}
    model = make_actor_critic(image(3, 42, 42), encoder=network, precision=precision, policy_init_gain=1.0, **settings)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 2, 3, 42, 42)) * rng.random((5, 2, 1, 1, 1))
    obs = torch.from_numpy(images.astype(np.uint8))
    start = torch.from_numpy((rng.random((5, 2)) < 0.3).astype(np.float32))
    together, (params, values) = model(obs, None, start), unrolled(model, obs, start)
    for ours, theirs in ((params, together.params), (values, together.values)):
        assert (ours - theirs).norm() <= tolerance * theirs.norm()
        assert theirs.std() > tolerance * theirs.abs().max()  # the rows differ
