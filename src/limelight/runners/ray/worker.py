"""One worker of a run on a Ray cluster: collects with the parameters it is sent, and answers with what came of it.

ray.py makes an actor of :class:`RayWorker`. All that crosses between the processes is NumPy arrays and plain numbers,
so it does not matter on which devices either computes.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limelight.algo.episodes import Episode
from limelight.algo.normalization import Moments, no_moments
from limelight.algo.rollout import Rollout
from limelight.runners.actor_learner import ActorLearner, make_actor_learner, running_statistics
from limelight.seeds import worker_seed
from limelight.settings.schema import TrainConfig
from limelight.threads import single_threaded
from limelight.typing import EnvFactory, Metrics, State


@dataclass(frozen=True)
class ParameterSnapshot:
    """What a worker is brought up to date with."""

    number: int
    """Updates made before it."""
    params: NDArray[np.float32]
    """[n]."""
    target_params: NDArray[np.float32] | None
    """Of the target critic, [m], if there is one."""
    moments: Mapping[str, Moments]
    """Of observations and returns, over all workers."""
    progress: float
    """0 to 1 through the step budget."""


@dataclass(frozen=True)
class WorkerResult:
    """What a worker answers after one rollout."""

    version: int
    """Number of the parameters it was collected with."""
    gradients: NDArray[np.float32] | None
    """Of the loss on the rollout, [n]; None where the rollout itself is sent."""
    rollout: Rollout | None
    num_valid: int
    """Environment steps."""
    episodes_ended: int
    episodes: list[Episode]
    metrics: Metrics
    seen: Mapping[str, tuple[Moments, Moments]]
    """What was seen since the last answer, and all that the worker knows of."""


class RayWorker:
    """Environments, policy and learner on some node."""

    actor: ActorLearner

    def __init__(self, path: Sequence[str]) -> None:
        """``path``: where the run finds modules, for those of its environment; what is not there is no loss."""
        sys.path.extend(folder for folder in path if folder not in sys.path)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the run decides
        self._one_thread = single_threaded()  # for as long as the process lives
        self._one_thread.__enter__()
        self.version = -1

    def start(
        self,
        config: TrainConfig,
        factory: EnvFactory | None,
        index: int,
        restarts: int,
        state: State | None,
        restart_seed: int,
    ) -> bool:
        """Make it all; whether it continues ``state``, of a checkpoint, exactly (restarted episodes are seeded)."""
        self.ship_rollouts = config.workers.ray.worker_output == "rollouts"
        self.off_policy = self.ship_rollouts and config.workers.asynchronous
        self.actor_learner = make_actor_learner(config, factory, worker_seed(config.seed, index, restarts))
        self.running_statistics = running_statistics(self.actor_learner.normalizer, self.actor_learner.learner)
        return state is None or self.actor_learner.set_state(state, restart_seed)

    def collect_rollout(self, version: ParameterSnapshot | None, want_metrics: bool) -> WorkerResult:
        """One rollout, with the parameters of ``version``, or with those it has."""
        before = self._update(version) if version is not None else {}
        actor, learner = self.actor_learner, self.actor_learner.learner
        rollout = actor.collect()
        metrics: Metrics = {}
        if self.ship_rollouts:
            log_probs = learner.log_probs(rollout) if self.off_policy else None
            rollout = dataclasses.replace(
                rollout, log_probs=log_probs, pixels=actor.pixels, learning_rewards=learner.rewards(rollout)
            )
        elif rollout.num_valid:
            metrics = learner.gradients(rollout, want_metrics)
        return WorkerResult(
            self.version,
            None if self.ship_rollouts else learner.flat.grads.cpu().numpy(),
            rollout if self.ship_rollouts else None,
            rollout.num_valid,
            rollout.episodes_ended,
            actor.collector.pop_episodes(),
            metrics,
            self._seen(before),
        )

    def _update(self, version: ParameterSnapshot) -> dict[str, Moments]:
        """Take over parameters and moments; what was seen that the latter do not have yet."""
        self.version = version.number
        self.actor_learner.learner.load(version.params, version.target_params, version.progress)
        before = {name: tracker.unshared() for name, tracker in self.running_statistics.items()}
        for name, tracker in self.running_statistics.items():
            tracker.share(version.moments[name])
        return before

    def _seen(self, before: Mapping[str, Moments]) -> dict[str, tuple[Moments, Moments]]:
        seen = {}
        for name, tracker in self.running_statistics.items():
            new = tracker.unshared()
            seen[name] = (before[name].merge(new) if name in before else new, tracker.moments)
            tracker.seen = no_moments(new.mean.shape)
        return seen

    def get_state(self) -> State:
        """See :meth:`limelight.runners.actor_learner.ActorLearner.get_state`."""
        return self.actor_learner.get_state()

    def close(self) -> None:
        """Free the environments."""
        self.actor_learner.close()
