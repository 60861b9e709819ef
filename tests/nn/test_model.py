"""The actor-critic network: initialization, one forward for acting and learning, the target critic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space
from torch import Tensor, nn

from limelight.errors import ConfigError
from limelight.nn.cores import FeedForward, Recurrent, make_core
from limelight.nn.model import ActorCritic, Critic, ValueHead, make_model
from limelight.settings.schema import ModelConfig

ActorCriticFactory = Callable[..., ActorCritic]
SPACES: dict[str, Space[Any]] = {
    "box": Box(-1.0, 1.0, (4,)),
    "bytes": Box(0, 255, (3, 2), np.uint8),
    "discrete": Discrete(5, start=2),
    "multi": MultiDiscrete([3, 4]),
}
every_critic = pytest.mark.parametrize("critic", ["shared", "separate", "target"])


def observations(space: Space[Any], *lead: int) -> Tensor:
    space.seed(0)
    samples = np.stack([np.asarray(space.sample()) for _ in range(math.prod(lead))])
    return torch.from_numpy(samples.reshape(*lead, *(space.shape or ())))


@every_critic
@pytest.mark.parametrize("name", SPACES)
def test_outputs_have_the_documented_shapes(make_actor_critic: ActorCriticFactory, name: str, critic: str) -> None:
    model = make_actor_critic(SPACES[name], critic=critic)
    output = model(observations(SPACES[name], 6, 2))
    assert output.params.shape == (6, 2, 3)
    assert output.values.shape == (6, 2)
    assert output.recurrent_state is None
    assert torch.equal(model.policy(observations(SPACES[name], 6, 2))[0], output.params)


@every_critic
@pytest.mark.parametrize("name", SPACES)
def test_one_pass_over_n_rows_equals_n_steps(make_actor_critic: ActorCriticFactory, name: str, critic: str) -> None:
    """Acting (T = 1) and learning (T = n) compute the same policy and values."""
    model, obs = make_actor_critic(SPACES[name], critic=critic), observations(SPACES[name], 9, 2)
    together = model(obs)
    state, params, values = model.core.initial_state(2), [], []
    for t in range(9):
        output = model(obs[t : t + 1], state, torch.zeros(1, 2, dtype=torch.bool))
        state = output.recurrent_state
        params.append(output.params)
        values.append(output.values)
    torch.testing.assert_close(torch.cat(params), together.params, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(torch.cat(values), together.values, rtol=1e-6, atol=1e-6)


def test_the_feedforward_core_passes_features_on() -> None:
    core, features = FeedForward(4), torch.ones(2, 3, 4)
    assert core.num_features == 4
    assert core.initial_state(3) is None
    assert core(features, None, None) == (features, None)


@pytest.mark.parametrize(("core", "width"), [("lstm", 14), ("gru", 7)])
def test_recurrent_cores_have_the_documented_shapes(core: str, width: int) -> None:
    made = make_core(4, ModelConfig(core=core, core_size=7))  # type: ignore[arg-type]
    assert (made.num_features, made.state_size) == (7, width)
    state = made.initial_state(3)
    assert state is not None
    assert torch.equal(state, torch.zeros(3, width))
    features = torch.ones(2, 3, 4)
    outputs, last = made(features, state, None)
    assert last is not None
    assert outputs.shape == (2, 3, 7)
    assert last.shape == (3, width)
    assert torch.equal(outputs[-1], last[:, :7])  # an LSTM's h comes first
    for episode_start in (None, torch.zeros(2, 3)):
        again, _ = made(features, None, episode_start)
        assert torch.equal(again, outputs)


@every_critic
@pytest.mark.parametrize("core", ["lstm", "gru"])
def test_cores_are_orthogonal_gate_by_gate(make_actor_critic: ActorCriticFactory, core: str, critic: str) -> None:
    """Gates have gain 1, and biases are zero except 1 for an LSTM's forget gate."""
    model = make_actor_critic(Box(-1.0, 1.0, (4,)), critic=critic, core=core, core_size=6, hidden_sizes=(6,))
    cells = [m.cell for m in model.modules() if isinstance(m, Recurrent)]
    assert len(cells) == (1 if critic == "shared" else 2)
    for cell in cells:
        gates = 4 if core == "lstm" else 3
        for gate in (*cell.weight_ih.chunk(gates), *cell.weight_hh.chunk(gates)):
            torch.testing.assert_close(gate @ gate.T, torch.eye(6), atol=1e-5, rtol=0.0)
        assert not cell.bias_hh.any()
        assert cell.bias_ih.chunk(gates)[1].tolist() == [1.0 if core == "lstm" else 0.0] * 6
        assert cell.bias_ih.sum() == (6.0 if core == "lstm" else 0.0)


@every_critic
def test_the_first_policy_is_nearly_uniform(make_actor_critic: ActorCriticFactory, critic: str) -> None:
    model = make_actor_critic(Box(-1.0, 1.0, (4,)), critic=critic, hidden_sizes=(64, 64))
    obs = torch.randn(100, 1, 4, generator=torch.Generator().manual_seed(0)) * 10
    params = model(obs).params
    torch.testing.assert_close(params.softmax(-1), torch.full_like(params, 1 / 3), atol=0.02, rtol=0.0)
    assert params.std(dim=0).max() > 0  # but it depends on its input


