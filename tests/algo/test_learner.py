"""The learner: its gradient compared with a loss in plain loops, apply, the target critic and its state."""

from __future__ import annotations

import copy
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, Space
from torch import Tensor, nn

from helpers.learners import gradient_metrics, update_metrics
from limelight.algo.learner import Learner
from limelight.algo.normalization import AdvantageNormalizer, RewardNormalizer
from limelight.algo.returns import discounts_and_traces, gae, n_step, standardize
from limelight.algo.rollout import Rollout
from limelight.algo.train_state import TrainState
from limelight.errors import NonFiniteError
from limelight.nn.model import make_model
from limelight.nn.network import Engine
from limelight.nn.numpy_engine.network import NumpyNetwork
from limelight.nn.torch_engine import TorchNetwork
from limelight.seeds import Stream, derive_seed
from limelight.settings.io import with_settings
from limelight.settings.schema import TrainConfig

LearnerFactory = Callable[..., Learner]
RolloutFactory = Callable[..., Rollout]
BOX = Box(-1.0, 1.0, (4,))

both_engines = pytest.mark.parametrize("engine", ["numpy", "autograd"])
every_stream = pytest.mark.parametrize("stream", ["next_step", "same_step"])


def masks(rollout: Rollout) -> tuple[Any, Any, Any]:
    return rollout.terminated, rollout.truncated, rollout.valid


# --------------------------------------------------------------------------- the gradient


@both_engines
def test_the_entropy_bonus_falls_with_progress(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine
) -> None:
    """After an update at 1/4 of the budget it is 3/4 of ent_coef, also after a state is restored."""
    rollout = make_rollout(BOX)
    falling = make_learner(BOX, engine=engine, ent_coef=0.4, ent_schedule="linear", learning_rate=0.0)
    for progress, expected in ((None, 0.4), (0.25, 0.3), (1.0, 0.0)):
        if progress is not None:
            falling.update(rollout, progress)
        same = make_learner(BOX, engine=engine, ent_coef=expected)
        for learner in (falling, same):
            learner.gradients(rollout)
        torch.testing.assert_close(falling.flat.grads, same.flat.grads, rtol=1e-5, atol=1e-7)
        again = make_learner(BOX, engine=engine, ent_coef=0.4, ent_schedule="linear")
        again.set_state(falling.get_state())
        again.gradients(rollout)
        torch.testing.assert_close(again.flat.grads, falling.flat.grads, rtol=0.0, atol=0.0)


class Double(nn.Module):
    """A tiny encoder in float64, in which finite differences are precise."""

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()
        self.num_features, self.linear = 3, nn.Linear(2, 3)

    def forward(self, obs: Tensor) -> Tensor:
        return self.linear(obs.double()).tanh()


@pytest.fixture
def double_module(monkeypatch: pytest.MonkeyPatch) -> str:
    module = ModuleType("double_nets")
    module.Double = Double  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "double_nets", module)
    return "double_nets:Double"


def written_loss(learner: Learner, rollout: Rollout, returns: Any, weights: Any) -> float:
    """The loss of one rollout, row by row, for constant ``returns`` and ``weights`` [T, B]."""
    a, total = learner.algorithm, 0.0
    with torch.no_grad():
        output = learner.model(torch.from_numpy(rollout.obs))
    for t, b in np.ndindex(*rollout.rewards.shape):
        if not rollout.valid[t, b]:
            continue
        logits, value = output.params[t, b].tolist(), float(output.values[t, b])
        if output.action_values is not None:
            value = float(output.action_values[t, b, rollout.actions[t, b]])
        log_sum = math.log(sum(math.exp(z) for z in logits))
        log_p = [z - log_sum for z in logits]
        error = abs(value - float(returns[t, b]))
        squared = error**2
        if a.value_loss == "huber" and error > a.huber_delta:
            squared = 2 * a.huber_delta * error - a.huber_delta**2
        entropy = -sum(math.exp(lp) * lp for lp in log_p)
        total += -log_p[rollout.actions[t, b]] * float(weights[t, b]) + a.vf_coef * squared - a.ent_coef * entropy
    return total / rollout.num_valid


