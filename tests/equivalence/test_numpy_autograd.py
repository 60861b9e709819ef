"""The NumPy engine (written-out backward pass) and autograd: the same actions, gradients and training runs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

from helpers.learners import gradient_metrics
from helpers.toys import Bandit, Corridor
from limelight.algo.learner import Learner
from limelight.algo.rollout import Rollout
from limelight.envs.gymnasium_backend import SyncBackend
from limelight.envs.toy import Ring
from limelight.nn.model import ActorCritic
from limelight.nn.network import make_network
from limelight.nn.numpy_engine.network import NumpyNetwork
from limelight.nn.policy import ModelPolicy
from limelight.nn.torch_engine import TorchNetwork
from limelight.runners.sync import SyncRunner
from limelight.spaces.packed import Packed

ACTIONS = {"box": Discrete(3), "discrete": Discrete(3, start=-2)}
SPACES: dict[str, Space[Any]] = {"box": Box(-1.0, 1.0, (2, 3)), "discrete": Discrete(5, start=-1)}
NO_START = np.zeros(500, np.float32)
CRITICS = ("shared", "separate", "target")
SETTINGS = [
    {"value_loss": value_loss, "policy_weight": weight, "normalize_advantages": normalize}
    for value_loss, weight, normalize in itertools.product(
        ("mse", "huber"), ("advantage", "q"), ("none", "batch", "running")
    )
]
SETTINGS += [{"critic_output": "q", "q_bootstrap": "sarsa", "policy_weight": w} for w in ("advantage", "q", "td_error")]
SETTINGS += [
    {"critic_output": "q", "q_bootstrap": "expected_sarsa", "returns": "n_step"},
    {"returns": "mc", "policy_weight": "q"},
    {"returns": "td0"},
]

every_critic = pytest.mark.parametrize("critic", CRITICS)
every_activation = pytest.mark.parametrize("activation", ["tanh", "relu"])
every_space = pytest.mark.parametrize("space", SPACES)


def per_parameter(learner: Learner) -> list[np.ndarray]:
    return [p.grad.numpy() for p in learner.model.parameters() if p.grad is not None]


def assert_same_gradients(fast: Learner, slow: Learner) -> None:
    """The gradient of every parameter agrees to 1e-5 of its length."""
    ours, theirs = per_parameter(fast), per_parameter(slow)
    assert len(ours) == len(theirs) == len(list(slow.model.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        assert np.linalg.norm(b) > 0
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)


@every_space
@every_activation
@every_critic
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(s.values()))
def test_gradients_and_metrics_agree(
    make_learner: Callable[..., Learner],
    make_rollout: Callable[..., Rollout],
    critic: str,
    activation: str,
    space: str,
    settings: dict[str, str],
) -> None:
    """A rollout with invalid rows is followed by one with final observations, so running statistics continue."""
    both = [
        make_learner(
            SPACES[space],
            engine,
            actions=ACTIONS[space],
            critic=critic,
            activation=activation,
            ent_coef=0.1,
            **({"gae_lambda": 0.9} if "returns" not in settings else {"normalize_returns": True}),
            **settings,
        )
        for engine in ("numpy", "autograd")
    ]
    fast, slow = both
    assert isinstance(fast.network, NumpyNetwork)
    assert isinstance(slow.network, TorchNetwork)
    for learner in both:
        if learner.network.target_critic is not None:
            with torch.no_grad():
                for p in learner.network.target_critic.parameters():
                    p += 0.05
    for seed, stream in enumerate(["next_step", "same_step"]):
        rollout = make_rollout(SPACES[space], seed, stream=stream, actions=ACTIONS[space])
        assert rollout.final_obs is None if stream == "next_step" else len(rollout.final_obs.obs) > 0
        assert (stream == "next_step") == (rollout.num_valid < rollout.valid.size)
        metrics = [gradient_metrics(learner, rollout) for learner in both]
        assert_same_gradients(fast, slow)
        assert metrics[0] == pytest.approx(metrics[1], rel=1e-4, abs=1e-5)


@every_critic
def test_gradients_of_vtrace(
    make_learner: Callable[..., Learner], make_rollout: Callable[..., Rollout], critic: str
) -> None:
    """Rollouts of an older policy, which V-trace corrects, have the same gradients and log π on both engines."""
    fast, slow = (
        make_learner(SPACES["box"], engine, critic=critic, ent_coef=0.1, gae_lambda=0.9)
        for engine in ("numpy", "autograd")
    )
    rng = np.random.default_rng(0)
    for seed, stream in enumerate(["next_step", "same_step"]):
        rollout = make_rollout(SPACES["box"], seed, stream=stream)
        on_policy = fast.log_probs(rollout)
        np.testing.assert_allclose(on_policy, slow.log_probs(rollout), rtol=1e-5, atol=1e-6)
        behaviour = on_policy + rng.normal(0.0, 0.5, on_policy.shape).astype(np.float32)
        older = dataclasses.replace(rollout, log_probs=behaviour)
        metrics = [gradient_metrics(learner, older) for learner in (fast, slow)]
        assert_same_gradients(fast, slow)
        assert metrics[0] == pytest.approx(metrics[1], rel=1e-4, abs=1e-5)
        corrected = fast.flat.grads.clone()
        fast.gradients(rollout)
        assert not torch.allclose(corrected, fast.flat.grads, rtol=1e-2)


EVERY_ACTION: dict[str, Space[Any]] = {
    "discrete": Discrete(3, start=-2),
    "binary": MultiBinary((2, 2)),
    "multi": MultiDiscrete([[2, 3], [4, 2]], start=[[0, 5], [-1, 0]]),
    "box": Box(np.float32([-2.0, 0.0]), np.float32([2.0, 9.0])),
    "packed": Packed(
        Dict(a=Discrete(3, start=1), b=Box(-2.0, 1.0, (2,)), c=Tuple([MultiBinary(3), Box(0.0, 1.0, ())]))
    ),
}
SIGMAS = [
    {"action_std": std, "action_bounds": bounds}
    for std, bounds in itertools.product(("parameter", "exp", "softplus"), ("clip", "squash"))
]
ACTION_CASES = [
    *((name, {}) for name in ("discrete", "binary", "multi")),
    *((name, settings) for name in ("box", "packed") for settings in SIGMAS),
    *(("box", {"action_std": "gsde", "action_bounds": bounds}) for bounds in ("clip", "squash")),
]


@every_critic
@pytest.mark.parametrize(
    ("actions", "settings"), ACTION_CASES, ids=lambda x: x if isinstance(x, str) else "-".join(x.values()) or "plain"
)
def test_gradients_agree_for_every_action_space(
    make_learner: Callable[..., Learner],
    make_rollout: Callable[..., Rollout],
    critic: str,
    actions: str,
    settings: dict[str, str],
) -> None:
    space, action_space = SPACES["box"], EVERY_ACTION[actions]
    fast, slow = (
        make_learner(space, engine, actions=action_space, critic=critic, ent_coef=0.1, **settings)
        for engine in ("numpy", "autograd")
    )
    assert isinstance(fast.network, NumpyNetwork)
    for seed, stream in enumerate(["next_step", "same_step"]):
        rollout = make_rollout(space, seed, stream=stream, actions=action_space)
        metrics = [gradient_metrics(learner, rollout) for learner in (fast, slow)]
        assert_same_gradients(fast, slow)
        assert metrics[0] == pytest.approx(metrics[1], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("core", ["feedforward", "lstm"])
@pytest.mark.parametrize("actions", EVERY_ACTION)
def test_actions_agree_for_every_action_space(
    make_actor_critic: Callable[..., ActorCritic], make_rollout: Callable[..., Rollout], actions: str, core: str
) -> None:
    """The noise is the same; the environments accept the actions."""
    space = EVERY_ACTION[actions]
    model = make_actor_critic(SPACES["box"], actions=space, policy_init_gain=3.0, core=core)
    obs = make_rollout(SPACES["box"], T=1, B=500).obs[0]
    for seed in (None, 0):
        rngs = [None if seed is None else np.random.default_rng(seed) for _ in range(2)]
        ours = ModelPolicy(make_network(model), rngs[0])
        theirs = ModelPolicy(make_network(model, engine="autograd"), rngs[1])
        fast, slow = (policy.act(obs, NO_START) for policy in (ours, theirs))
        assert fast.dtype == slow.dtype
        np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-5)
        converted = ours.to_env(fast)
        valid = (
            (space.original.contains(space.unpack(a)) for a in converted)
            if isinstance(space, Packed)
            else (space.contains(a) for a in converted)
        )
        assert all(valid)


@pytest.mark.parametrize("core", ["feedforward", "lstm"])
@pytest.mark.parametrize("std", ["parameter", "gsde"])
def test_actions_with_correlated_noise_agree(
    make_actor_critic: Callable[..., ActorCritic], make_rollout: Callable[..., Rollout], std: str, core: str
) -> None:
    model = make_actor_critic(
        SPACES["box"], actions=EVERY_ACTION["box"], policy_init_gain=3.0, core=core, action_std=std
    )
    networks = make_network(model), make_network(model, engine="autograd")
    ours, theirs = (ModelPolicy(network, np.random.default_rng(0), 0.9) for network in networks)
    for obs in make_rollout(SPACES["box"], T=6, B=40).obs:
        fast, slow = (policy.act(obs, NO_START[:40]) for policy in (ours, theirs))
        np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-5)


@every_space
def test_gradients_of_one_transition_agree(
    make_learner: Callable[..., Learner], make_rollout: Callable[..., Rollout], space: str
) -> None:
    """T = B = 1 is the rollout of the plain actor-critic."""
    fast, slow = (make_learner(SPACES[space], engine, policy_weight="q") for engine in ("numpy", "autograd"))
    rollout = make_rollout(SPACES[space], seed=1, T=1, B=1)
    fast.gradients(rollout)
    slow.gradients(rollout)
    assert_same_gradients(fast, slow)


@pytest.mark.parametrize("activation", ["tanh", "relu", "leaky_relu"])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize(("T", "B"), [(1, 1), (5, 3)])
def test_gradients_of_every_activation_agree(
    make_learner: Callable[..., Learner],
    make_rollout: Callable[..., Rollout],
    activation: str,
    layer_norm: bool,
    T: int,
    B: int,
) -> None:
    for critic, (space, observations) in itertools.product(CRITICS, SPACES.items()):
        settings = {"critic": critic, "activation": activation, "layer_norm": layer_norm, "num_steps": T}
        fast, slow = (
            make_learner(observations, engine, actions=ACTIONS[space], **settings) for engine in ("auto", "autograd")
        )
        assert isinstance(fast.network, NumpyNetwork)
        rollout = make_rollout(observations, seed=1, T=T, B=B, actions=ACTIONS[space])
        fast.gradients(rollout)
        slow.gradients(rollout)
        assert_same_gradients(fast, slow)


@pytest.mark.parametrize(("num_steps", "known"), [(1, 3), (4, 0)])
def test_layers_that_normalise_reuse_acting_where_it_is_the_whole_rollout(
    make_runner: Callable[..., SyncRunner], num_steps: int, known: int
) -> None:
    settings = {"critic": "separate", "layer_norm": True, "activation": "leaky_relu"}
    runner = make_runner(SyncBackend([Ring(4) for _ in range(3)], "next_step"), num_steps, **settings)
    actor = runner.actor_learner
    for _ in range(3):
        rollout = actor.collect()
        assert known_rows(actor.learner, rollout) == known
        actor.learner.gradients(rollout)
        reused = actor.learner.flat.grads.clone()
        actor.learner.network.parameters_changed()
        actor.learner.gradients(rollout)
        torch.testing.assert_close(reused, actor.learner.flat.grads, rtol=1e-4, atol=1e-6)
        actor.collect()
        actor.policy.act(np.zeros(3, np.int64), np.zeros(3, np.float32))  # overwrites what backward would need
        assert known_rows(actor.learner, rollout) == 0
        actor.learner.apply(0.0)


@every_space
@every_activation
@every_critic
@pytest.mark.parametrize("gain", [0.01, 3.0])
def test_actions_agree(
    make_actor_critic: Callable[..., ActorCritic],
    make_rollout: Callable[..., Rollout],
    critic: str,
    activation: str,
    space: str,
    gain: float,
) -> None:
    """The noise is the same; greedy actions agree too."""
    model = make_actor_critic(
        SPACES[space], actions=ACTIONS[space], critic=critic, activation=activation, policy_init_gain=gain
    )
    obs = make_rollout(SPACES[space], T=1, B=500).obs[0]
    networks = make_network(model), make_network(model, engine="autograd")
    for seed in (None, 0, 1):
        actions = [
            ModelPolicy(network, None if seed is None else np.random.default_rng(seed)).act(obs, NO_START)
            for network in networks
        ]
        assert actions[0].dtype == actions[1].dtype
        np.testing.assert_array_equal(*actions)
        assert all(ACTIONS[space].contains(action) for action in actions[0])


def train(runner: SyncRunner, updates: int) -> list[np.ndarray]:
    """The flat parameters after each update."""
    history = []
    while len(history) < updates:
        runner.advance(runner.num_steps + 1, seconds=60.0)
        history.append(runner.actor_learner.learner.flat.params.numpy().copy())
    assert runner.actor_learner.learner.num_updates == updates
    return history


ENVS: dict[str, tuple[Callable[[], gym.Env[Any, Any]], str]] = {
    "corridor": (Corridor, "next_step"),
    "ring": (lambda: Ring(max_steps=3), "same_step"),
    "bandit": (lambda: Bandit(noise=1.0), "disabled"),
}


@every_critic
@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
@pytest.mark.parametrize("env", ENVS)
def test_fifty_updates_agree(make_runner: Callable[..., SyncRunner], env: str, optimizer: str, critic: str) -> None:
    make, mode = ENVS[env]
    fast, slow = (
        make_runner(
            SyncBackend([make() for _ in range(4)], mode),  # type: ignore[arg-type]
            num_steps=5, engine=engine, critic=critic, optimizer=optimizer, learning_rate=0.01, optim_eps=1e-3,
            normalize_advantages="running",
        )
        for engine in ("numpy", "autograd")
    )  # fmt: skip
    start = fast.actor_learner.learner.flat.params.numpy().copy()
    ours, theirs = train(fast, 50), train(slow, 50)
    assert fast.num_steps == slow.num_steps
    assert fast.pop_episodes() == slow.pop_episodes()
    assert np.abs(ours[-1] - start).max() > 0.05
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0.0, atol=1e-4)


def known_rows(learner: Learner, rollout: Rollout) -> int:
    """The number of rows of a rollout whose activations are cached."""
    assert isinstance(learner.network, NumpyNetwork)
    return learner.network._front.rows.known(rollout.obs.shape[0] * rollout.obs.shape[1])


def test_activations_of_acting_are_not_computed_again(make_runner: Callable[..., SyncRunner]) -> None:
    """The learner uses the activations of acting as long as the parameters are the same."""
    runner = make_runner(SyncBackend([Ring(4) for _ in range(3)], "next_step"), 4)
    actor = runner.actor_learner
    for _ in range(3):
        rollout = actor.collect()
        assert known_rows(actor.learner, rollout) == 12
        actor.learner.gradients(rollout)
        reused = actor.learner.flat.grads.clone()
        actor.learner.network.parameters_changed()
        assert known_rows(actor.learner, rollout) == 0
        actor.learner.gradients(rollout)
        torch.testing.assert_close(reused, actor.learner.flat.grads, rtol=1e-4, atol=1e-6)
        actor.learner.apply(0.0)


def test_activations_of_other_parameters_are_discarded(make_runner: Callable[..., SyncRunner]) -> None:
    runner = make_runner(SyncBackend([Ring(4) for _ in range(3)], "next_step"), 4)
    actor = runner.actor_learner
    rollout = actor.collect()
    actor.learner.gradients(rollout)
    actor.learner.apply(0.0)
    assert known_rows(actor.learner, rollout) == 0
    rollout = actor.collect()
    actor.learner.pull()
    assert known_rows(actor.learner, rollout) == 0


def test_acting_outside_a_rollout_caches_no_activations(
    make_runner: Callable[..., SyncRunner], make_rollout: Callable[..., Rollout]
) -> None:
    """Only ``begin_rollout`` opens the cache; acting after the last row does not overwrite it."""
    runner = make_runner(SyncBackend([Ring(4) for _ in range(3)], "next_step"), 4)
    actor, policy = runner.actor_learner, runner.actor_learner.policy
    rollout = actor.collect()
    actor.learner.gradients(rollout)
    expected = actor.learner.flat.grads.clone()
    policy.act(np.zeros(3, np.int64), np.zeros(3, np.float32))
    assert known_rows(actor.learner, rollout) == 12
    actor.learner.gradients(rollout)
    torch.testing.assert_close(actor.learner.flat.grads, expected, rtol=0.0, atol=0.0)
    actor.learner.network.parameters_changed()
    for _ in range(4):
        policy.act(np.zeros(3, np.int64), np.zeros(3, np.float32))
    assert known_rows(actor.learner, rollout) == 0


def test_no_activations_are_reused_for_the_rollout_of_another_policy(
    make_runner: Callable[..., SyncRunner], make_rollout: Callable[..., Rollout]
) -> None:
    runner = make_runner(SyncBackend([Ring(4) for _ in range(3)], "next_step"), 4)
    learner, rollout = runner.actor_learner.learner, runner.actor_learner.collect()
    learner.gradients(rollout)
    expected = learner.flat.grads.clone()
    learner.network.parameters_changed()
    learner.gradients(make_rollout(Discrete(4), T=4, B=3, actions=Discrete(2)))
    assert not torch.allclose(learner.flat.grads, expected, rtol=1e-2)
    learner.gradients(rollout)
    torch.testing.assert_close(learner.flat.grads, expected, rtol=1e-4, atol=1e-6)
