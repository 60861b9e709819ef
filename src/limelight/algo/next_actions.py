"""Next actions that are drawn for bootstrapping from q(s′, ã) and never executed (SARSA's target)."""

from __future__ import annotations

from typing import final

import numpy as np

from limelight.algo.rollout import Rollout
from limelight.nn.distributions import ActionDistribution
from limelight.nn.model import ActorCritic
from limelight.seeds import Stream, derive_seed
from limelight.settings.schema import AlgorithmConfig
from limelight.typing import FloatArray, State


@final
class NextActions:
    """The random stream of drawn next actions: one for each row of a rollout.

    Args:
        distribution: of the actions.
        seed: of the stream.
    """

    def __init__(self, distribution: ActionDistribution, seed: int) -> None:
        self.distribution = distribution
        self.rng = np.random.default_rng(seed)

    def noise(self, rollout: Rollout) -> FloatArray:
        """Draw the randomness of the next actions of a rollout, [T B, 1]; invalid rows have theirs too."""
        return self.distribution.noise(self.rng, rollout.valid.size)

    def get_state(self) -> State:
        """Return the random stream."""
        return {"rng": self.rng.bit_generator.state}

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`."""
        self.rng.bit_generator.state = state["rng"]


def make_next_actions(model: ActorCritic, a: AlgorithmConfig, seed: int) -> NextActions | None:
    """Return the stream of a learner with this seed; None where nothing is drawn for bootstrapping."""
    if model.config.critic_output == "v" or a.q_bootstrap == "expected_sarsa":
        return None
    return NextActions(model.distribution, derive_seed(seed, Stream.NEXT_ACTIONS))
