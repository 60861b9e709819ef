"""Several updates per rollout: their gradients against an oracle, what is computed once, the KL stop, resumption."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from helpers.composite_envs import Observed
from helpers.learners import update_metrics
from helpers.manual_workers import assert_same, quick_config
from helpers.toys import Bandit
from limelight.algo.epochs import Epochs
from limelight.algo.learner import Learner
from limelight.algo.minibatches import Batch
from limelight.algo.returns import standardize
from limelight.algo.rollout import Rollout
from limelight.nn.network import Engine
from limelight.runners.actor_learner import make_actor_learner
from limelight.runners.sync import SyncRunner

LearnerFactory = Callable[..., Learner]
RolloutFactory = Callable[..., Rollout]
BOX = Box(-1.0, 1.0, (4,))
PPO: dict[str, Any] = {
    "num_epochs": 3, "num_minibatches": 2, "clip_ratio": 0.1, "normalize_advantages": "batch", "optimizer": "adam",
    "learning_rate": 0.02, "critic": "separate", "num_steps": 7,
}  # fmt: skip
both_engines = pytest.mark.parametrize("engine", ["numpy", "autograd"])


def epochs_of(learner: Learner) -> Epochs:
    assert learner.epochs is not None
    return learner.epochs


def everything(learner: Learner) -> list[Any]:
    return [learner.train_state.get_state(), learner.get_state()]


def test_other_algorithms_have_no_epochs(make_learner: LearnerFactory) -> None:
    assert make_learner(BOX).epochs is None
    for name, value in {"num_epochs": 2, "num_minibatches": 2, "clip_ratio": 0.2, "value_clip": 1.0}.items():
        assert make_learner(BOX, **{name: value}).epochs is not None


@both_engines
@pytest.mark.parametrize("stream", ["next_step", "same_step"])
def test_one_update_per_rollout_is_that_of_a2c_bit_for_bit(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine, stream: str
) -> None:
    settings = {"critic": "target", "normalize_advantages": "batch", "normalize_rewards": True, "optimizer": "adam"}
    plain = make_learner(BOX, engine, num_steps=7, **settings)
    clipped = make_learner(BOX, engine, num_steps=7, clip_ratio=0.2, value_clip=0.1, target_kl=1e-9, **settings)
    for seed in range(4):
        rollout = make_rollout(BOX, seed, stream=stream)
        expected, found = update_metrics(plain, rollout, 0.1), update_metrics(clipped, rollout, 0.1)
        names = expected.keys() - {"train/policy_loss"}  # a mean of r Â instead of log π Â, with one derivative
        assert {name: found[name] for name in names} == {name: expected[name] for name in names}
        assert_same(plain.train_state.get_state(), clipped.train_state.get_state())


# --------------------------------------------------------------------------- the gradient


def oracle(learner: Learner, batch: Batch) -> torch.Tensor:
    """The gradient of the loss by autograd, from torch.distributions and the formulas of the paper."""
    a, r = learner.algorithm, batch.rollout
    state = None if r.recurrent_state is None else torch.from_numpy(r.recurrent_state)
    output = learner.model(torch.from_numpy(r.obs), state, torch.from_numpy(r.episode_start))
    rows = torch.from_numpy(r.valid > 0)
    policy = torch.distributions.Categorical(logits=output.params[:-1])
    values, old_values = output.values[:-1][rows], torch.from_numpy(batch.values)[rows]
    returns = torch.from_numpy(batch.targets.returns)[rows]
    advantages = torch.from_numpy(batch.targets.advantages)[rows]
    if a.normalize_advantages == "batch":
        advantages = (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)
    ratios = (policy.log_prob(torch.from_numpy(r.actions)) - torch.from_numpy(batch.log_probs))[rows].exp()
    assert a.clip_ratio is not None
    for side in (ratios < 1 - a.clip_ratio, ratios > 1 + a.clip_ratio):
        assert (side & (advantages > 0)).any()
        assert (side & (advantages < 0)).any()
    bounded = torch.clamp(ratios, 1 - a.clip_ratio, 1 + a.clip_ratio)
    loss = -torch.minimum(ratios * advantages, bounded * advantages).mean()
    error = (values - returns) ** 2
    if a.value_clip is not None:
        near = old_values + torch.clamp(values - old_values, -a.value_clip, a.value_clip)
        error = torch.maximum(error, (near - returns) ** 2)
    loss = loss + a.vf_coef * error.mean() - a.ent_coef * policy.entropy()[rows].mean()
    gradients = torch.autograd.grad(loss, list(learner.model.parameters()), allow_unused=True)
    zeros = [torch.zeros_like(p) for p in learner.model.parameters()]
    return torch.cat([(z if g is None else g).reshape(-1) for g, z in zip(gradients, zeros, strict=True)])


def perturbed(learner: Learner, rollout: Rollout, seed: int = 0) -> Batch:
    """The whole rollout as a batch whose old policy and old values are others than the present ones."""
    rng = np.random.default_rng(seed)
    batch = epochs_of(learner)._prepare(rollout)
    noise, moved = rng.standard_normal((2, *rollout.valid.shape)).astype(np.float32)
    assert batch.log_probs is not None
    return batch._replace(log_probs=batch.log_probs + 0.4 * noise, values=batch.values + moved)


@pytest.mark.parametrize(
    ("engine", "settings"),
    [
        ("numpy", {}),
        ("numpy", {"value_clip": 0.5, "critic": "shared"}),
        ("autograd", {"value_clip": 0.5}),
        ("autograd", {"normalize_advantages": "none"}),
        ("auto", {"core": "lstm", "core_size": 5}),
        ("auto", {"core": "gru", "core_size": 5, "critic": "shared", "value_clip": 0.5}),
    ],
)
def test_the_gradient_of_a_minibatch_is_that_of_an_independent_oracle(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine, settings: dict[str, Any]
) -> None:
    learner = make_learner(BOX, engine, **{**PPO, "ent_coef": 0.1, "num_steps": 32, **settings})
    rollout = make_rollout(BOX, T=32, B=6)
    if learner.model.state_size:
        state = np.random.default_rng(1).standard_normal((6, learner.model.state_size)).astype(np.float32)
        rollout = dataclasses.replace(rollout, recurrent_state=state)
    whole = perturbed(learner, rollout)
    parts = [*epochs_of(learner)._minibatches(whole, 2, np.random.default_rng(0))]
    assert len(parts) == 2
    for part in parts:
        assert epochs_of(learner)._gradients(part) is not None
        expected = oracle(learner, part)
        assert expected.abs().max() > 0.01
        torch.testing.assert_close(learner.flat.grads, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("engine", "settings"), [("numpy", {}), ("autograd", {}), ("auto", {"core": "lstm"}), ("auto", {"core": "gru"})]
)
def test_the_gradients_of_minibatches_add_up_to_that_of_the_rollout(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine, settings: dict[str, Any]
) -> None:
    learner = make_learner(BOX, engine, **{**PPO, "normalize_advantages": "none", **settings})
    rollout = make_rollout(BOX, T=7, B=5)
    if learner.model.state_size:
        state = np.random.default_rng(1).standard_normal((5, learner.model.state_size)).astype(np.float32)
        rollout = dataclasses.replace(rollout, recurrent_state=state)
    whole, total = perturbed(learner, rollout), torch.zeros(len(learner.flat))
    epochs_of(learner)._gradients(whole)
    expected = learner.flat.grads.clone()
    for part in epochs_of(learner)._minibatches(whole, 3, np.random.default_rng(0)):
        epochs_of(learner)._gradients(part)
        total += learner.flat.grads * (part.rollout.num_valid / rollout.num_valid)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"num_minibatches": 1, "value_clip": 0.05}, {"clip_ratio": None}])
def test_both_engines_make_the_same_updates(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, settings: dict[str, Any]
) -> None:
    one, two = (make_learner(BOX, engine, **{**PPO, **settings}) for engine in ("numpy", "autograd"))
    before = one.flat.params.clone()
    for seed in range(3):
        rollout = make_rollout(BOX, seed)
        found, expected = (update_metrics(learner, rollout, 0.1) for learner in (one, two))
        assert found == pytest.approx(expected, rel=1e-2, abs=1e-4)
    torch.testing.assert_close(one.flat.params, two.flat.params, rtol=0, atol=2e-4)
    assert (one.flat.params - before).abs().max() > 0.02
    assert one.num_updates == two.num_updates == 3 * 3 * one.algorithm.num_minibatches


# --------------------------------------------------------------------------- once per rollout


def test_targets_are_those_before_the_first_update(make_learner: LearnerFactory, make_rollout: RolloutFactory) -> None:
    learner, rollout = make_learner(BOX, **{**PPO, "num_minibatches": 1}), make_rollout(BOX)
    values, next_values = (array.copy() for array in learner.network.values(rollout))
    old_log_probs = learner.network.log_probs()
    returns, advantages = learner.targets(rollout, values, next_values)
    for _ in learner.successive_gradients(rollout):
        (last,) = learner.last_updates
        np.testing.assert_array_equal(last.targets.returns, returns)
        np.testing.assert_array_equal(last.targets.advantages, standardize(advantages, rollout.valid))
        assert last.log_ratios is not None
        np.testing.assert_allclose(last.log_ratios, last.log_probs - old_log_probs, atol=1e-6)
        learner.apply(0.0)
    assert np.abs(last.log_ratios).max() > 0.05


def test_episodes_and_running_statistics_count_once_per_rollout(
    make_learner: LearnerFactory, make_rollout: RolloutFactory
) -> None:
    learner = make_learner(
        BOX, **{**PPO, "critic": "target", "normalize_advantages": "running", "normalize_rewards": True},
        target_update_at="episode_end", target_update_every=1000,
    )  # fmt: skip
    rollout = make_rollout(BOX)
    learner.update(rollout, 0.0)
    assert learner.num_updates == 6
    assert learner.get_state()["target_clock"] == rollout.episodes_ended > 0
    assert learner.reward_normalizer is not None
    assert learner.reward_normalizer.statistics.moments.size == rollout.num_valid
    assert learner.advantage_normalizer is not None
    assert learner.advantage_normalizer.mean_weight == pytest.approx(0.01)  # 1 − decay, after one


def test_a_rollout_without_transitions_changes_nothing(
    make_learner: LearnerFactory, make_rollout: RolloutFactory
) -> None:
    learner, rollout = make_learner(BOX, **PPO), make_rollout(BOX)
    before = learner.flat.params.clone()
    learner.update(dataclasses.replace(rollout, valid=rollout.valid * 0.0, num_valid=0), 0.0)
    assert torch.equal(learner.flat.params, before)
    assert learner.num_updates == 0


# --------------------------------------------------------------------------- the KL stop, metrics, state


@both_engines
def test_target_kl_leaves_out_the_updates_after_the_policy_has_moved(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine
) -> None:
    """The update that would follow is not made: parameters are those of the updates before it."""
    rollout = make_rollout(BOX)
    free, stopped = make_learner(BOX, engine, **PPO), make_learner(BOX, engine, **PPO, target_kl=1e-4)
    snapshots, kls = [], []
    for _ in free.successive_gradients(rollout):
        kls.append(free.metrics()["train/approx_kl"])
        free.apply(0.0)
        snapshots.append(free.flat.params.clone())
    metrics = update_metrics(stopped, rollout, 0.0)
    assert 1 <= stopped.num_updates < 6
    assert metrics["train/epochs"] == stopped.num_updates / 2
    assert torch.equal(stopped.flat.params, snapshots[stopped.num_updates - 1])
    assert max(kls) > 1.5e-4


@both_engines
def test_metrics_are_means_over_the_minibatches_of_the_last_epoch(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine
) -> None:
    learner, rollout = make_learner(BOX, engine, **PPO), make_rollout(BOX)
    rows: list[dict[str, float]] = []
    for _ in learner.successive_gradients(rollout):
        whole = learner.last_updates
        learner.last_updates = whole[-1:]
        rows.append(learner.metrics())
        learner.last_updates = whole
        learner.apply(0.25)
    metrics = learner.metrics()
    assert set(metrics) == {
        "train/policy_loss", "train/value_loss", "train/entropy", "train/explained_variance", "train/advantage_std",
        "train/value_mean", "train/grads_clipped",
        "train/approx_kl", "train/clip_fraction", "train/epochs", "train/grad_norm", "train/learning_rate",
        "train/reward_max",
    }  # fmt: skip
    for name in ("policy_loss", "value_loss", "entropy", "value_mean", "approx_kl", "clip_fraction"):
        mean = np.mean([row[f"train/{name}"] for row in rows[-2:]])
        assert metrics[f"train/{name}"] == pytest.approx(float(mean), rel=1e-5, abs=1e-7)
    assert metrics["train/clip_fraction"] > 0.0
    assert metrics["train/approx_kl"] > 0.0
    assert metrics["train/epochs"] == 3.0


@both_engines
def test_the_order_of_rows_continues_from_a_state(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Engine
) -> None:
    whole, first = (make_learner(BOX, engine, **PPO) for _ in range(2))
    for learner in (whole, first):
        for seed in range(2):
            learner.update(make_rollout(BOX, seed), 0.1)
    second = make_learner(BOX, engine, seed=9, **PPO)
    second.train_state.set_state(first.train_state.get_state())
    second.set_state(first.get_state())
    other = make_learner(BOX, engine, **PPO)  # with the parameters, but not with the random stream
    other.train_state.set_state(first.train_state.get_state())
    for learner in (whole, second, other):
        learner.update(make_rollout(BOX, 2), 0.2)
    assert_same(everything(second), everything(whole))
    assert not torch.equal(other.flat.params, whole.flat.params)


# --------------------------------------------------------------------------- with environments


def runners(**settings: Any) -> Iterator[SyncRunner]:
    """Synchronous runs of the same settings on both engines, after 160 steps."""
    factory = settings.pop("factory", None)
    config = quick_config("ppo", total_timesteps=160, **settings)
    for engine in ("auto", "autograd"):
        actor_learner = make_actor_learner(config, factory, config.seed)
        if engine == "autograd":
            old = actor_learner.learner
            learner = Learner(old.model, config.algorithm, config.optim, engine="autograd")
            epochs_of(learner).set_state(epochs_of(old).get_state())
            actor_learner = type(actor_learner)(actor_learner.collector, learner, actor_learner.policy.rng)  # type: ignore[arg-type]
        runner = SyncRunner(actor_learner, 160)
        while runner.num_steps < 160:
            runner.advance(160, 10.0)
        yield runner
        runner.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"env_id": "limelight.envs.toy:Catch", "critic": "shared", "normalize_obs": True, "encoder": "a3c"},
        {"env_id": "limelight.envs.toy:Catch", "encoder": "a3c", "num_envs": 1, "num_steps": 8, "critic": "separate"},
        {"env_id": "limelight.envs.toy:Catch", "encoder": "universe", "core": "lstm", "core_size": 8},
        {"num_envs": 1, "num_steps": 16},
        {"num_envs": 1, "num_steps": 16, "num_minibatches": 1},
        {"env_id": "Pendulum-v1", "normalize_obs": True, "autoreset_mode": "same_step", "max_episode_steps": 7},
        {"env_id": "mask", "factory": lambda: Observed(), "num_steps": 8},
    ],
    ids=lambda settings: " ".join(settings),
)
def test_kept_activations_images_and_masks_make_the_updates_of_autograd(settings: dict[str, Any]) -> None:
    """Activations of acting are of other rows, and of other parameters after the first update."""
    settings = {"num_minibatches": 2, "learning_rate": 1e-3, "num_epochs": 3, **settings}
    auto, autograd = runners(**settings)
    one, two = auto.actor_learner.learner, autograd.actor_learner.learner
    assert one.num_updates == two.num_updates >= 15
    torch.testing.assert_close(one.flat.params, two.flat.params, rtol=0, atol=1e-3)
    assert all(np.isfinite(value) for value in one.metrics().values())


def test_it_learns_the_best_arm() -> None:
    config = quick_config(
        "ppo", total_timesteps=3000, num_envs=4, num_steps=32, learning_rate=0.01, lr_schedule="constant"
    )
    actor_learner = make_actor_learner(config, lambda: Bandit((0.0, 0.5, 1.0), noise=0.5), 0)
    runner = SyncRunner(actor_learner, 3000)
    assert isinstance(actor_learner.collector.envs.single_action_space, Discrete)
    metrics: dict[str, float] = {}
    while runner.num_steps < 3000:
        metrics = runner.advance(3000, 10.0)
    with torch.no_grad():
        params, _ = actor_learner.learner.model.policy(torch.ones(1, 1, 1))
    assert float(params.softmax(-1)[0, 0, 2]) > 0.9
    assert metrics["train/epochs"] == 4.0
    runner.close()
