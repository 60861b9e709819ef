"""Cached activations of acting and the written-out backward pass give the gradients and runs of autograd."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from torch import Tensor

from helpers.learners import gradient_metrics
from helpers.manual_workers import assert_same, quick_config
from limelight.algo.collector import RolloutCollector
from limelight.algo.learner import Learner
from limelight.algo.rollout import Rollout
from limelight.envs.gymnasium_backend import SyncBackend
from limelight.envs.toy import Catch
from limelight.nn.activation_cache import CachingEncoder, make_caching_encoder
from limelight.nn.images import NETWORKS, ImageEncoder
from limelight.nn.model import ActorCritic
from limelight.nn.network import Network, make_network
from limelight.nn.numpy_engine.network import NumpyNetwork, _CachedFront
from limelight.nn.policy import ModelPolicy
from limelight.nn.torch_engine import TorchNetwork
from limelight.runners.actor_learner import make_actor_learner
from limelight.runners.sync import SyncRunner
from limelight.runs.agent import Agent
from limelight.settings.io import with_settings
from limelight.settings.schema import TrainConfig
from limelight.spaces.packed import Packed

LearnerFactory = Callable[..., Learner]
T, B = 4, 3
CACHED = ("a3c", "a3c-half", "nature", "universe")
TOLERANCE = {"float32": 1e-6, "bfloat16": 1e-2}
"""Relative to the length of a gradient: rounding errors. 8 bits of mantissa are 4e-3 of every number."""
LOSS_TOLERANCE = 1e-5
"""Relative to the length of a gradient of the loss: advantages are small differences of rounded values."""

every_core = pytest.mark.parametrize("core", ["feedforward", "lstm", "gru"])
every_critic = pytest.mark.parametrize("critic", ["shared", "separate", "target"])


@pytest.fixture
def acting(make_learner: LearnerFactory) -> Callable[..., tuple[Learner, ModelPolicy, RolloutCollector]]:
    """``acting(**settings)``: a learner, its policy, and a collector of images."""

    def make(**settings: Any) -> tuple[Learner, ModelPolicy, RolloutCollector]:
        collector = make_collector()
        spaces = collector.envs.single_observation_space, collector.envs.single_action_space
        core = {"core_size": 6} if settings.get("core", "feedforward") != "feedforward" else {}
        settings = {"encoder": "a3c", "num_steps": T, "num_envs": B, "ent_coef": 0.1, **core, **settings}
        learner = make_learner(spaces[0], actions=spaces[1], **settings)
        if learner.network.target_critic is not None:
            with torch.no_grad():
                for p in learner.network.target_critic.parameters():
                    p += 0.01
        return learner, ModelPolicy(learner.network, np.random.default_rng(0)), collector

    return make


def make_collector(seed: int = 0) -> RolloutCollector:
    collector = RolloutCollector(SyncBackend([Catch() for _ in range(B)]), T, None, "Catch")
    collector.reset(seed)
    return collector


def gradients(learner: Learner, rollout: Rollout) -> list[Tensor]:
    learner.gradients(rollout)
    return [p.grad.clone() for p in learner.model.parameters() if p.grad is not None]


def by_autograd(learner: Learner, rollout: Rollout) -> list[Tensor]:
    """Return the gradients by plain autograd; the learner's network is unchanged."""
    before = learner.network
    learner.network = autograd_network(learner)
    try:
        return gradients(learner, rollout)
    finally:
        learner.network = before


def autograd_network(learner: Learner) -> Network:
    """The learner's model and target critic without a cache and written-out passes."""
    return make_network(
        learner.model, grads=learner.flat.grads, target_critic=learner.network.target_critic, engine="autograd"
    )


def caching_encoder(learner: Learner) -> CachingEncoder:
    """The caching encoder of a learner's network."""
    if isinstance(learner.network, TorchNetwork):
        assert learner.network._encoder is not None
        return learner.network._encoder
    assert isinstance(learner.network, NumpyNetwork)
    assert isinstance(learner.network._front, _CachedFront)
    return learner.network._front.encoder


def assert_same_gradients(ours: list[Tensor], theirs: list[Tensor], tolerance: float = LOSS_TOLERANCE) -> None:
    """The gradient of every parameter agrees to ``tolerance`` of its length."""
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert b.norm() > 0
        assert (a - b).norm() <= tolerance * b.norm()


