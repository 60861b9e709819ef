"""Keeps one wild observation from moving the running statistics of observations for the rest of the run."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from limelight.algo.normalization import Moments, RunningMeanStd

JUMP = 1e8
"""Growth of the summed variance, within a rollout, that no change of an environment explains."""
SETTLED = 1_000
"""Samples from which the variance is known well enough to judge."""
MOST_IN_A_ROW = 10
"""Rollouts in a row that are left out; later ones count, as the observations have then changed for good."""
_LOG = logging.getLogger("limelight")


class OutlierGuard:
    """Leaves a rollout out of running statistics that it would move by orders of magnitude, and says so.

    The test is one sum per rollout; the feature is searched only where it fails.

    Args:
        statistics: of observations.
        env_id: name of the environment, for the message.
    """

    def __init__(self, statistics: RunningMeanStd, env_id: str) -> None:
        self._statistics = statistics
        self._env_id = env_id
        self._before = statistics.snapshot()
        self._left_out = 0

    def begin_rollout(self) -> None:
        """Keep the statistics as they are now."""
        self._before = self._statistics.snapshot()

    def end_rollout(self) -> None:
        """Restore the statistics if the rollout has moved them too far."""
        old, new = self._before[0], self._statistics.moments
        before, after = _total(old.var), _total(new.var)
        if old.size < SETTLED or not after > JUMP * max(before, 1e-8) or self._left_out == MOST_IN_A_ROW:
            self._left_out = 0 if after <= JUMP * max(before, 1e-8) else self._left_out
            return
        self._left_out += 1
        self._statistics.restore(self._before)
        _LOG.warning("%s", self._describe(old, new))

    def _describe(self, old: Moments, new: Moments) -> str:
        growth = new.var / np.maximum(old.var, 1e-8)
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(growth)), growth.shape))
        # One value x among n samples moves the mean by (x − mean) / n
        value = float(old.mean[index] + (new.mean[index] - old.mean[index]) * new.size)
        usual = f"{old.mean[index]:.3g} ± {np.sqrt(old.var[index]):.3g}"
        return (
            f"limelight: note: {self._env_id}: observation{list(index) or ''} was about {value:.3g}, usually {usual}; "
            "this rollout is left out of the running statistics (normalize_obs); clip it in the environment"
        )


def _total(variances: NDArray[np.float64]) -> float:
    return float(np.add.reduce(variances, axis=None))
