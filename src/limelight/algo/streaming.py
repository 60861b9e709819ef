"""Learning from every single step by eligibility traces: Stream AC(λ).

Source: Elsayed, Vasan & Mahmood 2024, *Streaming deep reinforcement learning finally works*, algorithm 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from limelight.algo.last_update import LastUpdate
from limelight.algo.optim import ObGD
from limelight.algo.rollout import Rollout

if TYPE_CHECKING:
    from limelight.algo.learner import Learner


class Streaming:
    """Computes the gradient that one step adds to the traces, and gives the optimizer the step's TD error.

    The gradient is of  −log π(a|s) − τ sign(δ) H(π(·|s)) − V(s),  with the entropy's weight τ and
    δ = r + γ (1 − d) V(s′) − V(s). V(s′) is of the final observation where a time limit truncated the episode.

    Args:
        learner: whose network, targets and optimizer these are; its rollouts have one row.
    """

    def __init__(self, learner: Learner) -> None:
        assert isinstance(learner.optimizer, ObGD)
        self.learner = learner
        self.optimizer = learner.optimizer

    def __call__(self, rollout: Rollout) -> tuple[int]:
        """Write the gradient of a rollout of one valid step; return the finished episodes that the update counts."""
        learner = self.learner
        if rollout.image_scale is not None:
            learner.network.set_image_scale(rollout.image_scale)
        values, next_values = learner.network.values(rollout)
        targets = learner.targets(rollout, values, next_values)
        td_error = float(targets.advantages[0, 0])
        w = rollout.valid
        log_probs, entropies = learner.write_gradients(-w, -w, np.sign(targets.advantages) * w)
        learner.last_updates = [LastUpdate(log_probs, entropies, values, targets, w)]
        ended = rollout.episodes_ended
        self.optimizer.observe(td_error, ended > 0)
        return (ended,)
