"""Formulas that both engines have: every distribution, policy head and core in NumPy is the same as in PyTorch.

One row of a table is one setting. The completeness tests fail when a distribution or a core is added without a row.
"""

from __future__ import annotations

import inspect
import itertools
import typing
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from numpy.typing import NDArray

from conftest import random_obs
from limelight.algo.learner import Learner
from limelight.algo.rollout import Rollout
from limelight.algo.train_state import FlatParameters
from limelight.nn import distributions
from limelight.nn.distributions import ActionDistribution, Gaussian, make_distribution
from limelight.nn.model import ActorCritic
from limelight.nn.network import make_network
from limelight.nn.numpy_engine import distributions as numpy_distributions
from limelight.nn.numpy_engine.cells import RecurrentActor
from limelight.nn.numpy_engine.distributions import NumpyDistribution, numpy_distribution
from limelight.nn.numpy_engine.layers import make_head
from limelight.nn.numpy_engine.network import NumpyNetwork
from limelight.nn.policy import ModelPolicy
from limelight.nn.policy_head import PolicyHead
from limelight.nn.torch_engine import TorchNetwork
from limelight.settings.schema import ModelConfig
from limelight.spaces.packed import SIMPLE, MaskSource, Packed

BOX = Box(np.float32([-2.0, 0.0, -1.0]), np.float32([2.0, 10.0, 1.0]))
MIXED = Packed(
    Dict(a=Discrete(3, start=2), b=BOX, c=MultiBinary([2, 2]), d=Tuple([MultiDiscrete([2, 4]), Box(-1.0, 1.0, ())]))
)
SIGMAS = [
    {"action_std": std, "action_bounds": bounds}
    for std, bounds in itertools.product(("parameter", "exp", "softplus", "softplus_std"), ("clip", "squash"))
]
DISTRIBUTIONS: list[tuple[Space[Any], dict[str, Any]]] = [
    (Discrete(4), {}),
    (Discrete(3, start=-2), {}),
    (MultiBinary(5), {}),
    (MultiBinary((2, 3)), {}),
    (MultiDiscrete([2, 1, 5]), {}),
    (MultiDiscrete([[2, 3], [4, 2]], start=[[1, -1], [0, 9]]), {}),
    *((BOX, settings) for settings in SIGMAS),
    (BOX, {"action_std": "gsde", "action_bounds": "clip"}),
    (BOX, {"action_std": "gsde", "action_bounds": "squash"}),
    *((MIXED, settings) for settings in SIGMAS),
]
CORES: dict[str, dict[str, Any]] = {
    "feedforward": {},
    "lstm": {"core_size": 7},
    "gru": {"core_size": 7},
}
OBS = Box(-1.0, 1.0, (2, 3))
NUM_FEATURES = 5
CHOICES = MultiDiscrete([[2, 3], [4, 2]], start=[[1, -1], [0, 9]])
OBSERVATIONS: dict[str, tuple[Space[Any], Space[Any]]] = {
    "box": (OBS, Discrete(3)),
    "bytes": (Box(0, 255, (5,), np.uint8), Discrete(3)),
    "discrete": (Discrete(5, start=-2), Discrete(3)),
    "many": (Discrete(3000, start=7), Discrete(3)),
    "multi": (CHOICES, Discrete(3)),
    "binary": (MultiBinary((2, 3)), Discrete(3)),
    "boxes": (Packed(Dict(a=OBS, b=Box(-1.0, 1.0, ()))), Discrete(3)),
    "dict": (
        Packed(Dict(a=BOX, b=Discrete(3, start=-1), c=OBS, d=Dict(e=CHOICES, f=MultiBinary(4)), g=Box(0, 9, (2,)))),
        Discrete(3),
    ),
    "tuple": (Packed(Tuple([Discrete(32), Discrete(11), Discrete(2)])), Discrete(2)),
    "bytes of parts": (Packed(Dict(a=Box(0, 255, (3,), np.uint8), b=Discrete(200, start=50))), Discrete(2)),
    "mask": (Packed(Dict(action_mask=MultiBinary(4), see=OBS), "observation"), Discrete(4, start=1)),
    "mask and many": (
        Packed(Dict([("observation", Discrete(500)), ("action_mask", MultiBinary(6))]), "info"),
        Discrete(6),
    ),
    "mask of several": (
        Packed(Dict(a=Discrete(4), action_mask=MultiBinary(11), z=Box(-1.0, 1.0, (2,))), "observation"),
        CHOICES,
    ),
}
"""Spaces of observations that both engines read, each with actions."""

every_distribution = pytest.mark.parametrize(
    ("space", "settings"),
    DISTRIBUTIONS,
    ids=lambda x: "-".join(x.values()) if isinstance(x, dict) else type(x).__name__,
)
every_observation = pytest.mark.parametrize("observations", OBSERVATIONS)
every_core = pytest.mark.parametrize("core", CORES)


