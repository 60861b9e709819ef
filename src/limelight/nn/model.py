"""The actor-critic network: encoder → core → head, for the policy and for the value.

Built by train.py and agent.py. One ``forward`` serves acting (T = 1) and learning (T = n).
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import torch
from gymnasium.spaces import Space
from torch import Tensor, nn

from limelight.config import ModelConfig
from limelight.nn.cores import Core, FeedForward
from limelight.nn.distributions import ActionDistribution, make_distribution
from limelight.nn.encoders import make_encoder


class Output(NamedTuple):
    """What the network says of observations [T, B, *obs_shape]."""

    params: Tensor
    """Parameters of the action distribution, [T, B, K]."""
    values: Tensor
    """V(s), [T, B]."""
    recurrent_state: Tensor | None
    """State of the core after the last row; None without memory."""


class ValueHead(nn.Module):
    """Features [..., F] → V(s) [...]."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, 1)

    def forward(self, features: Tensor) -> Tensor:
        """V(s), [...]."""
        return nn.functional.linear(features, self.linear.weight, self.linear.bias).squeeze(-1)


class Critic(nn.Module):
    """A value network of its own: encoder → value head. [T, B, *obs_shape] → [T, B]."""

    def __init__(self, encoder: nn.Module, num_features: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.value_head = ValueHead(num_features)

    def forward(self, obs: Tensor) -> Tensor:
        """V(s), [T, B]."""
        values: Tensor = self.value_head(self.encoder(obs))
        return values


class ActorCritic(nn.Module):
    """Policy and value of observations, with a shared trunk or two networks.

    Parameters lie actor first (encoder, policy head), then the critic's own, so that each is one slice of the
    flat vector. The target critic's copy is the learner's, not a part of this module.
    """

    def __init__(self, observation_space: Space[Any], action_space: Space[Any], config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.distribution: ActionDistribution = make_distribution(action_space)
        self.encoder = make_encoder(observation_space, config)
        self.core: Core = FeedForward(int(self.encoder.num_features))  # type: ignore[arg-type]
        num_features = self.core.num_features
        self.policy_head = nn.Linear(num_features, self.distribution.num_params)
        self.critic: nn.Module = (
            ValueHead(num_features)
            if config.critic == "shared"
            else Critic(make_encoder(observation_space, config), num_features)
        )
        if config.orthogonal_init:
            self._initialize()

    def forward(
        self, obs: Tensor, recurrent_state: Tensor | None = None, episode_start: Tensor | None = None
    ) -> Output:
        """Distribution parameters [T, B, K] and values [T, B] of observations [T, B, *obs_shape]."""
        features, recurrent_state = self.core(self.encoder(obs), recurrent_state, episode_start)
        critic_input = features if isinstance(self.critic, ValueHead) else obs
        return Output(self.policy_head(features), self.critic(critic_input), recurrent_state)

    def policy_params(self, obs: Tensor) -> Tensor:
        """Distribution parameters alone, [T, B, K]: what acting without memory needs."""
        params: Tensor = self.policy_head(self.core(self.encoder(obs), None, None)[0])
        return params

    def make_target_critic(self) -> nn.Module:
        """A copy of the critic, without gradients, for bootstrapping."""
        return copy.deepcopy(self.critic).requires_grad_(False)

    def _initialize(self) -> None:
        """Orthogonal weights and zero biases in the heads and in our own encoders; a user's encoder keeps its own."""
        gains: dict[nn.Module, float] = {self.policy_head: self.config.policy_init_gain}
        gains.update({m.linear: 1.0 for m in self.critic.modules() if isinstance(m, ValueHead)})
        if self.config.encoder is None:
            for module in self.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    gains.setdefault(module, math.sqrt(2.0))
        for module, gain in gains.items():
            assert isinstance(module, nn.Linear | nn.Conv2d)
            nn.init.orthogonal_(module.weight, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def make_model(observation_space: Space[Any], action_space: Space[Any], config: ModelConfig, seed: int) -> ActorCritic:
    """An ActorCritic whose initial parameters depend on ``seed`` alone; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ActorCritic(observation_space, action_space, config)
