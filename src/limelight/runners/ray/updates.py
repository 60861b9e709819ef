"""Updates from the results of Ray workers: which results one update learns from, and the gradients of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from limelight.algo.learner import Learner
from limelight.algo.rollout import Rollout, side_by_side
from limelight.algo.train_state import copy_into
from limelight.runners.base import MAX_CONSECUTIVE_SKIPS
from limelight.runners.ray.worker import WorkerResult
from limelight.runners.worker_metrics import combined_metrics
from limelight.typing import Metrics


class Schedule(Protocol):
    """The order of rollouts and updates."""

    reproducible: bool
    """The same seed gives the same run."""
    max_consecutive_skips: int
    """Updates in a row without a finite gradient after which the run ends."""
    drain_timeout: float | None
    """Seconds that a checkpoint waits for requested rollouts; None: until all have arrived."""

    def num_awaited(self, num_pending: int) -> int:
        """Return how many of the requested rollouts to wait for before the next update."""

    def batches(self, results: list[WorkerResult]) -> list[list[WorkerResult]]:
        """Divide the results that have arrived into those of one update each."""

    def metrics(self, lags: Sequence[int], skipped_updates: int) -> Metrics:
        """Return metrics of the schedule; ``lags``: updates between the parameters that acted and each update."""


class SynchronousSchedule:
    """Every update learns from one rollout of each worker, all collected with the newest parameters."""

    reproducible = True
    max_consecutive_skips = 1
    drain_timeout: float | None = None

    def num_awaited(self, num_pending: int) -> int:
        """See :class:`Schedule`."""
        return num_pending

    def batches(self, results: list[WorkerResult]) -> list[list[WorkerResult]]:
        """See :class:`Schedule`; in the order of workers, as the order of arrival would change the rounding."""
        return [sorted(results, key=lambda result: result.worker)] if results else []

    def metrics(self, lags: Sequence[int], skipped_updates: int) -> Metrics:
        """Return none: there is no lag, and no update is skipped."""
        return {}


class AsynchronousSchedule:
    """Every rollout leads to an update as it arrives; its parameters may be older than the learner's."""

    reproducible = False
    max_consecutive_skips = MAX_CONSECUTIVE_SKIPS
    drain_timeout: float | None = 10.0

    def num_awaited(self, num_pending: int) -> int:
        """See :class:`Schedule`."""
        return 1

    def batches(self, results: list[WorkerResult]) -> list[list[WorkerResult]]:
        """See :class:`Schedule`."""
        return [[result] for result in results]

    def metrics(self, lags: Sequence[int], skipped_updates: int) -> Metrics:
        """See :class:`Schedule`."""
        return {
            "async/policy_lag": float(np.mean(lags)),
            "async/policy_lag_max": max(lags),
            "async/skipped_updates": skipped_updates,
        }


class MeanGradient:
    """Computes the gradient of the mean loss over all valid rows of several workers' rollouts."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self._sum = np.zeros(len(learner.flat), np.float32)
        self._scaled = np.zeros(len(learner.flat), np.float32)

    def update(self, results: Sequence[WorkerResult], progress: float, with_metrics: bool) -> Metrics:
        """Apply the gradient, or make several updates from the rollouts side by side, where the learner makes several.

        ``progress``: see :meth:`limelight.algo.learner.Learner.apply`.
        """
        if self.learner.epochs is None:
            metrics = self.compute(results, with_metrics)
            self.learner.apply(progress, sum(result.episodes_ended for result in results))
            return metrics
        self.learner.update(joined_rollout(results), progress)
        return self.learner.metrics() if with_metrics else {}

    def compute(self, results: Sequence[WorkerResult], with_metrics: bool) -> Metrics:
        """Write the gradient into the learner's ``flat.grads``; return the mean of the workers' metrics."""
        results = [result for result in results if result.num_valid]
        if len(results) == 1:  # bit for bit the gradient of one worker
            return self._one(results[0], with_metrics)
        num_valid = sum(result.num_valid for result in results)
        grads = self.learner.flat.grads
        rows = []
        self._sum[:] = 0.0
        for result in results:
            rows.append(self._one(result, with_metrics))
            np.multiply(grads.cpu().numpy(), np.float32(result.num_valid / num_valid), out=self._scaled)
            self._sum += self._scaled
        copy_into(grads, self._sum)
        return combined_metrics([row for row in rows if row])

    def _one(self, result: WorkerResult, with_metrics: bool) -> Metrics:
        """Write the gradient of one rollout, computed here or by the worker, into ``flat.grads``."""
        if result.rollout is not None:
            self.learner.gradients(_writable(result.rollout))
            return self.learner.metrics() if with_metrics else {}
        assert result.gradients is not None
        copy_into(self.learner.flat.grads, result.gradients)
        return result.metrics


def joined_rollout(results: Sequence[WorkerResult]) -> Rollout:
    """Return the rollouts of several workers as one with the environments of all."""
    rollouts = [result.rollout for result in results if result.rollout is not None and result.num_valid]
    return _writable(rollouts[0]) if len(rollouts) == 1 else side_by_side(rollouts)


def _writable(rollout: Rollout) -> Rollout:
    """Copy a rollout: arrays from Ray's object store are read-only, and PyTorch accepts only writable ones."""

    def copied(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.copy()
        return type(value)(*map(copied, value)) if isinstance(value, tuple) else value

    return dataclasses.replace(
        rollout, **{field.name: copied(getattr(rollout, field.name)) for field in dataclasses.fields(rollout)}
    )
