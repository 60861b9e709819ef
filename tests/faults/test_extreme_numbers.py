"""Rewards and settings beyond all measure: the parameters stay finite."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from conftest import LearnerFactory, RolloutFactory
from limelight.algo.learner import Learner
from limelight.errors import NonFiniteError

SPACE = Box(-1.0, 1.0, (3,), np.float32)
ACTIONS = {"discrete": Discrete(3), "continuous": Box(-1.0, 1.0, (2,), np.float32)}
CASES: dict[str, dict[str, Any]] = {
    "huge rewards": {"reward": 1e30},
    "huge rewards, normalised": {"reward": 1e30, "normalize_rewards": True},
    "huge rewards, clipped": {"reward": 1e30, "reward_clip": 1.0},
    "no reward": {"reward": 0.0},
    "no reward, standardised": {"reward": 0.0, "normalize_advantages": "batch"},
    "no reward, normalised": {"reward": 0.0, "normalize_rewards": True},
    "entropy": {"reward": 1.0, "ent_coef": 10.0, "learning_rate": 1.0},
    "entropy, epochs": {"reward": 1.0, "ent_coef": 10.0, "num_epochs": 2, "clip_ratio": 0.2, "learning_rate": 1.0},
    "huge steps": {"reward": 1.0, "learning_rate": 10.0, "max_grad_norm": None},
}


def updates(learner: Learner, rollouts: list[Any], number: int) -> None:
    """Make updates until one is refused, which must leave all parameters and the optimizer's state finite."""
    with np.errstate(all="ignore"), contextlib.suppress(NonFiniteError):
        for i in range(number):
            learner.update(rollouts[i % len(rollouts)], i / number)
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
    updates(*make(case, actions, "rmsprop", make_learner, make_rollout), 60)


@pytest.mark.faults
@pytest.mark.parametrize("optimizer", ["rmsprop", "rmsprop_tf", "adam"])
@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("case", CASES)
def test_parameters_stay_finite_over_ten_thousand_updates(
    case: str, actions: str, optimizer: str, make_learner: LearnerFactory, make_rollout: RolloutFactory
) -> None:
    updates(*make(case, actions, optimizer, make_learner, make_rollout), 10_000)
