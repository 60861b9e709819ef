"""Policies: greedy and sampled actions for every observation space, on both engines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space
from torch import Tensor, nn

from limelight.nn.model import ActorCritic
from limelight.nn.network import Network, make_network
from limelight.nn.numpy_engine.network import supports
from limelight.nn.policy import ModelPolicy

ActorCriticFactory = Callable[..., ActorCritic]
SPACES: dict[str, tuple[Space[Any], Any]] = {
    "float32": (Box(-1.0, 1.0, (4,)), np.float32([[0.1, -2, 3, 0], [5, 5, -5, 0]])),
    "float64": (Box(-1.0, 1.0, (4,), np.float64), np.array([[0.1, -2, 3, 0], [5, 5, -5, 0]])),
    "bytes": (Box(0, 255, (2, 2), np.uint8), np.array([[[0, 9], [1, 255]], [[7, 0], [0, 3]]], np.uint8)),
    "discrete": (Discrete(3, start=4), np.array([4, 6])),
    "multi": (MultiDiscrete([2, 3]), np.array([[1, 0], [0, 2]])),
}


def networks(model: ActorCritic) -> list[Network]:
    """The model on every engine that supports it."""
    return [
        make_network(model, engine=engine) for engine in (("autograd", "numpy") if supports(model) else ("autograd",))
    ]


def starts(obs: Any) -> Any:
    """Zeros: no row begins an episode."""
    return np.zeros(len(obs), np.float32)


@pytest.mark.parametrize("name", SPACES)
def test_greedy_actions_are_the_modes(make_actor_critic: ActorCriticFactory, name: str) -> None:
    space, obs = SPACES[name]
    model = make_actor_critic(space, policy_init_gain=5.0)
    expected = model(torch.from_numpy(obs)[None]).params[0].argmax(-1).numpy()
    for network in networks(model):
        actions = ModelPolicy(network, None).act(obs, starts(obs))
        assert actions.dtype == np.int64
        np.testing.assert_array_equal(actions, expected)


@pytest.mark.parametrize("name", SPACES)
def test_sampled_actions_follow_the_policy_and_the_generator(make_actor_critic: ActorCriticFactory, name: str) -> None:
    space, obs = SPACES[name]
    model = make_actor_critic(space, policy_init_gain=2.0)
    many, n = np.repeat(obs[:1], 20_000, axis=0), 20_000
    probabilities = model(torch.from_numpy(obs[:1])[None]).params[0, 0].detach().softmax(-1).numpy()
    for network in networks(model):
        actions = ModelPolicy(network, np.random.default_rng(3)).act(many, starts(many))
        frequencies = np.bincount(actions, minlength=3) / n
        np.testing.assert_allclose(frequencies, probabilities, atol=0.015)
        again = ModelPolicy(network, np.random.default_rng(3)).act(many, starts(many))
        np.testing.assert_array_equal(actions, again)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize("core", ["lstm", "gru"])
def test_acting_with_memory_equals_the_models_forward_pass(
    make_actor_critic: ActorCriticFactory, name: str, critic: str, core: str
) -> None:
    """Actions and states agree step by step, with resets."""
    space, obs = SPACES[name]
    model = make_actor_critic(space, policy_init_gain=5.0, core=core, critic=critic)
    policy, state = ModelPolicy(make_network(model), None), torch.zeros(2, model.state_size)
    assert policy.recurrent_state is None
    for start in ([1, 1], [0, 0], [0, 1], [0, 0]):
        mask, before = np.array(start, np.float32), policy.recurrent_state
        copy_before = None if before is None else before.copy()
        expected = model(torch.from_numpy(obs)[None], state, torch.from_numpy(mask)[None])
        assert policy.act(obs, mask).tolist() == expected.params[0].argmax(-1).tolist()
        state = expected.recurrent_state.detach()
        np.testing.assert_allclose(policy.recurrent_state, state, rtol=0.0, atol=1e-6)
        if before is not None:
            np.testing.assert_array_equal(before, copy_before)  # not modified in place


def test_acting_leaves_no_gradients(make_actor_critic: ActorCriticFactory) -> None:
    space, obs = SPACES["float32"]
    model = make_actor_critic(space)
    ModelPolicy(make_network(model, engine="autograd"), np.random.default_rng(0)).act(obs, starts(obs))
    assert all(p.grad is None for p in model.parameters())


def test_acting_uses_new_parameters_at_once(make_actor_critic: ActorCriticFactory) -> None:
    """Both engines read the model's memory, so a step of the optimizer needs no copy."""
    space, obs = SPACES["float32"]
    model = make_actor_critic(space)
    policies = [ModelPolicy(network, None) for network in networks(model)]
    assert len(policies) == 2
    for action in range(3):
        with torch.no_grad():
            model.policy_head.linear.bias.copy_(100.0 * torch.eye(3)[action])
        for policy in policies:
            assert policy.act(obs, starts(obs)).tolist() == [action, action]


class Plain(nn.Module):
    """A custom encoder without a conversion of observations."""

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()
        self.num_features, self.linear = 4, nn.Linear(4, 4)

    def forward(self, obs: Tensor) -> Tensor:
        features: Tensor = self.linear(obs)
        return features


def test_custom_encoders_receive_float64_observations_as_float32(
    make_actor_critic: ActorCriticFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("my_nets")
    module.Plain = Plain  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_nets", module)
    space, obs = SPACES["float64"]
    model = make_actor_critic(space, encoder="my_nets:Plain")
    expected = model(torch.from_numpy(obs).float()[None]).params[0].argmax(-1).tolist()
    assert ModelPolicy(make_network(model), None).act(obs, starts(obs)).tolist() == expected
