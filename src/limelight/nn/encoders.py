"""Encoders of every supported observation space: observations [..., *obs_shape] → features [..., F]."""

from __future__ import annotations

import importlib
import math
from itertools import pairwise
from typing import Any

import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from torch import Tensor, nn

from limelight.errors import ConfigError, did_you_mean
from limelight.nn.images import NETWORKS, ImageEncoder
from limelight.settings.schema import ModelConfig
from limelight.spaces.images import MIN_CNN_SIZE, is_categorical_image, is_image
from limelight.spaces.packed import Leaf, Packed

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}


class FlattenObs(nn.Module):
    """Flattens observations [..., *shape] to float32 features [..., F]; Discrete and MultiDiscrete become one-hot.

    Raises: ConfigError if the space is not supported, or an observation is outside its Discrete space.
    """

    offsets: Tensor

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()
        self.space = space
        if isinstance(space, Box | MultiBinary):
            self.num_features = math.prod(space.shape)
        elif isinstance(space, Discrete):
            self.num_features = int(space.n)
        elif isinstance(space, MultiDiscrete):
            self.num_features = int(space.nvec.sum())
        else:
            raise ConfigError(
                f"observation space {space}: not supported; supported are Box, Discrete, MultiDiscrete, MultiBinary"
            )
        if isinstance(space, MultiDiscrete):
            offsets = torch.from_numpy(space.nvec.reshape(-1).cumsum() - space.nvec.reshape(-1))
            self.register_buffer("offsets", offsets - torch.from_numpy(space.start.reshape(-1)), persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        """Return features, [..., F]."""
        if isinstance(self.space, Box | MultiBinary):
            return obs.reshape(*obs.shape[: obs.ndim - len(self.space.shape)], -1).float()
        try:
            return self._one_hot(obs)
        except RuntimeError:  # an index is out of range
            raise ConfigError(out_of_space_message(self.space, obs)) from None

    def _one_hot(self, obs: Tensor) -> Tensor:
        if isinstance(self.space, Discrete):
            return nn.functional.one_hot(obs.long() - int(self.space.start), self.num_features).float()
        lead = obs.shape[: obs.ndim - len(self.space.shape or ())]
        index = obs.reshape(*lead, -1).long() + self.offsets
        features = torch.zeros(*lead, self.num_features, device=obs.device)
        return features.scatter_(-1, index, 1.0)


def out_of_space_message(space: Space[Any], obs: Any) -> str:
    """Return the error message for observations (tensor or array) outside their space."""
    values = f"{int(obs.min())} … {int(obs.max())}"
    return f"observation: values {values} are not all in {space}; it must contain every observation of the environment"


class MLP(nn.Module):
    """Flattens observations, then applies the hidden layers: [..., *obs_shape] → [..., hidden_sizes[-1]]."""

    def __init__(self, space: Space[Any], config: ModelConfig) -> None:
        super().__init__()
        self.flatten = FlattenObs(space)
        self.layers = hidden_layers(self.flatten.num_features, config)
        self.num_features = config.hidden_sizes[-1]

    def forward(self, obs: Tensor) -> Tensor:
        """Return features, [..., F]."""
        features: Tensor = self.layers(self.flatten(obs))
        return features


class LeafEncoders(nn.Module):
    """Encodes every leaf of packed observations [..., D] except the action mask; features side by side, [..., F].

    Raises: ConfigError if there is no such leaf.
    """

    def __init__(self, space: Packed, config: ModelConfig) -> None:
        super().__init__()
        self.leaves = space.visible
        if not self.leaves:
            raise ConfigError(f"observation space {space.original}: contains nothing but the action mask")
        parts = [make_leaf_encoder(leaf.space, config) for leaf in self.leaves]
        self.parts = nn.ModuleList(parts)
        self.num_features = sum(part.num_features for part in parts)

    def forward(self, obs: Tensor) -> Tensor:
        """Return features, [..., F]."""
        return torch.cat([part(_unpack(leaf, obs)) for part, leaf in zip(self.parts, self.leaves, strict=True)], -1)


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
        features: Tensor = self.layers(self.features(obs))
        return features


def hidden_layers(num_features: int, config: ModelConfig) -> nn.Sequential:
    """Return a linear layer and an activation for every width of ``hidden_sizes``."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise((num_features, *config.hidden_sizes)):
        layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[config.activation]()]
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
    encoder = make(space)
    if not isinstance(encoder, nn.Module) or not isinstance(getattr(encoder, "num_features", None), int):
        raise ConfigError(f"encoder = {name!r}: must be an nn.Module with an int attribute num_features")
    return encoder
