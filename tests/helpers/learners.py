"""Shorthands for tests of the learner."""

from __future__ import annotations

from limelight.algo.learner import Learner
from limelight.algo.rollout import Rollout
from limelight.typing import Metrics


def gradient_metrics(learner: Learner, rollout: Rollout) -> Metrics:
    """Compute the gradients of a rollout and return their metrics."""
    learner.gradients(rollout)
    return learner.metrics()


def update_metrics(learner: Learner, rollout: Rollout, progress: float) -> Metrics:
    """Make an update and return its metrics."""
    learner.update(rollout, progress)
    return learner.metrics()
