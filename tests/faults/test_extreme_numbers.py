"""Rewards and settings beyond all measure: the parameters stay finite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

import limelight
from conftest import LearnerFactory, RolloutFactory
from helpers.manual_workers import draw_no_report
from helpers.overflowing_envs import Pays
from limelight.algo.learner import Learner
from limelight.errors import NonFiniteError
from limelight.runs.checkpoint import latest_checkpoint, read_state

SPACE = Box(-1.0, 1.0, (3,), np.float32)
ACTIONS = {"discrete": Discrete(3), "continuous": Box(-1.0, 1.0, (2,), np.float32)}
CASES: dict[str, dict[str, Any]] = {
    "huge rewards": {"reward": 1e30},
    "huge rewards, normalised": {"reward": 1e30, "normalize_rewards": True},
    "huge rewards, scaled": {"reward": 1e30, "reward_scale": 1e-30},
    "huge rewards, clipped": {"reward": 1e30, "reward_clip": 1.0},
    "no reward": {"reward": 0.0},
    "no reward, standardised": {"reward": 0.0, "normalize_advantages": "batch"},
    "no reward, normalised": {"reward": 0.0, "normalize_rewards": True},
    "entropy": {"reward": 1.0, "ent_coef": 10.0, "learning_rate": 1.0},
    "entropy, epochs": {"reward": 1.0, "ent_coef": 10.0, "num_epochs": 2, "clip_ratio": 0.2, "learning_rate": 1.0},
    "huge steps": {"reward": 1.0, "learning_rate": 10.0, "max_grad_norm": None},
}


ALWAYS_REFUSED = {"huge rewards"}
"""Cases of which every update is refused, as its loss overflows."""
PERHAPS_REFUSED = {"huge steps"}
RARELY_REFUSED = {"entropy, epochs": 1_000}
"""Cases of which one in so many updates may be: the ratio of two policies may overflow in the second epoch."""


def updates(case: str, learner: Learner, rollouts: list[Any], number: int) -> None:
    """Try so many updates, of which no one may leave parameters or the optimizer's state not finite."""
    refused, before = 0, learner.train_state.params.clone()
    with np.errstate(all="ignore"):
        for i in range(number):
            try:
                learner.update(rollouts[i % len(rollouts)], i / number)
            except NonFiniteError:
                refused += 1
    if case not in PERHAPS_REFUSED:
        rarely = number // RARELY_REFUSED[case] if case in RARELY_REFUSED else 0
        assert refused == number if case in ALWAYS_REFUSED else refused <= rarely
        assert torch.equal(learner.train_state.params, before) == (case in ALWAYS_REFUSED)
    assert torch.isfinite(learner.train_state.params).all()
    for state in learner.train_state.optimizer_state.values():
        assert torch.isfinite(state).all()


def make(
    case: str, actions: str, optimizer: str, make_learner: LearnerFactory, make_rollout: RolloutFactory
) -> tuple[Learner, list[Any]]:
    settings = dict(CASES[case])
    reward = settings.pop("reward")
    space = ACTIONS[actions]
    learner = make_learner(SPACE, actions=space, optimizer=optimizer, **settings)
    rollouts = [make_rollout(SPACE, seed, actions=space) for seed in range(4)]
    for rollout in rollouts:
        rollout.rewards[:] = reward * rollout.valid
    return learner, rollouts


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("case", CASES)
def test_parameters_stay_finite(
    case: str, actions: str, make_learner: LearnerFactory, make_rollout: RolloutFactory
) -> None:
    updates(case, *make(case, actions, "rmsprop", make_learner, make_rollout), 60)


@pytest.mark.faults
@pytest.mark.parametrize("optimizer", ["rmsprop", "rmsprop_tf", "adam"])
@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("case", CASES)
def test_parameters_stay_finite_over_ten_thousand_updates(
    case: str, actions: str, optimizer: str, make_learner: LearnerFactory, make_rollout: RolloutFactory
) -> None:
    updates(case, *make(case, actions, optimizer, make_learner, make_rollout), 10_000)


WAYS: dict[str, dict[str, Any]] = {
    "a2c": {"algo": "a2c", "num_envs": 1, "num_steps": 4},
    "a2c, recurrent": {"algo": "a2c", "num_envs": 1, "num_steps": 2, "core": "gru", "core_size": 4},
    "a3c": {"algo": "a3c", "num_envs": 1, "num_steps": 4, "num_workers": 1},
    "ppo": {"algo": "ppo", "num_envs": 1, "num_steps": 4, "num_epochs": 2, "num_minibatches": 2},
    "stream-ac": {"algo": "stream-ac"},
}
UPDATES_OF_ROLLOUT = {"ppo": 4}
REWARDS: dict[str, tuple[float, dict[str, Any]]] = {
    "huge, normalised": (1e30, {"normalize_rewards": True}),
    "huge, scaled": (1e30, {"normalize_rewards": False, "reward_scale": 1e-30}),
    "none": (0.0, {}),
    "an entropy bonus that outweighs them": (1.0, {"ent_coef": 100.0, "learning_rate": 1.0}),
}


def train(way: str, rewards: str, number: int, folder: Path) -> None:
    """Train by at least so many updates; all that the run saves must be finite, and no update left out."""
    reward, settings = REWARDS[rewards]
    settings = {"hidden_sizes": (4,), **WAYS[way], **settings}
    steps = -(-number // UPDATES_OF_ROLLOUT.get(way, 1)) * settings.get("num_steps", 1)
    result = limelight.train(
        Pays, env_kwargs={"reward": reward}, total_timesteps=steps, run_dir=str(folder), quiet=True, eval_every=0,
        final_episodes=0, backend="sync", report_every=0, preset="plain", tensorboard=False, log_every=steps // 10,
        **settings,
    )  # fmt: skip
    assert result.status == "completed"
    newest = latest_checkpoint(folder)
    assert newest is not None
    state = read_state(newest)
    assert np.isfinite(state["params"]).all()
    assert numbers_of(state["training"]["runner"]) > 70  # parameters and averages of the optimizer
    written = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {row.get(name, 0) for row in written for name in SKIPPED} == {0}
    assert None not in {value for row in written for name, value in row.items() if name.startswith("train/")}


SKIPPED = ("train/skipped_updates", "async/skipped_updates")


def numbers_of(value: Any) -> int:
    """Return how many numbers there are in nested data; each must be finite."""
    if isinstance(value, dict | list):
        return sum(map(numbers_of, value.values() if isinstance(value, dict) else value))
    if not isinstance(value, float | np.ndarray) or (isinstance(value, np.ndarray) and value.dtype.kind != "f"):
        return 0
    assert np.isfinite(value).all()
    return np.size(value)


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("rewards", REWARDS)
def test_a_run_stays_finite(rewards: str, tmp_path: Path) -> None:
    train("a2c", rewards, 100, tmp_path / "r")


@pytest.mark.faults
@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("rewards", REWARDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_run_stays_finite_over_ten_thousand_updates(way: str, rewards: str, tmp_path: Path) -> None:
    train(way, rewards, 10_000, tmp_path / "r")