def both_forms(space: Space[Any], settings: dict[str, Any]) -> tuple[ActionDistribution, NumpyDistribution]:
    """A distribution and its NumPy form."""
    distribution = make_distribution(space, ModelConfig(**settings))
    form = numpy_distribution(distribution)
    assert form is not None
    return distribution, form


def make_policy_head(distribution: ActionDistribution, rng: np.random.Generator) -> PolicyHead:
    """A policy head with random parameters and zero gradients."""
    head = PolicyHead(NUM_FEATURES, distribution)
    FlatParameters(head).params.copy_(
        torch.from_numpy(0.5 * rng.standard_normal(sum(map(torch.numel, head.parameters()))))
    )
    return head


def random_params(distribution: ActionDistribution, rows: int, scale: float, rng: np.random.Generator) -> NDArray[Any]:
    """Parameters [rows, K]."""
    K = 2 * distribution.size if isinstance(distribution, Gaussian) else len(distribution.initial)
    return (scale * rng.standard_normal((rows, K))).astype(np.float32)


def sampled_actions(distribution: ActionDistribution, params: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Actions that PyTorch samples."""
    noise = torch.from_numpy(distribution.noise(rng, len(params)))
    return distribution.sample(torch.from_numpy(params), noise).numpy()


def assert_close(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    """Equal to ``tolerance`` of the largest number of ``theirs``, or of 1 if that is larger."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(theirs).max())))


# --------------------------------------------------------------------------- distributions


@every_distribution
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_both_engines_take_the_same_actions_from_the_same_noise(
    rng: np.random.Generator, space: Space[Any], settings: dict[str, Any], scale: float
) -> None:
    distribution, form = both_forms(space, settings)
    params = random_params(distribution, 400, scale, rng)
    noise = distribution.noise(rng, 400)
    for ours, theirs in (
        (form.act(params.copy(), noise), distribution.sample(torch.from_numpy(params), torch.from_numpy(noise))),
        (form.act(params.copy(), None), distribution.mode(torch.from_numpy(params))),
    ):
        assert ours.dtype == theirs.numpy().dtype == distribution.action_dtype
        assert ours.shape == theirs.shape == (400, *distribution.action_shape)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@every_distribution
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 1000.0])
def test_log_probs_entropies_and_derivatives_are_those_of_autograd(
    rng: np.random.Generator, space: Space[Any], settings: dict[str, Any], scale: float
) -> None:
    """Autograd computes in float64; at large scales σ is at its limits."""
    distribution, form = both_forms(space, settings)
    params = random_params(distribution, 60, scale, rng)
    actions = sampled_actions(distribution, params, rng)
    d_log_probs, d_entropies = rng.standard_normal((2, 60)).astype(np.float32)
    before = params.copy()
    log_probs, entropies, d_params = form.grad(params, actions, d_log_probs, d_entropies)
    np.testing.assert_array_equal(params, before)
    assert log_probs.dtype == entropies.dtype == d_params.dtype == np.float32

    z = torch.from_numpy(params).double().requires_grad_()
    taken = torch.from_numpy(actions)
    taken = taken.double() if taken.is_floating_point() else taken
    expected_log_probs, expected_entropies = distribution.log_prob(z, taken), distribution.entropy(z)
    derivatives = [torch.from_numpy(d).double() for d in (d_log_probs, d_entropies)]
    torch.autograd.backward((expected_log_probs, expected_entropies), derivatives)
    assert z.grad is not None
    assert_close(log_probs, expected_log_probs.detach())
    assert_close(entropies, expected_entropies.detach())
    assert_close(d_params, z.grad)


@every_distribution
def test_policy_heads_compute_and_differentiate_as_pytorch_does(
    rng: np.random.Generator, space: Space[Any], settings: dict[str, Any]
) -> None:
    """Parameters of the distribution, and the gradients of the head's parameters and of its features."""
    distribution, form = both_forms(space, settings)
    head = make_policy_head(distribution, rng)
    features = rng.standard_normal((60, NUM_FEATURES)).astype(np.float32)
    numpy_head = make_head(head)
    params = numpy_head.forward(features)
    x = torch.from_numpy(features.copy()).requires_grad_()
    expected = head(x)
    assert_close(params, expected.detach())

    actions = sampled_actions(distribution, params, rng)
    d_log_probs, d_entropies = rng.standard_normal((2, 60)).astype(np.float32)
    d_params = form.grad(params, actions, d_log_probs, d_entropies)[2]
    d_features = numpy_head.backward(features, params, d_params, need_dx=True)
    ours = [p.grad.clone() for p in head.parameters() if p.grad is not None]
    head.zero_grad(set_to_none=True)
    outputs = (distribution.log_prob(expected, torch.from_numpy(actions)), distribution.entropy(expected))
    torch.autograd.backward(outputs, [torch.from_numpy(d_log_probs), torch.from_numpy(d_entropies)])
    theirs = [p.grad for p in head.parameters() if p.grad is not None]
    assert len(ours) == len(theirs) == len(list(head.parameters()))
    for a, b in zip([torch.from_numpy(d_features), *ours], [x.grad, *theirs], strict=True):
        assert b is not None
        assert b.norm() > 0
        assert (a - b).norm() <= 1e-5 * b.norm()


