"""One asynchronous worker equals the synchronous runner: the same parameters, bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import limelight
from helpers.manual_workers import assert_same, draw_no_report, quick_config, worker_group
from limelight.runners.actor_learner import make_actor_learner, running_statistics
from limelight.runners.sync import SyncRunner
from limelight.runs.checkpoint import checkpoints, latest_checkpoint, read_state
from limelight.training.run import run

EVERYTHING: dict[str, Any] = {
    "critic": "target", "normalize_obs": True, "optimizer": "adam", "normalize_advantages": "running",
    "lr_schedule": "linear", "ent_schedule": "linear",
}  # fmt: skip
EPOCHS: dict[str, Any] = {
    "num_epochs": 3, "num_minibatches": 2, "clip_ratio": 0.1, "normalize_advantages": "batch", "optimizer": "adam",
}  # fmt: skip


@pytest.mark.parametrize("update_order", ["locked", "lock_free"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"critic": "target", "target_update_every": 3, "tau": 0.2},
        {"critic": "separate", "critic_learning_rate": 1e-3},
        {"critic": "target", "target_update_at": "episode_end"},
        {"normalize_obs": True},
        {"normalize_rewards": True},
        {"env_id": "Pendulum-v1", "normalize_obs": True, "normalize_rewards": True, "noise_correlation": 0.7},
        {"env_id": "Pendulum-v1", "action_std": "gsde", "noise_correlation": 0.9},
        {"optimizer": "adam"},
        {"optimizer": "rmsprop_tf", "lr_schedule": "constant"},
        {"normalize_advantages": "running"},
        {"ent_schedule": "linear", "ent_coef": 0.2},
        {"critic_output": "q", "q_bootstrap": "sarsa", "critic": "target", "autoreset_mode": "same_step"},
        {"critic_output": "q", "q_bootstrap": "sarsa", "core": "gru", "core_size": 8, "policy_weight": "td_error"},
        {"returns": "n_step", "return_steps": 2, "normalize_returns": True},
        {"num_envs": 1, "num_steps": 1},  # rollouts without any transition
        {"activation": "silu"},  # no written-out backward
        {"core": "lstm", "core_size": 8},
        {"env_id": "limelight.envs.toy:Catch", "encoder": "a3c"},  # with an activation cache
        {
            "env_id": "limelight.envs.toy:Catch", "encoder": "universe", "normalize_obs": True, "core": "lstm",
            "core_size": 8,
        },
        {**EVERYTHING, "autoreset_mode": "same_step"},
        {"optimizer_statistics": "per_worker"},
        {**EPOCHS, "value_clip": 0.2, "critic": "target", "target_update_at": "episode_end", "normalize_rewards": True},
        {**EPOCHS, "activation": "silu", "target_kl": 1e-3},
        {**EPOCHS, "core": "lstm", "core_size": 8},
    ],
    ids=lambda s: "-".join(s) or "default",
)  # fmt: skip
def test_one_worker_equals_the_synchronous_runner(settings: dict[str, Any], update_order: str) -> None:
    total = 120 if "encoder" in settings else 600
    config = quick_config(total_timesteps=total, update_order=update_order, **settings)
    settings = {key: value for key, value in settings.items() if key != "optimizer_statistics"}
    sync = SyncRunner(
        make_actor_learner(quick_config("a2c", total_timesteps=total, **settings), None, config.seed), total
    )
    sync.advance(total, np.inf)
    with worker_group(config) as group:
        (worker,) = group.workers
        initial = group.main.learner.flat.params
        while worker.steps.sum() < total:
            worker.update()
        worker.send_state()  # as for a checkpoint: this also shares the statistics of the last rollout
        assert worker.steps.sum() == sync.num_steps
        assert_same(group.shared.train_state(0).get_state(), sync.actor_learner.learner.train_state.get_state())
        assert_same(worker.actor_learner.get_state(), sync.actor_learner.get_state())
        named = running_statistics(sync.actor_learner.normalizer, sync.actor_learner.learner)
        for name, statistics in named.items():
            assert_same(group.shared.read_statistics(name), statistics.moments)
        assert worker.channel.sent[0].episodes == sync.pop_episodes()  # type: ignore[attr-defined]
        assert float((initial - group.shared.train_state(0).params).abs().max()) > 1e-3
    sync.close()


@pytest.mark.parametrize("steps", [10**15, 2_000])
def test_one_worker_equals_the_synchronous_runner_by_a_budget_of_episodes(steps: int) -> None:
    """The schedules take the share of the budget of which more is used; both end with the same rollout."""
    settings = {"total_timesteps": steps, "total_episodes": 9, "ent_schedule": "linear", "lr_schedule": "linear"}
    config = quick_config(update_order="locked", **settings)
    sync = SyncRunner(make_actor_learner(quick_config("a2c", **settings), None, config.seed), steps, 9)
    assert sync.advance(steps, np.inf)
    assert sync.num_episodes >= 9
    assert sync.advance(steps, np.inf) == {}
    with worker_group(config) as group:
        (worker,) = group.workers
        while worker.is_due():
            worker.update()
        assert worker.steps.sum() == sync.num_steps < 1_000
        assert worker.finished.sum() == sync.num_episodes
        assert_same(group.shared.train_state(0).get_state(), sync.actor_learner.learner.train_state.get_state())
        assert worker.episodes == sync.pop_episodes()
        assert worker.actor_learner.learner.progress == max(sync.actor_learner.learner.progress, 8 / 9)
    sync.close()


def state_of(run_dir: Path) -> dict[str, Any]:
    newest = latest_checkpoint(run_dir)
    assert newest is not None
    return read_state(newest)


def episodes_of(run_dir: Path) -> list[list[str]]:
    """All columns of monitor.csv but the time, for every episode."""
    lines = (run_dir / "monitor.csv").read_text().splitlines()[2:]
    return [[value for i, value in enumerate(line.split(",")) if i != 2] for line in lines]


@pytest.mark.slow
def test_a_whole_run_and_its_resumption_equal_the_synchronous_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_no_report(monkeypatch)
    settings = {**EVERYTHING, "total_timesteps": 900, "checkpoint_every": 200, "keep_last": 9}
    settings |= {"critic_output": "q", "q_bootstrap": "sarsa"}  # whose draws are a part of the state
    whole = run(quick_config(update_order="locked", run_dir=str(tmp_path / "whole"), **settings), quiet=True).run_dir
    sync = run(quick_config("a2c", run_dir=str(tmp_path / "sync"), **settings), quiet=True).run_dir
    expected, state = state_of(sync), state_of(whole)
    for key in ("params", "normalizer"):
        assert_same(state[key], expected[key])
    assert_same(state["training"]["runner"]["train_states"], [expected["training"]["runner"]["train_state"]])
    (worker,) = state["training"]["runner"]["workers"]
    assert_same(worker, expected["training"]["runner"]["actor"])

    episodes = episodes_of(whole)
    assert len(episodes) > 10
    assert episodes == episodes_of(sync)

    stopped = tmp_path / "stopped"
    shutil.copytree(whole, stopped)
    for later in checkpoints(stopped)[1:]:
        shutil.rmtree(later)
    assert state_of(stopped)["training"]["runner"]["num_steps"] < 400
    limelight.resume(stopped, quiet=True)
    assert "continues the run but does not repeat it" in capsys.readouterr().err
    resumed = state_of(stopped)
    assert episodes_of(stopped) == episodes  # each once, whether before or after the checkpoint
    for one in (state, resumed):
        del one["training"]["runner"]["seconds"], one["config"]["run_dir"]
        del one["training"]["collapse"]  # evidence from logged rows, whose steps differ from run to run
    assert_same(resumed, state)
