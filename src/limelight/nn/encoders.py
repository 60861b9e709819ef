"""Encoders of every supported observation space: observations [..., *obs_shape] → features [..., F]."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from torch import Tensor, nn

from limelight.errors import ConfigError, did_you_mean
from limelight.nn.images import NETWORKS, ImageEncoder
from limelight.settings.schema import ModelConfig
from limelight.spaces.describe import describe_space
from limelight.spaces.images import MIN_CNN_SIZE, is_categorical_image, is_image
from limelight.spaces.packed import Leaf, Packed

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
}


class FlattenObs(nn.Module):
    """Flattens observations [..., *shape]: numbers to float32 features [..., F], categories to codes, int64 [..., K].

    A Discrete or MultiDiscrete is one-hot among F features; the code of each of its K values is the feature that is 1.

    Raises: ConfigError if the space is not supported.
    """

    offsets: Tensor | None
    """What is added to K values to make codes of them; None where the features are numbers."""

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()
        self.space = space
        offsets = None
        if isinstance(space, Box | MultiBinary):
            self.num_features = math.prod(space.shape)
        elif isinstance(space, Discrete):
            self.num_features = int(space.n)
            offsets = torch.tensor([-int(space.start)])
        elif isinstance(space, MultiDiscrete):
            self.num_features = int(space.nvec.sum())
            before = space.nvec.reshape(-1).cumsum() - space.nvec.reshape(-1)
            offsets = torch.from_numpy(before - space.start.reshape(-1))
        else:
            raise ConfigError(
                f"observation space {describe_space(space)}: not supported; supported are Box, Discrete, "
                "MultiDiscrete, MultiBinary"
            )
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        """Return features [..., F], or codes [..., K]."""
        flat = obs.reshape(*obs.shape[: obs.ndim - len(self.space.shape or ())], -1)
        return flat.float() if self.offsets is None else flat.long() + self.offsets


def through_layers(layers: nn.Sequential, parts: Sequence[Tensor], starts: Sequence[int]) -> Tensor:
    """Apply hidden layers to an input in parts, each float32 features [..., F] or int64 codes of one-hot features.

    The product of a matrix and a one-hot vector is a column of the matrix. As no one-hot vector is made, memory grows
    with the number of categories and of rows, and not with their product.

    Args:
        layers: a linear layer and what follows it.
        parts: the input.
        starts: the first feature of each part.
    """
    if all(part.is_floating_point() for part in parts):
        features: Tensor = layers(torch.cat(tuple(parts), -1))
        return features
    first, *others = layers
    assert isinstance(first, nn.Linear)
    codes = [part + start for part, start in zip(parts, starts, strict=True) if not part.is_floating_point()]
    features = nn.functional.embedding(torch.cat(codes, -1), first.weight.t()).sum(-2) + first.bias
    for part, start in zip(parts, starts, strict=True):
        if part.is_floating_point():
            features = features + part @ first.weight[:, start : start + part.shape[-1]].t()
    for layer in others:
        features = layer(features)
    return features


class MLP(nn.Module):
    """Flattens observations, then applies the hidden layers: [..., *obs_shape] → [..., hidden_sizes[-1]]."""

    def __init__(self, space: Space[Any], config: ModelConfig) -> None:
        super().__init__()
        self.flatten = FlattenObs(space)
        self.layers = hidden_layers(self.flatten.num_features, config)
        self.num_features = config.hidden_sizes[-1]

    def forward(self, obs: Tensor) -> Tensor:
        """Return features, [..., F]."""
        return through_layers(self.layers, [self.flatten(obs)], [0])


class LeafEncoders(nn.Module):
    """Encodes every leaf of packed observations [..., D] except the action mask; F features or codes of them in all.

    Raises: ConfigError if there is no such leaf.
    """

    def __init__(self, space: Packed, config: ModelConfig) -> None:
        super().__init__()
        self.leaves = space.visible
        if not self.leaves:
            raise ConfigError(f"observation space {describe_space(space)}: contains nothing but the action mask")
        parts = [make_leaf_encoder(leaf.space, config) for leaf in self.leaves]
        self.parts = nn.ModuleList(parts)
        *self.starts, self.num_features = itertools.accumulate((part.num_features for part in parts), initial=0)
        """The first feature of each part, and F."""

    def forward(self, obs: Tensor) -> list[Tensor]:
        """Return the features or codes of each leaf; see :func:`through_layers`."""
        return [part(_unpack(leaf, obs)) for part, leaf in zip(self.parts, self.leaves, strict=True)]


def _unpack(leaf: Leaf, obs: Tensor) -> Tensor:
    """Return a leaf's observations [..., *leaf_shape] from packed ones [..., D]; images become uint8 again."""
    values = obs[..., leaf.part].reshape((*obs.shape[:-1], *(leaf.space.shape or ())))
    return values.byte() if is_image(leaf.space) else values


class FeaturesMLP(nn.Module):
    """Applies hidden layers to the features of :class:`LeafEncoders` or :class:`ImageEncoder`."""

    def __init__(self, features: LeafEncoders | ImageEncoder, config: ModelConfig) -> None:
        super().__init__()
        self.features = features
        self.layers = hidden_layers(features.num_features, config)
        self.num_features = config.hidden_sizes[-1]

    def forward(self, obs: Tensor) -> Tensor:
        """Return features, [..., F]."""
        if isinstance(self.features, LeafEncoders):
            return through_layers(self.layers, self.features(obs), self.features.starts)
        features: Tensor = self.layers(self.features(obs))
        return features