def rows_run(encoder: CachingEncoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the number of observations that the layers compute in each call from now on."""
    run, rows = encoder._run, []

    def counted(obs: Tensor, into: Any = None) -> list[Tensor]:
        rows.append(len(obs))
        return run(obs, into)

    monkeypatch.setattr(encoder, "_run", counted)
    return rows


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(4, 42, 42), (40, 36, 3), (36, 36)])
@pytest.mark.parametrize("network", CACHED)
def test_the_written_out_backward_pass_agrees_with_autograd(
    network: str, shape: tuple[int, ...], dtype: type, precision: str, rng: np.random.Generator
) -> None:
    """Features of all rows and gradients of all rows but the last agree, for bytes and for standardised images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = ImageEncoder(Box(0, 255, shape, np.uint8), network, precision)
    obs = rng.integers(0, 256, (T + 1, B, *shape)).astype(dtype)
    obs = obs if dtype is np.uint8 else (obs - 128) / 64
    caching = make_caching_encoder(encoder, T)
    assert caching is not None
    caching.rows.begin()
    for t in range(T):
        caching.act(obs[t])
    d_features = torch.from_numpy(rng.standard_normal((T, B, encoder.num_features)).astype(np.float32))
    both = []
    for features in (caching.unroll(obs), encoder(torch.from_numpy(obs))):
        encoder.zero_grad()
        features[:-1].backward(d_features)
        both.append((features.detach(), [p.grad for p in encoder.parameters() if p.grad is not None]))
    torch.testing.assert_close(both[0][0], both[1][0], rtol=TOLERANCE[precision], atol=TOLERANCE[precision])
    assert both[0][0].dtype == torch.float32
    assert_same_gradients(both[0][1], both[1][1], TOLERANCE[precision])


@every_core
@every_critic
@pytest.mark.parametrize("network", CACHED)
def test_gradients_after_acting_agree_with_autograd(
    acting: Any, monkeypatch: pytest.MonkeyPatch, network: str, core: str, critic: str
) -> None:
    """After acting, only the last row is computed."""
    learner, policy, collector = acting(encoder=network, core=core, critic=critic)
    rows = rows_run(caching_encoder(learner), monkeypatch)
    for _ in range(2):
        rollout = collector.collect(policy)
        ours = gradients(learner, rollout)
        assert rows == [B] * (T + 1)
        assert_same_gradients(ours, by_autograd(learner, rollout))
        rows.clear()


@every_core
@pytest.mark.parametrize("network", CACHED)
def test_gradients_in_bfloat16_agree_with_autograd(acting: Any, network: str, core: str) -> None:
    learner, policy, collector = acting(encoder=network, core=core, precision="bfloat16")
    rollout = collector.collect(policy)
    assert_same_gradients(gradients(learner, rollout), by_autograd(learner, rollout), 2e-2)
    assert all(p.dtype == torch.float32 for p in learner.model.parameters())


@every_core
def test_metrics_agree_with_autograd(acting: Any, core: str) -> None:
    learner, policy, collector = acting(core=core)
    rollout = collector.collect(policy)
    ours = gradient_metrics(learner, rollout)
    assert 0.0 <= ours.pop("train/dead_filters") < 1.0
    learner.network = autograd_network(learner)
    assert ours == pytest.approx(gradient_metrics(learner, rollout), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("network", "filters"), [("a3c", 16 + 32), ("nature", 32 + 64 + 64)])
def test_dead_filters_are_counted(acting: Any, network: str, filters: int) -> None:
    learner, policy, collector = acting(encoder=network)
    last = [layer for layer in learner.model.encoder.layers if isinstance(layer, torch.nn.Conv2d)][-1]
    with torch.no_grad():
        for p in learner.model.encoder.parameters():
            p.abs_().add_(0.01)  # bytes are not negative, so all filters are active
    assert gradient_metrics(learner, collector.collect(policy))["train/dead_filters"] == 0.0
    with torch.no_grad():
        last.bias[[0, 3, 5]] = -1e6
    learner.network.parameters_changed()
    metrics = gradient_metrics(learner, collector.collect(policy))
    assert metrics["train/dead_filters"] == pytest.approx(3 / filters)


def test_networks_with_elu_have_no_dead_filters(acting: Any) -> None:
    learner, policy, collector = acting(encoder="universe")
    assert gradient_metrics(learner, collector.collect(policy))["train/dead_filters"] == 0.0


@pytest.mark.parametrize("stream", ["next_step", "same_step"])
@pytest.mark.parametrize("network", CACHED)
def test_gradients_of_a_rollout_of_another_policy_agree_with_autograd(
    acting: Any, make_rollout: Callable[..., Rollout], monkeypatch: pytest.MonkeyPatch, network: str, stream: str
) -> None:
    """All rows are computed, for any T and B."""
    learner, _, _ = acting(encoder=network)
    rows = rows_run(caching_encoder(learner), monkeypatch)
    for seed, (steps, envs) in enumerate([(T, B), (7, 2), (T, B)]):
        rollout = make_rollout(Box(0, 255, (36, 36), np.uint8), seed, steps, envs, stream)
        assert_same_gradients(gradients(learner, rollout), by_autograd(learner, rollout))
    assert rows == [(T + 1) * B, 8 * 2, (T + 1) * B]


def other_rollout(same_size: bool) -> Rollout:
    """A random rollout, not collected by a policy."""
    rng = np.random.default_rng(5)
    steps = T if same_size else T + 2
    return Rollout(
        obs=rng.integers(0, 256, (steps + 1, B, 36, 36)).astype(np.uint8),
        actions=rng.integers(0, 3, (steps, B)),
        rewards=rng.standard_normal((steps, B)).astype(np.float32),
        terminated=np.zeros((steps, B), np.float32),
        truncated=np.zeros((steps, B), np.float32),
        valid=np.ones((steps, B), np.float32),
        episode_start=np.zeros((steps + 1, B), np.float32),
        num_valid=steps * B,
    )


def predict(learner: Learner) -> None:
    agent = Agent(learner.model, None, TrainConfig(), Box(0, 255, (36, 36), np.uint8), Discrete(3))
    for rows in (1, B):
        agent.predict(np.full((rows, 36, 36), 9, np.uint8), deterministic=False)


def act_with_another_network(learner: Learner) -> None:
    """Act with another network over the same model, in other environments, in rollouts of the same size."""
    make_collector(9).collect(ModelPolicy(make_network(learner.model), None))


def learn_from_another_rollout(learner: Learner) -> None:
    """Learn from a rollout that another policy collected, as the protocol demands: after discarding activations."""
    learner.network.parameters_changed()
    learner.gradients(other_rollout(same_size=True))


def learn_from_a_rollout_of_another_size(learner: Learner) -> None:
    learner.gradients(other_rollout(same_size=False))


BETWEEN = [
    predict,
    act_with_another_network,
    learn_from_another_rollout,
    learn_from_a_rollout_of_another_size,
]


@pytest.mark.parametrize("between", BETWEEN, ids=lambda f: f.__name__)
@pytest.mark.parametrize("row", [1, T])
def test_other_uses_of_the_model_do_not_change_the_gradients(
    acting: Any, between: Callable[[Learner], None], row: int
) -> None:
    """They happen in the middle of collecting, and between collecting and learning."""
    learner, policy, collector = acting()
    act, calls = policy.act, 0

    def interrupted(obs: Any, episode_start: Any) -> Any:
        nonlocal calls
        actions, calls = act(obs, episode_start), calls + 1
        if calls % T == row % T:
            between(learner)
        return actions

    policy.act = interrupted
    for _ in range(3):
        rollout = collector.collect(policy)
        assert_same_gradients(gradients(learner, rollout), by_autograd(learner, rollout))


def test_gradients_computed_twice_from_a_rollout_are_equal(acting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, policy, collector = acting()
    rollout = collector.collect(policy)
    rows = rows_run(caching_encoder(learner), monkeypatch)
    first, again = gradients(learner, rollout), gradients(learner, rollout)
    assert rows == [B, B]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def apply(learner: Learner, rollout: Rollout) -> None:
    learner.gradients(rollout)
    learner.apply(0.0)


def pull(learner: Learner, rollout: Rollout) -> None:
    learner.train_state.params.add_(0.01)
    learner.pull()


def set_state(learner: Learner, rollout: Rollout) -> None:
    state = learner.train_state.get_state()
    learner.train_state.set_state({**state, "params": state["params"] + 0.01})
    learner.set_state(learner.get_state())


@pytest.mark.parametrize("change", [apply, pull, set_state], ids=lambda f: f.__name__)
@pytest.mark.parametrize("critic", ["shared", "target"])
def test_cached_activations_are_discarded_when_parameters_change(
    acting: Any, critic: str, change: Callable[[Learner, Rollout], None]
) -> None:
    """The rollout was collected with earlier parameters."""
    learner, policy, collector = acting(critic=critic)
    if change is pull:  # from a shared train state, as asynchronous workers do
        params = learner.flat.params.clone()
        learner.train_state = dataclasses.replace(learner.train_state, params=params)
    rollout = collector.collect(policy)
    before = by_autograd(learner, rollout)
    change(learner, rollout)
    after = gradients(learner, rollout)
    assert_same_gradients(after, by_autograd(learner, rollout))
    assert not all(torch.allclose(a, b, rtol=1e-3) for a, b in zip(before, after, strict=True))


# --------------------------------------------------------------------------- whole runs


@pytest.mark.parametrize("core", ["feedforward", "lstm"])
def test_runs_agree_with_autograd(make_runner: Callable[..., SyncRunner], core: str) -> None:
    """Eight updates with cached activations, and with autograd alone."""
    params = []
    for cached in (True, False):
        envs = SyncBackend([Catch() for _ in range(B)])
        runner = make_runner(envs, T, encoder="universe", optimizer="adam", core=core, core_size=6)
        learner, policy = runner.actor_learner.learner, runner.actor_learner.policy
        assert isinstance(learner.network, NumpyNetwork) is (core == "feedforward")
        if not cached:
            learner.network = autograd_network(learner)
            runner.actor_learner.policy = ModelPolicy(learner.network, policy.rng)
        before = runner.actor_learner.learner.flat.params.clone()
        runner.advance(8 * T * B, np.inf)
        params.append(runner.actor_learner.learner.flat.params)
    assert (params[0] - before).abs().max() > 1e-3
    torch.testing.assert_close(params[0], params[1], rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("network", ["a3c", "impala"])
def test_a_run_continues_exactly_from_its_state(network: str) -> None:
    """The state is from the middle of episodes; the resumed runner has collected other rollouts before."""
    config = quick_config(
        "a2c", env_id="limelight.envs.toy:Catch", encoder=network, normalize_obs=True, total_timesteps=200, core="gru",
        core_size=6,
    )  # fmt: skip

    def runner() -> SyncRunner:
        return SyncRunner(make_actor_learner(config, None, config.seed), 200)

    whole, resumed = runner(), runner()
    whole.advance(50, np.inf)
    state = copy.deepcopy(whole.get_state())
    resumed.advance(30, np.inf)
    resumed.actor_learner.collect()
    resumed.set_state(state, seed=0)
    for one in (whole, resumed):
        one.advance(100, np.inf)
    assert_same({**whole.get_state(), "seconds": 0.0}, {**resumed.get_state(), "seconds": 0.0})
    for one in (whole, resumed):
        one.close()


@pytest.mark.parametrize("settings", [{"encoder": "nature"}, {"encoder": "universe", "normalize_obs": True}])
@every_core
def test_gradients_of_atari_rollouts_agree_with_autograd(settings: dict[str, Any], core: str) -> None:
    """The backend is ALE's; frames are bytes in rollouts, standardised or not."""
    pytest.importorskip("ale_py")
    size = {"frame_size": 42, "frame_stack": 1} if settings["encoder"] == "universe" else {}
    memory = {} if core == "feedforward" else {"core": core, "core_size": 8}
    actor = make_actor_learner(
        quick_config("a2c", env_id="ALE/Pong-v5", backend="ale", **settings, **size, **memory), None, 0
    )
    for _ in range(2):
        rollout = actor.collect()
        assert rollout.obs.dtype == np.uint8
        assert_same_gradients(gradients(actor.learner, rollout), by_autograd(actor.learner, rollout), 1e-3)
    actor.close()


# --------------------------------------------------------------------------- which encoders have a cache


@pytest.mark.parametrize(
    ("space", "settings", "expected"),
    [
        (Box(0, 255, (3, 42, 42), np.uint8), {}, True),
        *((Box(0, 255, (3, 42, 42), np.uint8), {"encoder": name}, name != "impala") for name in NETWORKS),
        (Box(0, 255, (7, 7, 3), np.uint8), {}, False),  # hidden layers follow
        (Packed(Dict({"camera": Box(0, 255, (42, 42), np.uint8)})), {}, False),
        (Box(-1.0, 1.0, (3,)), {}, False),
    ],
)
def test_only_convolutional_encoders_with_paired_activations_have_a_cache(
    make_actor_critic: Callable[..., ActorCritic], space: Box, settings: dict[str, Any], expected: bool
) -> None:
    assert (make_caching_encoder(make_actor_critic(space, **settings).encoder, T) is not None) is expected


def test_layers_without_an_activation_after_each_have_no_cache() -> None:
    encoder = ImageEncoder(Box(0, 255, (42, 42), np.uint8), "a3c")
    encoder.layers = encoder.layers[:-1]
    assert make_caching_encoder(encoder, T) is None


def test_the_encoder_of_a_separate_critic_has_no_cache(make_learner: LearnerFactory) -> None:
    settings = with_settings(TrainConfig(), {"critic": "separate"})
    learner = make_learner(Box(0, 255, (42, 42), np.uint8), critic=settings.model.critic)
    assert caching_encoder(learner).encoder is learner.model.encoder
