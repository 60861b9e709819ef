"""The runner on a Ray cluster: workers anywhere collect, this process learns. Made by train.py; Ray is optional.

Synchronous: every update is of all workers' rollouts with the same parameters. Asynchronous: of one worker's, as it
arrives: of its gradients (A3C's parameter server), or of its rollout, corrected by V-trace. docs/scaling.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from limelight.config import ConfigError, TrainConfig
from limelight.envs.base import State
from limelight.envs.make import EnvFactory
from limelight.envs.normalize import ObservationNormalizer, no_moments
from limelight.learner import Learner, Metrics, NonFiniteGradientError
from limelight.optim import copy_into
from limelight.rollout import Episode, Rollout
from limelight.runners.actor import trackers
from limelight.runners.base import EPISODES_RESTART, INEXACT, PATIENCE
from limelight.runners.ray_cluster import free_places, join
from limelight.runners.ray_worker import Piece, RayWorker, Version
from limelight.runners.reports import Counter, Pace, mean_metrics
from limelight.runners.restarts import Restarts

_METRICS_EVERY = 0.2
"""Seconds between two sets of metrics; they cost time."""
_ANSWER_WITHIN = 10.0
"""Seconds that workers may take to finish a rollout and send their states; a checkpoint does not wait longer."""
_PATIENCE_TO_BEGIN = 60.0
"""Seconds after which a run begins with the workers it has, or says that it has none."""
_END_WITHIN = 5.0
"""Seconds that workers may take to free their environments."""
_NAP = 0.05
"""Seconds between two looks for workers, while there is none."""


@dataclass
class Seat:
    """The place of one worker, and the actor that sits in it now."""

    index: int
    actor: Any = None
    incarnation: int = 0
    ready: bool = False
    """The present actor has begun to work."""
    was_ready: bool = False
    """Some actor in this seat had."""
    pending: int = 0
    """Rollouts it has been asked for and has not answered."""
    version: int = -1
    """Of the parameters it has; -1: of none."""
    restart_at: float | None = None
    """When the next actor is due (of ``time.monotonic``)."""


class RayRunner:
    """W workers on a cluster; ``learner`` makes every update."""

    def __init__(
        self,
        config: TrainConfig,
        learner: Learner,
        normalizer: ObservationNormalizer | None,
        factory: EnvFactory | None,
    ) -> None:
        self.config, self.learner, self.factory = config, learner, factory
        self.trackers = trackers(normalizer, learner)
        for tracker in self.trackers.values():
            tracker.moments = no_moments(tracker.moments.mean.shape)  # the workers' own first observations count
        self.num_steps, self.seconds, self.version = 0, 0.0, 0
        assert config.workers.num_workers is not None
        self.seats = [Seat(index) for index in range(config.workers.num_workers)]
        self.counters = np.zeros((len(self.seats), len(Counter)), np.int64)
        self.restarts = Restarts(config)
        self._pace = Pace(self.counters)
        self._starting: dict[Any, Seat] = {}  # what was asked for and is not answered, oldest first
        self._working: dict[Any, Seat] = {}
        self._newest: tuple[int, Any] = (-1, None)  # number and store reference of the last version that was put there
        self._sum, self._scaled = np.zeros((2, len(learner.flat)), np.float32)
        self._states: list[State | None] = [None] * len(self.seats)
        self._restart_seed = self._skipped_in_a_row = 0
        self._exact = True
        self._began = self._failed = False
        self._begin_by = 0.0
        self._reports: list[Metrics] = []
        self._lags: list[int] = []
        self._metrics_at = 0.0
        self._episodes: list[Episode] = []
        self._messages: list[str] = []
        self._leave, dashboard = join(config)
        if dashboard:
            self._messages.append(f"Ray's dashboard: {dashboard}")
        self._places = min(len(self.seats), free_places(config.workers))
        device: Literal["cuda", "cpu"] = "cuda" if config.workers.worker_gpus else "cpu"
        self._worker_config = ray.put(dataclasses.replace(config, device=device))

    # ------------------------------------------------------------------ training

    def advance(self, until: int, seconds: float) -> Metrics:
        """See :class:`limelight.runners.base.Runner`."""
        if not self._begin(seconds):
            return {}
        start = now = time.perf_counter()
        try:
            while self.num_steps < until and now < start + seconds:
                self._turn(until, start + seconds - now)
                now = time.perf_counter()
        except BaseException:
            self._failed = True
            raise
        self.seconds += now - start
        return self._gather() if self.num_steps >= until else {}

    def _begin(self, seconds: float) -> bool:
        """Whether all workers that there is room for are ready; they are made, if that was not done before."""
        if self._began:
            return True
        if not self._starting:
            for seat in self.seats:
                self._make(seat)
            self._begin_by = time.monotonic() + _PATIENCE_TO_BEGIN
        self._welcome(len(self._starting), seconds)
        ready, late = sum(seat.ready for seat in self.seats), time.monotonic() >= self._begin_by
        self._began = ready >= max(1, self._places) or (ready > 0 and late)
        if self._began:
            self._pace.start()
        if ready < len(self.seats) and (self._began or late):
            workers = self.config.workers
            self._messages.append(
                f"{ready} of {len(self.seats)} workers have begun, and the cluster has room for {self._places} "
                f"(each: {workers.worker_cpus:g} CPUs, {workers.worker_gpus:g} GPUs); the others join when they can"
            )
            self._begin_by = time.monotonic() + _PATIENCE_TO_BEGIN
        return self._began

    def _turn(self, until: int, seconds: float) -> None:
        """Give every worker something to do; when enough have answered, learn from that."""
        self._make_due()
        if self._starting:
            self._welcome(1, 0.0)
        self._ask_all(until)
        if not self._working:
            time.sleep(min(_NAP, seconds))
            return
        # ray.wait prefers the first ones; these have waited longest, so nobody is passed over.
        enough = 1 if self.config.workers.asynchronous else len(self._working)
        done, _ = ray.wait(list(self._working), num_returns=enough, timeout=seconds)
        if len(done) == enough:
            self._take_in(done, until)

    def _ask_all(self, until: int) -> None:
        """A rollout of everybody who does nothing."""
        ahead = self.config.workers.ask_ahead
        idle = [seat for seat in self.seats if seat.ready for _ in range(seat.pending, ahead + 1)]
        if not idle:
            return
        rows = len(idle) * self.config.env.num_envs * self.config.algorithm.num_steps
        now = time.perf_counter()
        want_metrics = now - self._metrics_at >= _METRICS_EVERY or self.num_steps + rows >= until
        if want_metrics and self.config.workers.ship == "gradients":
            self._metrics_at = now
        for seat in idle:
            is_old = seat.version < 0 or self.version - seat.version > self.config.workers.max_lag
            if is_old:
                seat.version = self.version
            seat.pending += 1
            self._working[seat.actor.work.remote(self._put_version() if is_old else None, want_metrics)] = seat

    def _put_version(self) -> Any:
        """The newest parameters, in the object store: once, for all workers that need them."""
        if self._newest[0] != self.version:
            master = self.learner.master
            target = None if master.target_params is None else master.target_params.cpu().numpy()
            moments = {name: tracker.moments for name, tracker in self.trackers.items()}
            params, progress = master.params.cpu().numpy(), self.learner.progress
            version = Version(self.version, params, target, moments, progress)
            self._newest = self.version, ray.put(version)
        return self._newest[1]

    def _take_in(self, done: Sequence[Any], until: int) -> None:
        """Learn from the rollouts of these tasks: each by itself, or, if synchronous, from all together."""
        pieces = []
        for task in done:
            seat = self._working.pop(task, None)  # nothing more is heard of those that have died
            if seat is not None and (piece := self._answer(seat, task)) is not None:
                seat.pending -= 1
                pieces.append((seat, piece))
        if self.config.workers.asynchronous:
            for pair in pieces:
                self._learn([pair], until)
        elif pieces:
            self._learn(sorted(pieces, key=lambda pair: pair[0].index), until)

    def _answer(self, seat: Seat, task: Any) -> Any:
        """What a worker has answered; None if it has died instead, which is seen to."""
        try:
            return ray.get(task)
        except RayError as error:
            self._bury(seat, error)
            return None

    # ------------------------------------------------------------------ learning

    def _learn(self, pieces: Sequence[tuple[Seat, Piece]], until: int) -> None:
        """One update from rollouts of the same parameters."""
        num_valid = sum(piece.num_valid for _, piece in pieces)
        for seat, piece in pieces:
            self._note(seat, piece)
        if num_valid:  # else nothing happened; momentum must not move the parameters
            metrics = self._gradients([piece for _, piece in pieces], num_valid, self.num_steps + num_valid >= until)
            try:
                applied = self.learner.apply(
                    self.num_steps / self.config.total_timesteps, sum(piece.episodes_ended for _, piece in pieces)
                )
                self._skipped_in_a_row = 0
                self.version += 1
                self.counters[[seat.index for seat, _ in pieces], Counter.UPDATES] += 1
                if metrics:
                    self._reports.append({**metrics, **applied})
            except NonFiniteGradientError:
                self.counters[[seat.index for seat, _ in pieces], Counter.SKIPPED] += 1
                self._skipped_in_a_row += 1
                if not self.config.workers.asynchronous or self._skipped_in_a_row == PATIENCE:
                    raise
        self.num_steps += num_valid

    def _note(self, seat: Seat, piece: Piece) -> None:
        """What a worker tells beside its rollout."""
        self.counters[seat.index, Counter.STEPS] += piece.num_valid
        self._lags.append(self.version - piece.version)
        first = seat.index * self.config.env.num_envs
        self._episodes.extend(e._replace(env=first + e.env) for e in piece.episodes)
        for name, (seen, known) in piece.seen.items():
            tracker = self.trackers[name]
            # Where nobody else has seen anything, the worker's are the moments, to the last bit.
            alone = tracker.moments.size + seen.size == known.size
            tracker.moments = known if alone else tracker.moments.merge(seen)

    def _gradients(self, pieces: Sequence[Piece], num_valid: int, is_last: bool) -> Metrics:
        """Write the gradient of the mean loss over all valid rows into the learner's ``flat.grads``."""
        now = time.perf_counter()
        want_metrics = is_last or now - self._metrics_at >= _METRICS_EVERY
        rows, grads = [], self.learner.flat.grads
        pieces = [piece for piece in pieces if piece.num_valid]
        if len(pieces) > 1:
            self._sum[:] = 0.0
        for piece in pieces:
            if piece.rollout is not None:
                rows.append(self.learner.gradients(_writable(piece.rollout), want_metrics))
            else:
                assert piece.gradients is not None
                rows.append(piece.metrics)
                copy_into(grads, piece.gradients)
            if len(pieces) > 1:
                np.multiply(grads.cpu().numpy(), np.float32(piece.num_valid / num_valid), out=self._scaled)
                self._sum += self._scaled
        if len(pieces) > 1:
            copy_into(grads, self._sum)
        if want_metrics and pieces[0].rollout is not None:
            self._metrics_at = now
        return mean_metrics([row for row in rows if row])

    # ------------------------------------------------------------------ workers

    def _make(self, seat: Seat) -> None:
        workers = self.config.workers
        options = {
            "num_cpus": workers.worker_cpus,
            "num_gpus": workers.worker_gpus,
            "scheduling_strategy": "SPREAD" if workers.worker_placement == "spread" else "DEFAULT",
        }
        seat.actor = ray.remote(RayWorker).options(**options).remote([folder or os.getcwd() for folder in sys.path])
        task = seat.actor.start.remote(
            self._worker_config, self.factory, seat.index, seat.incarnation,
            self._states[seat.index], self._restart_seed + seat.index,
        )  # fmt: skip
        self._starting[task] = seat

    def _make_due(self) -> None:
        """New actors for seats whose time has come."""
        now = time.monotonic()
        for seat in self.seats:
            if seat.restart_at is not None and now >= seat.restart_at:
                seat.restart_at = None
                self._make(seat)

    def _welcome(self, wanted: int, seconds: float) -> None:
        """Wait until so many of those that are starting have; take in those that have."""
        wanted = min(wanted, len(self._starting))
        done, _ = ray.wait(list(self._starting), num_returns=wanted, timeout=seconds)
        for task in done:
            seat = self._starting.pop(task)
            exact = self._answer(seat, task)
            if exact is not None:
                seat.ready = seat.was_ready = True
                self._states[seat.index] = None  # a successor begins anew
                self._exact = self._exact and exact
                if not exact and self.config.workers.asynchronous:
                    self._messages.append(f"worker {seat.index}: {EPISODES_RESTART}")

    def _bury(self, seat: Seat, error: RayError) -> None:
        """See to a worker that has died, or whose environments have: a new one after a while, or the end of the run."""
        with contextlib.suppress(Exception):  # it may be gone, and its node with it
            ray.kill(seat.actor)
        seat.actor, seat.ready, seat.pending, seat.version = None, False, 0, -1
        self._working = {task: other for task, other in self._working.items() if other is not seat}
        said = _plain(str(error))
        if isinstance(error, RayTaskError):  # of its own making; all others are of actors and nodes
            if isinstance(error.cause, ConfigError):
                raise ConfigError(str(error.cause)) from None
            said = f"it raised\n{said}"
        delay, message = self.restarts.after(seat.index, seat.incarnation, seat.was_ready, said)
        seat.incarnation += 1
        seat.restart_at = time.monotonic() + delay
        self._messages.append(message)

    # ------------------------------------------------------------------ what the loop asks for

    def _gather(self) -> Metrics:
        """Metrics of the updates since the last call."""
        reports, lags = self._reports, self._lags
        self._reports, self._lags = [], []
        metrics = mean_metrics(reports)
        if not lags:
            return metrics
        metrics |= {"async/worker_restarts": self.restarts.count, **self._pace.metrics()}
        if self.config.workers.asynchronous:
            metrics["async/policy_lag"] = float(np.mean(lags))
            metrics["async/policy_lag_max"] = max(lags)
            metrics["async/skipped_updates"] = int(self.counters[:, Counter.SKIPPED].sum())
        return metrics

    def pop_episodes(self) -> list[Episode]:
        """See :class:`limelight.runners.base.Runner`."""
        episodes, self._episodes = self._episodes, []
        return episodes

    def pop_messages(self) -> list[str]:
        """See :class:`limelight.runners.base.Runner`."""
        messages, self._messages = self._messages, []
        return messages

    def get_state(self) -> State:
        """See :class:`limelight.runners.base.Runner`; the workers finish their rollouts, which are learnt, and rest."""
        states = list(self._states)
        if self._failed:  # where they stand does not go with what has been learnt
            states = [None] * len(self.seats)
        elif self._began:
            states = self._ask_for_states()
        return {
            "num_steps": self.num_steps,
            "seconds": self.seconds,
            "version": self.version,
            "master": self.learner.master.get_state(),
            "learner": self.learner.get_state(),
            "moments": {name: tracker.get_state() for name, tracker in self.trackers.items()},
            "workers": states,
            "incarnations": [seat.incarnation for seat in self.seats],
            "episodes": [list(episode) for episode in self._episodes],
        }

    def _ask_for_states(self) -> list[State | None]:
        """The state of each worker, None of those that are dead or too slow."""
        if self._working:
            timeout = _ANSWER_WITHIN if self.config.workers.asynchronous else None  # else an update would lack some
            done, _ = ray.wait(list(self._working), num_returns=len(self._working), timeout=timeout)
            self._take_in(done, self.num_steps)
        asked = {seat.actor.get_state.remote(): seat for seat in self.seats if seat.ready and not seat.pending}
        states = list(self._states)  # of those that have not begun yet
        if asked:
            for task in ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_WITHIN)[0]:
                with contextlib.suppress(RayError):  # its next rollout tells
                    states[asked[task].index] = ray.get(task)
        late = [seat.index for seat in self.seats if seat.ready and states[seat.index] is None]
        if late:
            self._messages.append(
                f"workers {late} did not answer within {_ANSWER_WITHIN:g} s; the checkpoint lacks them"
            )
        return states

    def set_state(self, state: Mapping[str, Any], seed: int) -> str | None:
        """See :class:`limelight.runners.base.Runner`; waits for the workers, to tell whether they continue exactly."""
        self.num_steps, self.seconds = int(state["num_steps"]), float(state["seconds"])
        self.version = int(state["version"])
        self.learner.master.set_state(state["master"])
        self.learner.set_state(state["learner"])
        for name, tracker in self.trackers.items():
            tracker.set_state(state["moments"][name])
        self._states, self._restart_seed = list(state["workers"]), seed
        for seat, incarnation, worker in zip(self.seats, state["incarnations"], self._states, strict=True):
            seat.incarnation = int(incarnation) + (worker is None)  # one without a state must not repeat its episodes
            self._exact = self._exact and worker is not None
        self._episodes = [Episode(*episode) for episode in state["episodes"]]
        if self.config.workers.asynchronous:
            return INEXACT
        while not self._begin(1.0):
            pass
        return None if self._exact and all(seat.ready for seat in self.seats) else EPISODES_RESTART

    def close(self) -> None:
        """See :class:`limelight.runners.base.Runner`; leaves the cluster, and ends one that was started for the run."""
        with contextlib.suppress(RayError):
            ends = [seat.actor.close.remote() for seat in self.seats if seat.ready]
            if ends:
                ray.wait(ends, num_returns=len(ends), timeout=_END_WITHIN)
            for seat in self.seats:
                if seat.actor is not None:
                    ray.kill(seat.actor)
        self._leave()


def _plain(text: str) -> str:
    """Without the colours of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()


def _writable(rollout: Rollout) -> Rollout:
    """A copy: what comes out of Ray's store may not be written, and PyTorch wants that it may."""

    def copied(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.copy()
        return type(value)(*map(copied, value)) if isinstance(value, tuple) else value

    return dataclasses.replace(
        rollout, **{field.name: copied(getattr(rollout, field.name)) for field in dataclasses.fields(rollout)}
    )
