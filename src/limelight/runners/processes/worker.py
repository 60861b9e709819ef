"""One asynchronous worker:  pull → collect → gradients → push,  repeated in a process of its own.

With several updates per rollout, the last two are repeated with a pull in between.
Source: Mnih et al. 2016, algorithm S3, with a batch of environments per worker instead of one.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limelight.algo.episodes import Episode
from limelight.algo.rollout import Rollout
from limelight.envs.attributes import Order
from limelight.envs.guards import record_calls
from limelight.envs.spawn import allow_children
from limelight.envs.stalls import StallWatch
from limelight.errors import LimelightError, NonFiniteError
from limelight.runners.actor_learner import ActorLearner, make_actor_learner, running_statistics
from limelight.runners.base import budget_of, stamp_episodes
from limelight.runners.nonfinite import make_skips
from limelight.runners.processes.channel import WorkerChannel, send_notes
from limelight.runners.processes.child import before_exit
from limelight.runners.processes.crash_file import CrashFile
from limelight.runners.processes.portable import ignore_stop_signals
from limelight.runners.processes.shared import Command, Control, SharedState
from limelight.runners.time_shares import ShareMeter
from limelight.runners.worker_metrics import Counter
from limelight.runners.worker_slots import ends_the_run
from limelight.seeds import worker_seed
from limelight.settings.schema import TrainConfig
from limelight.threads import single_threaded
from limelight.typing import EnvFactory, Metrics, State

_IDLE_SLEEP_MIN = 0.001
"""Seconds before an idle worker reads the command again, at first; they double up to the maximum."""
_IDLE_SLEEP_MAX = 0.05


@dataclass(frozen=True)
class WorkerSpec:
    """The arguments of a worker process."""

    index: int
    restarts: int
    """How often the worker's slot has been restarted."""
    config: TrainConfig
    state: State | None
    """:meth:`limelight.runners.actor_learner.ActorLearner.get_state` of a checkpoint to continue from, if any."""
    restart_seed: int
    """Seeds the episodes where the environments of ``state`` cannot be restored."""
    orders: tuple[Order, ...] = ()
    """Attributes and settings that were changed since the run began."""


@dataclass(frozen=True)
class Ready:
    """Message: the worker has started."""

    exact: bool
    """False if the worker continues from a state, but with new episodes."""


@dataclass(frozen=True)
class Report:
    """Message: episodes and metrics since the last report. Steps and updates are counted in shared memory."""

    number: int
    """The value of :attr:`Control.REPORTS_WANTED` that the report answers."""
    episodes: list[Episode]
    metrics: Metrics
    """Metrics of an update since the last report; empty where there was none."""
    updates: int
    """Updates since the last report."""
    lag_sum: int
    """Sum over those updates of the updates that other workers made since the pull before the rollout."""
    lag_max: int
    restarts: list[str] = field(default_factory=list)
    """Messages on environments that were replaced."""


@dataclass(frozen=True)
class StateReply:
    """Message: the state of the worker, which pauses until the command is RUN again."""

    number: int
    """The value of :attr:`Control.STATES_WANTED` that the reply answers."""
    state: State


@dataclass(frozen=True)
class OrderReply:
    """Message: an order was carried out."""

    number: int
    """The value of :attr:`Control.ORDERS` with which it was sent."""
    results: list[Any]
    error: LimelightError | None


@dataclass(frozen=True)
class Failure:
    """Message: the worker exits because of an exception."""

    message: str
    """The traceback."""
    error: LimelightError | None
    """The exception itself, where its message is for the user; it ends the run."""