def written_targets(learner: Learner, rollout: Rollout) -> tuple[Any, Any]:
    """Return targets and policy weights of V(s), with V(next) computed observation by observation."""
    a = learner.algorithm

    def online(obs: Any) -> float:
        return float(learner.model(torch.from_numpy(obs)[None, None]).values)

    def bootstrap(obs: Any) -> float:
        if learner.network.target_critic is None:
            return online(obs)
        return float(learner.network.target_critic(torch.from_numpy(obs)[None, None]))

    final = {}
    if rollout.final_obs is not None:
        final = {(t, b): obs for t, b, obs in zip(*rollout.final_obs[:3], strict=True)}
    values, next_values = np.zeros((2, *rollout.rewards.shape))
    with torch.no_grad():
        for t, b in np.ndindex(*values.shape):
            values[t, b] = online(rollout.obs[t, b])
            next_values[t, b] = bootstrap(final.get((t, b), rollout.obs[t + 1, b]))
    ends = discounts_and_traces(*masks(rollout), a.gamma, a.gae_lambda)
    advantages = gae(rollout.rewards.astype(float), values, next_values, *ends, rollout.valid)
    weights = advantages if a.policy_weight == "advantage" else values + advantages
    if a.normalize_advantages == "batch":
        weights = standardize(weights, rollout.valid)
    return values + advantages, weights


def written_q_targets(learner: Learner, rollout: Rollout) -> tuple[Any, Any]:
    """Return targets and policy weights of q(s, a), with q(next, ·) and π computed observation by observation."""
    a = learner.algorithm
    critic = learner.network.target_critic
    draws = np.random.default_rng(derive_seed(0, Stream.NEXT_ACTIONS)).random(rollout.valid.size, dtype=np.float32)
    final = {}
    if rollout.final_obs is not None:
        final = {(t, b): obs for t, b, obs in zip(*rollout.final_obs[:3], strict=True)}
    values, next_values, expected = np.zeros((3, *rollout.rewards.shape))
    with torch.no_grad():
        for t, b in np.ndindex(*values.shape):
            here = learner.model(torch.from_numpy(rollout.obs[t, b])[None, None])
            following = torch.from_numpy(final.get((t, b), rollout.obs[t + 1, b]))[None, None]
            there = learner.model(following)
            q = (there.action_values if critic is None else critic(following))[0, 0].numpy()
            p = there.params[0, 0].softmax(-1).numpy()
            values[t, b] = here.action_values[0, 0, rollout.actions[t, b]]
            expected[t, b] = float(here.params[0, 0].softmax(-1) @ here.action_values[0, 0])
            drawn = int(np.searchsorted(p.cumsum(), draws[t * values.shape[1] + b], side="right"))
            next_values[t, b] = q[drawn] if a.q_bootstrap == "sarsa" else p @ q
    ends = discounts_and_traces(*masks(rollout), a.gamma, 1.0 if a.returns == "n_step" else a.gae_lambda)
    arrays = rollout.rewards.astype(float), values, next_values, *ends, rollout.valid
    returns = n_step(*arrays, n=a.return_steps or 1) if a.returns == "n_step" else values + gae(*arrays)
    weights = {"td_error": returns - values, "q": values, "advantage": values - expected}[a.policy_weight]
    return returns, weights * rollout.valid


