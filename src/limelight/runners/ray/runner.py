"""The runner on a Ray cluster: workers on any node collect, and this process makes every update (docs/scaling.md).

The synchronous schedule makes one update from the rollouts of all workers (A2C). The asynchronous one makes an update
from each result as it arrives: from gradients (A3C with a parameter server), or from a rollout, corrected by V-trace.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limelight.algo.episodes import Episode
from limelight.algo.learner import Learner
from limelight.algo.normalization import ObservationNormalizer, RunningMeanStd, no_moments
from limelight.envs.attributes import Order
from limelight.errors import ConfigError, NonFiniteError
from limelight.runners.actor_learner import running_statistics
from limelight.runners.base import ENV_STATE_NOT_RESTORED, NOT_REPRODUCIBLE, budget_of, stamp_episodes
from limelight.runners.nonfinite import too_many
from limelight.runners.ray.pool import START_TIMEOUT, WorkerPool
from limelight.runners.ray.updates import AsynchronousSchedule, MeanGradient, Schedule, SynchronousSchedule
from limelight.runners.ray.worker import ParameterSnapshot, StatisticsUpdate, WorkerResult
from limelight.runners.time_shares import own_shares
from limelight.runners.worker_metrics import Counter, WorkerRates, combined_metrics, env_restarts
from limelight.settings.schema import TrainConfig
from limelight.typing import EnvFactory, Metrics, State

_POLL_EVERY = 0.05
"""Seconds between two looks for workers, while there is none."""


def refuse_order(runner: RayRunner, order: Order) -> list[Any]:
    """Refuse an order: the workers are on other machines. Raises: ConfigError always."""
    raise ConfigError(f"{order.kind} = {order.name}: not on Ray; use runner local")


class RayRunner:
    """The learning loop over a pool of workers; ``learner`` makes every update."""

    follow = refuse_order

    def __init__(
        self,
        config: TrainConfig,
        learner: Learner,
        normalizer: ObservationNormalizer | None,
        factory: EnvFactory | None,
    ) -> None:
        self.config = config
        self.learner = learner
        self.running_statistics = running_statistics(normalizer, learner)
        for statistics in self.running_statistics.values():
            statistics.moments = no_moments(statistics.moments.mean.shape)  # only workers' observations count
        self.schedule: Schedule = AsynchronousSchedule() if config.workers.asynchronous else SynchronousSchedule()
        self.pool = WorkerPool(config, factory, announce_inexact=not self.schedule.reproducible)
        self.mean_gradient = MeanGradient(learner)
        self.budget = budget_of(config)
        self.num_steps = 0
        self.num_episodes = 0
        self.seconds = 0.0
        self.version = 0
        """The version of the learner's parameters: how often it has learnt from rollouts."""
        self.counters = np.zeros((len(self.pool.workers), len(Counter)), np.int64)
        self._rates = WorkerRates(self.counters)
        self._stored: tuple[int, Any] = (-1, None)  # version and reference of the last snapshot in Ray's store
        self._consecutive_skips = 0
        self._failed = False
        # Since the last call of advance that reached its goal
        self._metrics: Metrics = {}
        self._shares: list[Metrics] = []  # rows of workers
        self._lags: list[int] = []
        self._episodes: list[Episode] = []

    def advance(self, until: int, seconds: float) -> Metrics:
        """See :class:`limelight.runners.base.Runner`."""
        if not self._start(seconds):
            return {}
        start = now = time.perf_counter()
        try:
            while not self.budget.has_reached(until, self.num_steps, self.num_episodes) and now < start + seconds:
                self._step(until, start + seconds - now)
                now = time.perf_counter()
        except BaseException:
            self._failed = True
            raise
        self.seconds += now - start
        return self._pop_metrics() if self.budget.has_reached(until, self.num_steps, self.num_episodes) else {}

    def _start(self, seconds: float) -> bool:
        """Return whether the workers have started; measure their speed from then on."""
        if self.pool.started:
            return True
        if not self.pool.start(seconds):
            return False
        self._rates.start()
        return True

    def _step(self, until: int, seconds: float) -> None:
        """Request rollouts from all idle workers, and learn from those that have arrived."""
        self.pool.maintain()
        self._request_rollouts(until)
        if not self.pool.num_pending:
            time.sleep(min(_POLL_EVERY, seconds))
            return
        self._learn(self.pool.receive_results(self.schedule.num_awaited(self.pool.num_pending), seconds), until)

    def _request_rollouts(self, until: int) -> None:
        idle = self.pool.idle_workers(self.config.workers.ray.prefetch)
        # Metrics take time: only rollouts of which one may reach ``until`` have them.
        rows = self.config.env.num_envs * self.config.algorithm.num_steps
        coming = (self.pool.num_pending + len(idle)) * rows  # steps, and no more episodes than these
        with_metrics = self.budget.has_reached(until, self.num_steps + coming, self.num_episodes + coming)
        for worker in idle:
            is_old = worker.version < 0 or self.version - worker.version > self.config.workers.ray.max_policy_lag
            if is_old:
                worker.version = self.version
            self.pool.request_rollout(worker, self._snapshot() if is_old else None, with_metrics)

    def _snapshot(self) -> Any:
        """Return a reference to the newest parameters, which are stored once for all workers that need them."""
        if self._stored[0] != self.version:
            snapshot = _snapshot_of(self.learner, self.running_statistics, self.version)
            self._stored = self.version, self.pool.put(snapshot)
        return self._stored[1]

    def _learn(self, results: list[WorkerResult], until: int) -> None:
        """Make the updates that the schedule wants of these results."""
        for batch in self.schedule.batches(results):
            num_valid = sum(result.num_valid for result in batch)
            num_episodes = self.num_episodes + sum(len(result.episodes) for result in batch)
            for result in batch:
                self._record(result, self.num_steps + num_valid)
            if num_valid:  # otherwise there is no gradient, and momentum must not move the parameters
                self._update(batch, self.budget.has_reached(until, self.num_steps + num_valid, num_episodes))
            self.num_steps += num_valid
            self.num_episodes = num_episodes

    def _record(self, result: WorkerResult, step: int) -> None:
        """Count a rollout, its episodes and its lag, and add its observations to the running statistics."""
        self.counters[result.worker, [Counter.STEPS, Counter.ENV_RESTARTS]] += result.num_valid, len(result.restarts)
        self.pool.messages += [f"worker {result.worker}: {line}" for line in result.restarts]
        self._lags.append(self.version - result.version)
        self._shares += filter(None, [own_shares(result.metrics)])
        self._episodes += stamp_episodes(result.episodes, step, result.worker, self.config.env.num_envs)
        for name, update in result.statistics.items():
            _merge(self.running_statistics[name], update)

    def _update(self, batch: Sequence[WorkerResult], with_metrics: bool) -> None:
        """Make the updates from these results, up to one that is not finite; NonFiniteError after many in a row."""
        workers = [result.worker for result in batch]
        before = self.learner.num_updates
        progress = self.budget.progress(self.num_steps, self.num_episodes)
        try:
            metrics = self.mean_gradient.update(batch, progress, with_metrics)
        except NonFiniteError as error:
            self.version += self.learner.num_updates > before  # some have been made
            self.counters[workers, Counter.SKIPPED] += 1
            self._consecutive_skips += 1
            most = 1 if self.config.optim.on_nonfinite == "raise" else self.schedule.max_consecutive_skips
            if self._consecutive_skips >= most:
                raise (error if most == 1 else too_many(error, most)) from error.__cause__
            return
        self.version += 1
        self.counters[workers, Counter.UPDATES] += self.learner.num_updates - before
        self._consecutive_skips = 0
        if metrics:
            self._metrics = {**metrics, **self.learner.applied.metrics()}

    def _pop_metrics(self) -> Metrics:
        """Return the metrics of the last update that has any, and those of the workers since the last call."""
        metrics, lags = {**self._metrics, **combined_metrics(self._shares)}, self._lags
        self._metrics, self._shares, self._lags = {}, [], []
        if not lags:
            return metrics
        skipped = int(self.counters[:, Counter.SKIPPED].sum())
        workers = {"async/worker_restarts": self.pool.restart_policy.count, **self._rates.metrics()}
        return {**metrics, **workers, **env_restarts(self.counters), **self.schedule.metrics(lags, skipped)}

    def pop_episodes(self) -> list[Episode]:
        """See :class:`limelight.runners.base.Runner`."""
        episodes, self._episodes = self._episodes, []
        return episodes

    def pop_messages(self) -> list[str]:
        """See :class:`limelight.runners.base.Runner`."""
        messages, self.pool.messages = self.pool.messages, []
        return messages

    def get_state(self) -> State:
        """See :class:`limelight.runners.base.Runner`; the rollouts that were requested are learnt from first."""
        states = self._worker_states()
        return {
            "num_steps": self.num_steps,
            "num_episodes": self.num_episodes,
            "seconds": self.seconds,
            "version": self.version,
            "train_state": self.learner.train_state.get_state(),
            "learner": self.learner.get_state(),
            "moments": {name: statistics.get_state() for name, statistics in self.running_statistics.items()},
            "workers": states,
            "restarts": [worker.slot.restarts for worker in self.pool.workers],
        }

    def _worker_states(self) -> list[State | None]:
        if self._failed:  # some workers are ahead of the parameters
            return [None] * len(self.pool.workers)
        if not self.pool.started:
            return list(self.pool.states)
        if self.pool.num_pending:
            results = self.pool.receive_results(self.pool.num_pending, self.schedule.drain_timeout, partial=True)
            self._learn(results, self.num_steps)
        return self.pool.request_states()

    def set_state(self, state: Mapping[str, Any], seed: int) -> str | None:
        """See :class:`limelight.runners.base.Runner`; a reproducible schedule waits for the workers to start."""
        self.num_steps = int(state["num_steps"])
        self.num_episodes = int(state["num_episodes"])
        self.seconds = float(state["seconds"])
        self.version = int(state["version"])
        self.learner.train_state.set_state(state["train_state"])
        self.learner.set_state(state["learner"])
        for name, statistics in self.running_statistics.items():
            statistics.set_state(state["moments"][name])
        if self.num_steps:
            self.pool.set_states(state["workers"], state["restarts"], seed)
        if not self.schedule.reproducible:
            return NOT_REPRODUCIBLE
        deadline = time.monotonic() + START_TIMEOUT  # without room for a worker the run waits, and obeys signals
        while not self._start(min(1.0, START_TIMEOUT)) and time.monotonic() < deadline:
            pass
        exact = self.pool.exact and all(worker.slot.ready for worker in self.pool.workers)
        return None if exact else ENV_STATE_NOT_RESTORED

    def close(self) -> None:
        """See :class:`limelight.runners.base.Runner`."""
        self.pool.close()


def _merge(statistics: RunningMeanStd, update: StatisticsUpdate) -> None:
    """Add a worker's observations; with a single contributor, adopt its statistics unchanged (bit for bit)."""
    new, total = update
    is_only_one = statistics.moments.size + new.size == total.size
    statistics.moments = total if is_only_one else statistics.moments.merge(new)


def _snapshot_of(learner: Learner, statistics: Mapping[str, RunningMeanStd], version: int) -> ParameterSnapshot:
    """Return the parameters and the statistics as workers receive them."""
    params, target = learner.train_state.params, learner.train_state.target_params
    return ParameterSnapshot(
        version,
        params.cpu().numpy(),
        None if target is None else target.cpu().numpy(),
        {name: running.moments for name, running in statistics.items()},
        learner.progress,
    )
