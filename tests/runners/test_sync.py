"""The synchronous runner: the step counts of its episodes."""

from __future__ import annotations

import numpy as np

from helpers.manual_workers import quick_config
from limelight.algo.episodes import Episode
from limelight.runners.actor_learner import make_actor_learner
from limelight.runners.sync import SyncRunner


def episodes_of(seconds: float) -> list[Episode]:
    """Train for 600 steps, in calls of ``advance`` of that many seconds."""
    config = quick_config("a2c", total_timesteps=600)
    runner = SyncRunner(make_actor_learner(config, None, config.seed), 600)
    while runner.num_steps < 600:
        runner.advance(600, seconds)
    runner.close()
    return runner.pop_episodes()


def test_the_steps_of_episodes_do_not_depend_on_how_long_advance_runs() -> None:
    at_once, one_update_each = episodes_of(np.inf), episodes_of(1e-6)
    assert at_once == one_update_each
    steps = [episode.step for episode in at_once]
    assert len(set(steps)) > 10
    assert steps == sorted(steps)
    assert all(episode.length <= episode.step <= 600 + 10 for episode in at_once)