@every_stream
@pytest.mark.parametrize("critic", ["shared", "separate", "target"])
@pytest.mark.parametrize(
    "settings",
    [
        {"gae_lambda": 0.9},
        {"policy_weight": "q", "gae_lambda": 0.0, "value_loss": "huber", "huber_delta": 0.3},
        {"normalize_advantages": "batch", "ent_coef": 0.5, "vf_coef": 2.0},
        {"critic_output": "q", "gae_lambda": 0.9, "policy_weight": "td_error"},
        {"critic_output": "q", "gae_lambda": 0.0, "q_bootstrap": "sarsa", "policy_weight": "q"},
        {"critic_output": "q", "returns": "n_step", "return_steps": 2, "q_bootstrap": "sarsa"},
    ],
)
def test_the_gradient_is_the_finite_difference_of_the_loss(
    make_rollout: RolloutFactory, double_module: str, critic: str, stream: str, settings: dict[str, Any]
) -> None:
    space = Box(-1.0, 1.0, (2,))
    settings = {"critic": critic, "encoder": double_module, "policy_init_gain": 1.0, **settings}
    config = with_settings(TrainConfig(), settings)
    model = make_model(space, Discrete(3), config.model, seed=1).double()
    learner = Learner(model, config.algorithm, config.optim)
    if learner.network.target_critic is not None:
        with torch.no_grad():
            for p in learner.network.target_critic.parameters():
                p += 0.1
    rollout = make_rollout(space, seed=4, T=6, B=3, stream=stream)
    assert (rollout.truncated > rollout.terminated).any()
    assert rollout.final_obs is not None or stream == "next_step"
    metrics = gradient_metrics(learner, rollout)
    written = written_targets if config.model.critic_output == "v" else written_q_targets
    returns, weights = written(learner, rollout)

    a = learner.algorithm
    parts = metrics["train/policy_loss"] + a.vf_coef * metrics["train/value_loss"]
    assert parts - a.ent_coef * metrics["train/entropy"] == pytest.approx(
        written_loss(learner, rollout, returns, weights), rel=1e-5
    )
    params, h = learner.flat.params, 1e-6
    differences = torch.zeros_like(params)
    for i in range(len(params)):
        middle, sides = float(params[i]), []
        for side in (middle + h, middle - h):
            params[i] = side
            sides.append(written_loss(learner, rollout, returns, weights))
        params[i] = middle
        differences[i] = (sides[0] - sides[1]) / (2 * h)
    assert differences.abs().max() > 0.01
    torch.testing.assert_close(learner.flat.grads, differences, rtol=1e-4, atol=1e-5)


@both_engines
def test_gradients_do_not_accumulate(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine
) -> None:
    learner, rollout = make_learner(BOX, engine), make_rollout(BOX)
    learner.gradients(make_rollout(BOX, seed=5))
    learner.gradients(rollout)
    after_another = learner.flat.grads.clone()
    learner.gradients(rollout)
    assert torch.equal(learner.flat.grads, after_another)
    fresh = make_learner(BOX, engine)
    fresh.gradients(rollout)
    assert torch.equal(fresh.flat.grads, after_another)
    assert after_another.abs().max() > 0


@both_engines
def test_update_is_gradients_then_apply(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine
) -> None:
    settings = {"critic": "target", "normalize_advantages": "running"}
    one, two = make_learner(BOX, engine, **settings), make_learner(BOX, engine, **settings)
    for seed in range(5):
        rollout = make_rollout(BOX, seed)
        together = update_metrics(one, rollout, progress=0.1 * seed)
        two.gradients(rollout)
        before = two.flat.params.clone()
        two.apply(0.1 * seed, rollout.episodes_ended)
        assert together == two.metrics()
        assert not torch.equal(before, two.flat.params)
        assert_same(everything(one), everything(two))


