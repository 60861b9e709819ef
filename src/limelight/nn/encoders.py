"""Encoders: observations [..., *obs_shape] → features [..., F]. Chosen by model.py from the space and the config."""

from __future__ import annotations

import importlib
import math
from itertools import pairwise
from typing import Any

import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space
from torch import Tensor, nn

from limelight.config import ConfigError, ModelConfig, did_you_mean

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}


class FlattenObs(nn.Module):
    """Box → flat float32; Discrete and MultiDiscrete → (concatenated) one-hot vectors. [..., *shape] → [..., F]."""

    offsets: Tensor

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()
        self.space = space
        if isinstance(space, Box):
            self.num_features = math.prod(space.shape)
        elif isinstance(space, Discrete):
            self.num_features = int(space.n)
        elif isinstance(space, MultiDiscrete):
            self.num_features = int(space.nvec.sum())
        else:
            raise ConfigError(f"observation space {space}: not supported; supported are Box, Discrete, MultiDiscrete")
        if isinstance(space, MultiDiscrete):
            offsets = torch.from_numpy(space.nvec.reshape(-1).cumsum() - space.nvec.reshape(-1))
            self.register_buffer("offsets", offsets - torch.from_numpy(space.start.reshape(-1)), persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        """Features [..., F]."""
        if isinstance(self.space, Box):
            return obs.reshape(*obs.shape[: obs.ndim - len(self.space.shape)], -1).float()
        if isinstance(self.space, Discrete):
            return nn.functional.one_hot(obs.long() - int(self.space.start), self.num_features).float()
        lead = obs.shape[: obs.ndim - len(self.space.shape or ())]
        index = obs.reshape(*lead, -1).long() + self.offsets
        features = torch.zeros(*lead, self.num_features, device=obs.device)
        return features.scatter_(-1, index, 1.0)


class MLP(nn.Module):
    """Flatten, then Linear + activation for every width. [..., *obs_shape] → [..., hidden_sizes[-1]]."""

    def __init__(self, space: Space[Any], config: ModelConfig) -> None:
        super().__init__()
        self.flatten = FlattenObs(space)
        widths = (self.flatten.num_features, *config.hidden_sizes)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[config.activation]()]
        self.layers = nn.Sequential(*layers)
        self.num_features = widths[-1]

    def forward(self, obs: Tensor) -> Tensor:
        """Features [..., F]."""
        features: Tensor = self.layers(self.flatten(obs))
        return features


def make_encoder(space: Space[Any], config: ModelConfig) -> nn.Module:
    """The encoder of ``config``: the MLP, or the user's class ``package.module:Class`` made as ``Class(space)``.

    Raises: ConfigError if the class cannot be found or does not say its ``num_features``.
    """
    if config.encoder is None:
        return MLP(space, config)
    module_name, _, attribute = config.encoder.partition(":")
    if not attribute or not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigError(f"encoder = {config.encoder!r}: must be package.module:Class")
    try:
        owner = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"encoder = {config.encoder!r}: cannot import {module_name} ({error})") from None
    make = getattr(owner, attribute, None)
    if not callable(make):
        near = did_you_mean(attribute, vars(owner))
        raise ConfigError(f"encoder = {config.encoder!r}: {module_name} has no class {attribute}{near}")
    encoder = make(space)
    if not isinstance(encoder, nn.Module) or not isinstance(getattr(encoder, "num_features", None), int):
        raise ConfigError(f"encoder = {config.encoder!r}: must be an nn.Module with an int attribute num_features")
    return encoder
