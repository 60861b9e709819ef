"""Next actions drawn for bootstrapping: their stream is saved, and drawn from only where it is used."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from limelight.algo.learner import Learner
from limelight.algo.rollout import Rollout
from limelight.seeds import Stream, derive_seed

BOX = Box(-1.0, 1.0, (4,))
LearnerFactory = Callable[..., Learner]
RolloutFactory = Callable[..., Rollout]


@pytest.mark.parametrize("engine", ["numpy", "autograd"])
def test_draws_of_next_actions_continue_from_a_saved_state(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: str
) -> None:
    settings = {"critic_output": "q", "q_bootstrap": "sarsa", "engine": engine}
    learner, again = make_learner(BOX, **settings), make_learner(BOX, **settings)
    learner.gradients(make_rollout(BOX, 1))
    again.set_state(copy.deepcopy(learner.get_state()))
    for one in (learner, again):
        one.gradients(make_rollout(BOX, 2))
    assert torch.equal(learner.flat.grads, again.flat.grads)
    first = learner.flat.grads.clone()
    learner.gradients(make_rollout(BOX, 2))
    assert not torch.equal(learner.flat.grads, first)  # other draws


@pytest.mark.parametrize("settings", [{}, {"critic_output": "q"}])
def test_nothing_is_drawn_without_sampled_next_actions(make_learner: LearnerFactory, settings: Any) -> None:
    assert make_learner(BOX, **settings).get_state()["next_actions"] is None


def test_epochs_draw_once_per_rollout(make_learner: LearnerFactory, make_rollout: RolloutFactory) -> None:
    learner = make_learner(
        BOX, critic_output="q", q_bootstrap="sarsa", num_epochs=3, num_minibatches=2, clip_ratio=0.2, num_steps=7
    )
    before, rollout = learner.flat.params.clone(), make_rollout(BOX)
    learner.update(rollout, 0.0)
    assert learner.num_updates == 6
    assert not torch.equal(before, learner.flat.params)
    rng = np.random.default_rng(derive_seed(0, Stream.NEXT_ACTIONS))
    rng.random((rollout.valid.size, 1), dtype=np.float32)
    assert learner.get_state()["next_actions"] == {"rng": rng.bit_generator.state}
