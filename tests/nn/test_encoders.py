"""Encoders of every supported observation space, and custom encoders."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Text
from torch import Tensor, nn

from helpers.composite_envs import ROOM
from limelight.errors import ConfigError
from limelight.nn.encoders import (
    MLP,
    FeaturesMLP,
    FlattenObs,
    LeafEncoders,
    hidden_layers,
    make_encoder,
    make_leaf_encoder,
    through_layers,
)
from limelight.nn.images import ImageEncoder
from limelight.nn.model import ActorCritic
from limelight.nn.numpy_engine.network import supports
from limelight.settings.schema import ModelConfig
from limelight.spaces.packed import MaskSource, Packed

LEADS = [(), (4,), (3, 2)]
every_lead = pytest.mark.parametrize("lead", LEADS)


@every_lead
@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (1, 2, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int64, np.bool_])
def test_boxes_are_flattened_to_float32(shape: tuple[int, ...], dtype: type, lead: tuple[int, ...]) -> None:
    flatten = FlattenObs(Box(0, 1, shape, dtype))
    obs = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (*lead, *shape)).astype(dtype))
    features = flatten(obs)
    assert features.dtype == torch.float32
    assert features.shape == (*lead, flatten.num_features) == (*lead, math.prod(shape))
    assert torch.equal(features.reshape(obs.shape), obs.float())


@every_lead
@pytest.mark.parametrize("start", [0, 3, -2])
def test_discrete_observations_become_codes(start: int, lead: tuple[int, ...]) -> None:
    flatten = FlattenObs(Discrete(4, start=start))
    places = np.random.default_rng(0).integers(0, 4, lead)
    codes = flatten(torch.as_tensor(places + start))
    assert flatten.num_features == 4
    assert codes.dtype == torch.int64
    assert torch.equal(codes, torch.as_tensor(places)[..., None])


@every_lead
@pytest.mark.parametrize("start", [None, [[2, -1, 0], [0, 5, 1]]])
def test_multi_discrete_observations_become_codes_side_by_side(
    start: list[list[int]] | None, lead: tuple[int, ...]
) -> None:
    nvec = np.array([[3, 2, 4], [1, 5, 2]])
    space = MultiDiscrete(nvec, start=None if start is None else np.array(start))
    flatten = FlattenObs(space)
    places = np.random.default_rng(0).integers(0, nvec, (*lead, 2, 3))
    codes = flatten(torch.from_numpy(places + space.start))
    assert flatten.num_features == 17
    assert codes.dtype == torch.int64
    assert torch.equal(codes, torch.from_numpy(places.reshape(*lead, 6) + np.array([0, 3, 5, 9, 10, 15])))


@every_lead
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_codes_select_the_columns_that_a_product_with_one_hot_vectors_would(
    order: tuple[int, ...], lead: tuple[int, ...]
) -> None:
    """Numbers and categories in any order; forward, and the gradient of the first layer."""
    rng = torch.Generator().manual_seed(0)
    layers = hidden_layers(9, ModelConfig(hidden_sizes=(5, 3)))
    numbers = torch.randn(*lead, 2, generator=rng)
    some, others = torch.randint(4, (*lead, 1), generator=rng), torch.randint(3, (*lead, 2), generator=rng)
    parts, widths = [numbers, some, others], [2, 4, 3]
    dense = [numbers, torch.eye(4)[some].sum(-2), torch.eye(3)[others].sum(-2)]
    starts = np.cumsum([0, *(widths[i] for i in order[:-1])]).tolist()
    results = [
        through_layers(layers, [parts[i] for i in order], starts),
        layers(torch.cat([dense[i] for i in order], -1)),
    ]
    torch.testing.assert_close(*results)
    gradients = [torch.autograd.grad(result.square().sum(), list(layers.parameters())) for result in results]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@every_lead
def test_multi_binary_observations_are_flattened(lead: tuple[int, ...]) -> None:
    flatten = FlattenObs(MultiBinary([2, 3]))
    obs = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (*lead, 2, 3)).astype(np.int8))
    assert torch.equal(flatten(obs), obs.float().reshape(*lead, 6))
    assert flatten.num_features == 6


@every_lead
@pytest.mark.parametrize("mask", [None, "observation"])
def test_every_leaf_becomes_features(mask: MaskSource | None, lead: tuple[int, ...]) -> None:
    space = Packed(Dict({**ROOM.spaces, "action_mask": MultiBinary(2)}), mask)
    config = ModelConfig(hidden_sizes=(5,))
    encoder = make_encoder(space, config)
    assert isinstance(encoder, FeaturesMLP)
    assert isinstance(encoder.features, LeafEncoders)
    rows = np.stack([space.sample() for _ in range(math.prod(lead))]).reshape(*lead, -1)
    nested = space.unpack(rows)
    flat = rows.reshape(-1, rows.shape[-1])
    parts = [
        make_leaf_encoder(leaf.space, config) if not isinstance(leaf.space, Box) or len(leaf.space.shape) < 3 else part
        for leaf, part in zip(space.visible, encoder.features.parts, strict=True)
    ]
    values = [nested["inside"][0], nested["inside"][1]["bits"], nested["inside"][1]["dials"]]
    by_key = [nested["camera"], nested["count"], nested["height"], *values, nested["lamp"], nested["speed"]]
    by_key = [nested["action_mask"], *by_key] if mask is None else by_key
    expected = [part(torch.from_numpy(np.asarray(x))) for part, x in zip(parts, by_key, strict=True)]
    for ours, theirs in zip(encoder.features(torch.from_numpy(rows)), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    widths = [part.num_features for part in parts]
    assert [*encoder.features.starts, encoder.features.num_features] == np.cumsum([0, *widths]).tolist()
    assert encoder(torch.from_numpy(rows)).shape == (*lead, 5)
    assert flat.shape[1] == space.shape[0]


def test_packed_boxes_are_encoded_by_the_mlp_as_one_box(make_actor_critic: Callable[..., ActorCritic]) -> None:
    space = Packed(Dict({"a": Box(-1, 1, (2,)), "b": Box(0, 9, (), np.int64)}))
    model = make_actor_critic(space)
    assert isinstance(model.encoder, MLP)
    assert supports(model)
    parts = make_actor_critic(Packed(Dict({"a": Box(-1, 1, (2,)), "b": Discrete(3)})))
    assert isinstance(parts.encoder, FeaturesMLP)
    assert supports(parts)
    image = Box(0, 255, (8, 8, 3), np.uint8)
    assert not supports(make_actor_critic(Packed(Dict({"a": image, "b": Discrete(3)}))))


def test_an_action_mask_alone_is_refused_as_an_observation() -> None:
    with pytest.raises(ConfigError, match="nothing but the action mask"):
        make_encoder(Packed(Dict({"action_mask": MultiBinary(2)}), "observation"), ModelConfig())


def test_images_are_encoded_by_convolutions(make_actor_critic: Callable[..., ActorCritic]) -> None:
    image, small = Box(0, 255, (40, 36, 3), np.uint8), Box(0, 255, (7, 7, 3), np.uint8)
    assert isinstance(make_encoder(image, ModelConfig()), ImageEncoder)
    assert isinstance(make_encoder(small, ModelConfig()), FeaturesMLP)
    for space in (image, small):
        model = make_actor_critic(space, critic="separate")
        assert not supports(model)
        output = model(torch.zeros(2, 3, *space.shape, dtype=torch.uint8))
        assert output.values.shape == (2, 3)


CAMERA, MAP = Box(0, 255, (40, 40, 3), np.uint8), Box(0, 10, (7, 7, 3), np.uint8)


@every_lead
@pytest.mark.parametrize("speed", [Box(-1.0, 1.0, (2,)), Discrete(4)])
def test_a_named_network_encodes_the_images_of_packed_observations(speed: Space[Any], lead: tuple[int, ...]) -> None:
    """The small network encodes the image of categories; packing as float32 or as bytes makes no difference."""
    space = Packed(Dict({"camera": CAMERA, "map": MAP, "speed": speed}))
    assert space.dtype == (np.float32 if isinstance(speed, Box) else np.uint8)
    encoder = make_encoder(space, ModelConfig(encoder="impala", hidden_sizes=(5,)))
    assert isinstance(encoder, FeaturesMLP)
    assert isinstance(encoder.features, LeafEncoders)
    camera, categories, _ = encoder.features.parts
    assert isinstance(camera, ImageEncoder)
    assert isinstance(categories, ImageEncoder)
    assert (camera.network, categories.network) == ("impala", None)
    rows = np.stack([space.sample() for _ in range(math.prod(lead))]).reshape(*lead, -1)
    features = encoder.features(torch.from_numpy(rows))
    seen = torch.from_numpy(np.asarray(space.unpack(rows)["camera"]))
    torch.testing.assert_close(features[0], camera(seen))
    assert camera(seen).std() > 0


@pytest.mark.parametrize(
    "space",
    [
        MAP,
        Packed(Dict({"map": MAP, "speed": Box(-1.0, 1.0, (2,))})),
        Packed(Dict({"speed": Box(-1.0, 1.0, (2,))})),
        Box(0, 255, (35, 35), np.uint8),
        Discrete(3),
    ],
    ids=str,
)
def test_a_named_network_is_refused_without_an_image(space: Space[Any]) -> None:
    with pytest.raises(ConfigError, match=r"encoder = 'universe': is for images, .*; leave it out$"):
        make_encoder(space, ModelConfig(encoder="universe"))


def test_an_image_in_packed_observations_that_is_too_small_is_refused() -> None:
    space = Packed(Dict({"camera": Box(0, 255, (30, 30, 3), np.uint8), "count": Discrete(3)}))
    words = r"^encoder = 'nature': needs .* these have 30 × 30; use a3c or a3c-half or universe"
    with pytest.raises(ConfigError, match=words):
        make_encoder(space, ModelConfig(encoder="nature"))


def test_hidden_layers_follow_only_packed_observations_and_small_images(
    make_actor_critic: Callable[..., ActorCritic],
) -> None:
    model = make_actor_critic(CAMERA, encoder="a3c", hidden_sizes=(7,))
    assert model.policy_head.linear.in_features == 256
    assert (
        make_actor_critic(Packed(Dict({"c": CAMERA})), encoder="a3c", hidden_sizes=(7,)).policy_head.linear.in_features
        == 7
    )


@pytest.mark.parametrize("encoder", [None, "my_nets.encoders:Scaled"])
def test_bfloat16_needs_a_built_in_convolutional_network(encoder: str | None) -> None:
    with pytest.raises(ConfigError, match=r"^precision = bfloat16: .*; leave it auto$"):
        make_encoder(Box(-1.0, 1.0, (3, 2)), ModelConfig(encoder=encoder, precision="bfloat16"))
    for space in (CAMERA, MAP, Packed(Dict({"c": CAMERA}))):
        images = [m for m in make_encoder(space, ModelConfig(precision="bfloat16")).modules() if hasattr(m, "planes")]
        assert [image.dtype for image in images] == [torch.bfloat16]


def test_an_unsupported_space_is_refused() -> None:
    with pytest.raises(ConfigError, match="supported are Box, Discrete, MultiDiscrete, MultiBinary"):
        FlattenObs(Text(3))


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu", "silu", "leaky_relu"])
def test_the_mlp_applies_its_layers_in_order(activation: Any) -> None:
    config = ModelConfig(hidden_sizes=(5, 4, 3), activation=activation)
    mlp = make_encoder(Box(-1.0, 1.0, (2, 3)), config)
    assert isinstance(mlp, MLP)
    assert mlp.num_features == 3
    x = torch.randn(7, 2, 2, 3, generator=torch.Generator().manual_seed(0))
    features = x.reshape(7, 2, 6)
    functions = {
        "tanh": torch.tanh, "relu": torch.relu, "elu": nn.functional.elu, "silu": nn.functional.silu,
        "leaky_relu": nn.functional.leaky_relu,
    }  # fmt: skip
    linears = [m for m in mlp.modules() if isinstance(m, nn.Linear)]
    assert [m.out_features for m in linears] == [5, 4, 3]
    for linear in linears:
        features = functions[activation](features @ linear.weight.T + linear.bias)
    torch.testing.assert_close(mlp(x), features)


# --------------------------------------------------------------------------- custom encoders


class Scaled(nn.Module):
    """Grey images [..., 3, 2] of bytes → 4 features."""

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()
        assert space.shape is not None
        self.num_features = 4
        self.linear = nn.Linear(math.prod(space.shape), 4)

    def forward(self, obs: Tensor) -> Tensor:
        features: Tensor = self.linear(obs.flatten(-2) / 255.0)
        return features


class Plain(nn.Module):
    """A linear layer without a conversion of observations."""

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()
        assert space.shape is not None
        self.num_features = 4
        self.linear = nn.Linear(space.shape[0], 4)

    def forward(self, obs: Tensor) -> Tensor:
        features: Tensor = self.linear(obs)
        return features


class SmallMLP(MLP):
    def __init__(self, space: Space[Any]) -> None:
        super().__init__(space, ModelConfig(hidden_sizes=(5,), activation="elu"))


def forbidden(space: Space[Any]) -> MLP:
    raise AssertionError("called")


class WithoutNumFeatures(nn.Module):
    def __init__(self, space: Space[Any]) -> None:
        super().__init__()


class FractionalNumFeatures(WithoutNumFeatures):
    num_features = 4.0


class NoModule:
    def __init__(self, space: Space[Any]) -> None:
        self.num_features = 4


@pytest.fixture(autouse=True)
def user_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's module ``my_nets/encoders.py``."""
    package, module = ModuleType("my_nets"), ModuleType("my_nets.encoders")
    for encoder in (Scaled, Plain, SmallMLP, forbidden, WithoutNumFeatures, FractionalNumFeatures, NoModule):
        setattr(module, encoder.__name__, encoder)
    module.SIZE = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_nets", package)
    monkeypatch.setitem(sys.modules, "my_nets.encoders", module)