@both_engines
def test_metrics_describe_the_last_update(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine
) -> None:
    learner, rollout = make_learner(BOX, engine, learning_rate=0.01), make_rollout(BOX)
    with torch.no_grad():
        before = learner.model(torch.from_numpy(rollout.obs))
    metrics = update_metrics(learner, rollout, progress=0.25)
    assert set(metrics) == {
        "train/policy_loss", "train/value_loss", "train/entropy", "train/explained_variance",
        "train/value_mean", "train/advantage_std", "train/grads_clipped", "train/reward_max", "train/grad_norm",
        "train/learning_rate",
    }  # fmt: skip
    assert all(type(value) is float for value in metrics.values())
    valid = torch.from_numpy(rollout.valid) > 0
    entropy = torch.distributions.Categorical(logits=before.params[:-1]).entropy()[valid].mean()
    assert metrics["train/entropy"] == pytest.approx(float(entropy), rel=1e-5)
    assert metrics["train/value_mean"] == pytest.approx(float(before.values[:-1][valid].mean()), rel=1e-4)
    assert metrics["train/reward_max"] == pytest.approx(float(np.abs(rollout.rewards).max()))
    assert metrics["train/learning_rate"] == pytest.approx(0.0075)
    assert make_learner(BOX, engine).metrics() == {}


def test_the_numpy_engine_computes_small_networks(make_learner: LearnerFactory) -> None:
    assert isinstance(make_learner(BOX).network, NumpyNetwork)
    assert isinstance(make_learner(BOX, activation="silu").network, TorchNetwork)
    assert isinstance(make_learner(BOX, engine="autograd").network, TorchNetwork)


# --------------------------------------------------------------------------- targets


def test_advantages_or_returns_weight_the_policy_gradient(
    make_learner: LearnerFactory, make_rollout: RolloutFactory
) -> None:
    rollout = make_rollout(BOX)
    valid = rollout.valid
    both = np.random.default_rng(9).standard_normal((2, *valid.shape)).astype(np.float32)
    values, next_values = both
    ends = discounts_and_traces(*masks(rollout), 0.9, 0.8)
    advantages = gae(rollout.rewards, values, next_values, *ends, valid)
    settings = {"gamma": 0.9, "gae_lambda": 0.8}
    for weight, expected in (("advantage", advantages), ("q", (values + advantages) * valid)):
        targets = make_learner(BOX, policy_weight=weight, **settings).targets(rollout, *both)
        np.testing.assert_array_equal(targets.advantages, expected)
        np.testing.assert_array_equal(targets.returns, values + advantages)
        batch = make_learner(BOX, policy_weight=weight, normalize_advantages="batch", **settings)
        np.testing.assert_array_equal(batch.targets(rollout, *both).advantages, standardize(expected, valid))
        running = make_learner(BOX, policy_weight=weight, normalize_advantages="running", **settings)
        normalized = AdvantageNormalizer(0.99)(expected, valid)
        np.testing.assert_array_equal(running.targets(rollout, *both).advantages, normalized)
        np.testing.assert_array_equal(batch.targets(rollout, *both).returns, targets.returns)


def test_rewards_are_clipped_then_normalised_then_scaled(
    make_learner: LearnerFactory, make_rollout: RolloutFactory
) -> None:
    """The rewards of the rollout stay raw."""
    rollout = make_rollout(BOX)
    raw = rollout.rewards.copy()
    assert np.abs(raw).max() > 1.5
    assert make_learner(BOX).rewards(rollout) is rollout.rewards
    clipped = np.clip(raw, -1.5, 1.5)
    changed = make_learner(BOX, reward_clip=1.5, reward_scale=0.1).rewards(rollout)
    np.testing.assert_allclose(changed, clipped * 0.1, rtol=1e-6)
    both = make_learner(BOX, reward_clip=1.5, reward_scale=0.1, normalize_rewards=True, gamma=0.5)
    expected = RewardNormalizer(0.5)(rollout, clipped) * 0.1
    np.testing.assert_allclose(both.rewards(rollout), expected, rtol=1e-6)
    np.testing.assert_array_equal(rollout.rewards, raw)


