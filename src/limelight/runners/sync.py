"""One process: collect, learn, repeat. AC and A2C run here; made by train.py."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from limelight.envs.base import State
from limelight.learner import Learner, Metrics
from limelight.nn.policy import ModelPolicy
from limelight.rollout import Episode, RolloutCollector


class SyncRunner:
    """The synchronous runner: every rollout is collected with, and learnt by, the newest parameters."""

    def __init__(
        self, collector: RolloutCollector, learner: Learner, rng: np.random.Generator, total_timesteps: int
    ) -> None:
        self.collector, self.learner, self.rng, self.total_timesteps = (
            collector,
            learner,
            rng,
            total_timesteps,
        )
        self.policy = ModelPolicy(learner.model, rng, learner.numpy)
        self.num_steps = 0

    def advance(self, until: int, seconds: float) -> Metrics:
        """See :class:`limelight.runners.base.Runner`."""
        collector, learner, policy = self.collector, self.learner, self.policy
        rows = collector.num_steps * collector.envs.num_envs
        deadline = time.perf_counter() + seconds
        metrics: Metrics = {}
        while self.num_steps < until and time.perf_counter() < deadline:
            rollout = collector.collect(policy)
            is_last = self.num_steps + rows >= until
            metrics = learner.update(rollout, self.num_steps / self.total_timesteps, want_metrics=is_last)
            self.num_steps += rollout.num_valid
        return metrics

    def pop_episodes(self) -> list[Episode]:
        """See :class:`limelight.runners.base.Runner`."""
        return self.collector.pop_episodes()

    def get_state(self) -> State:
        """See :class:`limelight.runners.base.Runner`."""
        normalizer = self.collector.normalizer
        return {
            "num_steps": self.num_steps,
            "learner": self.learner.get_state(),
            "policy_rng": self.rng.bit_generator.state,
            "collector": self.collector.get_state(),
            "normalizer": normalizer.get_state() if normalizer is not None else None,
            "envs": self.collector.envs.get_state(),
        }

    def set_state(self, state: Mapping[str, Any], seed: int) -> bool:
        """See :class:`limelight.runners.base.Runner`."""
        self.num_steps = int(state["num_steps"])
        self.learner.set_state(state["learner"])
        self.rng.bit_generator.state = state["policy_rng"]
        if self.collector.normalizer is not None:
            self.collector.normalizer.set_state(state["normalizer"])
        if state["envs"] is None:
            self.collector.reset(seed)
            return False
        self.collector.envs.set_state(state["envs"])
        self.collector.set_state(state["collector"])
        return True

    def close(self) -> None:
        """See :class:`limelight.runners.base.Runner`."""
        self.collector.envs.close()
