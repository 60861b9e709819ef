"""The actor-critic network: encoder → core → head, for the policy and for the value.

One ``forward`` serves acting (T = 1) and learning (T = n).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from gymnasium.spaces import Space
from torch import Tensor, nn

from limelight.errors import ConfigError
from limelight.nn.cores import Core, Recurrent, make_core
from limelight.nn.distributions import ActionDistribution, Categorical, make_distribution
from limelight.nn.encoders import is_builtin, make_encoder
from limelight.nn.policy_head import PolicyHead
from limelight.settings.schema import ModelConfig
from limelight.spaces.describe import describe_space
from limelight.spaces.packed import Packed

ILLEGAL = -1e9
"""Logit of an illegal action: its probability is 0, and sums and products with the logit stay finite."""


class Output(NamedTuple):
    """Outputs of the network for a batch of observations [T, B, *obs_shape]."""

    params: Tensor
    """Parameters of the action distribution, [T, B, K]."""
    values: Tensor
    """V(s), [T, B]; of an action-value critic Σ π(a|s) q(s, a)."""
    recurrent_state: Tensor | None
    """State of the cores after the last row, [B, S]; None without memory."""
    features: Tensor
    """Inputs of the policy head, [T, B, F]."""
    action_values: Tensor | None = None
    """q(s, ·) of an action-value critic, [T, B, n]; None where the critic computes V(s)."""


class ValueHead(nn.Module):
    """Computes V(s) [...], or q(s, ·) [..., n] of n actions, of features [..., F].

    ``num_actions``: n; None computes V(s).
    """

    def __init__(self, num_features: int, num_actions: int | None = None) -> None:
        super().__init__()
        self.num_actions = num_actions
        self.linear = nn.Linear(num_features, num_actions or 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return V(s), [...], or q(s, ·), [..., n]."""
        outputs = nn.functional.linear(features, self.linear.weight, self.linear.bias)
        return outputs.squeeze(-1) if self.num_actions is None else outputs