@every_critic
def test_weights_are_orthogonal_and_biases_zero(make_actor_critic: ActorCriticFactory, critic: str) -> None:
    model = make_actor_critic(Box(-1.0, 1.0, (4,)), critic=critic, hidden_sizes=(16, 8), policy_init_gain=0.1)
    heads = [m.linear for m in model.modules() if isinstance(m, ValueHead)]
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert len(heads) == 1
    assert len(linears) == (4 if critic == "shared" else 6)
    for linear in linears:
        gain = 0.1 if linear is model.policy_head.linear else 1.0 if linear in heads else math.sqrt(2.0)
        w = linear.weight.detach()
        gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
        torch.testing.assert_close(gram, gain**2 * torch.eye(len(gram)), atol=1e-5, rtol=0.0)
        assert not linear.bias.any()


def test_pytorch_initialisation_without_orthogonal_init(make_actor_critic: ActorCriticFactory) -> None:
    model = make_actor_critic(Box(-1.0, 1.0, (4,)), orthogonal_init=False)
    assert model.policy_head.linear.bias.any()


@every_critic
@pytest.mark.parametrize("core", ["feedforward", "lstm"])
def test_the_parameters_of_the_actor_come_first(make_actor_critic: ActorCriticFactory, critic: str, core: str) -> None:
    model = make_actor_critic(Box(-1.0, 1.0, (4,)), critic=critic, core=core)
    critic_parameters = {id(p) for p in model.critic.parameters()}
    of_critic = [id(p) in critic_parameters for p in model.parameters()]
    assert of_critic == sorted(of_critic)
    assert any(of_critic)
    assert isinstance(model.critic, ValueHead if critic == "shared" else Critic)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize("orthogonal_init", [True, False])
def test_parameters_depend_only_on_the_seed_and_the_global_generator_is_unchanged(orthogonal_init: bool) -> None:
    spaces = Box(-1.0, 1.0, (4,)), Discrete(3)
    config = ModelConfig(hidden_sizes=(8,), orthogonal_init=orthogonal_init)
    torch.manual_seed(123)
    first, before = flat(make_model(*spaces, config, seed=7)), torch.get_rng_state()
    torch.rand(10)
    np.random.default_rng(5)
    drawn = torch.get_rng_state()
    second = flat(make_model(*spaces, config, seed=7))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), drawn)
    torch.manual_seed(123)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, flat(make_model(*spaces, config, seed=8)))


@pytest.mark.parametrize("critic", ["separate", "target"])
def test_the_target_critic_is_a_copy_without_gradients(make_actor_critic: ActorCriticFactory, critic: str) -> None:
    model = make_actor_critic(Box(-1.0, 1.0, (4,)), critic=critic)
    target, obs = model.make_target_critic(), torch.ones(3, 2, 4)
    assert not any(p.requires_grad for p in target.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert not target(obs).requires_grad
    assert torch.equal(target(obs), model(obs).values)
    before = target(obs).clone()
    with torch.no_grad():
        for p in model.parameters():
            p += 1.0
    assert torch.equal(target(obs), before)


def test_parameters_are_float32_whatever_the_default_of_pytorch_is() -> None:
    expected = make_model(Box(-1, 1, (3,)), Discrete(2), ModelConfig(), seed=0)
    torch.set_default_dtype(torch.float64)
    try:
        model = make_model(Box(-1, 1, (3,)), Discrete(2), ModelConfig(), seed=0)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)


def test_sparse_weights_are_mostly_zero_and_small() -> None:
    config = ModelConfig(orthogonal_init=False, sparse_init=0.9, hidden_sizes=(40, 30), critic="separate")
    model = make_model(Box(-1.0, 1.0, (4,)), Discrete(3), config, seed=1)
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert len(linears) == 6
    for linear in linears:
        assert linear.bias.abs().max() == 0.0
        fan_in = linear.in_features
        zeros = (linear.weight == 0.0).sum(1)
        assert (zeros == math.ceil(0.9 * fan_in)).all()  # of every unit
        assert linear.weight.abs().max() <= 1.0 / math.sqrt(fan_in)
    hidden = linears[1].weight
    assert len({tuple(row) for row in (hidden == 0.0).tolist()}) > 20  # other weights for every unit
    assert hidden.abs().max() > 0.8 / math.sqrt(40)
    again = make_model(Box(-1.0, 1.0, (4,)), Discrete(3), config, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_layer_norm_is_refused_where_no_mlp_is() -> None:
    with pytest.raises(ConfigError, match=r"layer_norm = true: is for the hidden layers of an MLP.*set it to false"):
        make_model(Box(0, 255, (64, 64, 3), np.uint8), Discrete(3), ModelConfig(layer_norm=True), seed=1)
