"""Acting with memory by NumPy: which models it takes, and that it is their forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space

from limelight.algo.train_state import FlatParameters
from limelight.nn.model import ActorCritic
from limelight.nn.network import make_network
from limelight.nn.numpy_engine.cells import RecurrentActor, supports
from limelight.nn.numpy_engine.layers import MAX_WIDTH
from limelight.nn.policy import ModelPolicy

ModelOf = Callable[..., ActorCritic]
BOX = Box(-1.0, 1.0, (2, 3))


@pytest.mark.parametrize(
    ("space", "settings", "expected"),
    [
        (BOX, {"core": "lstm"}, True),
        (BOX, {"core": "gru", "critic": "target", "activation": "relu"}, True),
        (Discrete(4, start=1), {"core": "gru", "core_size": MAX_WIDTH}, True),
        (BOX, {"core": "gru", "core_size": MAX_WIDTH + 1}, False),
        (BOX, {"core": "gru", "activation": "elu"}, False),
        (BOX, {"core": "lstm", "hidden_sizes": (MAX_WIDTH + 1,)}, False),
        (MultiDiscrete([2, 2]), {"core": "lstm"}, False),
        (BOX, {}, False),
    ],
)
def test_supported_models(
    make_network_module: ModelOf, space: Space[Any], settings: dict[str, Any], expected: bool
) -> None:
    assert supports(make_network_module(space, **settings)) is expected


@pytest.mark.parametrize("core", ["lstm", "gru"])
@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize("space", [BOX, Discrete(5, start=-2)])
@pytest.mark.parametrize("orthogonal_init", [True, False])  # otherwise no bias is tested
def test_steps_are_the_models_forward(
    make_network_module: ModelOf, space: Space[Any], critic: str, core: str, orthogonal_init: bool
) -> None:
    """Resets included; parameters that change are seen at once, and states are never written into."""
    model = make_network_module(
        space, critic=critic, core=core, core_size=7, policy_init_gain=1.0, orthogonal_init=orthogonal_init
    )
    flat, rng = FlatParameters(model), np.random.default_rng(0)
    net, states = RecurrentActor(model), [None]
    space.seed(0)
    for t in range(12):
        obs = np.stack([np.asarray(space.sample()) for _ in range(3)])
        start = (rng.random(3) < 0.3).astype(np.float32)
        before = None if states[-1] is None else torch.from_numpy(states[-1].copy())
        params, state = net.step(obs, states[-1], start)
        expected = model(torch.from_numpy(obs)[None], before, torch.from_numpy(start)[None])
        assert params.dtype == state.dtype == np.float32
        np.testing.assert_allclose(params, expected.params[0].detach(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state, expected.recurrent_state.detach(), rtol=1e-5, atol=1e-5)
        assert before is None or np.array_equal(states[-1], before)
        states.append(state)
        flat.params.mul_(1.02 if t % 2 else 0.97)


@pytest.mark.parametrize("core", ["lstm", "gru"])
def test_both_engines_act_alike(make_network_module: ModelOf, core: str, rng: np.random.Generator) -> None:
    model = make_network_module(BOX, core=core, policy_init_gain=3.0)
    networks = make_network(model), make_network(model, engine="autograd")
    fast, slow = (ModelPolicy(network, np.random.default_rng(1)) for network in networks)
    for t in range(20):
        obs, start = rng.standard_normal((8, 2, 3)).astype(np.float32), np.full(8, t % 7 == 0, np.float32)
        np.testing.assert_array_equal(fast.act(obs, start), slow.act(obs, start))
        assert fast.recurrent_state is not None
        np.testing.assert_allclose(fast.recurrent_state, slow.recurrent_state, rtol=1e-5, atol=1e-5)