@both_engines
def test_the_gradient_is_that_of_the_learners_rewards(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine
) -> None:
    rollout = make_rollout(BOX)
    settings = {"reward_clip": 0.5, "reward_scale": 3.0, "normalize_rewards": True}
    learner, plain = make_learner(BOX, engine, **settings), make_learner(BOX, engine)
    learner.gradients(rollout)
    plain.gradients(dataclasses.replace(rollout, rewards=make_learner(BOX, **settings).rewards(rollout)))
    torch.testing.assert_close(learner.flat.grads, plain.flat.grads, rtol=1e-5, atol=1e-6)
    assert learner.reward_normalizer is not None
    seen = learner.reward_normalizer.statistics.moments.size
    assert seen == rollout.num_valid  # once per rollout


# --------------------------------------------------------------------------- stepping


@both_engines
def test_actor_and_critic_have_separate_learning_rates(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine
) -> None:
    """Adam's first step is as long as the learning rate."""
    learner = make_learner(
        BOX, engine, critic="separate", optimizer="adam", optim_eps=1e-12, max_grad_norm=None,
        learning_rate=1e-3, critic_learning_rate=5e-2, lr_schedule="linear",
    )  # fmt: skip
    before = learner.flat.params.clone()
    learner.update(make_rollout(BOX), progress=0.5)
    moved = (learner.flat.params - before).abs()
    critic = learner.flat.span(learner.model.critic.parameters())
    assert moved[: critic.start].max() == pytest.approx(0.5e-3, rel=1e-3)
    assert moved[critic].max() == pytest.approx(2.5e-2, rel=1e-3)


def test_a_linear_schedule_ends_at_0(make_learner: LearnerFactory, make_rollout: RolloutFactory) -> None:
    learner = make_learner(BOX, lr_schedule="linear")
    before = learner.flat.params.clone()
    learner.update(make_rollout(BOX), progress=1.0)
    assert torch.equal(learner.flat.params, before)


@both_engines
def test_non_finite_gradients_raise_before_any_parameter_changes(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine
) -> None:
    learner = make_learner(BOX, engine, critic="target", learning_rate=0.25)
    learner.update(make_rollout(BOX), 0.0)
    with torch.no_grad():
        learner.model.policy_head.linear.bias[0] = float("nan")
    before = snapshot(everything(learner))
    with pytest.raises(NonFiniteError, match=r"learning_rate = 0\.25: .* no longer finite at update 1; ") as error:
        learner.update(make_rollout(BOX, seed=1), 0.0)
    assert "\n" not in str(error.value)
    assert_same(everything(learner), before)


@both_engines
def test_a_rollout_without_a_transition_changes_nothing(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine
) -> None:
    learner = make_learner(BOX, engine, critic="target", optimizer="adam", normalize_advantages="running")
    learner.update(make_rollout(BOX), 0.0)
    before = snapshot(everything(learner))
    rollout = make_rollout(BOX, seed=1)
    nothing = np.zeros_like(rollout.valid)
    empty = dataclasses.replace(
        rollout, rewards=nothing, terminated=nothing, truncated=nothing, valid=nothing, num_valid=0
    )
    learner.update(empty, 0.5)
    assert_same(everything(learner), before)


# --------------------------------------------------------------------------- the target critic


def ends(rollout: Rollout) -> int:
    """The number of finished episodes; one that is both terminated and truncated counts once."""
    return sum(bool(a or b) for a, b in zip(rollout.terminated.flat, rollout.truncated.flat, strict=True))


@both_engines
@pytest.mark.parametrize(("at", "every"), [("updates", 1), ("updates", 3), ("episode_end", 1), ("episode_end", 4)])
def test_the_target_critic_follows_the_critic(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine, at: str, every: int
) -> None:
    learner = make_learner(
        BOX, engine, critic="target", tau=0.25, target_update_at=at, target_update_every=every, learning_rate=0.05
    )
    assert learner.network.target_critic is not None

    def flat(module: nn.Module) -> Tensor:
        return torch.cat([p.detach().reshape(-1) for p in module.parameters()])

    expected, clock = flat(learner.model.critic), 0
    moves = 0
    for seed in range(12):
        rollout = make_rollout(BOX, seed, T=2, B=2, stream="same_step")
        learner.update(rollout, 0.0)
        clock += 1 if at == "updates" else ends(rollout)
        if clock >= every:
            clock, moves = 0, moves + 1
            expected = 0.75 * expected + 0.25 * flat(learner.model.critic)
        torch.testing.assert_close(flat(learner.network.target_critic), expected)
    assert 0 < moves <= 12
    assert moves == 12 // every or at == "episode_end"