def hidden_layers(num_features: int, config: ModelConfig) -> nn.Sequential:
    """Return a linear layer, a normalisation if there is one, and an activation for every width of ``hidden_sizes``."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise((num_features, *config.hidden_sizes)):
        norm = [nn.LayerNorm(fan_out, elementwise_affine=False)] if config.layer_norm else []
        layers += [nn.Linear(fan_in, fan_out), *norm, ACTIVATIONS[config.activation]()]
    return nn.Sequential(*layers)


def make_leaf_encoder(space: Space[Any], config: ModelConfig) -> FlattenObs | ImageEncoder:
    """Return the encoder of a simple space, without hidden layers; images of categories ignore ``config.encoder``."""
    if not is_image(space):
        return FlattenObs(space)
    assert isinstance(space, Box)
    return ImageEncoder(space, None if is_categorical_image(space) else config.encoder, config.precision)


def builtin_encoder(space: Space[Any], config: ModelConfig) -> nn.Module:
    """Return the built-in encoder of a space.

    An image is encoded by the convolutional network ``config.encoder`` (default: nature); a small image by the small
    network and the hidden layers. The features of all leaves of packed observations pass the hidden layers together.
    Any other space is encoded by the MLP.

    Raises: ConfigError if ``config.encoder`` names a network and there is no image, or the image is too small for it.
    """
    encoder: nn.Module
    if isinstance(space, Packed) and not is_flat(space):
        encoder = FeaturesMLP(LeafEncoders(space, config), config)
    elif is_image(space):
        image = make_leaf_encoder(space, config)
        assert isinstance(image, ImageEncoder)
        encoder = image if image.network else FeaturesMLP(image, config)
    else:
        encoder = MLP(space, config)
    if config.encoder is not None and config.encoder not in [image.network for image in image_encoders(encoder)]:
        raise ConfigError(
            f"encoder = {config.encoder!r}: is for images, and these observations contain none (uint8 of "
            f"{MIN_CNN_SIZE} × {MIN_CNN_SIZE} or more, or smaller and with channels); leave it out"
        )
    return encoder


def image_encoders(encoder: nn.Module) -> list[ImageEncoder]:
    """Return the image encoders inside ``encoder``."""
    return [module for module in encoder.modules() if isinstance(module, ImageEncoder)]


def is_builtin(encoder: str | None) -> bool:
    """Return whether the setting ``encoder`` selects a built-in encoder."""
    return encoder is None or encoder in NETWORKS


def is_flat(space: Packed) -> bool:
    """Return whether a packed vector can be encoded as one Box: only Boxes, no images and no action mask."""
    return space.mask is None and all(isinstance(leaf.space, Box) and not is_image(leaf.space) for leaf in space.leaves)


def make_encoder(space: Space[Any], config: ModelConfig) -> nn.Module:
    """Return the encoder of ``config``: built in, or ``Class(space)`` of a custom ``package.module:Class``.

    Raises: ConfigError if the class cannot be found or has no ``num_features``, if the name is not in :data:`NETWORKS`,
        if that network cannot encode the observations, or if precision is bfloat16 and no built-in network encodes
        images.
    """
    builtin = is_builtin(config.encoder)
    encoder = builtin_encoder(space, config) if builtin else _load_custom_encoder(space, str(config.encoder))
    if config.layer_norm and (not builtin or image_encoders(encoder)):
        raise ConfigError(
            "layer_norm = true: is for the hidden layers of an MLP, and these observations pass an encoder for images "
            "or of your own; set it to false"
        )
    if config.precision == "bfloat16" and not (builtin and image_encoders(encoder)):
        raise ConfigError(
            "precision = bfloat16: is for the convolutional layers of built-in encoders, and this one has none; "
            "leave it auto"
        )
    return encoder


def _load_custom_encoder(space: Space[Any], name: str) -> nn.Module:
    module_name, colon, attribute = name.partition(":")
    if not colon:
        known = " | ".join(NETWORKS)
        raise ConfigError(f"encoder = {name!r}: must be {known} | package.module:Class{did_you_mean(name, NETWORKS)}")
    if not attribute or not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigError(f"encoder = {name!r}: must be package.module:Class")
    try:
        owner = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"encoder = {name!r}: cannot import {module_name} ({error})") from None
    make = getattr(owner, attribute, None)
    if not callable(make):
        near = did_you_mean(attribute, vars(owner))
        raise ConfigError(f"encoder = {name!r}: {module_name} has no class {attribute}{near}")
    # Before the call: a file of a stranger may name any function of any library
    if not isinstance(make, type) or not issubclass(make, nn.Module):
        raise ConfigError(f"encoder = {name!r}: must be a class that is an nn.Module; {attribute} is not")
    try:
        encoder = make(space)
    except Exception as error:  # a user's class may raise anything
        raised = f"{type(error).__name__}: {error}"
        raise ConfigError(f"encoder = {name!r}: {attribute}(observation_space) raised {raised}") from error
    if not isinstance(encoder, nn.Module) or not isinstance(getattr(encoder, "num_features", None), int):
        raise ConfigError(f"encoder = {name!r}: must be an nn.Module with an int attribute num_features")
    return encoder
