"""The workers of a run on a Ray cluster: starts them, requests rollouts and states, and replaces those that exit."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from typing import Any, Literal

import ray
from ray.exceptions import RayError, RayTaskError

from limelight.runners.base import ENV_STATE_NOT_RESTORED
from limelight.runners.ray.actors import (
    STATE_TIMEOUT,
    PooledWorker,
    end_workers,
    exit_reason,
    late_notes,
    needs,
    new_actor,
    states_of,
    stored,
)
from limelight.runners.ray.cluster import free_places, join
from limelight.runners.ray.worker import WorkerResult
from limelight.runners.worker_slots import RestartPolicy, WorkerSlot, ends_the_run, pop_due
from limelight.settings.schema import TrainConfig
from limelight.typing import EnvFactory, State

START_TIMEOUT = 60.0
"""Seconds after which a run starts with the workers that are ready, or says that none is."""


class WorkerPool:
    """Owns the Ray actors of a run and their unfinished tasks; the learner is not its concern.

    Args:
        config: of the run.
        factory: makes the environment, where it was given as a Python object.
        announce_inexact: add a message for each worker that continues a checkpoint with new episodes.
    """

    def __init__(self, config: TrainConfig, factory: EnvFactory | None, announce_inexact: bool) -> None:
        assert config.workers.num_workers is not None
        self.config = config
        self.factory = factory
        self.announce_inexact = announce_inexact
        self.workers = [PooledWorker(WorkerSlot(index)) for index in range(config.workers.num_workers)]
        self.restart_policy = RestartPolicy(config)
        self.messages: list[str] = []
        self.started = False
        """Enough workers have started for the run to begin."""
        self.exact = True
        """Every worker so far continues its part of the checkpoint exactly."""
        # What a checkpoint has of the workers
        self.states: list[State | None] = [None] * len(self.workers)
        self._restart_seed = 0
        # Unfinished tasks, oldest first
        self._starting: dict[Any, PooledWorker] = {}
        self._pending: dict[Any, PooledWorker] = {}
        self._start_deadline = 0.0
        # The cluster
        self.cluster = join(config)
        if self.cluster.dashboard:
            self.messages.append(f"Ray's dashboard: {self.cluster.dashboard}")
        self._places = min(len(self.workers), free_places(config.workers.ray))
        device: Literal["cuda", "cpu"] = "cuda" if config.workers.ray.worker_gpus else "cpu"
        self._worker_config = ray.put(dataclasses.replace(config, device=device))

    # ------------------------------------------------------------------ starting and replacing workers

    def start(self, seconds: float) -> bool:
        """Start all workers at the first call; return whether the run can begin, after at most ``seconds``.

        The run can begin once every worker is ready that the cluster has room for, or after a minute with one or more.
        """
        if self.started:
            return True
        self._require_cluster()
        if not self._starting:
            for worker in self.workers:
                self._start_actor(worker)
            self._start_deadline = time.monotonic() + START_TIMEOUT
        self._receive_started(len(self._starting), seconds)
        ready = sum(worker.slot.ready for worker in self.workers)
        late = time.monotonic() >= self._start_deadline
        self.started = ready >= max(1, self._places) or (ready > 0 and late)
        if ready < len(self.workers) and (self.started or late):
            self.messages.append(
                f"{ready} of {len(self.workers)} workers have started, and the cluster has room for {self._places} "
                f"({needs(self.config.workers.ray)}); the others join when they can"
            )
            self._start_deadline = time.monotonic() + START_TIMEOUT
        return self.started

    def maintain(self) -> None:
        """Start the workers that are due, and add those that have started since the last call.

        Raises: WorkerError if the cluster is lost.
        """
        self._require_cluster()
        self.messages += late_notes(self.workers, self._pending)
        for slot in pop_due(worker.slot for worker in self.workers):
            self._start_actor(self.workers[slot.index])
        if self._starting:
            self._receive_started(1, 0.0)

    def _require_cluster(self) -> None:
        self.messages += self.cluster.watch.pop_messages()
        self.cluster.watch.require_cluster()

    def _start_actor(self, worker: PooledWorker) -> None:
        slot = worker.slot
        worker.actor = new_actor(self.config.workers.ray)
        task = worker.actor.start.remote(
            self._worker_config, self.factory, slot.index, slot.restarts,
            self.states[slot.index], self._restart_seed + slot.index,
        )  # fmt: skip
        self._starting[task] = worker

    def _receive_started(self, wanted: int, seconds: float) -> None:
        """Wait until ``wanted`` of the starting workers have started, and mark those that have as ready."""
        wanted = min(wanted, len(self._starting))
        done, _ = ray.wait(list(self._starting), num_returns=wanted, timeout=seconds)
        for task in done:
            worker = self._starting.pop(task)
            exact = self._get(worker, task)
            if exact is None:
                continue
            slot = worker.slot
            slot.mark_ready()
            self.states[slot.index] = None  # the next worker of this slot starts anew
            self.exact = self.exact and exact
            if not exact and self.announce_inexact:
                self.messages.append(f"worker {slot.index}: {ENV_STATE_NOT_RESTORED}")

    def _get(self, worker: PooledWorker, task: Any) -> Any:
        """Return the result of a task; None if its worker has exited, which is handled."""
        try:
            return ray.get(task)
        except RayError as error:
            self._handle_exit(worker, error)
            return None

    def _handle_exit(self, worker: PooledWorker, error: RayError) -> None:
        """Schedule the next worker of the slot.

        Raises: WorkerError if there is to be none; the worker's own error where its message is for the user.
        """
        self.cluster.watch.look()
        with contextlib.suppress(Exception):  # the actor may not exist any more, nor its node
            ray.kill(worker.actor)
        worker.actor = None
        worker.slot.ready = False
        worker.pending = 0
        worker.version = -1
        worker.is_noted = False
        self._pending = {task: other for task, other in self._pending.items() if other is not worker}
        if isinstance(error, RayTaskError) and ends_the_run(error.cause):
            raise type(error.cause)(*error.cause.args) from None
        from_outside = not isinstance(error, RayTaskError)  # the process or its machine is gone
        self.messages.append(self.restart_policy.handle_exit(worker.slot, exit_reason(error), from_outside))

    # ------------------------------------------------------------------ rollouts

    @property
    def num_pending(self) -> int:
        """The number of rollouts that were requested and have not been received."""
        return len(self._pending)

    def idle_workers(self, prefetch: int) -> list[PooledWorker]:
        """Return the ready workers that have fewer than ``prefetch + 1`` requests, once per missing request."""
        ready = [worker for worker in self.workers if worker.slot.ready]
        return [worker for worker in ready for _ in range(worker.pending, prefetch + 1)]

    def request_rollout(self, worker: PooledWorker, snapshot: Any, with_metrics: bool) -> None:
        """Request a rollout; ``snapshot`` refers to new parameters, None keeps those that the worker has."""
        self._pending[worker.actor.collect_rollout.remote(snapshot, with_metrics)] = worker
        if not worker.pending:
            worker.asked_at = time.monotonic()
        worker.pending += 1

    def put(self, value: Any) -> Any:
        """Put ``value`` into Ray's object store, and return the reference to it.

        Raises: WorkerError if the store is full, on the disk as well.
        """
        self.cluster.watch.require_cluster()
        return stored(value)

    def receive_results(self, wanted: int, seconds: float | None, partial: bool = False) -> list[WorkerResult]:
        """Wait for ``wanted`` requested rollouts; return those of workers that have not exited meanwhile.

        Where fewer have arrived after ``seconds`` (None: no limit), return none, or with ``partial`` those that have.
        """
        # ray.wait prefers the first tasks; these were requested first, so no worker is neglected.
        done, _ = ray.wait(list(self._pending), num_returns=wanted, timeout=seconds)
        if len(done) < wanted and not partial:
            return []
        self.cluster.watch.require_cluster()
        results = []
        for task in done:
            worker = self._pending.pop(task, None)  # tasks of a worker that has exited are gone
            if worker is not None and (result := self._get(worker, task)) is not None:
                worker.pending -= 1
                worker.asked_at = time.monotonic()
                results.append(result)
        return results

    # ------------------------------------------------------------------ states

    def request_states(self) -> list[State | None]:
        """Return the states of all workers: those of the checkpoint of workers not started, None of slow ones."""
        states, late = states_of(self.workers, self.states)
        if late:
            self.messages.append(f"workers {late} did not answer within {STATE_TIMEOUT:g} s; the checkpoint lacks them")
        return states

    def set_states(self, states: Sequence[State | None], restarts: Sequence[int], seed: int) -> None:
        """Let workers continue from ``states`` when they start; one without a state gets fresh seeds."""
        self._restart_seed = seed
        self.states, counts = fitted(states, len(self.workers)), fitted(restarts, len(self.workers))
        for worker, state, count in zip(self.workers, self.states, counts, strict=True):
            worker.slot.restarts = int(count or 0) + (state is None)
        self.exact = len(states) == len(self.workers) and None not in self.states

    def close(self) -> None:
        """Free the environments, end the workers, and leave the cluster, or end one that was started for the run."""
        self.cluster.watch.stop()
        if not self.cluster.watch.is_lost:
            end_workers(self.workers)
        self.cluster.leave()


def fitted(values: Sequence[Any], number: int) -> list[Any]:
    """Return one value per worker, None for further ones: a resumed run may have more workers or fewer."""
    return [*values, *[None] * number][:number]