class Worker:
    """The actor-learner of one worker, its access to the shared state, and its unreported counts."""

    def __init__(
        self, spec: WorkerSpec, actor_learner: ActorLearner, shared: SharedState, channel: WorkerChannel
    ) -> None:
        self.actor_learner = actor_learner
        self.shared = shared
        self.channel = channel
        self.running_statistics = running_statistics(actor_learner.normalizer, actor_learner.learner)
        self.index = spec.index
        self.num_envs = spec.config.env.num_envs
        self.budget = budget_of(spec.config)
        self.is_due = self._is_due if self.budget.episodes is None else self._is_due_by_episodes
        self.skips = make_skips(spec.config, self._count_skip)
        self.idle_seconds = 0.0
        self.shares = ShareMeter(actor_learner)
        self.shares.start(time.perf_counter())
        # Views of the shared counters
        counters = shared.arrays["counters"]
        self.control = shared.arrays["control"]
        self.own_counters = counters[spec.index]
        self.steps = counters[:, Counter.STEPS]
        self.updates = counters[:, Counter.UPDATES]
        self.finished = counters[:, Counter.EPISODES]
        # Numbers of the last report and state that were sent
        self.last_report = 0
        self.last_state = int(self.control[Control.STATES_WANTED])
        self.last_order = 0  # orders may have come before the worker was ready
        # Since the last report
        self.recent_updates = 0
        self.lag_sum = 0
        self.lag_max = 0
        self.episodes: list[Episode] = []

    def work(self) -> None:
        """Update until the command is STOP; report when the main process asks for it."""
        control = self.control
        idle_sleep = _IDLE_SLEEP_MIN
        while (command := control[Control.COMMAND]) != Command.STOP:
            number = int(control[Control.REPORTS_WANTED])
            if command == Command.RUN and self.is_due():
                self.update()
                idle_sleep = _IDLE_SLEEP_MIN
            else:
                time.sleep(idle_sleep)
                self.idle_seconds += idle_sleep
                idle_sleep = min(2 * idle_sleep, _IDLE_SLEEP_MAX)
            if number != self.last_report:
                self.report(number)
            if control[Control.STATES_WANTED] != self.last_state:
                self.send_state()
            if control[Control.ORDERS] != self.last_order:
                self.follow_orders()

    def follow_orders(self) -> None:
        """Carry out the orders that have arrived, and send their results."""
        self.last_order = int(self.control[Control.ORDERS])
        while self.channel.poll():
            number, order = self.channel.recv()
            try:
                reply = OrderReply(number, self.actor_learner.follow(order), None)
            except LimelightError as error:
                reply = OrderReply(number, [], error)
            self.channel.send(reply)

    def _is_due(self) -> bool:
        """Return whether the workers have steps left."""
        return bool(self.steps.sum() < self.control[Control.LIMIT])

    def _is_due_by_episodes(self) -> bool:
        """Return whether the workers have steps and episodes left."""
        return self._is_due() and bool(self.finished.sum() < self.budget.episodes)

    def update(self) -> None:
        """Pull, collect, then compute and push the gradient of each update from the rollout."""
        learner = self.actor_learner.learner
        version = self.pull()
        skips = self.skips if self.skips.skips_rollouts else None
        rollout = self.actor_learner.collect() if skips is None else skips.collect(self.actor_learner)
        if rollout.num_valid:  # otherwise there is no gradient, and momentum must not move the parameters
            for episodes_ended in learner.successive_gradients(rollout):
                self.push(version, episodes_ended)
                if learner.epochs is not None:  # the next gradient is that of the newest parameters
                    with self.shared.update_order():
                        learner.pull()
        self.count(rollout)

    def pull(self) -> int:
        """Copy the shared parameters and statistics; return the number of updates made so far by other workers."""
        with self.shared.update_order():
            version = self._updates_of_others()
            self.actor_learner.learner.pull()
        if self.running_statistics:
            self.share_statistics()
        return version

    def push(self, version: int, episodes_ended: int) -> None:
        """Update the shared parameters by the gradients.

        Args:
            version: the result of the :meth:`pull` before the rollout.
            episodes_ended: finished episodes that the update counts.
        """
        with self.shared.update_order():
            steps = int(self.steps.sum())  # Python numbers: the arithmetic depends on it
            progress = self.budget.progress(steps, 0 if self.budget.episodes is None else int(self.finished.sum()))
            lag = self._updates_of_others() - version
            self._apply(progress, episodes_ended)
        self.recent_updates += 1
        self.lag_sum += lag
        self.lag_max = max(self.lag_max, lag)

    def count(self, rollout: Rollout) -> None:
        """Count the steps and the finished episodes of a rollout that has been learnt from."""
        self.own_counters[Counter.STEPS] += rollout.num_valid
        if finished := self.actor_learner.collector.pop_episodes():
            self.own_counters[Counter.EPISODES] += len(finished)
            self.episodes += stamp_episodes(finished, int(self.steps.sum()), self.index, self.num_envs)

    def _updates_of_others(self) -> int:
        return int(self.updates.sum()) - int(self.own_counters[Counter.UPDATES])

    def _apply(self, progress: float, episodes_ended: int) -> None:
        """Update the shared parameters; skip the update where the gradient is not finite.

        Raises: NonFiniteError where as many in a row were skipped as may be.
        """
        try:
            self.actor_learner.learner.apply(progress, episodes_ended)
        except NonFiniteError as error:
            self.skips.skip(error)
            return
        self.own_counters[Counter.UPDATES] += 1
        self.skips.succeed()

    def _count_skip(self) -> None:
        self.own_counters[Counter.SKIPPED] += 1

    def share_statistics(self) -> None:
        """Add this worker's observations to the shared statistics, and adopt these."""
        with self.shared.lock:
            for name, statistics in self.running_statistics.items():
                self.shared.write_statistics(name, statistics.share(self.shared.read_statistics(name)))

    def report(self, number: int) -> None:
        """Send the episodes, metrics and lags since the last report."""
        metrics = self.actor_learner.metrics() if self.recent_updates else {}
        if metrics:
            metrics |= self.shares.metrics(time.perf_counter(), self.idle_seconds + self.shared.waited_seconds)
        restarts = self._count_restarts()
        self.channel.send(
            Report(number, self.episodes, metrics, self.recent_updates, self.lag_sum, self.lag_max, restarts)
        )
        self.last_report = number
        self.recent_updates = 0
        self.lag_sum = 0
        self.lag_max = 0
        self.episodes = []

    def _count_restarts(self) -> list[str]:
        """Count the environments that were replaced since the last report; return their messages."""
        restarts = self.actor_learner.pop_restarts()
        self.own_counters[Counter.ENV_RESTARTS] += len(restarts)
        return restarts

    def last_words(self) -> None:
        """Report episodes and replaced environments before the process exits by an error."""
        self.channel.send(Report(self.last_report, self.episodes, {}, 0, 0, 0, self._count_restarts()))

    def send_state(self) -> None:
        """Send the state for a checkpoint; the command is PAUSE, so the state does not change afterwards."""
        self.last_state = int(self.control[Control.STATES_WANTED])
        if self.running_statistics:
            self.share_statistics()
        self.report(self.last_report)  # the checkpoint counts these episodes as finished
        self.channel.send(StateReply(self.last_state, self.actor_learner.get_state()))


