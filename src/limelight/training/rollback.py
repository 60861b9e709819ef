"""Going back to the parameters of a checkpoint after a number that is not finite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from limelight.errors import CheckpointError, NonFiniteError
from limelight.runs.checkpoint import checkpoints, read_state
from limelight.seeds import Stream, derive_seed
from limelight.typing import Metrics

if TYPE_CHECKING:
    from limelight.training.loop import TrainingLoop

MAX_ROLLBACKS = 3
"""Times that a run goes back to one checkpoint; after that, the error ends it."""


@final
class Rollback:
    """Trains as the runner does; where a number is not finite, learns on from the newest checkpoint.

    Parameters, optimizer and running statistics become those of the checkpoint. Steps, episodes and random numbers go
    on, so that the run does not repeat what led there; the environments begin new episodes.
    """

    def __init__(self, loop: TrainingLoop) -> None:
        self.loop = loop
        self.count = 0
        self._origin: tuple[Path | None, int] = None, 0  # the last checkpoint, and how often the run went back to it

    def advance(self, until: int, seconds: float) -> Metrics:
        """Train as :meth:`limelight.runners.base.Runner.advance`; a run without a checkpoint saves one first.

        Raises: NonFiniteError where there is no such checkpoint, or it has not helped.
        """
        if not checkpoints(self.loop.run_dir):
            self.loop.save_checkpoint()
        try:
            metrics = self.loop.runner.advance(until, seconds)
        except NonFiniteError as error:
            self._roll_back(error)
            return {}
        return {**metrics, "train/rollbacks": float(self.count)} if metrics else {}

    def _roll_back(self, error: NonFiniteError) -> None:
        loop, runner = self.loop, self.loop.runner
        found = newest_finite(loop.run_dir)
        times = 1 + (self._origin[1] if found is not None and found[0] == self._origin[0] else 0)
        if found is None:
            raise NonFiniteError(f"{error}; there is no checkpoint with finite parameters to go back to") from error
        folder, state = found
        if times > MAX_ROLLBACKS:
            raise NonFiniteError(
                f"{error}; the run went back to {folder.name} {MAX_ROLLBACKS} times, the most with on_nonfinite = "
                "rollback; --on-nonfinite skip leaves such an update out"
            ) from error
        loop.report_episodes()
        now, saved = runner.get_state(), state["training"]["runner"]
        actor = {**saved["actor"], "policy": now["actor"]["policy"], "envs": None}
        seed = derive_seed(loop.config.seed, Stream.ENV, runner.num_steps)
        runner.set_state({**now, "train_state": saved["train_state"], "actor": actor}, seed)
        self.count += 1
        self._origin = folder, times
        loop.logger.message(f"{error}; learns on from {folder.name}, as on_nonfinite = rollback says")


def newest_finite(run_dir: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest intact checkpoint with finite parameters, and its content; None if there is none."""
    for folder in reversed(checkpoints(run_dir)):
        try:
            state = read_state(folder)
        except CheckpointError:
            continue
        if np.isfinite(state["params"]).all():
            return folder, state
    return None
