"""The runner seam: what train.py asks of whoever collects and learns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from limelight.envs.base import State
from limelight.learner import Metrics
from limelight.rollout import Episode

EPISODES_RESTART = "this environment cannot be restored, so its episodes restart (all else continues)"

INEXACT = "asynchronous workers meet in no fixed order, so this continues the run but does not repeat it"
PATIENCE = 100
"""Asynchronous updates in a row without a finite gradient after which the parameters themselves are taken for lost."""


class WorkerError(RuntimeError):
    """The run cannot go on because its workers died; the message says which, why and where, with their traceback."""

    run_dir: Path | None = None
    """Where the run can be resumed from, once train.py has said so."""


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