def test_an_episode_that_is_both_terminated_and_truncated_counts_once(
    make_learner: LearnerFactory, make_rollout: RolloutFactory
) -> None:
    learner = make_learner(BOX, critic="target", target_update_at="episode_end", target_update_every=2)
    assert learner.network.target_critic is not None
    rollout = make_rollout(BOX, T=1, B=2, stream="same_step")
    both = np.array([[1.0, 0.0]], np.float32)
    before = [p.clone() for p in learner.network.target_critic.parameters()]
    learner.update(dataclasses.replace(rollout, terminated=both, truncated=both, final_obs=None), 0.0)
    assert all(torch.equal(p, q) for p, q in zip(before, learner.network.target_critic.parameters(), strict=True))


@both_engines
def test_only_bootstrapping_uses_the_target_critic(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine
) -> None:
    def gradients(rollout: Rollout, shift: float) -> Tensor:
        learner = make_learner(BOX, engine, critic="target")
        assert learner.network.target_critic is not None
        with torch.no_grad():
            for p in learner.network.target_critic.parameters():
                p += shift
        learner.gradients(rollout)
        assert not any(p.grad is not None and p.grad.any() for p in learner.network.target_critic.parameters())
        return learner.flat.grads

    rollout = make_rollout(BOX)
    assert not torch.equal(gradients(rollout, 0.0), gradients(rollout, 1.0))
    terminal = dataclasses.replace(rollout, terminated=rollout.valid)
    assert torch.equal(gradients(terminal, 0.0), gradients(terminal, 1.0))


# --------------------------------------------------------------------------- state


def everything(learner: Learner) -> dict[str, Any]:
    """The state of a learner in a checkpoint."""
    return {"learner": learner.get_state(), "train_state": learner.train_state.get_state()}


def restore(learner: Learner, state: Mapping[str, Any]) -> None:
    learner.set_state(state["learner"])
    learner.train_state.set_state(state["train_state"])


def snapshot(state: Mapping[str, Any]) -> dict[str, Any]:
    """A copy as in a checkpoint: tensors become arrays."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(v) for key, v in value.items()}
        return value.numpy().copy() if isinstance(value, Tensor) else value

    return {key: plain(value) for key, value in state.items()}


def assert_same(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Equal to the bit, NaN included."""
    a, b = snapshot(a), snapshot(b)
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, dict):
            assert_same(value, b[key])
        elif isinstance(value, np.ndarray):
            assert value.tobytes() == b[key].tobytes(), key
        else:
            assert value == b[key], key


@both_engines
@pytest.mark.parametrize("optimizer", ["rmsprop", "rmsprop_tf", "adam"])
@pytest.mark.parametrize(
    "settings",
    [
        {"critic": "target", "target_update_every": 3, "normalize_advantages": "running"},
        {"critic": "target", "target_update_every": 3, "target_update_at": "episode_end"},
        {"critic": "separate", "critic_learning_rate": 0.01},
        {"critic": "shared"},
    ],
)
def test_state_continues_bit_for_bit(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine, optimizer: str, settings: dict[str, Any]
) -> None:
    settings = {"optimizer": optimizer, "learning_rate": 0.01, **settings}
    first = make_learner(BOX, engine, **settings)
    for seed in range(5):
        first.update(make_rollout(BOX, seed), 0.1)
    second = make_learner(BOX, engine, seed=99, **settings)
    restore(second, snapshot(everything(first)))
    for seed in range(5, 12):
        rollout = make_rollout(BOX, seed)
        assert update_metrics(first, rollout, 0.2) == update_metrics(second, rollout, 0.2)
    assert_same(everything(first), everything(second))
    assert second.num_updates == 12


