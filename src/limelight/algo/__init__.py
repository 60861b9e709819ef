"""The update: rollouts, returns, losses, the learner and its optimizer."""

from limelight.algo.collector import RolloutCollector
from limelight.algo.learner import Learner
from limelight.algo.rollout import Rollout

__all__ = ["Learner", "Rollout", "RolloutCollector"]
