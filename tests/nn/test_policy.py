"""Acting with a model: greedy and sampled, from every observation space, by torch and by NumPy."""

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
from limelight.nn.numpy_mlp import NumpyActorCritic, supports
from limelight.nn.policy import ModelPolicy

ModelOf = Callable[..., ActorCritic]
SPACES: dict[str, tuple[Space[Any], Any]] = {
    "float32": (Box(-1.0, 1.0, (4,)), np.float32([[0.1, -2, 3, 0], [5, 5, -5, 0]])),
    "float64": (Box(-1.0, 1.0, (4,), np.float64), np.array([[0.1, -2, 3, 0], [5, 5, -5, 0]])),
    "bytes": (Box(0, 255, (2, 2), np.uint8), np.array([[[0, 9], [1, 255]], [[7, 0], [0, 3]]], np.uint8)),
    "discrete": (Discrete(3, start=4), np.array([4, 6])),
    "multi": (MultiDiscrete([2, 3]), np.array([[1, 0], [0, 2]])),
}


@pytest.mark.parametrize("name", SPACES)
def test_greedy_actions_are_the_modes(model_of: ModelOf, name: str) -> None:
    space, obs = SPACES[name]
    model = model_of(space, policy_init_gain=5.0)
    expected = model(torch.from_numpy(obs)[None]).params[0].argmax(-1).numpy()
    for fast in [None, NumpyActorCritic(model)] if supports(model) else [None]:
        actions = ModelPolicy(model, None, fast).act(obs)
        assert actions.dtype == np.int64
        np.testing.assert_array_equal(actions, expected)


@pytest.mark.parametrize("name", SPACES)
def test_sampled_actions_follow_the_policy_and_the_generator(model_of: ModelOf, name: str) -> None:
    space, obs = SPACES[name]
    model = model_of(space, policy_init_gain=2.0)
    many, n = np.repeat(obs[:1], 20_000, axis=0), 20_000
    probabilities = model(torch.from_numpy(obs[:1])[None]).params[0, 0].detach().softmax(-1).numpy()
    for fast in [None, NumpyActorCritic(model)] if supports(model) else [None]:
        actions = ModelPolicy(model, np.random.default_rng(3), fast).act(many)
        frequencies = np.bincount(actions, minlength=3) / n
        np.testing.assert_allclose(frequencies, probabilities, atol=0.015)
        again = ModelPolicy(model, np.random.default_rng(3), fast).act(many)
        np.testing.assert_array_equal(actions, again)


def test_acting_leaves_no_gradients(model_of: ModelOf) -> None:
    space, obs = SPACES["float32"]
    model = model_of(space)
    ModelPolicy(model, np.random.default_rng(0), None).act(obs)
    assert all(p.grad is None for p in model.parameters())


def test_acting_sees_new_parameters_at_once(model_of: ModelOf) -> None:
    """Both paths read the model's own memory: an optimizer step needs no copying."""
    space, obs = SPACES["float32"]
    model = model_of(space)
    policies = [ModelPolicy(model, None, fast) for fast in (None, NumpyActorCritic(model))]
    for action in range(3):
        with torch.no_grad():
            model.policy_head.bias.copy_(100.0 * torch.eye(3)[action])
        for policy in policies:
            assert policy.act(obs).tolist() == [action, action]


class Plain(nn.Module):
    """A user's encoder that takes observations as they come."""

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()
        self.num_features, self.linear = 4, nn.Linear(4, 4)

    def forward(self, obs: Tensor) -> Tensor:
        features: Tensor = self.linear(obs)
        return features


def test_users_encoders_get_float32_of_float64_observations(model_of: ModelOf, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("their_nets")
    module.Plain = Plain  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_nets", module)
    space, obs = SPACES["float64"]
    model = model_of(space, encoder="their_nets:Plain")
    expected = model(torch.from_numpy(obs).float()[None]).params[0].argmax(-1).tolist()
    assert ModelPolicy(model, None, None).act(obs).tolist() == expected