def test_parameters_stay_views_after_set_state(make_learner: LearnerFactory, make_rollout: RolloutFactory) -> None:
    learner = make_learner(BOX)
    other = make_learner(BOX, seed=4)
    restore(learner, everything(other))
    start = 0
    for p in learner.model.parameters():
        assert p.data_ptr() == learner.flat.params[start:].data_ptr()
        start += p.numel()
    learner.update(make_rollout(BOX), 0.0)
    assert not torch.equal(learner.flat.params, other.flat.params)  # a copy, not the same memory


# --------------------------------------------------------------------------- a shared train state


def copy_of_train_state(learner: Learner) -> TrainState:
    """A copy of the learner's train state in memory of NumPy."""

    def copied(tensor: Tensor) -> Tensor:
        return torch.from_numpy(np.array(tensor.numpy()))

    own = learner.train_state
    return TrainState(
        copied(own.params),
        None if own.target_params is None else copied(own.target_params),
        {key: copied(tensor) for key, tensor in own.optimizer_state.items()},
    )


def follower(learner: Learner, engine: Engine, train_state: TrainState) -> Learner:
    """A learner like ``learner``, before its first update, that updates ``train_state``."""
    model = copy.deepcopy(learner.model)
    return Learner(model, learner.algorithm, learner.optim, train_state, engine)


def own_tensors(learner: Learner) -> dict[str, Tensor]:
    """Copies of the parameters a learner computes with."""
    critic = [] if learner.network.target_critic is None else list(learner.network.target_critic.parameters())
    target = torch.cat([p.detach().reshape(-1) for p in critic]) if critic else torch.zeros(0)
    return {"params": learner.flat.params.clone(), "target": target}


@both_engines
@pytest.mark.parametrize("critic", ["shared", "target"])
def test_gradients_are_local_and_apply_changes_only_the_train_state(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine, critic: str
) -> None:
    fresh = make_learner(BOX, engine, critic=critic, optimizer="adam", learning_rate=0.01)
    train_state = copy_of_train_state(fresh)
    learner, rollout = follower(fresh, engine, train_state), make_rollout(BOX)
    mine, theirs = own_tensors(learner), train_state.get_state()
    learner.gradients(rollout)
    assert learner.flat.grads.abs().max() > 0
    for name, tensor in own_tensors(learner).items():
        assert torch.equal(tensor, mine[name])
    assert_same(train_state.get_state(), theirs)
    learner.apply(0.0)
    for name, tensor in own_tensors(learner).items():
        assert torch.equal(tensor, mine[name])
    assert not torch.equal(train_state.params, theirs["params"])
    assert int(train_state.optimizer_state["step"]) == 1
    if critic == "target":
        assert train_state.target_params is not None
        assert not torch.equal(train_state.target_params, theirs["target_params"])
    learner.pull()
    pulled = own_tensors(learner)
    assert torch.equal(pulled["params"], train_state.params)
    if train_state.target_params is not None:
        assert torch.equal(pulled["target"], train_state.target_params)
    obs = torch.from_numpy(rollout.obs)
    with torch.no_grad():
        assert not torch.equal(learner.model(obs).params, fresh.model(obs).params)  # it acts with the new parameters


@both_engines
@pytest.mark.parametrize("critic", ["shared", "separate", "target"])
def test_update_is_pull_gradients_and_apply(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine, critic: str
) -> None:
    """Bit for bit, including metrics."""
    settings = {"critic": critic, "normalize_advantages": "running", "optimizer": "rmsprop_tf", "learning_rate": 0.01}
    alone = make_learner(BOX, engine, **settings)
    learner = follower(alone, engine, copy_of_train_state(alone))
    for seed in range(6):
        rollout, progress = make_rollout(BOX, seed), 0.1 * seed
        learner.pull()
        learner.gradients(rollout)
        learner.apply(progress, rollout.episodes_ended)
        assert learner.metrics() == update_metrics(alone, rollout, progress)
        assert_same(everything(alone), everything(learner))


