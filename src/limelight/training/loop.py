"""The loop around a runner until its budget is used up: logging, evaluation, checkpoints, videos, interruption.

Frequencies count environment steps; seconds are training time, without evaluation and writing.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from limelight.envs.episode_info import InfoNotes
from limelight.envs.faults import stops_the_run
from limelight.errors import NonFiniteError
from limelight.runners.base import Runner, budget_of
from limelight.runners.nonfinite import evaluates_on
from limelight.runners.processes.portable import stop_signals
from limelight.runners.time_shares import RowClock
from limelight.runs.agent import Agent, load
from limelight.runs.checkpoint import checkpoints, has_state, save_checkpoint
from limelight.runs.folder import CONFIG, only_process, read_command, write_settings
from limelight.seeds import Stream, derive_seed
from limelight.settings.schema import TrainConfig
from limelight.spaces.exploration import has_action_mask
from limelight.training.callbacks import Callbacks, Run
from limelight.training.episodes import ReportedEpisodes
from limelight.training.evaluator import MOST_OF_TRAINING, Evaluator
from limelight.training.order_history import OrderHistory, with_orders
from limelight.training.rollback import Rollback
from limelight.typing import Metrics, State
from limelight.viewing.collapse import CollapseWatch
from limelight.viewing.logger import Logger, Loggers
from limelight.viewing.numbers import with_spread
from limelight.viewing.record import MAX_TRAINING_FRAMES, record_to_run

T = TypeVar("T")
ERROR = "error"
"""Key of a checkpoint that was saved after an error: the error's text."""
HEARTBEAT = 0.2
"""Seconds after which a runner returns, for the progress display and for signals."""
ONE_ROLLOUT = 1e-9
"""Seconds in which a synchronous runner does one rollout: it returns after the one that exceeds them."""


_HEAVY_ENVS = 10 << 20
"""Bytes of the environments' state in a checkpoint from which a message says so."""


@dataclass
class Interrupt:
    """The signal that asked the run to stop, if any."""

    signal_number: int | None = None

    def check(self) -> None:
        """Raise :class:`InterruptedRun` once a signal has arrived."""
        if self.signal_number is not None:
            raise InterruptedRun


class InterruptedRun(Exception):  # noqa: N818  (no error)
    """A signal asked the run to stop during an evaluation, which then has no result."""


