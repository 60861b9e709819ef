"""A policy as one PyTorch module, from raw observations to the environment's actions: what is exported.

It computes what ``Agent.predict`` does in NumPy around the network: packing, normalisation, bounds. The parity check
of every export, and tests/runs/export/, hold the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from gymnasium.spaces import Box, Space
from torch import Tensor, nn

from limelight.algo.normalization import ObservationNormalizer
from limelight.nn.bounds import Bounds, choose_bounds, flat_bounds
from limelight.nn.cores import CELLS, Parts, Recurrent
from limelight.nn.distributions import FactorizedDistribution
from limelight.nn.images import ImageEncoder, set_image_scale
from limelight.runs.export.ports import action_dtype
from limelight.spaces.packed import Packed
from limelight.spaces.reading import leaves_of

if TYPE_CHECKING:
    from limelight.runs.agent import Agent


@final
class PolicyModule(nn.Module):
    """Computes actions, distribution parameters and the next state of the inputs of :func:`ports_of`, in its order.

    Args:
        agent: its network becomes a part of this module, without the critic; give a copy.
        deterministic: the most probable actions; otherwise the noise is an input.
    """

    def __init__(self, agent: Agent, deterministic: bool) -> None:
        super().__init__()
        self.model = agent.model
        self.space = agent.observation_space
        self.action_space = agent.action_space
        self.deterministic = deterministic
        self.cell = self.model.core.cell if isinstance(self.model.core, Recurrent) else None
        # Here, as types of modules are others while torch.export traces them
        self.num_parts = 0 if self.cell is None else CELLS[type(self.cell)].num_parts
        self.normalize = _normalization(agent.normalizer, self.space)
        if agent.normalizer is not None and agent.normalizer.in_network:
            set_image_scale(self.model, agent.normalizer.image_scale())
        del self.model.critic
        compute_in_float32(self.model)
        self.requires_grad_(False).eval()
        for parameter in self.parameters():  # memory of its own, as files and loops take no views of one vector
            parameter.data = parameter.data.clone()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of :func:`ports_of`."""
        num_parts = len(leaves_of(self.space))
        parts, others = inputs[:num_parts], list(inputs[num_parts:])
        state, episode_start = (others.pop(0), others.pop(0)) if self.cell is not None else (None, None)
        noise = None if self.deterministic else others.pop(0)
        if self.cell is None:  # one row of time
            parts, noise = tuple(part[None] for part in parts), None if noise is None else noise[None]
        # Observe
        obs = self.normalize(joined(self.space, parts))
        features = self.model.encoder(obs)
        if self.cell is not None and state is not None and episode_start is not None:
            features, state = unroll(self.cell, self.num_parts, features, state, episode_start)
        # Act
        params = self.model.distribution_params(features, obs)
        distribution = self.model.distribution
        sampled = distribution.mode(params) if noise is None else distribution.sample(params, noise)
        outputs = (*self._to_env(sampled), params)
        return (*outputs, state) if state is not None else tuple(output[0] for output in outputs)

    def _to_env(self, sampled: Tensor) -> list[Tensor]:
        """Return the environment's actions of each leaf, [T, B, *leaf_shape], of sampled ones."""
        bounds, distribution = self.model.config.action_bounds, self.model.distribution
        if not isinstance(self.action_space, Packed):
            return [to_env(self.action_space, bounds, sampled)]
        assert isinstance(distribution, FactorizedDistribution)
        pairs = zip(self.action_space.leaves, distribution.factors, strict=True)
        return [to_env(leaf.space, bounds, sampled[..., factor.actions]) for leaf, factor in pairs]


def compute_in_float32(model: nn.Module) -> None:
    """Let image encoders compute in float32 where they were trained in bfloat16."""
    for module in model.modules():
        if isinstance(module, ImageEncoder):
            module.dtype = torch.float32


def joined(space: Space[Any], parts: Sequence[Tensor]) -> Tensor:
    """Return observations [T, B, *obs_shape] as the collector stores them, of those of each leaf."""
    if not isinstance(space, Packed):
        return parts[0].float() if parts[0].dtype == torch.float64 else parts[0]
    dtype = torch.uint8 if space.dtype == np.uint8 else torch.float32
    return torch.cat([(part.flatten(2) if part.ndim > 2 else part.unsqueeze(2)).to(dtype) for part in parts], -1)


@final
class _Standardized(nn.Module):
    """Computes (obs − mean) / std, clipped to ± limit, in the dtype of the mean."""

    mean: Tensor
    std: Tensor
    limit: Tensor

    def __init__(self, mean: Any, std: Any, limit: Any) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std), ("limit", limit)):
            self.register_buffer(name, torch.as_tensor(value))

    def forward(self, obs: Tensor) -> Tensor:
        """Return float32, [..., *obs_shape]."""
        scaled = (obs.to(self.mean.dtype) - self.mean) / self.std
        return torch.minimum(torch.maximum(scaled, -self.limit), self.limit).float()


def _normalization(normalizer: ObservationNormalizer | None, space: Space[Any]) -> nn.Module:
    """Return the module that does what ``normalizer`` does to observations of ``space``."""
    if normalizer is None or normalizer.in_network:
        return nn.Identity()
    if normalizer.images:
        scale = normalizer.image_scale()
        return _Standardized(scale.mean, np.float32(1.0 / scale.factor), np.float32(scale.limit))
    numbers = normalizer.number_scale()
    if normalizer.indices is None:
        return _Standardized(numbers.mean, numbers.std, np.float64(numbers.limit))
    # All other entries stay: mean 0, std 1, no limit
    mean, std, limit = np.zeros(space.shape or ()), np.ones(space.shape or ()), np.full(space.shape or (), np.inf)
    mean[normalizer.indices], std[normalizer.indices] = numbers.mean, numbers.std
    limit[normalizer.indices] = numbers.limit
    return _Standardized(mean, std, limit)


def to_env(space: Space[Any], bounds: Bounds, actions: Tensor) -> Tensor:
    """Return the environment's actions [T, B, *space.shape] of sampled ones: :func:`make_to_env` in PyTorch."""
    lead = actions.shape[:2]
    if isinstance(space, Box):
        chosen = choose_bounds(space, bounds)
        low, high, centre, half = (torch.from_numpy(bound) for bound in flat_bounds(space))
        if chosen == "squash":
            actions = actions.tanh()
        if chosen != "clip":
            actions = actions * half + centre
        actions = torch.where(actions >= low, actions, low)  # NaN becomes the lower bound
        actions = torch.where(actions <= high, actions, high)
    dtype = torch.from_numpy(np.zeros(0, action_dtype(space))).dtype
    return actions.reshape(*lead, *(space.shape or ())).to(dtype)


def unroll(
    cell: nn.RNNCellBase, num_parts: int, features: Tensor, state: Tensor, episode_start: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what :class:`Recurrent` does, as one operation over the time axis, whose length stays open."""
    from torch._higher_order_ops.scan import scan

    def one_step(state: Tensor, row: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, keep = row
        parts: Parts = tuple(part * keep for part in state.chunk(num_parts, -1))
        after = cell(x, parts if num_parts > 1 else parts[0])
        parts = after if num_parts > 1 else (after,)
        return torch.cat(parts, -1), parts[0].clone()

    state, outputs = scan(one_step, state, (features, (1.0 - episode_start).unsqueeze(-1)))
    return outputs, state