@both_engines
def test_two_learners_that_alternate_on_one_train_state_equal_one_learner(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine
) -> None:
    """Each pulls the updates of the other."""
    alone = make_learner(BOX, engine, critic="target", optimizer="adam", learning_rate=0.01)
    train_state = copy_of_train_state(alone)
    both = [follower(alone, engine, train_state) for _ in range(2)]
    for turn in range(8):
        rollout = make_rollout(BOX, turn)
        learner = both[turn % 2]
        learner.pull()
        learner.gradients(rollout)
        learner.apply(0.0)
        alone.update(rollout, 0.0)
    assert_same(train_state.get_state(), alone.train_state.get_state())
    assert [learner.num_updates for learner in both] == [4, 4]


@both_engines
def test_non_finite_gradients_do_not_change_the_train_state(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine
) -> None:
    fresh = make_learner(BOX, engine, critic="target", optimizer="adam")
    train_state = copy_of_train_state(fresh)
    learner = follower(fresh, engine, train_state)
    before = train_state.get_state()
    learner.gradients(make_rollout(BOX))
    learner.flat.grads[3] = float("nan")
    with pytest.raises(NonFiniteError):
        learner.apply(0.0)
    assert_same(train_state.get_state(), before)
    assert learner.num_updates == 0


# --------------------------------------------------------------------------- running statistics of advantages


def test_advantages_are_normalised_by_running_statistics_of_earlier_batches(rng: np.random.Generator) -> None:
    normalizer, mean_decay, decay = AdvantageNormalizer(0.8, 0.9), 0.8, 0.9
    batches = [rng.standard_normal((3, 2)) * 4 + 7 for _ in range(6)]
    valid = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    seen = [b[valid > 0] for b in batches]
    squares = []
    for i, batch in enumerate(batches):
        result = normalizer(np.where(valid > 0, batch, 1e6), valid)
        earlier = np.array([mean_decay ** (i - j) for j in range(i)])
        mean = float(earlier @ [b.mean() for b in seen[:i]] / earlier.sum()) if i else seen[0].mean()
        squares.append(((seen[i] - mean) ** 2).mean())
        weights = np.array([decay ** (i - j) for j in range(i + 1)])
        variance = float(weights @ squares / weights.sum())
        np.testing.assert_allclose(result, (batch - mean) / math.sqrt(variance) * valid, rtol=1e-6)


def test_running_statistics_without_data_are_unchanged() -> None:
    normalizer, x = AdvantageNormalizer(0.99), np.array([[3.0]])
    assert normalizer(x, x * 0).tolist() == [[0.0]]
    assert normalizer(x, x * 0 + 1).tolist() == [[0.0]]  # the first number is the mean
    state = normalizer.get_state()
    assert normalizer(x * 100, x * 0).tolist() == [[0.0]]
    assert normalizer.get_state() == state


def test_running_statistics_normalise_batches_of_one_number() -> None:
    """With one number per update, the results are standardised over many updates."""
    normalizer, rng = AdvantageNormalizer(0.99), np.random.default_rng(0)
    one = np.ones((1, 1))
    results = [float(normalizer(np.full((1, 1), 50 + 3 * rng.standard_normal()), one)[0, 0]) for _ in range(4000)]
    assert np.mean(results[1000:]) == pytest.approx(0.0, abs=0.1)
    assert np.std(results[1000:]) == pytest.approx(1.0, abs=0.1)


def test_the_learner_has_running_statistics_only_if_configured(make_learner: LearnerFactory) -> None:
    assert make_learner(BOX).advantage_normalizer is None
    assert make_learner(BOX, normalize_advantages="running").advantage_normalizer is not None
