"""The asynchronous runner: worker processes update shared parameters, each as soon as it has gradients (A3C).

The main process does not train. It waits, copies the parameters for evaluations, and collects the workers' reports.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from typing import Any

from limelight.algo.episodes import Episode
from limelight.algo.learner import Learner
from limelight.algo.normalization import ObservationNormalizer
from limelight.envs.attributes import Order
from limelight.runners.actor_learner import running_statistics
from limelight.runners.base import NOT_REPRODUCIBLE, budget_of, lasting, loaded_orders, saved_orders
from limelight.runners.processes.orders import send_order
from limelight.runners.processes.shared import Command, Control, SharedState
from limelight.runners.processes.supervisor import Supervisor
from limelight.runners.processes.worker import Report, WorkerSpec
from limelight.runners.worker_metrics import Counter, WorkerRates, combined_metrics, env_restarts
from limelight.runners.worker_slots import WorkerSlot
from limelight.settings.schema import TrainConfig
from limelight.typing import EnvFactory, Metrics, State

_START_SECONDS = 1.0
_POLL_EVERY = 0.01
"""Seconds between two readings of the step count."""


class ProcessRunner:
    """W worker processes on one machine; ``learner`` holds copies of the shared parameters and makes no updates."""

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
        context = multiprocessing.get_context("spawn")
        moments = {name: statistics.moments for name, statistics in self.running_statistics.items()}
        self.shared = SharedState(context, config, learner.train_state, moments)
        self.supervisor = Supervisor(context, config, self.shared, factory, self._make_spec)
        self.control = self.shared.arrays["control"]
        self.control[Control.LIMIT] = config.total_timesteps
        self.counters = self.shared.arrays["counters"]
        self.budget = budget_of(config)
        self.num_steps = 0
        self.num_episodes = 0
        self.seconds = 0.0
        self._started_at: float | None = None
        self._seconds_before = 0.0
        self._states: list[State | None] = [None] * self.shared.num_workers
        self._restart_seed = 0
        self._orders: dict[tuple[str, str], Order] = {}
        self._reports: list[Report] = []
        self._episodes: list[Episode] = []
        self._rates = WorkerRates(self.counters[: self.shared.num_workers])

    # ------------------------------------------------------------------ training

    def advance(self, until: int, seconds: float) -> Metrics:
        """See :class:`limelight.runners.base.Runner`."""
        if self._started_at is None and not self._start(seconds):
            return {}
        deadline = time.perf_counter() + seconds
        while not self._has_reached(until) and time.perf_counter() < deadline:
            self.supervisor.wait_until(lambda: self._has_reached(until), _POLL_EVERY)
        if self._is_over():
            self.supervisor.collect_reports()
        self._copy_shared_state()
        self._take_reports()
        return self._metrics() if self.budget.has_reached(until, self.num_steps, self.num_episodes) else {}

    def _start(self, seconds: float) -> bool:
        """Start all workers, and let them train once all are ready; False if that takes longer than ``seconds``."""
        if not self.supervisor.start(seconds):
            return False
        self.control[Control.COMMAND] = Command.RUN
        self._started_at = time.perf_counter()
        self._rates.start()
        return True

    def _count(self, column: Counter) -> int:
        return int(self.counters[:, column].sum())

    def _is_over(self) -> bool:
        return self.budget.is_used_up(self._count(Counter.STEPS), self._count(Counter.EPISODES))

    def _has_reached(self, until: int) -> bool:
        return self.budget.has_reached(until, self._count(Counter.STEPS), self._count(Counter.EPISODES))

    def _copy_shared_state(self) -> None:
        """Copy step count, parameters and statistics into this process; the workers continue meanwhile."""
        if self._started_at is not None:
            self.seconds = self._seconds_before + time.perf_counter() - self._started_at
        self.num_steps = self._count(Counter.STEPS)
        self.num_episodes = self._count(Counter.EPISODES)
        train_state = self.shared.train_state(0)
        with self.shared.update_order():
            self.learner.flat.params.copy_(train_state.params)
        if self.running_statistics:
            with self.shared.lock:
                for name, statistics in self.running_statistics.items():
                    statistics.moments = self.shared.read_statistics(name)

    def _take_reports(self) -> None:
        """Take the reports that the supervisor has received, and their episodes."""
        reports = self.supervisor.reports
        for report in [reports.popleft() for _ in range(len(reports))]:
            self._reports.append(report)
            self._episodes += report.episodes

    def _metrics(self) -> Metrics:
        """Return metrics over the workers' reports since the last call; empty if there was none."""
        reports = self._reports
        self._reports = []
        if not reports:
            return {}
        updates = max(1, sum(report.updates for report in reports))
        return {
            **combined_metrics([report.metrics for report in reports if report.metrics]),
            "async/policy_lag": sum(report.lag_sum for report in reports) / updates,
            "async/policy_lag_max": max(report.lag_max for report in reports),
            "async/worker_restarts": self.supervisor.restart_policy.count,
            "async/skipped_updates": self._count(Counter.SKIPPED),
            **env_restarts(self.counters),
            **self._rates.metrics(),
        }

    def pop_episodes(self) -> list[Episode]:
        """See :class:`limelight.runners.base.Runner`."""
        episodes = sorted(self._episodes, key=lambda episode: episode.step)
        self._episodes = []
        return episodes

    def pop_messages(self) -> list[str]:
        """See :class:`limelight.runners.base.Runner`."""
        messages = self.supervisor.messages
        return [messages.popleft() for _ in range(len(messages))]

    # ------------------------------------------------------------------ state

    def get_state(self) -> State:
        """See :class:`limelight.runners.base.Runner`; the workers pause meanwhile, so the parts of the state agree."""
        if self._started_at is None:
            return self._state(self._states)
        with self.supervisor.paused() as states:
            self._take_reports()
            self._copy_shared_state()
            return self._state(states)

    def _state(self, workers: list[State | None]) -> State:
        return {
            "num_steps": self.num_steps,
            "num_episodes": self.num_episodes,
            "seconds": self.seconds,
            "train_states": [self.shared.train_state(row).get_state() for row in range(self.shared.num_train_states)],
            "counters": self.counters.sum(0),
            "moments": {name: statistics.get_state() for name, statistics in self.running_statistics.items()},
            "workers": list(workers),
            "orders": saved_orders(self._orders),
        }

    def set_state(self, state: Mapping[str, Any], seed: int) -> str | None:
        """See :class:`limelight.runners.base.Runner`."""
        self.counters[-1] = state["counters"]
        self.seconds = float(state["seconds"])
        self._seconds_before = self.seconds
        saved, workers = state["train_states"], list(state["workers"])
        for row in range(self.shared.num_train_states):  # workers may be more or fewer than they were
            self.shared.train_state(row).set_state(saved[row % len(saved)])
        self._states = (workers + [None] * self.shared.num_workers)[: self.shared.num_workers]
        self._restart_seed = seed
        self._orders = loaded_orders(state["orders"])
        for name, statistics in self.running_statistics.items():
            statistics.set_state(state["moments"][name])
            self.shared.write_statistics(name, statistics.moments)
        self._copy_shared_state()
        return NOT_REPRODUCIBLE

    def _make_spec(self, slot: WorkerSlot) -> WorkerSpec:
        state = None if slot.was_ready else self._states[slot.index]
        seed, orders = self._restart_seed + slot.index, tuple(self._orders.values())
        return WorkerSpec(slot.index, slot.restarts, self.config, state, seed, orders)

    def follow(self, order: Order) -> list[Any]:
        """See :class:`limelight.runners.base.Runner`; the workers are started first, but wait for the first rollout."""
        while self._started_at is None and not self.supervisor.start(_START_SECONDS):
            pass
        results = send_order(self.supervisor, order)
        self._orders = lasting(self._orders, order)
        return results

    def close(self) -> None:
        """See :class:`limelight.runners.base.Runner`."""
        self.supervisor.close()
        self.shared.close()