@contextmanager
def catch_signals() -> Iterator[Interrupt]:
    """Record the first stop signal, so that a checkpoint can be written; a second one ends the process."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():  # Python delivers signals to the main thread only
        yield interrupt
        return
    numbers = stop_signals()
    previous = {number: signal.getsignal(number) for number in numbers}

    def record_signal(number: int, _frame: FrameType | None) -> None:
        interrupt.signal_number = number
        for n in numbers:
            signal.signal(n, previous[n])

    for number in numbers:
        signal.signal(number, record_signal)
    try:
        yield interrupt
    finally:
        for number in numbers:
            signal.signal(number, previous[number])


class TrainingLoop:
    """One run from its first step (or its checkpoint) to its last.

    ``notes`` receives the lines on a collapse; None: ``logger`` does. ``callbacks`` are told of all events.
    """

    def __init__(
        self, config: TrainConfig, run_dir: Path, runner: Runner, agent: Agent, evaluator: Evaluator, logger: Loggers,
        notes: Logger | None = None, callbacks: Callbacks | None = None,
    ) -> None:  # fmt: skip
        self.config = config
        self.run_dir = run_dir
        self.runner = runner
        self.agent = agent
        self.evaluator = evaluator
        self.disk = logger.failed_writes
        evaluator.writing = self.disk.writing
        self.logger = logger
        self.notes = notes or logger
        self.command, self.locks = read_command(run_dir), ExitStack()
        self.callbacks = callbacks or Callbacks()
        self.callbacks.run = Run(self)
        self.orders = OrderHistory()
        self.collapse = CollapseWatch(config, agent.action_space, has_action_mask(agent.observation_space))
        self.episodes = ReportedEpisodes(config.total_episodes)
        self._train = Rollback(self).advance if config.optim.on_nonfinite == "rollback" else runner.advance
        self._info_notes = InfoNotes(config.env.info_keys)
        self._noted: set[str] = set()
        self._last_reported_step = 0
        self._last_evaluated_step = 0
        self._evaluation_pending = False
        self._clock = RowClock(config.workers.asynchronous and config.workers.runner == "local")

    @property
    def seconds(self) -> float:
        """Return the training seconds so far."""
        return self.runner.seconds

    def run(self, interrupt: Interrupt) -> str:
        """Train to the end of the budget; return ``completed``, ``reached_return``, ``stopped`` or ``interrupted``."""
        self.logger.tick(self.runner.num_steps, self.seconds)
        try:
            self.callbacks.notify("on_start")
            save_first(self)
            try:
                status = "stopped" if self.callbacks.stopped else self._run(interrupt)
            except InterruptedRun:
                status = "interrupted"
        except BaseException as error:
            self.callbacks.failed = True
            self.save_checkpoint(error)  # what was learnt before the error stays loadable
            if isinstance(error, NonFiniteError) and not error.in_evaluation:
                raise NonFiniteError(f"{error}; limelight replay {self.run_dir} shows where it began") from error
            raise
        self.save_checkpoint()
        self.logger.tick(self.runner.num_steps, self.seconds)  # workers may have finished rollouts meanwhile
        self.callbacks.notify("on_end", status)  # last: what it changes is not part of the checkpoint
        return status

    def _run(self, interrupt: Interrupt) -> str:
        config, runner, budget = self.config, self.runner, budget_of(self.config)
        total = budget.timesteps
        log = Periodic(config.log.log_every, runner.num_steps)
        evaluation = Periodic(config.eval.eval_every, runner.num_steps)
        if self._evaluation_pending and config.eval.eval_every:  # a signal has cut it before this run was resumed
            evaluation.due = runner.num_steps
        checkpoint = Periodic(config.checkpoint.checkpoint_every, runner.num_steps)
        video = Periodic(config.log.video_every, runner.num_steps)
        while not budget.is_used_up(runner.num_steps, runner.num_episodes):
            # Train until something is due
            metrics = self._advance(min(log.due, evaluation.due, checkpoint.due, video.due, total))
            step = runner.num_steps
            # Log, evaluate, record, save
            if log.is_due(step) or (metrics and budget.is_used_up(step, runner.num_episodes)):
                self._log(metrics)
            if evaluation.is_due(step) and evaluated(self, self.evaluate):
                return "reached_return"
            if video.is_due(step):
                record_video(self)
            if checkpoint.is_due(step):
                self.save_checkpoint()
            if interrupt.signal_number is not None:
                return "interrupted"
            if self.callbacks.stopped:
                return "stopped"
        # The rest: workers may have reached the end while a checkpoint waited for them
        if runner.num_steps > self._last_reported_step:
            self._log(self._advance(total))
        if config.eval.eval_every and self._last_evaluated_step < runner.num_steps and last_evaluation(self):
            return "reached_return"
        return "completed"

    def _advance(self, due: int) -> Metrics:
        """Train up to ``due`` or for one heartbeat; pass messages and finished episodes to the loggers."""
        before = self.runner.num_steps
        metrics = self._train(due, heartbeat(self.config, self.callbacks))
        for message in self.runner.pop_messages():
            self.logger.message(message)
        self.report_episodes()
        self._last_reported_step = self.runner.num_steps
        self.logger.tick(self._last_reported_step, self.seconds)
        if self._last_reported_step > before:
            self.callbacks.notify("on_rollout")
        return metrics

    def report_episodes(self) -> None:
        """Count the episodes that have finished since the last call, and pass them to the loggers."""
        episodes = self.episodes.take(self.runner.pop_episodes())
        if episodes:
            self.collapse.episodes([e.episode_return for e in episodes])
            self.logger.episodes(self.runner.num_steps, self.seconds, episodes)
            for line in self._info_notes.take(episode.info for episode in episodes):
                self.logger.message(line)
            self.callbacks.notify("on_episodes", episodes)

    def _log(self, metrics: Metrics) -> None:
        """Log a row: statistics of the latest episodes, ``metrics``, speed and shares of the time since."""
        step = self.runner.num_steps
        self._write(step, {**self.episodes.metrics(), **self._clock.row(step, self.seconds, metrics)})

    def _write(self, step: int, row: Metrics) -> None:
        """Pass a row to the loggers, followed by a line if it shows that the run collapses."""
        row = {**row, **self.collapse.measure(row), **self.disk.metrics()}
        self.logger.log(step, self.seconds, row)
        for line in self.collapse.row(step, row):
            self.notes.message(line)

    def evaluate(self) -> bool:
        """Evaluate; return whether ``stop_at_return`` is reached and confirmed."""
        step = self.runner.num_steps
        if self.evaluator.is_too_slow(self.seconds):
            self.note_once(
                f"no evaluation at step {step:,} and for a while: they have taken {MOST_OF_TRAINING:g} times "
                "as long as training; set max_episode_steps, eval_every or eval_episodes"
            )
            return False
        started = time.monotonic()
        self._evaluation_pending = True
        result = self.evaluator.evaluate(step, self.seconds)
        self._evaluation_pending = False
        self._last_evaluated_step = step
        seconds = time.monotonic() - started
        self._clock.evaluation += seconds
        self._write(step, {**result.to_metrics(), "time/eval_seconds": seconds})
        self.callbacks.notify("on_evaluation", result)
        if self.evaluator.is_best:
            self.callbacks.notify("on_best", result)
        if result.cut:
            cut = result.describe_cut(self.config.eval.eval_episodes)
            hint = "set max_episode_steps if that is too short or too long"
            self.note_once(f"evaluation at step {step:,}: {result.episodes} episodes{cut}; {hint}")
        return self.evaluator.should_confirm() and confirm(self, step)

    def note_once(self, text: str) -> None:
        """Pass on a message, if it is not empty, unless one of its kind was passed on before."""
        kind = text.partition(" at step")[0]
        if text and kind not in self._noted:
            self._noted.add(kind)
            self.logger.message(text)

    def best_agent(self) -> Agent:
        """Return the best agent so far; the current one, if none was evaluated."""
        if not has_state(self.evaluator.best_dir):
            return self.agent
        agent = load(self.run_dir)
        agent.env_factory = self.agent.env_factory
        return agent

    def save_checkpoint(self, error: BaseException | None = None) -> Path | None:
        """Save everything that is needed to continue, and to load the agent, as :func:`save`."""
        return save(self, error)

    def get_state(self) -> State:
        """Return the state of the runner, of the evaluator and of the loop itself."""
        runner, before = self.runner.get_state(), self.orders.count
        self.report_episodes()  # those that workers finished before they paused count as finished in this state
        return {
            "runner": with_orders(runner, self.orders.since(before)),  # of callbacks that were told of them
            "orders": self.orders.get_state(),
            "evaluator": self.evaluator.get_state(),
            "episodes": self.episodes.get_state(),
            "evaluated_at": self._last_evaluated_step,
            "evaluation_pending": self._evaluation_pending,
            "collapse": self.collapse.get_state(),
            "callbacks": self.callbacks.get_state(),
        }

    def set_state(self, state: Mapping[str, Any], seed: int) -> str | None:
        """Continue from :meth:`get_state`; return a phrase on what is not exact (restarts use ``seed``), or None."""
        inexact = self.runner.set_state(state["runner"], seed)
        self.evaluator.set_state(state["evaluator"])
        self._clock.start(self.runner.num_steps, self.seconds)
        self._last_reported_step = self.runner.num_steps
        self.episodes.set_state(state["episodes"])
        self._last_evaluated_step = int(state["evaluated_at"])
        self._evaluation_pending = bool(state.get("evaluation_pending", False))
        self.collapse.set_state(state["collapse"])
        self.orders.set_state(state["orders"])
        self.callbacks.set_state(state["callbacks"], self.logger.message)
        return inexact


def save(loop: TrainingLoop, error: BaseException | None = None) -> Path | None:
    """Save a checkpoint; where the disk refuses it, a message says so once, and None is returned.

    ``error``: the one that ended the run; the checkpoints before are kept, as a replay begins at one of them.
    """
    training = dict(loop.get_state())  # first: it gives the agent the parameters that are saved
    if error is not None:
        training[ERROR] = f"{type(error).__name__}: {error}"[:500]
    state = {**loop.agent.get_state(), "training": training}
    keep, step = loop.config.checkpoint.keep_last + (error is not None), loop.runner.num_steps
    with loop.disk.writing(f"checkpoint at step {step:,}"):
        keep_resumable(loop)
        folder = save_checkpoint(loop.run_dir, step, state, keep)
        loop.note_once(heavy_note(folder, state, step))
        loop.callbacks.notify("on_checkpoint", folder)
        return folder
    return None


def evaluated(loop: TrainingLoop, evaluate: Callable[[], T]) -> T | None:
    """Return what ``evaluate`` returns; None, with a message, where numbers that are not finite are left out."""
    try:
        return evaluate()
    except NonFiniteError as error:
        if not (error.in_evaluation and evaluates_on(loop.config)):
            raise
        loop.note_once(f"no result of the evaluation at step {loop.runner.num_steps:,}: {error}")
        return None


def last_evaluation(loop: TrainingLoop) -> bool:
    """Evaluate at the end, after a checkpoint: C code that aborts meanwhile must not take all of the run with it."""
    save(loop)
    return bool(evaluated(loop, loop.evaluate))


def save_first(loop: TrainingLoop) -> None:
    """Save a checkpoint before the first step, so that a run that is killed before the next one can be resumed."""
    if not checkpoints(loop.run_dir):
        save(loop)


def keep_resumable(loop: TrainingLoop) -> None:
    """Write config.yaml and the like again where the folder of the run was removed, so that it can be resumed."""
    if not (loop.run_dir / CONFIG).exists():
        write_settings(loop.run_dir, loop.config, loop.command)
        loop.locks.enter_context(only_process(loop.run_dir))
        loop.note_once(f"{loop.run_dir} was removed; what comes from here on is written there again")


def confirm(loop: TrainingLoop, step: int) -> bool:
    """Return whether fresh greedy episodes confirm ``stop_at_return``, with a message."""
    evaluation, confirmed = loop.evaluator.confirm(step, loop.seconds)
    loop.logger.message(
        f"{evaluation.episodes} fresh greedy episodes {'confirm' if confirmed else 'do not confirm'} a return of "
        f"{loop.config.eval.stop_at_return:g}: {with_spread(evaluation.mean_return, evaluation.std_return)}"
    )
    return confirmed


def heartbeat(config: TrainConfig, callbacks: Callbacks) -> float:
    """Return the seconds after which a runner returns: a synchronous one after every rollout, if callbacks want so."""
    has_workers = config.workers.asynchronous or config.workers.runner == "ray"
    return ONE_ROLLOUT if callbacks.methods["on_rollout"] and not has_workers else HEARTBEAT


def heavy_note(folder: Path, state: State, step: int) -> str:
    """Return a line on a checkpoint most of which are environments; an empty text for others."""
    others = nbytes_of(state)
    heavy = sum(file.stat().st_size for file in folder.iterdir()) - others
    if heavy <= max(_HEAVY_ENVS, others):  # also where none are saved
        return ""
    return (
        f"checkpoint at step {step:,}: environments take {heavy / 2**20:.0f} MiB of it, "
        f"what is learnt {others / 2**20:.1f}; checkpoint_envs = false leaves them out, and episodes then "
        "restart on resume"
    )


def nbytes_of(state: Any) -> int:
    """Return the bytes of all arrays in a state, but for those of environments."""
    if isinstance(state, Mapping):
        return sum(nbytes_of(value) for key, value in state.items() if key != "envs")
    if isinstance(state, list | tuple):
        return sum(map(nbytes_of, state))
    return int(getattr(state, "nbytes", 0))


def record_video(loop: TrainingLoop) -> None:
    """Record a video of the best agent; if that fails, a message says so and training continues."""
    step, config = loop.runner.num_steps, loop.config
    try:
        record_to_run(
            loop.best_agent(), loop.run_dir, f"best-{step}-seed{config.seed}", loop.agent.env_factory,
            which="best", step=step, seed=derive_seed(config.seed, Stream.VIDEO, step),
            deterministic=not config.eval.eval_stochastic, max_frames=MAX_TRAINING_FRAMES,
        )  # fmt: skip
    except BaseException as error:  # environments, drivers and disks may raise anything, SystemExit among it
        if stops_the_run(error):
            raise
        loop.logger.message(f"no video at step {step:,}: {' '.join(str(error).split()) or type(error).__name__}")


class Periodic:
    """A schedule that is due at every multiple of ``period`` environment steps; never, if it is 0."""

    def __init__(self, period: int, step: int) -> None:
        self.period = period
        self.due = period * (step // period + 1) if period else 1 << 62

    def is_due(self, step: int) -> bool:
        """Return whether ``step`` has reached the next multiple, and if so continue with the one after."""
        if step < self.due:
            return False
        self.due = self.period * (step // self.period + 1)
        return True
