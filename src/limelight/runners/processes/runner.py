"""The asynchronous runner: workers update shared parameters as each finishes (A3C). Made by train.py.

This process does not train. It waits, takes snapshots for whoever evaluates, and gathers what the workers report.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from typing import Any

from limelight.algo.episodes import Episode
from limelight.algo.learner import Learner
from limelight.algo.normalization import ObservationNormalizer
from limelight.runners.actor_learner import running_statistics
from limelight.runners.base import NOT_REPRODUCIBLE
from limelight.runners.processes.shared import Command, Control, Shared
from limelight.runners.processes.supervisor import Supervisor
from limelight.runners.processes.worker import Report, WorkerSpec
from limelight.runners.worker_metrics import Counter, WorkerRates, mean_metrics
from limelight.settings.schema import TrainConfig
from limelight.typing import EnvFactory, Metrics, State

_LOOK_EVERY = 0.01
"""Seconds between two looks at the step count."""


class SharedMemoryRunner:
    """W workers on one machine; ``learner`` holds the snapshot and never learns itself."""

    def __init__(
        self,
        config: TrainConfig,
        learner: Learner,
        normalizer: ObservationNormalizer | None,
        factory: EnvFactory | None,
    ) -> None:
        self.config, self.learner = config, learner
        self.running_statistics = running_statistics(normalizer, learner)
        context = multiprocessing.get_context("spawn")
        moments = {name: tracker.moments for name, tracker in self.running_statistics.items()}
        self.shared = Shared(context, config, learner.train_state, moments)
        self.supervisor = Supervisor(context, config, self.shared, factory, self._spec)
        self.control, self.counters = self.shared.arrays["control"], self.shared.arrays["counters"]
        self.control[Control.LIMIT] = config.total_timesteps
        self.num_steps, self.seconds = 0, 0.0
        self._started_at: float | None = None
        self._seconds_before = 0.0
        self._states: list[State | None] = [None] * self.shared.num_workers
        self._restart_seed = 0
        self._reports: list[Report] = []
        self._episodes: list[Episode] = []
        self._pace = WorkerRates(self.counters[: self.shared.num_workers])

    # ------------------------------------------------------------------ training

    def advance(self, until: int, seconds: float) -> Metrics:
        """See :class:`limelight.runners.base.Runner`."""
        if self._started_at is None and not self._start(seconds):
            return {}
        deadline = time.perf_counter() + seconds
        while self._steps() < until and time.perf_counter() < deadline:
            self.supervisor.wait_until(lambda: self._steps() >= until, _LOOK_EVERY)
        if self._steps() >= self.control[Control.LIMIT]:
            self.supervisor.settle()
        self._snapshot()
        self._listen()
        return self._gather() if self.num_steps >= until else {}

    def _start(self, seconds: float) -> bool:
        """Let the workers begin together; False if some are not ready within ``seconds``."""
        if not self.supervisor.start(seconds):
            return False
        self.control[Control.COMMAND] = Command.RUN
        self._started_at = time.perf_counter()
        self._pace.start()
        return True

    def _steps(self) -> int:
        return int(self.counters[:, Counter.STEPS].sum())

    def _snapshot(self) -> None:
        """Bring model, normalization and counts of this process up to date; nobody stops for it."""
        if self._started_at is not None:
            self.seconds = self._seconds_before + time.perf_counter() - self._started_at
        self.num_steps = self._steps()
        train_state = self.shared.train_state(0)
        with self.shared.update_order():
            self.learner.flat.params.copy_(train_state.params)
        if self.running_statistics:
            with self.shared.lock:
                for name, tracker in self.running_statistics.items():
                    tracker.moments = self.shared.read_moments(name)

    def _listen(self) -> None:
        """Take in what the workers have reported."""
        reports = self.supervisor.reports
        for worker, report in [reports.popleft() for _ in range(len(reports))]:
            self._reports.append(report)
            first = worker * self.config.env.num_envs
            self._episodes.extend(e._replace(env=first + e.env) for e in report.episodes)

    def _gather(self) -> Metrics:
        """Metrics from the workers' reports since the last call; empty if there was none."""
        reports, self._reports = self._reports, []
        if not reports:
            return {}
        updates = max(1, sum(report.updates for report in reports))
        return {
            **mean_metrics([report.metrics for report in reports if report.metrics]),
            "async/policy_lag": sum(report.lag_sum for report in reports) / updates,
            "async/policy_lag_max": max(report.lag_max for report in reports),
            "async/worker_restarts": self.supervisor.restarts.count,
            "async/skipped_updates": int(self.counters[:, Counter.SKIPPED].sum()),
            **self._pace.metrics(),
        }

    def pop_episodes(self) -> list[Episode]:
        """See :class:`limelight.runners.base.Runner`."""
        episodes, self._episodes = self._episodes, []
        return episodes

    def pop_messages(self) -> list[str]:
        """See :class:`limelight.runners.base.Runner`."""
        messages = self.supervisor.messages
        return [messages.popleft() for _ in range(len(messages))]

    # ------------------------------------------------------------------ state

    def get_state(self) -> State:
        """See :class:`limelight.runners.base.Runner`; the workers rest meanwhile, so that everything fits together."""
        if self._started_at is None:
            return self._state(self._states)
        with self.supervisor.at_rest() as states:
            self._listen()
            self._snapshot()
            return self._state(states)

    def _state(self, workers: list[State | None]) -> State:
        arrays = self.shared.arrays
        rows = self.shared.num_workers if self.shared.own_statistics else 1
        return {
            "num_steps": self.num_steps,
            "seconds": self.seconds,
            "train_states": [self.shared.train_state(row).get_state() for row in range(rows)],
            "counters": arrays["counters"].sum(0),
            "moments": {name: tracker.get_state() for name, tracker in self.running_statistics.items()},
            "workers": list(workers),
            "episodes": [list(episode) for episode in self._episodes],
        }

    def set_state(self, state: Mapping[str, Any], seed: int) -> str | None:
        """See :class:`limelight.runners.base.Runner`."""
        self.counters[-1] = state["counters"]
        self._seconds_before = self.seconds = float(state["seconds"])
        for row, train_state in enumerate(state["train_states"]):
            self.shared.train_state(row).set_state(train_state)
        self._states, self._restart_seed = list(state["workers"]), seed
        self._episodes = [Episode(*episode) for episode in state["episodes"]]
        for name, tracker in self.running_statistics.items():
            tracker.set_state(state["moments"][name])
            self.shared.write_moments(name, tracker.moments)
        self._snapshot()
        return NOT_REPRODUCIBLE

    def _spec(self, worker: int, restarts: int) -> WorkerSpec:
        state = self._states[worker] if restarts == 0 else None
        return WorkerSpec(worker, restarts, self.config, state, self._restart_seed + worker)

    def close(self) -> None:
        """See :class:`limelight.runners.base.Runner`."""
        self.supervisor.close()
        self.shared.lock.close()
