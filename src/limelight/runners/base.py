"""The runner seam: what train.py asks of whoever collects and learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from limelight.algo.episodes import Episode
from limelight.typing import Metrics, State

ENV_STATE_NOT_RESTORED = "this environment cannot be restored, so its episodes restart (all else continues)"

NOT_REPRODUCIBLE = "asynchronous workers meet in no fixed order, so this continues the run but does not repeat it"
MAX_CONSECUTIVE_SKIPS = 100
"""Asynchronous updates in a row without a finite gradient after which the parameters themselves are taken for lost."""


class Runner(Protocol):
    """Collects and learns until told to report."""

    num_steps: int
    """Environment steps taken up to the last :meth:`advance`, over all environments; invalid rows do not count."""
    seconds: float
    """Seconds of training they took; evaluations count where training goes on meanwhile, and only there."""

    def advance(self, until: int, seconds: float) -> Metrics:
        """Train until ``num_steps`` ≥ ``until``, or about ``seconds`` have passed; metrics of the last updates.

        Afterwards the agent that shares the runner's model acts with the parameters of ``num_steps``.

        Raises: WorkerError if no worker is left to train.
        """

    def pop_episodes(self) -> list[Episode]:
        """Training episodes finished since the last call."""

    def pop_messages(self) -> list[str]:
        """What the person who watches should know of workers, since the last call."""

    def get_state(self) -> State:
        """Everything needed to continue."""

    def set_state(self, state: Mapping[str, Any], seed: int) -> str | None:
        """Continue from :meth:`get_state`; None, or what is not exact about it (restarts are seeded by ``seed``)."""

    def close(self) -> None:
        """Free environments and workers."""
