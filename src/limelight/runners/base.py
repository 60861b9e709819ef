"""The runner seam: what train.py asks of whoever collects and learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from limelight.envs.base import State
from limelight.learner import Metrics
from limelight.rollout import Episode


class Runner(Protocol):
    """Collects and learns until told to report."""

    num_steps: int
    """Environment steps taken so far, over all environments; invalid rows do not count."""

    def advance(self, until: int, seconds: float) -> Metrics:
        """Train until ``num_steps`` ≥ ``until``, or about ``seconds`` have passed; metrics of the last update."""

    def pop_episodes(self) -> list[Episode]:
        """Training episodes finished since the last call."""

    def get_state(self) -> State:
        """Everything needed to continue; ``envs`` in it is None where environments cannot be restored."""

    def set_state(self, state: Mapping[str, Any], seed: int) -> bool:
        """Continue from :meth:`get_state`; False if episodes had to be restarted (from ``seed``)."""

    def close(self) -> None:
        """Free environments and workers."""
