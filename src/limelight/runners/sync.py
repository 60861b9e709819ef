"""One process: collect, learn, repeat. AC and A2C run here; made by train.py."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from limelight.algo.episodes import Episode
from limelight.runners.actor_learner import ActorLearner
from limelight.runners.base import ENV_STATE_NOT_RESTORED
from limelight.typing import Metrics, State


class SyncRunner:
    """The synchronous runner: every rollout is collected with, and learnt by, the newest parameters."""

    def __init__(self, actor: ActorLearner, total_timesteps: int) -> None:
        self.actor_learner, self.total_timesteps = actor, total_timesteps
        self.num_steps, self.seconds = 0, 0.0

    def advance(self, until: int, seconds: float) -> Metrics:
        """See :class:`limelight.runners.base.Runner`."""
        actor, learner = self.actor_learner, self.actor_learner.learner
        start = now = time.perf_counter()
        while self.num_steps < until and now < start + seconds:
            rollout = actor.collect()
            learner.update(rollout, self.num_steps / self.total_timesteps)
            self.num_steps += rollout.num_valid
            now = time.perf_counter()
        self.seconds += now - start
        return learner.metrics() if self.num_steps >= until else {}

    def pop_episodes(self) -> list[Episode]:
        """See :class:`limelight.runners.base.Runner`."""
        return self.actor_learner.collector.pop_episodes()

    def pop_messages(self) -> list[str]:
        """None: what goes wrong here is raised."""
        return []

    def get_state(self) -> State:
        """See :class:`limelight.runners.base.Runner`."""
        return {
            "num_steps": self.num_steps,
            "seconds": self.seconds,
            "train_state": self.actor_learner.learner.train_state.get_state(),
            "actor": self.actor_learner.get_state(),
        }

    def set_state(self, state: Mapping[str, Any], seed: int) -> str | None:
        """See :class:`limelight.runners.base.Runner`."""
        self.num_steps, self.seconds = int(state["num_steps"]), float(state["seconds"])
        self.actor_learner.learner.train_state.set_state(state["train_state"])
        return None if self.actor_learner.set_state(state["actor"], seed) else ENV_STATE_NOT_RESTORED

    def close(self) -> None:
        """See :class:`limelight.runners.base.Runner`."""
        self.actor_learner.close()