def test_sigma_at_its_limits_still_has_a_gradient_on_both_engines() -> None:
    distribution, form = both_forms(BOX, {})
    for limit in (distributions.LOG_STD_MIN, distributions.LOG_STD_MAX):
        params = np.full((1, 6), limit, np.float32)
        actions, ones = np.zeros((1, 3), np.float32), np.ones(1, np.float32)
        z = torch.from_numpy(params).requires_grad_()
        distribution.entropy(z).sum().backward()
        assert z.grad is not None
        np.testing.assert_array_equal(form.grad(params, actions, 0 * ones, ones)[2], z.grad)
        assert z.grad[0, 3:].tolist() == [1.0] * 3


# --------------------------------------------------------------------------- cores


def numpy_step(model: ActorCritic) -> Callable[..., tuple[NDArray[Any], NDArray[Any] | None]]:
    """The NumPy engine's step of a model: (obs, state, episode_start) → parameters [B, K], state [B, S]."""
    if model.state_size:
        return RecurrentActor(model).forward
    network = NumpyNetwork(model)
    return lambda obs, state, episode_start: (network.forward(obs)[0], None)


@every_core
@pytest.mark.parametrize("critic", ["shared", "separate"])
@every_observation
@pytest.mark.parametrize("orthogonal_init", [True, False])  # without it the biases are not zero
def test_steps_in_numpy_are_the_models_forward_pass(
    make_actor_critic: Callable[..., ActorCritic], core: str, critic: str, observations: str, orthogonal_init: bool
) -> None:
    """With resets; a change of the parameters takes effect in the next step, and states are not modified in place."""
    space, actions = OBSERVATIONS[observations]
    settings = {"core": core, "critic": critic, "policy_init_gain": 1.0, "orthogonal_init": orthogonal_init}
    model = make_actor_critic(space, actions=actions, **settings, **CORES[core])
    flat, rng, step = FlatParameters(model), np.random.default_rng(0), numpy_step(model)
    state: NDArray[Any] | None = None
    for t in range(12):
        obs = random_obs(space, rng, 3)
        start = (rng.random(3) < 0.3).astype(np.float32)
        before = None if state is None else torch.from_numpy(state.copy())
        params, new_state = step(obs, state, start)
        expected = model(torch.from_numpy(obs)[None], before, torch.from_numpy(start)[None])
        assert params.dtype == np.float32
        np.testing.assert_allclose(params, expected.params[0].detach(), rtol=1e-5, atol=1e-5)
        assert (new_state is None) is (expected.recurrent_state is None)
        if new_state is not None:
            assert new_state.dtype == np.float32
            np.testing.assert_allclose(new_state, expected.recurrent_state.detach(), rtol=1e-5, atol=1e-5)
        assert before is None or np.array_equal(state, before)
        state = new_state
        flat.params.mul_(1.02 if t % 2 else 0.97)


@every_core
def test_policies_on_both_engines_act_alike(
    make_actor_critic: Callable[..., ActorCritic], core: str, rng: np.random.Generator
) -> None:
    model = make_actor_critic(OBS, core=core, policy_init_gain=3.0, **CORES[core])
    networks = make_network(model), make_network(model, engine="autograd")
    fast, slow = (ModelPolicy(network, np.random.default_rng(1)) for network in networks)
    for t in range(20):
        obs, start = rng.standard_normal((8, 2, 3)).astype(np.float32), np.full(8, t % 7 == 0, np.float32)
        np.testing.assert_array_equal(fast.act(obs, start), slow.act(obs, start))
        assert (fast.recurrent_state is None) is (slow.recurrent_state is None) is (core == "feedforward")
        if fast.recurrent_state is not None:
            np.testing.assert_allclose(fast.recurrent_state, slow.recurrent_state, rtol=1e-5, atol=1e-5)


# --------------------------------------------------------------------------- observations


