"""Which models the NumPy engine supports, and its forward pass; tests/equivalence compares its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space

from limelight.nn.model import ActorCritic
from limelight.nn.numpy_engine.layers import MAX_WIDTH
from limelight.nn.numpy_engine.network import NumpyNetwork, supports

ActorCriticFactory = Callable[..., ActorCritic]
BOX = Box(-1.0, 1.0, (2, 3))


@pytest.mark.parametrize(
    ("space", "settings", "expected"),
    [
        (BOX, {}, True),
        (BOX, {"activation": "relu"}, True),
        (BOX, {"critic": "target"}, True),
        (Discrete(4, start=1), {"critic": "separate"}, True),
        (BOX, {"hidden_sizes": (MAX_WIDTH,)}, True),
        (BOX, {"hidden_sizes": (8, MAX_WIDTH + 1)}, False),
        (BOX, {"activation": "elu"}, False),
        (MultiDiscrete([2, 2]), {}, True),
        (BOX, {"core": "lstm"}, False),
        (BOX, {"core": "gru", "critic": "separate"}, False),
    ],
)
def test_small_models_without_memory_are_supported(
    make_actor_critic: ActorCriticFactory, space: Space[Any], settings: dict[str, Any], expected: bool
) -> None:
    assert supports(make_actor_critic(space, **settings)) is expected


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("critic", ["shared", "separate", "target"])
@pytest.mark.parametrize("space", [BOX, Box(0, 255, (2, 3), np.uint8), Discrete(5, start=-2)])
def test_the_forward_pass_equals_that_of_the_model(
    make_actor_critic: ActorCriticFactory, space: Space[Any], critic: str, activation: str
) -> None:
    model = make_actor_critic(space, critic=critic, activation=activation, policy_init_gain=1.0)
    space.seed(0)
    obs = np.stack([np.asarray(space.sample()) for _ in range(20)])
    logits, values = NumpyNetwork(model).forward(obs)
    expected = model(torch.from_numpy(obs)[None])
    assert logits.dtype == values.dtype == np.float32
    np.testing.assert_allclose(logits, expected.params[0].detach(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(values, expected.values[0].detach(), rtol=1e-5, atol=1e-5)


def test_extreme_noise_chooses_possible_actions(make_actor_critic: ActorCriticFactory) -> None:
    """Like Categorical.sample, it never chooses an action whose probability is 0 in float32."""
    rng = np.random.default_rng(0)
    model = make_actor_critic(BOX, actions=Discrete(9), policy_init_gain=3.0)
    with torch.no_grad():
        model.policy_head.linear.bias[0] = model.policy_head.linear.bias[-1] = -300.0
    net = NumpyNetwork(model)
    obs = rng.standard_normal((2000, 2, 3)).astype(np.float32)
    for number, action in ((0.0, 1), (1 - 2.0**-24, 7)):
        actions, _ = net.act(
            obs, None, np.zeros(2000, np.float32), lambda _, n=number: np.full((2000, 1), n, np.float32)
        )
        assert (actions == action).all()