class Critic(nn.Module):
    """A value network that shares no layer with the policy: encoder → core → value head.

    ``num_actions``: of :class:`ValueHead`; where it is given, q(s, ·) [T, B, n] replaces V(s) [T, B] throughout.
    """

    def __init__(self, encoder: nn.Module, core: Core, num_actions: int | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.core: Core = core
        self.value_head = ValueHead(core.num_features, num_actions)

    def forward(
        self, obs: Tensor, recurrent_state: Tensor | None = None, episode_start: Tensor | None = None
    ) -> Tensor:
        """Return V(s), [T, B]; ``recurrent_state`` is the critic's part of the state."""
        return self.unroll(obs, recurrent_state, episode_start)[0]

    def unroll(
        self, obs: Tensor, recurrent_state: Tensor | None, episode_start: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return V(s), [T, B], and the core's state after the last row."""
        features, recurrent_state = self.core(self.encoder(obs), recurrent_state, episode_start)
        return self.value_head(features), recurrent_state


class ActorCritic(nn.Module):
    """Computes the policy and the value of observations, with a shared trunk or with two separate networks.

    The order of parameters is actor (encoder, core, policy head), then critic, so that each is one slice of the flat
    vector. A recurrent state holds the actor's part, then the part of a separate critic. The target critic is not a
    part of this module. If observations contain an action mask, the distribution parameters are those of the
    distribution over the legal actions.
    """

    def __init__(self, observation_space: Space[Any], action_space: Space[Any], config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.distribution: ActionDistribution = make_distribution(action_space, config)
        self.encoder, self.core = make_trunk(observation_space, config)
        self.policy_head = PolicyHead(self.core.num_features, self.distribution)
        mask = observation_space.mask if isinstance(observation_space, Packed) else None
        self.mask = mask.part if mask is not None else None
        """Columns of packed observations that are the mask of legal actions; None without one."""
        self.distribution_params: Callable[[Tensor, Tensor], Tensor] = (
            self._all_params if mask is None else self._legal_params
        )
        """Returns distribution parameters [T, B, K] of the core's features [T, B, F] and the observations."""
        num_actions = _num_actions(self.distribution, action_space) if config.critic_output == "q" else None
        self._output = Output if num_actions is None else _expected_output
        self.critic: ValueHead | Critic = (
            ValueHead(self.core.num_features, num_actions)
            if config.critic == "shared"
            else Critic(*make_trunk(observation_space, config), num_actions)
        )
        self.state_size = self.core.state_size + (self.critic.core.state_size if isinstance(self.critic, Critic) else 0)
        """S, the size of a recurrent state; 0 without memory."""
        if config.orthogonal_init:
            self._initialize()
        elif config.sparse_init:
            initialize_sparsely(self, config.sparse_init)
        self.policy_head.add_initial_bias()

    def forward(
        self,
        obs: Tensor,
        recurrent_state: Tensor | None = None,
        episode_start: Tensor | None = None,
        features: Tensor | None = None,
    ) -> Output:
        """Return distribution parameters [T, B, K], values [T, B], the new recurrent state and the core's features.

        Args:
            obs: [T, B, *obs_shape].
            recurrent_state: before the first row, [B, S]; None is zeros.
            episode_start: 1 where a row begins an episode and the state is zeroed first, [T, B] float32.
            features: outputs of the actor's encoder for ``obs``, [T, B, F], if they are known already.
        """
        actor_state, critic_state = self.split_state(recurrent_state)
        encoded = self.encoder(obs) if features is None else features
        features, actor_state = self.core(encoded, actor_state, episode_start)
        if isinstance(self.critic, ValueHead):
            return self._output(self.distribution_params(features, obs), self.critic(features), actor_state, features)
        values, critic_state = self.critic.unroll(obs, critic_state, episode_start)
        both = None if actor_state is None or critic_state is None else torch.cat((actor_state, critic_state), -1)
        return self._output(self.distribution_params(features, obs), values, both, features)

    def split_state(self, recurrent_state: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Return the actor's part of a state [B, S] and the critic's part, of width 0 if the trunk is shared."""
        if recurrent_state is None:
            return None, None
        size = self.core.state_size
        return recurrent_state[:, :size], recurrent_state[:, size:]

    def policy(self, obs: Tensor, features: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return distribution parameters [T, B, K] and the policy head's inputs [T, B, F], for acting without memory.

        ``features``: see :meth:`forward`.
        """
        features = self.core(self.encoder(obs) if features is None else features, None, None)[0]
        return self.distribution_params(features, obs), features

    def _all_params(self, features: Tensor, obs: Tensor) -> Tensor:
        """Return distribution parameters [T, B, K] of features [T, B, F]."""
        params: Tensor = self.policy_head(features)
        return params

    def _legal_params(self, features: Tensor, obs: Tensor) -> Tensor:
        """Return parameters with illegal actions masked; ``obs`` [T, B, D] contains 0 or 1 for each logit."""
        return self._all_params(features, obs).masked_fill(obs[..., self.mask] == 0, ILLEGAL)

    def make_target_critic(self) -> ValueHead | Critic:
        """Return a copy of the critic without gradients, for bootstrapping."""
        return copy.deepcopy(self.critic).requires_grad_(False)

    def _initialize(self) -> None:
        """Set orthogonal weights and zero biases in heads, cores and built-in encoders; a custom encoder is kept."""
        gains: dict[nn.Module, float] = {self.policy_head.linear: self.config.policy_init_gain}
        gains.update({m.linear: 1.0 for m in self.critic.modules() if isinstance(m, ValueHead)})
        if is_builtin(self.config.encoder):
            for module in self.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    gains.setdefault(module, math.sqrt(2.0))
        for module, gain in gains.items():
            assert isinstance(module, nn.Linear | nn.Conv2d)
            nn.init.orthogonal_(module.weight, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Recurrent):
                module.initialize()


def _num_actions(distribution: ActionDistribution, space: Space[Any]) -> int:
    """Return the number of actions, each with a value of its own.

    Raises: ConfigError where the actions are not one choice among a few.
    """
    if type(distribution) is not Categorical:
        raise ConfigError(
            "critic_output = q: needs Discrete actions, as it is one value per action, but the action space is "
            f"{describe_space(space)}; set critic_output to v, or algo to one with V(s)"
        )
    return distribution.num_outputs


def _expected_output(params: Tensor, action_values: Tensor, state: Tensor | None, features: Tensor) -> Output:
    """Return the output of a model whose critic has computed q(s, ·) [T, B, n]."""
    values = (params.softmax(-1) * action_values).sum(-1)
    return Output(params, values, state, features, action_values)


def initialize_sparsely(module: nn.Module, sparsity: float) -> None:
    """Set biases to 0 and weights uniform in ±1/√fan_in, of which ⌈sparsity · fan_in⌉ at random of each unit are 0.

    Of all linear and convolutional layers. Source: Elsayed, Vasan & Mahmood 2024, algorithm 1.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            weights = layer.weight.data.flatten(1)
            fan_in = weights.shape[1]
            nn.init.uniform_(weights, -1.0 / math.sqrt(fan_in), 1.0 / math.sqrt(fan_in))
            for unit in weights:
                order = nn.init.uniform_(torch.empty(fan_in)).argsort()
                unit[order[: math.ceil(sparsity * fan_in)]] = 0.0
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def make_trunk(space: Space[Any], config: ModelConfig) -> tuple[nn.Module, Core]:
    """Return an encoder and a core: observations [T, B, *obs_shape] → features [T, B, F]."""
    encoder = make_encoder(space, config)
    return encoder, make_core(int(encoder.num_features), config)  # type: ignore[arg-type]


def make_model(observation_space: Space[Any], action_space: Space[Any], config: ModelConfig, seed: int) -> ActorCritic:
    """Return an ActorCritic whose initial parameters depend only on ``seed``; torch's global generator is unchanged."""
    with torch.random.fork_rng(devices=[]), _float32():
        torch.manual_seed(seed)
        return ActorCritic(observation_space, action_space, config)


@contextmanager
def _float32() -> Iterator[None]:
    """Let PyTorch make float32 tensors here, whatever the program has set as its default."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
