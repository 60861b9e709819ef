"""Skipping rollouts and updates in which a number is not finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from limelight.algo.learner import Learner
from limelight.algo.rollout import Rollout
from limelight.errors import NonFiniteError
from limelight.runners.actor_learner import ActorLearner
from limelight.runners.base import MAX_CONSECUTIVE_SKIPS
from limelight.settings.schema import TrainConfig


@final
class Skips:
    """Counts the rollouts and updates that are left out, and ends the run where there are too many in a row.

    Args:
        most: the one that ends the run, of those in a row; 1: nothing is skipped.
        skips_rollouts: rollouts of an environment that returns such a number are left out too.
        note: called at each one.
    """

    def __init__(self, most: int, skips_rollouts: bool, note: Callable[[], None] = lambda: None) -> None:
        self.most = most
        self.skips_rollouts = skips_rollouts
        self.count = 0
        self.messages: list[str] = []
        """A line on the first one."""
        self._note = note
        self.in_a_row = 0

    def skip(self, error: NonFiniteError) -> None:
        """Leave out what ``error`` was raised in.

        Raises: ``error``, if as many before it were left out as may be, with their number.
        """
        self.in_a_row += 1
        self._note()
        if self.in_a_row >= self.most:
            raise error if self.most == 1 else too_many(error, self.most)
        if self.count == 0:
            self.messages.append(f"skipped, as on_nonfinite says: {error}")
        self.count += 1

    def succeed(self) -> None:
        """Begin to count anew those in a row."""
        self.in_a_row = 0

    def collect(self, actor_learner: ActorLearner) -> Rollout:
        """Collect the next rollout without such a number; after one that has it, all environments begin new episodes.

        Raises: NonFiniteError as :meth:`skip`, and where the first observations are not finite either.
        """
        while True:
            try:
                return actor_learner.collect()
            except NonFiniteError as error:
                self.skip(error)
                if not actor_learner.begin_episodes():
                    raise

    def update(self, learner: Learner, rollout: Rollout, progress: float) -> None:
        """Update, or leave out the rest of the rollout's updates.

        Raises: NonFiniteError as :meth:`skip`.
        """
        try:
            learner.update(rollout, progress)
        except NonFiniteError as error:
            self.skip(error)
        else:
            self.succeed()


def too_many(error: NonFiniteError, most: int) -> NonFiniteError:
    """Return the error that ends a run after ``most`` in a row."""
    return NonFiniteError(f"{error}; {most} in a row, the most that on_nonfinite leaves out")


def evaluates_on(config: TrainConfig) -> bool:
    """Return whether training goes on after an evaluation with numbers that are not finite, which has no result."""
    return config.optim.on_nonfinite in ("skip", "rollback")


def make_skips(config: TrainConfig, note: Callable[[], None] = lambda: None) -> Skips:
    """Return what a run skips by its setting ``on_nonfinite``: by itself, a worker skips gradients."""
    mode = config.optim.on_nonfinite
    skips = mode == "skip" or (mode == "auto" and config.workers.asynchronous)
    return Skips(MAX_CONSECUTIVE_SKIPS if skips else 1, mode == "skip", note)