def run_worker(
    spec: WorkerSpec, factory: Any, shared: SharedState, worker_end: Connection, crash_file: CrashFile | None = None
) -> None:
    """Run a worker until it is told to stop: the main function of its process.

    ``factory``: a CloudpickleWrapper of the environment's factory; ``crash_file``: for a traceback of C code.
    """
    ignore_stop_signals()
    before_exit(shared.lock.remove)
    allow_children()
    channel = WorkerChannel(worker_end)
    send_notes(channel)
    calls = None if crash_file is None else crash_file.enable()
    StallWatch(spec.config.env.step_timeout, crash_file).start()
    try:
        with single_threaded():
            _run(spec, factory.fn, shared, channel, calls)
    except BaseException as error:
        with contextlib.suppress(BrokenPipeError):  # the main process has exited
            channel.send(Failure(traceback.format_exc(), error if ends_the_run(error) else None))
        raise SystemExit(1) from None


def _run(
    spec: WorkerSpec,
    factory: EnvFactory | None,
    shared: SharedState,
    channel: WorkerChannel,
    calls: NDArray[np.float64] | None = None,
) -> None:
    seed = worker_seed(spec.config.seed, spec.index, spec.restarts)
    actor_learner = make_actor_learner(spec.config, factory, seed, shared.train_state(spec.index))
    if calls is not None:
        record_calls(actor_learner.collector.envs, calls)
    try:
        exact = spec.state is None or actor_learner.set_state(spec.state, spec.restart_seed)
        actor_learner.follow_all(spec.orders)
        worker = Worker(spec, actor_learner, shared, channel)
        channel.send(Ready(exact))  # from here on, its state can be asked for
        try:
            worker.work()
        except BaseException:
            worker.last_words()
            raise
    finally:
        actor_learner.close()
