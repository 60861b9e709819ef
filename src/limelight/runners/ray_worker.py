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

from limelight.config import TrainConfig
from limelight.envs.base import State
from limelight.envs.make import EnvFactory
from limelight.envs.normalize import Moments, no_moments
from limelight.learner import Metrics
from limelight.processor import one_thread
from limelight.rollout import Episode, Rollout
from limelight.runners.actor import Actor, make_actor, trackers
from limelight.seeds import worker_seed


@dataclass(frozen=True)
class Version:
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
class Piece:
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

    actor: Actor

    def __init__(self, path: Sequence[str]) -> None:
        """``path``: where the run finds modules, for those of its environment; what is not there is no loss."""
        sys.path.extend(folder for folder in path if folder not in sys.path)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the run decides
        self._one_thread = one_thread()  # for as long as the process lives
        self._one_thread.__enter__()
        self.version = -1

    def start(
        self,
        config: TrainConfig,
        factory: EnvFactory | None,
        index: int,
        incarnation: int,
        state: State | None,
        restart_seed: int,
    ) -> bool:
        """Make it all; whether it continues ``state``, of a checkpoint, exactly (restarted episodes are seeded)."""
        self.ship_rollouts = config.workers.ship == "rollouts"
        self.off_policy = self.ship_rollouts and config.workers.asynchronous
        self.actor = make_actor(config, factory, worker_seed(config.seed, index, incarnation))
        self.trackers = trackers(self.actor.normalizer, self.actor.learner)
        return state is None or self.actor.set_state(state, restart_seed)

    def work(self, version: Version | None, want_metrics: bool) -> Piece:
        """One rollout, with the parameters of ``version``, or with those it has."""
        before = self._update(version) if version is not None else {}
        actor, learner = self.actor, self.actor.learner
        rollout = actor.collect()
        metrics: Metrics = {}
        if self.ship_rollouts:
            log_probs = learner.log_probs(rollout) if self.off_policy else None
            rollout = dataclasses.replace(
                rollout, log_probs=log_probs, pixels=actor.pixels, learning_rewards=learner.rewards(rollout)
            )
        elif rollout.num_valid:
            metrics = learner.gradients(rollout, want_metrics)
        return Piece(
            self.version,
            None if self.ship_rollouts else learner.flat.grads.cpu().numpy(),
            rollout if self.ship_rollouts else None,
            rollout.num_valid,
            rollout.episodes_ended,
            actor.collector.pop_episodes(),
            metrics,
            self._seen(before),
        )

    def _update(self, version: Version) -> dict[str, Moments]:
        """Take over parameters and moments; what was seen that the latter do not have yet."""
        self.version = version.number
        self.actor.learner.load(version.params, version.target_params, version.progress)
        before = {name: tracker.unshared() for name, tracker in self.trackers.items()}
        for name, tracker in self.trackers.items():
            tracker.share(version.moments[name])
        return before

    def _seen(self, before: Mapping[str, Moments]) -> dict[str, tuple[Moments, Moments]]:
        seen = {}
        for name, tracker in self.trackers.items():
            new = tracker.unshared()
            seen[name] = (before[name].merge(new) if name in before else new, tracker.moments)
            tracker.seen = no_moments(new.mean.shape)
        return seen

    def get_state(self) -> State:
        """See :meth:`limelight.runners.actor.Actor.get_state`."""
        return self.actor.get_state()

    def close(self) -> None:
        """Free the environments."""
        self.actor.close()
