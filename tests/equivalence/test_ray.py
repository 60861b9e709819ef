"""One Ray worker equals the synchronous runner, and several equal one learner with all of their rollouts."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

import limelight
from helpers.fake_ray import FakeRay, fake_ray  # noqa: F401  # a fixture
from helpers.manual_workers import assert_same, draw_no_report, quick_config
from limelight.algo.learner import Learner
from limelight.algo.rollout import Rollout
from limelight.runners.actor_learner import make_actor_learner, running_statistics
from limelight.runners.ray.runner import RayRunner
from limelight.runners.ray.updates import MeanGradient, joined_rollout
from limelight.runners.ray.worker import ParameterSnapshot, WorkerResult
from limelight.runners.sync import SyncRunner
from limelight.runs.checkpoint import checkpoints, latest_checkpoint, read_state
from limelight.training.run import build, run

EVERYTHING: dict[str, Any] = {
    "critic": "target", "normalize_obs": True, "normalize_rewards": True, "optimizer": "adam",
    "normalize_advantages": "running", "lr_schedule": "linear", "ent_schedule": "linear",
}  # fmt: skip
BOX = Box(-np.inf, np.inf, (4,), np.float32)


@contextmanager
def make_runner(algo: str = "a2c", **settings: Any) -> Iterator[RayRunner]:
    runner, _ = build(quick_config(algo, runner="ray", **{"num_workers": 1, **settings}), None)
    assert isinstance(runner, RayRunner)
    try:
        yield runner
    finally:
        runner.close()


def advance(runner: Any, until: int) -> None:
    while runner.num_steps < until:
        runner.advance(until, 1.0)


def sync_of(total: int, **settings: Any) -> SyncRunner:
    config = quick_config("a2c", total_timesteps=total, **settings)
    sync = SyncRunner(make_actor_learner(config, None, config.seed), total)
    advance(sync, total)
    sync.close()
    return sync


def running_statistics_of(sync: SyncRunner) -> dict[str, Any]:
    return running_statistics(sync.actor_learner.normalizer, sync.actor_learner.learner)


SETTINGS: list[dict[str, Any]] = [
    {},
    {"critic": "target", "target_update_every": 3, "tau": 0.2},
    {"critic": "target", "target_update_at": "episode_end"},
    {"normalize_obs": True},
    {"env_id": "Pendulum-v1", "normalize_obs": True, "normalize_rewards": True, "noise_correlation": 0.7},
    {"optimizer": "rmsprop_tf", "lr_schedule": "constant"},
    {"normalize_advantages": "running"},
    {"ent_schedule": "linear", "ent_coef": 0.2},
    {"critic_output": "q", "q_bootstrap": "sarsa", "critic": "target", "autoreset_mode": "same_step"},
    {"returns": "mc", "normalize_returns": True},
    {"num_envs": 1, "num_steps": 1},  # rollouts without any transition
    {"activation": "silu"},  # no written-out backward
    {"core": "lstm", "core_size": 8},
    {"env_id": "limelight.envs.toy:Catch", "encoder": "a3c"},
    {"env_id": "limelight.envs.toy:Catch", "encoder": "a3c", "critic": "target", "normalize_obs": True},
    {**EVERYTHING, "autoreset_mode": "same_step"},
]


@pytest.mark.parametrize("algo", ["a2c", "a3c"])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(s) or "default")
def test_one_worker_equals_the_synchronous_runner(
    fake_ray: FakeRay,  # noqa: F811
    settings: dict[str, Any],
    algo: str,
) -> None:
    total = 120 if "encoder" in settings else 600
    sync = sync_of(total, **settings)
    with make_runner(algo, total_timesteps=total, **settings) as runner:
        initial = runner.learner.flat.params.clone()
        advance(runner, total)
        assert runner.num_steps == sync.num_steps
        assert_same(runner.learner.train_state.get_state(), sync.actor_learner.learner.train_state.get_state())
        for name, statistics in running_statistics_of(sync).items():
            assert_same(runner.running_statistics[name].moments, statistics.moments)
        assert runner.pop_episodes() == sync.pop_episodes()
        assert float((initial - runner.learner.flat.params).abs().max()) > 1e-3


@pytest.mark.parametrize("algo", ["a2c", "a3c"])
def test_one_worker_equals_the_synchronous_runner_by_a_budget_of_episodes(
    fake_ray: FakeRay,  # noqa: F811
    algo: str,
) -> None:
    settings = {"total_timesteps": 10**15, "total_episodes": 9, "ent_schedule": "linear"}
    config = quick_config("a2c", **settings)
    sync = SyncRunner(make_actor_learner(config, None, config.seed), 10**15, 9)
    sync.advance(10**15, np.inf)
    sync.close()
    with make_runner(algo, **settings) as runner:
        metrics: dict[str, float] = {}
        while runner.num_episodes < 9:
            metrics = runner.advance(10**15, 1.0)
        assert metrics["train/entropy"] > 0.0
        assert (runner.num_steps, runner.num_episodes) == (sync.num_steps, sync.num_episodes)
        assert_same(runner.learner.train_state.get_state(), sync.actor_learner.learner.train_state.get_state())
        assert runner.pop_episodes() == sync.pop_episodes()


EPOCHS: dict[str, Any] = {
    "num_epochs": 3, "num_minibatches": 2, "clip_ratio": 0.1, "normalize_advantages": "batch", "optimizer": "adam",
    "worker_output": "rollouts",
}  # fmt: skip


def sync_of_epochs(total: int, **settings: Any) -> SyncRunner:
    return sync_of(total, **{key: value for key, value in settings.items() if key != "worker_output"})


@pytest.mark.parametrize("algo", ["a2c", "a3c"])
@pytest.mark.parametrize("settings", [{}, {"normalize_obs": True, "normalize_rewards": True}, {"core": "gru"}], ids=str)
def test_one_worker_with_several_updates_per_rollout_equals_the_synchronous_runner(
    fake_ray: FakeRay,  # noqa: F811
    settings: dict[str, Any],
    algo: str,
) -> None:
    """Not bit for bit, as for single updates from rollouts. An asynchronous worker sends log π_old, the same here."""
    sync = sync_of_epochs(300, **EPOCHS, **settings)
    with make_runner(algo, total_timesteps=300, **EPOCHS, **settings) as runner:
        advance(runner, 300)
        assert runner.num_steps == sync.num_steps
        expected = sync.actor_learner.learner
        assert runner.learner.num_updates == expected.num_updates > 100
        torch.testing.assert_close(runner.learner.flat.params, expected.flat.params, rtol=1e-2, atol=2e-3)
        assert runner.version == expected.num_updates / 6


@pytest.mark.parametrize("stream", ["next_step", "same_step"])
def test_updates_from_two_workers_are_those_from_one_with_both_batches(
    make_learner: Callable[..., Learner], make_rollout: Callable[..., Rollout], stream: str
) -> None:
    one, two = make_rollout(BOX, 1, stream=stream), make_rollout(BOX, 2, B=5, stream=stream)
    results = [make_result(index, rollout, None, rollout) for index, rollout in enumerate((one, two))]
    whole, expected = joined_rollout(results), side_by_side(one, two)
    for name in ("obs", "actions", "rewards", "terminated", "truncated", "valid", "episode_start", "num_valid"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(expected, name))
    if stream == "same_step":
        assert whole.final_obs is not None
        assert expected.final_obs is not None
        for found, wanted in zip(whole.final_obs[:3], expected.final_obs[:3], strict=True):
            np.testing.assert_array_equal(found, wanted)
    learner = make_learner(BOX, num_epochs=2, num_minibatches=3, clip_ratio=0.2)
    before = learner.flat.params.clone()
    learner.update(whole, 0.0)
    assert learner.num_updates == 6
    assert not torch.equal(learner.flat.params, before)


def test_the_ratio_is_that_to_the_policy_that_acted(
    make_learner: Callable[..., Learner], make_rollout: Callable[..., Rollout]
) -> None:
    """An older rollout brings its log π_old: already the first update has ratios other than 1."""
    learner, rollout = make_learner(BOX, num_epochs=2, clip_ratio=0.2), make_rollout(BOX)
    older = dataclasses.replace(rollout, log_probs=learner.log_probs(rollout) + np.float32(0.1))
    for expected, sent in ((0.0, rollout), (-0.1, older)):
        next(iter(learner.successive_gradients(sent)))
        (last,) = learner.last_updates
        np.testing.assert_allclose(last.log_ratios, expected, atol=1e-6)


@pytest.mark.parametrize("algo", ["a2c", "a3c"])
def test_metrics_of_a_row_are_those_of_the_last_update_before_it(fake_ray: FakeRay, algo: str) -> None:  # noqa: F811
    config = quick_config("a2c", total_timesteps=600)
    sync = SyncRunner(make_actor_learner(config, None, config.seed), 600)
    with make_runner(algo, total_timesteps=600) as runner:
        for until in (100, 350, 600):
            expected, row = sync.advance(until, np.inf), runner.advance(until, np.inf)
            assert len(expected) > 5
            assert {name: value for name, value in row.items() if name.startswith("train/")} == {
                name: value for name, value in expected.items() if name.startswith("train/")
            }
    sync.close()


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(s) or "default")
def test_learning_from_sent_rollouts_equals_the_synchronous_runner(
    fake_ray: FakeRay,  # noqa: F811
    settings: dict[str, Any],
) -> None:
    """Not bit for bit: the learner computes activations again, in one product for all rows."""
    total = 120 if "encoder" in settings else 300
    sync = sync_of(total, **settings)
    with make_runner(total_timesteps=total, worker_output="rollouts", **settings) as runner:
        advance(runner, total)
        assert runner.num_steps == sync.num_steps
        expected = sync.actor_learner.learner.train_state.params
        torch.testing.assert_close(runner.learner.train_state.params, expected, rtol=1e-3, atol=1e-4)
        for name, statistics in running_statistics_of(sync).items():
            np.testing.assert_allclose(runner.running_statistics[name].moments.mean, statistics.moments.mean, rtol=1e-6)


@pytest.mark.parametrize("worker_output", ["gradients", "rollouts"])
@pytest.mark.parametrize("stream", ["next_step", "same_step"])
def test_the_mean_gradient_of_two_workers_is_that_of_one_with_both_batches(
    fake_ray: FakeRay,  # noqa: F811
    make_learner: Callable[..., Learner],
    make_rollout: Callable[..., Rollout],
    worker_output: str,
    stream: str,
) -> None:
    one, two = make_rollout(BOX, 1, stream=stream), make_rollout(BOX, 2, B=5, stream=stream)
    assert one.num_valid != two.num_valid
    worker, results = make_learner(BOX), []
    for index, rollout in enumerate((one, two)):
        worker.gradients(rollout)
        gradients = worker.flat.grads.numpy().copy()
        sent = (gradients, None) if worker_output == "gradients" else (None, rollout)
        results.append(make_result(index, rollout, *sent))
    learner = make_learner(BOX)
    MeanGradient(learner).compute(results, True)
    both = make_learner(BOX)
    both.gradients(side_by_side(one, two))
    assert both.flat.grads.abs().max() > 1e-2
    torch.testing.assert_close(learner.flat.grads, both.flat.grads, rtol=0, atol=1e-6)


def make_result(worker: int, rollout: Rollout, gradients: Any, sent: Rollout | None) -> WorkerResult:
    return WorkerResult(worker, 0, gradients, sent, rollout.num_valid, rollout.episodes_ended, [], {}, {})


def side_by_side(one: Rollout, two: Rollout) -> Rollout:
    """Return one rollout with the environments of both."""
    both: dict[str, Any] = {"num_valid": one.num_valid + two.num_valid}
    for name in ("obs", "actions", "rewards", "terminated", "truncated", "valid", "episode_start"):
        both[name] = np.concatenate((getattr(one, name), getattr(two, name)), 1)
    if one.final_obs is not None and two.final_obs is not None:
        t, b, obs, _ = (
            np.concatenate(pair) if pair[0] is not None else None
            for pair in zip(one.final_obs, two.final_obs, strict=True)
        )
        b[len(one.final_obs.b) :] += one.rewards.shape[1]
        both["final_obs"] = type(one.final_obs)(t, b, obs)
    return Rollout(**both)


def test_rollouts_of_the_newest_parameters_are_not_corrected(
    make_learner: Callable[..., Learner], make_rollout: Callable[..., Rollout]
) -> None:
    """V-trace with ratios of 1 and λ = 1 gives the n-step advantage, so the same gradient."""
    learner, rollout = make_learner(BOX, gae_lambda=1.0), make_rollout(BOX)
    learner.gradients(rollout)
    expected = learner.flat.grads.clone()
    learner.gradients(dataclasses.replace(rollout, log_probs=learner.log_probs(rollout)))
    torch.testing.assert_close(learner.flat.grads, expected, rtol=1e-4, atol=1e-6)
    older = dataclasses.replace(rollout, log_probs=learner.log_probs(rollout) + np.float32(0.5))
    learner.gradients(older)
    assert (learner.flat.grads - expected).abs().max() > 1e-2


@pytest.mark.parametrize("settings", [{}, {"activation": "silu"}, {"core": "lstm"}], ids=str)
def test_log_probs_are_those_of_the_policy_that_acted(settings: dict[str, Any]) -> None:
    config = quick_config("a2c", **settings)
    actor = make_actor_learner(config, None, 0)
    rollout = actor.collect()
    found = actor.learner.log_probs(rollout)
    with torch.no_grad():
        obs, actions = torch.from_numpy(rollout.obs), torch.from_numpy(rollout.actions)
        memory = (None, None)
        if rollout.recurrent_state is not None:
            memory = torch.from_numpy(rollout.recurrent_state), torch.from_numpy(rollout.episode_start)
        output = actor.learner.model(obs, *memory)
        expected = torch.log_softmax(output.params[:-1], -1).gather(-1, actions[..., None])[..., 0]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    actor.close()


@pytest.mark.parametrize("max_policy_lag", [0, 1, 3])
def test_a_worker_that_lags_too_far_receives_the_newest_parameters(
    fake_ray: FakeRay,  # noqa: F811
    max_policy_lag: int,
) -> None:
    with make_runner("a3c", num_workers=2, max_policy_lag=max_policy_lag, total_timesteps=300) as runner:
        runner.advance(1, 1.0)
        while runner.num_steps < 300:
            runner._step(1000, 1.0)
        lags, sent = runner._lags, [args[0] is not None for name, args in fake_ray.calls if name == "collect_rollout"]
        assert runner.version == len(lags) + 1
        assert np.mean(sent) == pytest.approx(
            1 / (1 + max_policy_lag // 2), abs=0.1
        )  # a worker's own update and the other's
        assert (
            max_policy_lag <= max(lags) <= max_policy_lag + 1
        )  # asked with a lag of K at most, and the other one's update comes
    puts = [value.version for value in fake_ray.puts if isinstance(value, ParameterSnapshot)]
    assert len(puts) == len(set(puts))  # once per version, for all workers


@pytest.mark.parametrize("kept", [1, 2])  # the checkpoint from before the first step, and the next one
@pytest.mark.parametrize("worker_output", ["gradients", "rollouts"])
def test_synchronous_runs_resume_exactly(
    fake_ray: FakeRay,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    worker_output: str,
    kept: int,
) -> None:
    draw_no_report(monkeypatch)
    settings = {**EVERYTHING, "total_timesteps": 900, "checkpoint_every": 300, "keep_last": 9, "num_workers": 2}
    whole = run(
        quick_config("a2c", runner="ray", worker_output=worker_output, run_dir=str(tmp_path / "whole"), **settings),
        quiet=True,
    ).run_dir
    stopped = tmp_path / "stopped"
    shutil.copytree(whole, stopped)
    for later in checkpoints(stopped)[kept:]:
        shutil.rmtree(later)
    assert (state_of(stopped)["training"]["runner"]["num_steps"] == 0) == (kept == 1)
    limelight.resume(stopped, quiet=True)
    assert "resumed at step" in capsys.readouterr().err
    state, resumed = state_of(whole), state_of(stopped)
    for one in (state, resumed):
        del one["training"]["runner"]["seconds"], one["config"]["run_dir"]
    assert_same(resumed, state)


def state_of(run_dir: Path) -> dict[str, Any]:
    newest = latest_checkpoint(run_dir)
    assert newest is not None
    return read_state(newest)


def test_with_prefetch_a_worker_lags_by_its_own_update(fake_ray: FakeRay) -> None:  # noqa: F811
    with make_runner("a3c", prefetch=1, total_timesteps=300) as runner:
        runner._start(1.0)
        while runner.num_steps < 300:
            runner._step(1000, 1.0)
        assert set(runner._lags[1:]) == {1}
        assert runner.pool.workers[0].pending == 1
        state = runner.get_state()
        assert runner.pool.workers[0].pending == 0  # the requested rollouts were learnt from
        assert state["num_steps"] == runner.num_steps > 300
        assert None not in state["workers"]
