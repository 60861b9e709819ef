"""Agents of every kind with random parameters, and recordings of random observations, for the tests of exports."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

import limelight
from helpers.settings import train_config
from limelight.algo.normalization import make_normalizer
from limelight.envs.masks import with_mask
from limelight.nn.encoders import is_builtin
from limelight.nn.model import make_model
from limelight.runs.export.module import PolicyModule
from limelight.runs.export.parity import Parity, Run, compare
from limelight.runs.export.ports import Arrays, Ports, ports_of
from limelight.runs.export.recording import Recording, random_recording
from limelight.spaces.packed import MaskSource, Packed

REALS = Box(-10.0, 10.0, (3,))
IMAGES = Box(0, 255, (2, 36, 36), np.uint8)
SENSORS = Dict(
    position=Box(-5.0, 5.0, (2,), np.float64),
    camera=Box(0, 255, (4, 4, 3), np.uint8),
    mode=Discrete(3, start=1),
    pair=Tuple((MultiBinary(2), MultiDiscrete([2, 3]))),
)
ARM = Dict(grip=MultiBinary(2), turn=Box(-2.0, 3.0, (2,), np.float64), gear=Discrete(3, start=-1))


class Kind(NamedTuple):
    """What an agent observes and does."""

    observations: Space[Any] = REALS
    actions: Space[Any] = Discrete(4)
    settings: Mapping[str, Any] = MappingProxyType({})
    normalized: bool = False
    mask: MaskSource | None = None


MASKED = MultiDiscrete([2, 3])
KINDS = {
    "discrete": Kind(actions=Discrete(4, start=2), normalized=True),
    "multi-discrete": Kind(actions=MultiDiscrete([[2, 3], [4, 2]])),
    "multi-binary": Kind(actions=MultiBinary((2, 2))),
    "clipped": Kind(actions=Box(-0.5, np.inf, (2,)), settings={"policy_init_gain": 5.0}),
    "rescaled": Kind(actions=Box(np.float32([-2, 5]), np.float32([3, 50])), normalized=True),
    "squashed": Kind(actions=Box(-2.0, 3.0, (2, 1), np.float64), settings={"action_bounds": "squash"}),
    "softplus": Kind(actions=Box(-2.0, 3.0, (2,)), settings={"action_std": "softplus"}),
    "softplus-std": Kind(actions=Box(-2.0, 3.0, (2,)), settings={"action_std": "softplus_std"}),
    "gsde": Kind(actions=Box(-2.0, 3.0, (2,)), settings={"action_std": "gsde"}),
    "places": Kind(observations=Discrete(5, start=2)),
    "codes": Kind(observations=MultiDiscrete([3, 4])),
    "doubles": Kind(observations=Box(-1e6, 1e6, (3,), np.float64), normalized=True),
    "images": Kind(observations=IMAGES, normalized=False),
    "normalized-images": Kind(observations=IMAGES, normalized=True),
    "last-channel": Kind(observations=Box(0, 255, (36, 36, 3), np.uint8)),
    "stack": Kind(observations=Box(0, 255, (2, 36, 36, 3), np.uint8)),
    "categories": Kind(observations=Box(0, 10, (7, 7, 3), np.uint8)),
    "own-images": Kind(IMAGES, settings={"encoder": "helpers.export_agents:Mean"}, normalized=True),
    "own": Kind(settings={"encoder": "helpers.export_agents:Mean"}, normalized=True),
    "layer-norm": Kind(settings={"layer_norm": True}),
    "sensors": Kind(observations=SENSORS, actions=ARM, normalized=True),
    "masked": Kind(actions=MASKED, mask="info", normalized=True),
    "masked-sensors": Kind(with_mask(SENSORS, MASKED), MASKED, mask="info"),
    "observed-mask": Kind(Dict(place=Discrete(3), action_mask=MultiBinary(4)), mask="observation"),
    "separate-critic": Kind(settings={"critic": "separate"}),
    "lstm": Kind(settings={"core": "lstm", "core_size": 6}, normalized=True),
    "gru": Kind(actions=ARM, settings={"core": "gru", "core_size": 6}, observations=SENSORS, normalized=True),
    "separate-lstm": Kind(settings={"core": "lstm", "core_size": 6, "critic": "separate"}),
    "lstm-images": Kind(observations=IMAGES, settings={"core": "lstm", "core_size": 6}, normalized=True),
}
RECURRENT = {name for name, kind in KINDS.items() if "core" in kind.settings}


class Mean(torch.nn.Module):
    """An encoder of a user: a linear layer on the mean of an image, or on numbers."""

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()
        self.num_features = 7
        self.axes = len(space.shape or ())
        self.linear = torch.nn.Linear(1, 7)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        numbers = obs.float().flatten(-self.axes).mean(-1, keepdim=True)
        return torch.tanh(self.linear(numbers))


class Branching(Mean):
    """An encoder whose operations depend on the values of its input, which cannot be traced."""

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return super().forward(obs if obs.float().mean().item() > 0 else -obs)


def make_agent(kind: Kind) -> limelight.Agent:
    """An agent with random parameters, whose policy is far from uniform, and statistics far from 0 and 1."""
    config = train_config(**{"hidden_sizes": (8,), "policy_init_gain": 2.0, **kind.settings})
    space = kind.observations
    if kind.mask == "info" and "action_mask" not in getattr(space, "spaces", {}):
        space = with_mask(space, kind.actions)
    observed = Packed(space, kind.mask) if kind.mask or isinstance(space, Dict) else space
    acted = Packed(kind.actions) if isinstance(kind.actions, Dict) else kind.actions
    model = make_model(observed, acted, config.model, 3)
    normalizer = make_normalizer(observed, is_builtin(config.model.encoder)) if kind.normalized else None
    agent = limelight.Agent(model, normalizer, config, observed, acted)
    if normalizer is not None:
        samples = random_recording(agent, 40, 5, "").obs.reshape(-1, *(observed.shape or ()))
        normalizer.update(samples[::2] if observed.dtype == np.uint8 else samples + np.float32(2.0))
    return agent


def eager(agent: limelight.Agent, ports: Ports, spoil: Callable[[PolicyModule], None] | None = None) -> Run:
    """The module that is exported, without a file; ``spoil`` changes it first."""
    module = PolicyModule(copy.deepcopy(agent), not ports.noise)
    if spoil is not None:
        spoil(module)

    def run(inputs: Arrays) -> Arrays:
        outputs = module(*(torch.from_numpy(inputs[port.name]) for port in ports.inputs))
        return {port.name: output.numpy() for port, output in zip(ports.outputs, outputs, strict=True)}

    return run


def parity(
    agent: limelight.Agent,
    deterministic: bool,
    spoil: Callable[[PolicyModule], None] | None = None,
    recording: Recording | None = None,
) -> Parity:
    """The difference of the module of ``agent`` from its predictions."""
    ports = ports_of(agent, deterministic)
    recording = recording or random_recording(agent, 30, 1, "random")
    return compare(agent, eager(agent, ports, spoil), ports, recording, seed=7)
