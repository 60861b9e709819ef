"""Running standardisation of observations. Updated by the collector, frozen in evaluation, saved with the agent."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from limelight.envs.base import State


class ObservationNormalizer:
    """(obs − mean) / √(variance + 1e-8), clipped to ±10, with running moments over all observations seen.

    Moments are merged batch by batch (Chan et al. 1979), in float64.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.mean = np.zeros(shape, np.float64)
        self.var = np.ones(shape, np.float64)
        self.count = 0

    def update(self, obs: NDArray[Any]) -> None:
        """Take a batch of observations [N, *shape] into the moments."""
        n = len(obs)
        if n == 0:
            return
        batch_mean, batch_var = obs.mean(0, dtype=np.float64), obs.var(0, dtype=np.float64)
        total = self.count + n
        delta = batch_mean - self.mean
        self.mean = self.mean + delta * (n / total)
        m2 = self.var * self.count + batch_var * n + delta**2 * (self.count * n / total)
        self.var, self.count = m2 / total, total

    def __call__(self, obs: NDArray[Any]) -> NDArray[np.float32]:
        """Standardised observations [..., *shape] under the present moments."""
        scaled = (obs - self.mean) / np.sqrt(self.var + 1e-8)
        return np.clip(scaled, -10.0, 10.0).astype(np.float32)

    def get_state(self) -> State:
        """Mean, variance and count."""
        return {"mean": self.mean, "var": self.var, "count": self.count}

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`."""
        self.mean = np.asarray(state["mean"], np.float64)
        self.var = np.asarray(state["var"], np.float64)
        self.count = int(state["count"])