@every_observation
@pytest.mark.parametrize("critic", ["shared", "separate", "target"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_gradients_of_every_observation_space_are_those_of_autograd(
    make_learner: Callable[..., Learner],
    make_rollout: Callable[..., Rollout],
    observations: str,
    critic: str,
    activation: str,
) -> None:
    """With invalid rows, then with final observations; a small entropy bonus would hide the gradient of the mask."""
    space, actions = OBSERVATIONS[observations]
    tolerance = 2e-4 if space.dtype == np.uint8 else 1e-5  # 1 − tanh² cancels where units are saturated
    fast, slow = (
        make_learner(space, engine, actions=actions, critic=critic, activation=activation, ent_coef=0.5)
        for engine in ("auto", "autograd")
    )
    assert isinstance(fast.network, NumpyNetwork)
    assert isinstance(slow.network, TorchNetwork)
    for seed, stream in enumerate(["next_step", "same_step"]):
        rollout = make_rollout(space, seed, stream=stream, actions=actions)
        for learner in (fast, slow):
            learner.gradients(rollout)
        np.testing.assert_allclose(fast.log_probs(rollout), slow.log_probs(rollout), rtol=1e-4, atol=1e-5)
        fast.gradients(rollout)
        for ours, theirs in zip(fast.model.parameters(), slow.model.parameters(), strict=True):
            assert ours.grad is not None
            assert theirs.grad is not None
            assert theirs.grad.norm() > 0
            assert (ours.grad - theirs.grad).norm() <= tolerance * theirs.grad.norm()


@every_observation
def test_both_engines_act_alike_on_every_observation_space(
    make_actor_critic: Callable[..., ActorCritic], observations: str, rng: np.random.Generator
) -> None:
    """Inside a rollout, where acting keeps its activations; illegal actions are never taken."""
    space, actions = OBSERVATIONS[observations]
    model = make_actor_critic(space, actions=actions, policy_init_gain=3.0)
    networks = make_network(model, 5), make_network(model, engine="autograd")
    fast, slow = (ModelPolicy(network, np.random.default_rng(1)) for network in networks)
    fast.begin_rollout()
    for _ in range(5):
        obs, start = random_obs(space, rng, 8), np.zeros(8, np.float32)
        taken = fast.act(obs, start)
        np.testing.assert_array_equal(taken, slow.act(obs, start))
        if isinstance(space, Packed) and space.mask is not None and isinstance(actions, Discrete):
            legal = obs[:, space.mask.part][np.arange(8), taken - actions.start] == 1
            assert (legal | (obs[:, space.mask.part] == 0).all(1)).all()


def test_the_gradient_of_a_state_seen_twice_is_a_sum(make_learner: Callable[..., Learner]) -> None:
    """The columns of states that were not seen have no gradient."""
    learner = make_learner(Discrete(50), "numpy")
    network = learner.network
    assert isinstance(network, NumpyNetwork)
    gradients = []
    for states in ([3, 9], [3, 9, 3, 3]):
        network.forward(np.array(states))
        network.backward_heads(np.ones((len(states), 3), np.float32), np.ones(len(states), np.float32))
        gradients.append(next(learner.model.parameters()).grad.clone())  # type: ignore[union-attr]
    once, often = gradients
    torch.testing.assert_close(often[:, 3], 3 * once[:, 3])
    torch.testing.assert_close(often[:, 9], once[:, 9])
    assert torch.count_nonzero(once[:, 9]) > 0
    assert torch.count_nonzero(often) == torch.count_nonzero(often[:, [3, 9]])


# --------------------------------------------------------------------------- completeness


def choices(setting: str) -> set[str]:
    """The values that a setting of the model may have."""
    return set(typing.get_args(typing.get_type_hints(ModelConfig)[setting]))


def implementations(module: Any, methods: set[str]) -> set[type]:
    """The classes of a module that have ``methods``, without the protocol itself."""
    classes = {c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__}
    return {c for c in classes if methods <= set(vars(c)) and Protocol not in c.__bases__}


def test_every_distribution_has_a_row() -> None:
    pairs = [both_forms(space, settings) for space, settings in DISTRIBUTIONS]
    known = implementations(distributions, {"noise", "sample", "mode", "log_prob", "entropy"})
    assert len(known) >= 4
    assert {type(distribution) for distribution, _ in pairs} == known
    written_out = implementations(numpy_distributions, {"act", "grad"})
    assert {type(form) for _, form in pairs} == written_out


def test_every_way_to_make_sigma_has_a_row() -> None:
    assert {settings.get("action_std", "parameter") for _, settings in DISTRIBUTIONS} == choices("action_std")


def test_every_core_has_a_row() -> None:
    assert set(CORES) == choices("core")


def test_every_observation_space_has_a_row() -> None:
    """Each simple space, alone and as a part; masks of both sources."""
    spaces = [space for space, _ in OBSERVATIONS.values()]
    packed = [space for space in spaces if isinstance(space, Packed)]
    assert {type(space) for space in spaces} >= set(SIMPLE)
    assert {type(leaf.space) for space in packed for leaf in space.visible} == set(SIMPLE)
    assert {space.mask_source for space in packed} == {None, *typing.get_args(MaskSource)}
    assert {type(space.original) for space in packed} == {Dict, Tuple}
