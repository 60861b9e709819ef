"""One asynchronous worker:  pull → collect → gradients → push,  in a process of its own, until told to stop.

Started by shared_memory.py. Mnih et al. 2016, algorithm S3, with a batch of environments instead of one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from typing import Any

from limelight.algo.episodes import Episode
from limelight.algo.rollout import Rollout
from limelight.errors import LimelightError, NonFiniteError
from limelight.runners.actor_learner import ActorLearner, make_actor_learner, running_statistics
from limelight.runners.base import MAX_CONSECUTIVE_SKIPS
from limelight.runners.processes.shared import Command, Control, Shared
from limelight.runners.worker_metrics import Counter
from limelight.seeds import worker_seed
from limelight.settings.schema import TrainConfig
from limelight.threads import single_threaded
from limelight.typing import EnvFactory, Metrics, State

_IDLE_SLEEP_MIN, _IDLE_SLEEP_MAX = 0.001, 0.05
"""Seconds between two looks at the command while there is nothing to do, at first and after a while."""


@dataclass(frozen=True)
class WorkerSpec:
    """What one worker is made from."""

    index: int
    restarts: int
    """0, and one more with every restart."""
    config: TrainConfig
    state: State | None
    """To continue from: :meth:`limelight.runners.actor_learner.ActorLearner.get_state` of a checkpoint."""
    restart_seed: int
    """Of the episodes, where the environments of ``state`` cannot be restored."""


@dataclass(frozen=True)
class Ready:
    """The worker is about to begin."""

    exact: bool
    """False if it was to continue from a state, but its episodes had to be restarted."""


@dataclass(frozen=True)
class Report:
    """What a worker tells from time to time; what is counted stands in shared memory."""

    number: int
    """Which :attr:`Control.REPORTS_WANTED` it answers."""
    episodes: list[Episode]
    metrics: Metrics
    """Of its last update."""
    updates: int
    """Since the last report."""
    lag_sum: int
    """Of those updates: updates made by others between pull and push."""
    lag_max: int


@dataclass(frozen=True)
class StateReply:
    """The worker does nothing more until the command is RUN again."""

    number: int
    """Which :attr:`Control.STATES_WANTED` it answers."""
    state: State


@dataclass(frozen=True)
class Failure:
    """Why a worker ends."""

    message: str
    """The traceback."""
    error: LimelightError | None
    """The error itself, where its message is for the user; it ends the run."""


class Worker:
    """The loop and its bookkeeping."""

    def __init__(self, spec: WorkerSpec, actor: ActorLearner, shared: Shared, channel: Connection) -> None:
        self.actor_learner, self.shared, self.channel = actor, shared, channel
        self.running_statistics = running_statistics(actor.normalizer, actor.learner)
        self.total_timesteps = spec.config.total_timesteps
        counters = shared.arrays["counters"]
        self.control, self.mine = shared.arrays["control"], counters[spec.index]
        self.steps, self.updates = counters[:, Counter.STEPS], counters[:, Counter.UPDATES]  # of everybody
        self.skipped_in_a_row = self.last_report = 0
        self.last_state = int(self.control[Control.STATES_WANTED])
        self.recent_updates = self.lag_sum = self.lag_max = 0

    def work(self) -> None:
        """Update until the command is STOP."""
        control, nap = self.control, _IDLE_SLEEP_MIN
        while (command := control[Control.COMMAND]) != Command.STOP:
            number = int(control[Control.REPORTS_WANTED])
            if command == Command.RUN and self.steps.sum() < control[Control.LIMIT]:
                self.update()
                nap = _IDLE_SLEEP_MIN
            else:
                time.sleep(nap)
                nap = min(2 * nap, _IDLE_SLEEP_MAX)
            if number != self.last_report:
                self.report(number)
            if control[Control.STATES_WANTED] != self.last_state:
                self.send_state()

    def update(self) -> None:
        """One turn."""
        version = self.pull()
        rollout = self.actor_learner.collect()
        self.actor_learner.learner.gradients(rollout)
        self.push(rollout, version)

    def pull(self) -> int:
        """Bring model and normalization up to date; the number of updates made so far, by everybody."""
        with self.shared.update_order():
            version = int(self.updates.sum())
            self.actor_learner.learner.pull()
        if self.running_statistics:
            self.share_moments()
        return version

    def push(self, rollout: Rollout, version: int) -> None:
        """Move the shared parameters by the gradients, which came of parameters of ``version``."""
        with self.shared.update_order():
            progress = int(self.steps.sum()) / self.total_timesteps  # no NumPy scalar: it would change the arithmetic
            lag = int(self.updates.sum()) - version
            if rollout.num_valid:  # else nothing happened; momentum must not move the parameters
                try:
                    self.actor_learner.learner.apply(progress, rollout.episodes_ended)
                    self.skipped_in_a_row = 0
                    self.mine[Counter.UPDATES] += 1
                except NonFiniteError:
                    self.mine[Counter.SKIPPED] += 1
                    self.skipped_in_a_row += 1
                    if self.skipped_in_a_row == MAX_CONSECUTIVE_SKIPS:
                        raise
        self.mine[Counter.STEPS] += rollout.num_valid
        self.recent_updates += 1
        self.lag_sum += lag
        self.lag_max = max(self.lag_max, lag)

    def share_moments(self) -> None:
        """Add what was seen here to the common moments, and take over those of the others."""
        with self.shared.lock:
            for name, tracker in self.running_statistics.items():
                self.shared.write_moments(name, tracker.share(self.shared.read_moments(name)))

    def report(self, number: int) -> None:
        """Tell the main process of the updates since the last report."""
        episodes = self.actor_learner.collector.pop_episodes()
        metrics = self.actor_learner.learner.metrics() if self.recent_updates else {}
        self.channel.send(Report(number, episodes, metrics, self.recent_updates, self.lag_sum, self.lag_max))
        self.last_report = number
        self.recent_updates = self.lag_sum = self.lag_max = 0

    def send_state(self) -> None:
        """Send everything a checkpoint keeps of this worker; the command is WAIT, so nothing moves after it."""
        self.last_state = int(self.control[Control.STATES_WANTED])
        if self.running_statistics:
            self.share_moments()
        self.report(self.last_report)  # the episodes that the checkpoint counts as finished
        self.channel.send(StateReply(self.last_state, self.actor_learner.get_state()))


def run_worker(spec: WorkerSpec, factory: Any, shared: Shared, channel: Connection) -> None:
    """The body of a worker process; ``factory`` is the environment's, wrapped for pickling."""
    stops = {signal.SIGINT, signal.SIGTERM}
    for number in stops:  # they may reach the whole group; the main process decides
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)  # they were blocked until here; environments may want them
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        with single_threaded():
            _run(spec, factory.fn, shared, channel)
    except BaseException as error:
        with contextlib.suppress(BrokenPipeError):  # nobody is left to tell
            channel.send(Failure(traceback.format_exc(), error if isinstance(error, LimelightError) else None))
        raise SystemExit(1) from None


def _run(spec: WorkerSpec, factory: EnvFactory | None, shared: Shared, channel: Connection) -> None:
    seed = worker_seed(spec.config.seed, spec.index, spec.restarts)
    actor = make_actor_learner(spec.config, factory, seed, shared.train_state(spec.index))
    try:
        exact = spec.state is None or actor.set_state(spec.state, spec.restart_seed)
        worker = Worker(spec, actor, shared, channel)
        channel.send(Ready(exact))  # from here on it can be asked for its state
        worker.work()
    finally:
        actor.close()


def _exit_with_parent() -> None:
    """End this process when the main one has ended, however that came."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
