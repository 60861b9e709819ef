"""One worker of a run on a Ray cluster: collects with the parameters that it receives, and returns the result.

All that processes exchange is NumPy arrays and plain numbers, so each may compute on a device of its own.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from limelight.algo.episodes import Episode
from limelight.algo.normalization import Moments
from limelight.algo.rollout import Rollout
from limelight.envs.stalls import start_watch
from limelight.runners.actor_learner import make_actor_learner, running_statistics
from limelight.runners.time_shares import ShareMeter
from limelight.seeds import worker_seed
from limelight.settings.schema import TrainConfig
from limelight.threads import single_threaded
from limelight.typing import EnvFactory, Metrics, State


@dataclass(frozen=True)
class ParameterSnapshot:
    """Parameters and statistics of the learner, as workers receive them."""

    version: int
    """Updates that led to these parameters."""
    params: NDArray[np.float32]
    """[n]."""
    target_params: NDArray[np.float32] | None
    """The target critic's parameters, [m]; None without a target critic."""
    statistics: Mapping[str, Moments]
    """Running statistics of observations and returns over all workers, by name."""
    progress: float
    """0 to 1 through the step budget."""


class StatisticsUpdate(NamedTuple):
    """Running statistics of one worker."""

    new: Moments
    """Statistics of the observations since the last result."""
    total: Moments
    """Statistics of all observations that the worker has statistics of, its own and shared ones."""


@dataclass(frozen=True)
class WorkerResult:
    """The result of one rollout."""

    worker: int
    """The index of the worker."""
    version: int
    """The version of the parameters that collected the rollout."""
    gradients: NDArray[np.float32] | None
    """The gradient of the loss on the rollout, [n]; None where the rollout itself is sent, or has no valid row."""
    rollout: Rollout | None
    num_valid: int
    """Environment steps in the rollout."""
    episodes_ended: int
    episodes: list[Episode]
    metrics: Metrics
    statistics: Mapping[str, StatisticsUpdate]
    restarts: list[str] = field(default_factory=list)
    """Messages on environments that were replaced."""


class RayWorker:
    """The class of the Ray actors: an actor-learner on some node.

    Args:
        path: the run's ``sys.path``, for modules of its environment; folders that are missing here are ignored.
    """

    def __init__(self, path: Sequence[str]) -> None:
        sys.path.extend(folder for folder in path if folder not in sys.path)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process decides
        self._threads = ExitStack()
        self._threads.enter_context(single_threaded())
        self.version = -1
        self._idle_seconds = 0.0

    def start(
        self,
        config: TrainConfig,
        factory: EnvFactory | None,
        index: int,
        restarts: int,
        state: State | None,
        restart_seed: int,
    ) -> bool:
        """Make the actor-learner; return False if it continues ``state`` with new episodes, seeded by the last seed.

        Args:
            config: of the run, with the worker's device.
            factory: makes the environment, where it was given as a Python object.
            index: of the worker's slot.
            restarts: workers that the slot has had before.
            state: to continue from, of a checkpoint.
            restart_seed: seeds the episodes where the environments of ``state`` cannot be restored.
        """
        self.index = index
        start_watch(config.env.step_timeout)
        self.sends_rollouts = config.workers.ray.worker_output == "rollouts"
        self.is_off_policy = self.sends_rollouts and config.workers.asynchronous
        self.actor_learner = make_actor_learner(config, factory, worker_seed(config.seed, index, restarts))
        self.running_statistics = running_statistics(self.actor_learner.normalizer, self.actor_learner.learner)
        self._shares = ShareMeter(self.actor_learner)
        self._last_call = time.perf_counter()
        self._shares.start(self._last_call)
        return state is None or self.actor_learner.set_state(state, restart_seed)

    def collect_rollout(self, snapshot: ParameterSnapshot | None, with_metrics: bool) -> WorkerResult:
        """Collect a rollout with the parameters of ``snapshot``; None: with those of the last call."""
        self._idle_seconds += time.perf_counter() - self._last_call
        unshared = self._load(snapshot) if snapshot is not None else {}
        learner = self.actor_learner.learner
        rollout = self.actor_learner.collect()
        gradients, metrics = None, {}
        if rollout.num_valid and not self.sends_rollouts:
            learner.gradients(rollout)
            metrics = self.actor_learner.metrics() if with_metrics else {}
            gradients = learner.flat.grads.cpu().numpy()
        self._last_call = time.perf_counter()
        if with_metrics:
            metrics |= self._shares.metrics(self._last_call, self._idle_seconds)
        return WorkerResult(
            self.index,
            self.version,
            gradients,
            self._for_learner(rollout) if self.sends_rollouts else None,
            rollout.num_valid,
            rollout.episodes_ended,
            self.actor_learner.collector.pop_episodes(),
            metrics,
            self._pop_statistics(unshared),
            self.actor_learner.pop_restarts(),
        )

    def _for_learner(self, rollout: Rollout) -> Rollout:
        """Add the fields that only the worker can compute: rewards to learn from, log π of the policy that acted."""
        learner = self.actor_learner.learner
        return dataclasses.replace(
            rollout,
            log_probs=learner.log_probs(rollout) if self.is_off_policy else None,
            image_scale=self.actor_learner.image_scale,
            learning_rewards=learner.rewards(rollout),
        )

    def _load(self, snapshot: ParameterSnapshot) -> dict[str, Moments]:
        """Adopt parameters and statistics; return this worker's statistics that the latter lack."""
        self.version = snapshot.version
        self.actor_learner.learner.set_parameters(snapshot.params, snapshot.target_params, snapshot.progress)
        unshared = {name: statistics.pending for name, statistics in self.running_statistics.items()}
        for name, statistics in self.running_statistics.items():
            statistics.share(snapshot.statistics[name])
        return unshared

    def _pop_statistics(self, unshared: Mapping[str, Moments]) -> dict[str, StatisticsUpdate]:
        """Return the statistics since the last result; ``unshared`` are those from before the snapshot was loaded."""
        updates = {}
        for name, statistics in self.running_statistics.items():
            new = statistics.pending
            merged = unshared[name].merge(new) if name in unshared else new
            updates[name] = StatisticsUpdate(merged, statistics.moments)
            statistics.clear_pending()
        return updates

    def get_state(self) -> State:
        """See :meth:`limelight.runners.actor_learner.ActorLearner.get_state`."""
        return self.actor_learner.get_state()

    def close(self) -> None:
        """Free the environments."""
        self.actor_learner.close()
        self._threads.close()