@pytest.mark.parametrize("critic", ["shared", "separate", "target"])
def test_a_custom_encoder_is_used_unchanged(make_actor_critic: Callable[..., ActorCritic], critic: str) -> None:
    space = Box(0, 255, (3, 2), np.uint8)
    model = make_actor_critic(space, encoder="my_nets.encoders:Scaled", critic=critic)
    assert isinstance(model.encoder, Scaled)
    assert sum(isinstance(m, Scaled) for m in model.modules()) == (1 if critic == "shared" else 2)
    output = model(torch.zeros(5, 2, 3, 2, dtype=torch.uint8))
    assert output.params.shape == (5, 2, 3)
    assert output.values.shape == (5, 2)
    bias = model.encoder.linear.bias
    assert bias.abs().max() > 0  # its initialisation is unchanged
    assert not supports(model)


def test_the_numpy_engine_does_not_compute_a_custom_encoder_that_is_an_mlp(
    make_actor_critic: Callable[..., ActorCritic],
) -> None:
    model = make_actor_critic(Box(-1.0, 1.0, (3,)), encoder="my_nets.encoders:SmallMLP")
    assert model.policy_head.linear.in_features == 5
    assert not supports(model)


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ("my_nets.encoders", "must be a3c | a3c-half | nature | universe | impala | package.module:Class"),
        ("natur", "| package.module:Class; did you mean nature?"),
        ("Impala", "did you mean impala?"),
        ("nature", "is for images, and these observations contain none"),
        ("my_nets.encoders:", "must be package.module:Class"),
        (":Scaled", "must be package.module:Class"),
        (".encoders:Scaled", "must be package.module:Class"),
        ("my-nets.encoders:Scaled", "must be package.module:Class"),
        ("my_nets.decoders:Scaled", "cannot import my_nets.decoders"),
        ("your_nets.encoders:Scaled", "cannot import your_nets.encoders"),
        ("my_nets.encoders:Scald", "has no class Scald; did you mean Scaled?"),
        ("my_nets.encoders:SIZE", "has no class SIZE"),
        ("my_nets.encoders:NoModule", "must be a class that is an nn.Module; NoModule is not"),
        ("my_nets.encoders:forbidden", "must be a class that is an nn.Module; forbidden is not"),
        ("my_nets.encoders:WithoutNumFeatures", "must be an nn.Module with an int attribute num_features"),
        ("my_nets.encoders:FractionalNumFeatures", "must be an nn.Module with an int attribute num_features"),
    ],
)
def test_invalid_encoders_are_refused_in_one_line(encoder: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_encoder(Box(-1.0, 1.0, (3,)), ModelConfig(encoder=encoder))
    message = str(error.value)
    assert message.startswith(f"encoder = {encoder!r}: ")
    assert words in message
    assert "\n" not in message
