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

from limelight.algo.episodes import Episode
from limelight.algo.learner import Learner
from limelight.algo.normalization import ObservationNormalizer, no_moments
from limelight.algo.rollout import Rollout
from limelight.algo.train_state import copy_into
from limelight.errors import LimelightError, NonFiniteError
from limelight.runners.actor_learner import running_statistics
from limelight.runners.base import ENV_STATE_NOT_RESTORED, MAX_CONSECUTIVE_SKIPS, NOT_REPRODUCIBLE
from limelight.runners.ray.cluster import free_places, join
from limelight.runners.ray.worker import ParameterSnapshot, RayWorker, WorkerResult
from limelight.runners.worker_metrics import Counter, WorkerRates, mean_metrics
from limelight.runners.worker_slots import RestartPolicy
from limelight.settings.schema import TrainConfig
from limelight.typing import EnvFactory, Metrics, State

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
class WorkerSlot:
    """The place of one worker, and the actor that sits in it now."""

    index: int
    actor: Any = None
    restarts: int = 0
    ready: bool = False
    """The present actor has begun to collect_rollout."""
    was_ready: bool = False
    """Some actor in this slot had."""
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
        self.running_statistics = running_statistics(normalizer, learner)
        for tracker in self.running_statistics.values():
            tracker.moments = no_moments(tracker.moments.mean.shape)  # the workers' own first observations count
        self.num_steps, self.seconds, self.version = 0, 0.0, 0
        assert config.workers.num_workers is not None
        self.slots = [WorkerSlot(index) for index in range(config.workers.num_workers)]
        self.counters = np.zeros((len(self.slots), len(Counter)), np.int64)
        self.restarts = RestartPolicy(config)
        self._pace = WorkerRates(self.counters)
        self._starting: dict[Any, WorkerSlot] = {}  # what was asked for and is not answered, oldest first
        self._working: dict[Any, WorkerSlot] = {}
        self._newest: tuple[int, Any] = (-1, None)  # number and store reference of the last version that was put there
        self._sum, self._scaled = np.zeros((2, len(learner.flat)), np.float32)
        self._states: list[State | None] = [None] * len(self.slots)
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
        self._places = min(len(self.slots), free_places(config.workers.ray))
        device: Literal["cuda", "cpu"] = "cuda" if config.workers.ray.worker_gpus else "cpu"
        self._worker_config = ray.put(dataclasses.replace(config, device=device))

    # ------------------------------------------------------------------ training

    def advance(self, until: int, seconds: float) -> Metrics:
        """See :class:`limelight.runners.base.Runner`."""
        if not self._wait_for_workers(seconds):
            return {}
        start = now = time.perf_counter()
        try:
            while self.num_steps < until and now < start + seconds:
                self._step(until, start + seconds - now)
                now = time.perf_counter()
        except BaseException:
            self._failed = True
            raise
        self.seconds += now - start
        return self._gather() if self.num_steps >= until else {}

    def _wait_for_workers(self, seconds: float) -> bool:
        """Whether all workers that there is room for are ready; they are made, if that was not done before."""
        if self._began:
            return True
        if not self._starting:
            for slot in self.slots:
                self._make(slot)
            self._begin_by = time.monotonic() + _PATIENCE_TO_BEGIN
        self._collect_started(len(self._starting), seconds)
        ready, late = sum(slot.ready for slot in self.slots), time.monotonic() >= self._begin_by
        self._began = ready >= max(1, self._places) or (ready > 0 and late)
        if self._began:
            self._pace.start()
        if ready < len(self.slots) and (self._began or late):
            workers = self.config.workers.ray
            self._messages.append(
                f"{ready} of {len(self.slots)} workers have begun, and the cluster has room for {self._places} "
                f"(each: {workers.worker_cpus:g} CPUs, {workers.worker_gpus:g} GPUs); the others join when they can"
            )
            self._begin_by = time.monotonic() + _PATIENCE_TO_BEGIN
        return self._began

    def _step(self, until: int, seconds: float) -> None:
        """Give every worker something to do; when enough have answered, learn from that."""
        self._make_due()
        if self._starting:
            self._collect_started(1, 0.0)
        self._dispatch(until)
        if not self._working:
            time.sleep(min(_NAP, seconds))
            return
        # ray.wait prefers the first ones; these have waited longest, so nobody is passed over.
        enough = 1 if self.config.workers.asynchronous else len(self._working)
        done, _ = ray.wait(list(self._working), num_returns=enough, timeout=seconds)
        if len(done) == enough:
            self._consume(done, until)

    def _dispatch(self, until: int) -> None:
        """A rollout of everybody who does nothing."""
        ahead = self.config.workers.ray.prefetch
        idle = [slot for slot in self.slots if slot.ready for _ in range(slot.pending, ahead + 1)]
        if not idle:
            return
        rows = len(idle) * self.config.env.num_envs * self.config.algorithm.num_steps
        now = time.perf_counter()
        want_metrics = now - self._metrics_at >= _METRICS_EVERY or self.num_steps + rows >= until
        if want_metrics and self.config.workers.ray.worker_output == "gradients":
            self._metrics_at = now
        for slot in idle:
            is_old = slot.version < 0 or self.version - slot.version > self.config.workers.ray.max_policy_lag
            if is_old:
                slot.version = self.version
            slot.pending += 1
            self._working[slot.actor.collect_rollout.remote(self._put_version() if is_old else None, want_metrics)] = (
                slot
            )

    def _put_version(self) -> Any:
        """The newest parameters, in the object store: once, for all workers that need them."""
        if self._newest[0] != self.version:
            train_state = self.learner.train_state
            target = None if train_state.target_params is None else train_state.target_params.cpu().numpy()
            moments = {name: tracker.moments for name, tracker in self.running_statistics.items()}
            params, progress = train_state.params.cpu().numpy(), self.learner.progress
            version = ParameterSnapshot(self.version, params, target, moments, progress)
            self._newest = self.version, ray.put(version)
        return self._newest[1]

    def _consume(self, done: Sequence[Any], until: int) -> None:
        """Learn from the rollouts of these tasks: each by itself, or, if synchronous, from all together."""
        pieces = []
        for task in done:
            slot = self._working.pop(task, None)  # nothing more is heard of those that have died
            if slot is not None and (piece := self._answer(slot, task)) is not None:
                slot.pending -= 1
                pieces.append((slot, piece))
        if self.config.workers.asynchronous:
            for pair in pieces:
                self._learn([pair], until)
        elif pieces:
            self._learn(sorted(pieces, key=lambda pair: pair[0].index), until)

    def _answer(self, slot: WorkerSlot, task: Any) -> Any:
        """What a worker has answered; None if it has died instead, which is seen to."""
        try:
            return ray.get(task)
        except RayError as error:
            self._handle_exit(slot, error)
            return None

    # ------------------------------------------------------------------ learning

    def _learn(self, pieces: Sequence[tuple[WorkerSlot, WorkerResult]], until: int) -> None:
        """One update from rollouts of the same parameters."""
        num_valid = sum(piece.num_valid for _, piece in pieces)
        for slot, piece in pieces:
            self._record(slot, piece)
        if num_valid:  # else nothing happened; momentum must not move the parameters
            metrics = self._gradients([piece for _, piece in pieces], num_valid, self.num_steps + num_valid >= until)
            try:
                applied = self.learner.apply(
                    self.num_steps / self.config.total_timesteps, sum(piece.episodes_ended for _, piece in pieces)
                )
                self._skipped_in_a_row = 0
                self.version += 1
                self.counters[[slot.index for slot, _ in pieces], Counter.UPDATES] += 1
                if metrics:
                    self._reports.append({**metrics, **applied})
            except NonFiniteError:
                self.counters[[slot.index for slot, _ in pieces], Counter.SKIPPED] += 1
                self._skipped_in_a_row += 1
                if not self.config.workers.asynchronous or self._skipped_in_a_row == MAX_CONSECUTIVE_SKIPS:
                    raise
        self.num_steps += num_valid

    def _record(self, slot: WorkerSlot, piece: WorkerResult) -> None:
        """What a worker tells beside its rollout."""
        self.counters[slot.index, Counter.STEPS] += piece.num_valid
        self._lags.append(self.version - piece.version)
        first = slot.index * self.config.env.num_envs
        self._episodes.extend(e._replace(env=first + e.env) for e in piece.episodes)
        for name, (seen, known) in piece.seen.items():
            tracker = self.running_statistics[name]
            # Where nobody else has seen anything, the worker's are the moments, to the last bit.
            alone = tracker.moments.size + seen.size == known.size
            tracker.moments = known if alone else tracker.moments.merge(seen)

    def _gradients(self, pieces: Sequence[WorkerResult], num_valid: int, is_last: bool) -> Metrics:
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

    def _make(self, slot: WorkerSlot) -> None:
        workers = self.config.workers.ray
        options = {
            "num_cpus": workers.worker_cpus,
            "num_gpus": workers.worker_gpus,
            "scheduling_strategy": "SPREAD" if workers.worker_placement == "spread" else "DEFAULT",
        }
        slot.actor = ray.remote(RayWorker).options(**options).remote([folder or os.getcwd() for folder in sys.path])
        task = slot.actor.start.remote(
            self._worker_config, self.factory, slot.index, slot.restarts,
            self._states[slot.index], self._restart_seed + slot.index,
        )  # fmt: skip
        self._starting[task] = slot

    def _make_due(self) -> None:
        """New actors for slots whose time has come."""
        now = time.monotonic()
        for slot in self.slots:
            if slot.restart_at is not None and now >= slot.restart_at:
                slot.restart_at = None
                self._make(slot)

    def _collect_started(self, wanted: int, seconds: float) -> None:
        """Wait until so many of those that are starting have; take in those that have."""
        wanted = min(wanted, len(self._starting))
        done, _ = ray.wait(list(self._starting), num_returns=wanted, timeout=seconds)
        for task in done:
            slot = self._starting.pop(task)
            exact = self._answer(slot, task)
            if exact is not None:
                slot.ready = slot.was_ready = True
                self._states[slot.index] = None  # a successor begins anew
                self._exact = self._exact and exact
                if not exact and self.config.workers.asynchronous:
                    self._messages.append(f"worker {slot.index}: {ENV_STATE_NOT_RESTORED}")

    def _handle_exit(self, slot: WorkerSlot, error: RayError) -> None:
        """See to a worker that has died, or whose environments have: a new one after a while, or the end of the run."""
        with contextlib.suppress(Exception):  # it may be gone, and its node with it
            ray.kill(slot.actor)
        slot.actor, slot.ready, slot.pending, slot.version = None, False, 0, -1
        self._working = {task: other for task, other in self._working.items() if other is not slot}
        said = _plain(str(error))
        if isinstance(error, RayTaskError):  # of its own making; all others are of actors and nodes
            if isinstance(error.cause, LimelightError):
                raise type(error.cause)(*error.cause.args) from None
            said = f"it raised\n{said}"
        delay, message = self.restarts.after(slot.index, slot.restarts, slot.was_ready, said)
        slot.restarts += 1
        slot.restart_at = time.monotonic() + delay
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
            states = [None] * len(self.slots)
        elif self._began:
            states = self._ask_for_states()
        return {
            "num_steps": self.num_steps,
            "seconds": self.seconds,
            "version": self.version,
            "train_state": self.learner.train_state.get_state(),
            "learner": self.learner.get_state(),
            "moments": {name: tracker.get_state() for name, tracker in self.running_statistics.items()},
            "workers": states,
            "restarts": [slot.restarts for slot in self.slots],
            "episodes": [list(episode) for episode in self._episodes],
        }

    def _ask_for_states(self) -> list[State | None]:
        """The state of each worker, None of those that are dead or too slow."""
        if self._working:
            timeout = _ANSWER_WITHIN if self.config.workers.asynchronous else None  # else an update would lack some
            done, _ = ray.wait(list(self._working), num_returns=len(self._working), timeout=timeout)
            self._consume(done, self.num_steps)
        asked = {slot.actor.get_state.remote(): slot for slot in self.slots if slot.ready and not slot.pending}
        states = list(self._states)  # of those that have not begun yet
        if asked:
            for task in ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_WITHIN)[0]:
                with contextlib.suppress(RayError):  # its next rollout tells
                    states[asked[task].index] = ray.get(task)
        late = [slot.index for slot in self.slots if slot.ready and states[slot.index] is None]
        if late:
            self._messages.append(
                f"workers {late} did not answer within {_ANSWER_WITHIN:g} s; the checkpoint lacks them"
            )
        return states

    def set_state(self, state: Mapping[str, Any], seed: int) -> str | None:
        """See :class:`limelight.runners.base.Runner`; waits for the workers, to tell whether they continue exactly."""
        self.num_steps, self.seconds = int(state["num_steps"]), float(state["seconds"])
        self.version = int(state["version"])
        self.learner.train_state.set_state(state["train_state"])
        self.learner.set_state(state["learner"])
        for name, tracker in self.running_statistics.items():
            tracker.set_state(state["moments"][name])
        self._states, self._restart_seed = list(state["workers"]), seed
        for slot, restarts, worker in zip(self.slots, state["restarts"], self._states, strict=True):
            slot.restarts = int(restarts) + (worker is None)  # one without a state must not repeat its episodes
            self._exact = self._exact and worker is not None
        self._episodes = [Episode(*episode) for episode in state["episodes"]]
        if self.config.workers.asynchronous:
            return NOT_REPRODUCIBLE
        while not self._wait_for_workers(1.0):
            pass
        return None if self._exact and all(slot.ready for slot in self.slots) else ENV_STATE_NOT_RESTORED

    def close(self) -> None:
        """See :class:`limelight.runners.base.Runner`; leaves the cluster, and ends one that was started for the run."""
        with contextlib.suppress(RayError):
            ends = [slot.actor.close.remote() for slot in self.slots if slot.ready]
            if ends:
                ray.wait(ends, num_returns=len(ends), timeout=_END_WITHIN)
            for slot in self.slots:
                if slot.actor is not None:
                    ray.kill(slot.actor)
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
