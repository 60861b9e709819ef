"""The composition root: configuration → environments, network, learner, runner → training → a run folder."""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym

from limelight.envs.crashes import crash_line, crashes_into
from limelight.envs.make import try_envs
from limelight.envs.source import EnvSource, qualified_name, resolve_env
from limelight.envs.stalls import watched
from limelight.errors import ConfigError, EnvError, LimelightError, NonFiniteError
from limelight.files import remove_debris
from limelight.runners.actor_learner import make_actor_learner, make_learner, reward_statistics
from limelight.runners.base import Runner, budget_of
from limelight.runners.nonfinite import make_skips
from limelight.runners.processes.runner import ProcessRunner
from limelight.runners.ray.exit_notice import exit_noticed
from limelight.runners.sync import SyncRunner
from limelight.runs import env_numbers
from limelight.runs.agent import Agent, load
from limelight.runs.checkpoint import fitting
from limelight.runs.evaluation import Evaluation
from limelight.runs.folder import (
    CONFIG,
    CRASH,
    CRASH_BEFORE,
    FINAL_EVAL_INTERRUPTED,
    METRICS,
    MONITOR,
    SUMMARY,
    as_folder,
    create_run_folder,
    only_process,
    read_command,
    require_empty,
    write_json,
)
from limelight.runs.origin import Origin, read_origin, read_parent, write_parent
from limelight.settings.io import for_resume, with_settings
from limelight.settings.rules import load_valid
from limelight.settings.schema import TrainConfig
from limelight.settings.values import coerce, shown
from limelight.threads import single_threaded
from limelight.training.branch import begin_branch, branched, changed_settings, require_fitting
from limelight.training.callbacks import Callback, Callbacks, load_callbacks
from limelight.training.cloning import Dataset, clone
from limelight.training.evaluator import Evaluator
from limelight.training.init_agent import Donor, begin_with, read_donor, require_some
from limelight.training.loop import Interrupt, InterruptedRun, TrainingLoop, catch_signals, evaluated
from limelight.training.prepare import explain_run, prepare, require_device
from limelight.training.presets import resolve_config
from limelight.training.resuming import read_checkpoint, require_best, require_budget, require_own, restore, step_of
from limelight.typing import EnvFactory
from limelight.viewing.clients.client_logger import load_loggers, start_loggers
from limelight.viewing.console import ConsoleLogger
from limelight.viewing.jsonl import JsonlLogger
from limelight.viewing.live import LivePage
from limelight.viewing.logger import Logger, Loggers
from limelight.viewing.monitor_csv import MonitorCsvLogger
from limelight.viewing.tensorboard import TensorBoardLogger, writes_tensorboard
from limelight.viewing.time_spent import advice


@dataclass(frozen=True)
class RunResult:
    """The result of a run."""

    run_dir: Path
    status: str
    """completed, reached_return, stopped (by a callback) or interrupted."""
    summary: dict[str, Any]
    """The content of ``summary.json``."""
    report: Path | None
    """``report.html``, if it was drawn."""
    signal_number: int | None = None
    """The signal that interrupted the run, or that came after its end, in the final evaluation or the report."""
    env_factory: EnvFactory | None = field(default=None, repr=False)
    """Makes the environment, where it was given as a Python object."""
    saved: bool = True
    """The last checkpoint is on the disk."""

    @property
    def agent(self) -> Agent:
        """Load the best agent; it keeps the environment that was given as a Python object."""
        agent = load(self.run_dir)
        agent.env_factory = self.env_factory
        return agent


def train(
    env: str | Callable[[], gym.Env[Any, Any]] = "CartPole-v1",
    *,
    algo: str = "auto",
    preset: str = "auto",
    init_agent: str | Path | None = None,
    init_from_dataset: str | Path | None = None,
    quiet: bool = False,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> RunResult:
    """Train an agent: ``train("CartPole-v1", algo="a2c", total_timesteps=200_000, seed=1)``.

    Args:
        env: a Gymnasium id, ``"package.module:callable"``, or a callable that makes an environment.
        algo: a row of :mod:`limelight.training.algorithms`; ``auto``: a2c, or ppo (docs/defaults.md).
        preset: ``auto`` (by environment), ``none``, a name, or the path of a file of ``limelight tune``.
        init_agent: a run or an agent's folder to take weights and normalisation from, where they fit.
        init_from_dataset: a Minari dataset, by name or folder, that the policy imitates before the first step.
        quiet: show no progress.
        loggers: further loggers beside the run's own.
        callbacks: objects that are told of the progress and may end the run (docs/callbacks.md).
        settings: any setting of :class:`limelight.TrainConfig` by its plain name.
    Raises: LimelightError with one line for anything that cannot work.
    """
    if "env_id" in settings:
        raise ConfigError(f"env_id = {shown(settings['env_id'])}: is the first argument, train(env, ...)")
    algo, preset, quiet = coerce("algo", algo, str), coerce("preset", preset, str), coerce("quiet", quiet, bool)
    factory = None if isinstance(env, str) else env
    env_id = env if isinstance(env, str) else qualified_name(env)
    source = resolve_env(with_settings(TrainConfig(), {**settings, "env_id": env_id}).env, factory)
    config = resolve_config(env_id, algo, preset, settings, source)
    begin: Donor | Dataset | None = None if init_agent is None else read_donor(as_folder(init_agent))
    if init_from_dataset is not None:
        if begin is not None:
            raise ConfigError(
                f"init_from_dataset = {init_from_dataset}: a run begins with one policy; no init_agent then"
            )
        begin = Dataset(str(init_from_dataset))
    return run(config, factory=source, begin=begin, quiet=quiet, loggers=loggers, callbacks=callbacks)


def resume(
    run_dir: str | Path,
    *,
    env: Callable[[], gym.Env[Any, Any]] | None = None,
    fallback: bool = False,
    quiet: bool = False,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> RunResult:
    """Continue a run in its own folder from its newest checkpoint; ``settings`` as for :func:`train`.

    Args:
        run_dir: the folder.
        env: the callable that makes the environment, where the run was given one that has no name.
        fallback: where the newest checkpoint is damaged, continue from the newest that is intact.
        quiet: as for :func:`train`.
        loggers: as for :func:`train`.
        callbacks: as for :func:`train`.
        settings: those that may change on resume.
    Raises: LimelightError, naming the file of a damaged checkpoint.
    """
    folder, quiet = as_folder(run_dir), coerce("quiet", quiet, bool)
    require_device(settings.get("device"))
    config = for_resume(load_valid(folder / CONFIG), settings, folder)
    return run(
        config, factory=env, resume_from=folder, fallback=fallback, quiet=quiet, loggers=loggers, callbacks=callbacks
    )


def branch(
    parent: str | Path,
    *,
    env: Callable[[], gym.Env[Any, Any]] | None = None,
    quiet: bool = False,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> RunResult:
    """Begin a new run from a checkpoint of another one, with any setting changed; ``settings`` as for :func:`train`.

    Args:
        parent: the folder of the run: its newest checkpoint; ``"RUN:best"`` and ``"RUN:STEP"`` name another one.
        env: the callable that makes the environment, where the run was given one that has no name.
        quiet: as for :func:`train`.
        loggers: as for :func:`train`.
        callbacks: as for :func:`train`.
    Raises: LimelightError where the checkpoint does not fit the settings.
    """
    origin, quiet = read_origin(str(as_folder(parent))), coerce("quiet", quiet, bool)
    require_device(settings.get("device"))
    config = branched(origin, settings)
    return run(config, factory=env, begin=origin, quiet=quiet, loggers=loggers, callbacks=callbacks)


def run(
    config: TrainConfig,
    *,
    factory: EnvFactory | None = None,
    resume_from: Path | None = None,
    begin: Origin | Donor | Dataset | None = None,
    fallback: bool = False,
    quiet: bool = False,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
    command: str | None = None,
) -> RunResult:
    """Run ``config`` from its start, or from the newest checkpoint of ``resume_from``, to its end.

    Args:
        config: the settings; those that are ``auto`` are filled in.
        factory: makes the environment, where it is not the one that ``env_id`` names.
        resume_from: the folder of the run to continue; ``begin``: what a new run begins with.
        fallback: as for :func:`resume`.
        quiet: show no progress.
        loggers, callbacks: further ones, after those that the settings name.
        command: the command line, for ``command.txt``.
    Raises: LimelightError before anything is written if the run cannot work. Once it has started, errors of the
        environment and WorkerError are raised, with ``run_dir``, after a checkpoint and ``summary.json`` were written.
    """
    with watched(config.env.step_timeout):
        return _run(config, factory, resume_from, begin, fallback, quiet, loggers, callbacks, command)


def _run(
    config: TrainConfig,
    factory: EnvFactory | None,
    resume_from: Path | None,
    begin: Origin | Donor | Dataset | None,
    fallback: bool,
    quiet: bool,
    loggers: Sequence[Logger],
    callbacks: Sequence[Callback],
    command: str | None,
) -> RunResult:
    """Do what :func:`run` says."""
    # Check the settings, and fill in those that are left to the machine
    notes: list[str] = []
    loggers = load_loggers(config, loggers)
    told = Callbacks(load_callbacks(config, callbacks))
    source, was_auto = resolve_env(config.env, factory), config.env.backend == "auto"
    config = prepare(config, source, notes.append, resume_from is not None or isinstance(begin, Origin))
    with ExitStack() as stack:
        state = _open_folder(config, resume_from, begin, fallback, stack, notes.append)
        stack.enter_context(single_threaded())
        interrupt = stack.enter_context(catch_signals())
        # Environments, network, learner, runner and agent
        config, runner, agent = _build_or_fall_back(config, source, was_auto, notes, stack)
        if resume_from is None and not isinstance(begin, Origin):
            notes = explain_run(config, source, agent, notes)
        begin = _cloned(agent, begin, notes.append, interrupt) if isinstance(begin, Dataset) else begin
        # The folder, the evaluations and the loggers
        if resume_from is not None and state is not None:
            require_own(state, agent, resume_from)
        run_dir = resume_from or _new_run(config, agent, begin, command, stack)
        stack.enter_context(crashes_into(run_dir / CRASH, run_dir / CRASH_BEFORE))
        if config.workers.runner == "ray":
            stack.enter_context(exit_noticed(run_dir))
        evaluator = Evaluator(agent, config, run_dir / "best", reward_threshold(config), interrupt.check)
        stack.callback(evaluator.close)
        logger = stack.enter_context(closing(make_loggers(config, run_dir, state, quiet, loggers)))
        lines = Loggers(loggers) if quiet else logger
        loop = TrainingLoop(config, run_dir, runner, agent, evaluator, logger, lines, told)
        stack.enter_context(loop.locks)
        _begin(loop, [*([] if quiet else [_where(config, run_dir)]), *notes], state, begin)
        status, summary = _train_and_evaluate(loop, interrupt, quiet)
    return _result(loop, status, summary, interrupt, None if source.factory is None else source)


def _open_folder(
    config: TrainConfig,
    resume_from: Path | None,
    begin: Origin | Donor | Dataset | None,
    fallback: bool,
    stack: ExitStack,
    notify: Callable[[str], None],
) -> dict[str, Any] | None:
    """Refuse a new folder that is not empty; lock the folder to resume from. Return the checkpoint to begin with."""
    if resume_from is None:
        require_empty(config)
        return begin.state if isinstance(begin, Origin) else None
    stack.enter_context(only_process(resume_from))
    remove_debris(resume_from)
    if (crash := crash_line(resume_from / CRASH)) is not None:
        notify(f"before this, {crash}; see {CRASH_BEFORE}")
    state = read_checkpoint(resume_from, notify, fallback)
    require_best(resume_from, state, notify, fallback)
    with fitting(resume_from):
        require_budget(config, state)
    return state


def _cloned(agent: Agent, dataset: Dataset, notify: Callable[[str], None], interrupt: Interrupt) -> Donor:
    """Return an agent that imitates a dataset; a signal ends the run at once, as there is nothing to save yet."""
    try:
        return clone(agent, dataset, notify, interrupt.check)
    except InterruptedRun:
        raise KeyboardInterrupt from None


def _new_run(
    config: TrainConfig, agent: Agent, begin: Origin | Donor | None, command: str | None, stack: ExitStack
) -> Path:
    """Make the folder of a new run, once it is known that what it begins with fits, and lock it."""
    if isinstance(begin, Origin):
        require_fitting(begin, agent, config)
    elif begin is not None:
        require_some(begin, agent)
    run_dir = create_run_folder(config, command or " ".join(sys.argv))
    stack.enter_context(only_process(run_dir))
    if isinstance(begin, Origin):
        write_parent(run_dir, begin, changed_settings(begin.config, config))
    return run_dir


def _begin(
    loop: TrainingLoop, notes: Sequence[str], state: dict[str, Any] | None, begin: Origin | Donor | None
) -> None:
    """Show the first lines; continue from a checkpoint, of this run or of another one, or begin with an agent."""
    for note in notes:
        loop.notes.message(note)
    if isinstance(begin, Origin):
        begin_branch(loop, begin)
    elif begin is not None:
        begin_with(loop, begin)
    elif state is not None:
        with fitting(loop.run_dir):
            restore(loop, state)


def _where(config: TrainConfig, run_dir: Path) -> str:
    """Return the line on the folder of a run, and on the page that shows it."""
    page = "report.html there shows the run while it goes on" if config.log.report_every else "report.html at its end"
    return f"run {run_dir}: {page}"


def _build_or_fall_back(
    config: TrainConfig, source: EnvSource, was_auto: bool, notes: list[str], stack: ExitStack
) -> tuple[TrainConfig, Runner, Agent]:
    """Build, and let ``stack`` close the runner.

    Where ``auto`` has chosen processes and the environment fails in them, it is stepped in this process.
    """
    try:
        runner, agent = build(config, source)
    except EnvError as error:
        if not was_auto or config.env.backend != "async":
            raise
        notes.append(f"backend sync: in processes it fails ({error})")
        env = dataclasses.replace(config.env, backend="sync")
        config = dataclasses.replace(config, env=env, eval=dataclasses.replace(config.eval, eval_backend="sync"))
        runner, agent = build(config, source)
    stack.callback(runner.close)
    return config, runner, agent


def _train_and_evaluate(loop: TrainingLoop, interrupt: Interrupt, quiet: bool) -> tuple[str, dict[str, Any]]:
    """Train to the end, then evaluate; return the status and the summary, which is written after an error as well."""
    status, final, further = "failed", None, dict[str, Any]()
    try:
        status = loop.run(interrupt)
        if status != "interrupted":
            final = final_evaluation(loop, quiet)
    except (InterruptedRun, KeyboardInterrupt) as signalled:  # the second one by a second signal
        if status not in ("failed", "interrupted"):
            further = {FINAL_EVAL_INTERRUPTED: True}
        status = "interrupted" if status == "failed" else status
        if isinstance(signalled, KeyboardInterrupt):
            raise
    except Exception as error:
        status = "failed"
        further = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        if isinstance(error, LimelightError) and not isinstance(error, NonFiniteError):  # which names another command
            error.run_dir = loop.run_dir
        raise
    finally:
        summary = summarize(loop, status, final) | further
        with loop.disk.writing(SUMMARY, "the last line of the run has the results"):
            write_json(loop.run_dir / SUMMARY, summary)
    return status, summary


def _result(
    loop: TrainingLoop, status: str, summary: dict[str, Any], interrupt: Interrupt, factory: EnvFactory | None
) -> RunResult:
    """Draw the report, unless the disk refuses it, and return the result; a first signal meanwhile ends nothing."""
    report = None
    late = catch_signals() if interrupt.signal_number is None else nullcontext(interrupt)
    with late as interrupt, loop.disk.writing("report.html", f"limelight report {loop.run_dir} draws it"):
        report = draw_report(loop.run_dir)
    saved = not (loop.disk.is_failing("checkpoint") or loop.disk.is_failing(SUMMARY))
    return RunResult(loop.run_dir, status, summary, report, interrupt.signal_number, factory, saved)


# --------------------------------------------------------------------------- building


def build(config: TrainConfig, factory: EnvFactory | None) -> tuple[Runner, Agent]:
    """Build the runner of ``config``, and the agent that shares its network."""
    source, workers = resolve_env(config.env, factory), config.workers
    if workers.runner == "local" and not workers.asynchronous:
        actor_learner = make_actor_learner(config, source, config.seed)
        envs, model = actor_learner.collector.envs, actor_learner.learner.model
        spaces = envs.single_observation_space, envs.single_action_space
        agent = Agent(model, actor_learner.normalizer, config, *spaces, env_factory=source)
        agent.reward_statistics = reward_statistics(actor_learner.learner)
        skips = make_skips(config) if config.optim.on_nonfinite == "skip" else None
        return SyncRunner(actor_learner, config.total_timesteps, config.total_episodes, skips), agent
    try_envs(config.env, source)  # the workers make their own
    learner, normalizer = make_learner(config, *source.spaces())
    agent = Agent(learner.model, normalizer, config, *source.spaces(), env_factory=source)
    agent.reward_statistics = reward_statistics(learner)
    if workers.runner == "ray":
        from limelight.runners.ray.runner import RayRunner

        return RayRunner(config, learner, normalizer, source), agent
    return ProcessRunner(config, learner, normalizer, source), agent


def reward_threshold(config: TrainConfig) -> float | None:
    """Return the return that counts as solved: ``stop_at_return``, else the threshold in Gymnasium's registry."""
    if config.eval.stop_at_return is not None:
        return config.eval.stop_at_return
    spec = gym.registry.get(config.env.env_id)
    return spec.reward_threshold if spec is not None else None


def make_loggers(
    config: TrainConfig, run_dir: Path, state: dict[str, Any] | None, quiet: bool, loggers: Sequence[Logger]
) -> Loggers:
    """Make the run's own loggers, followed by the user's; ``state``: of the checkpoint that the run continues."""
    resume_step = None if state is None else step_of(state)
    start_loggers(loggers, run_dir, config, resume_step)
    own: list[Logger] = []
    with ExitStack() as opened:  # closes them where a later one cannot be made

        def add(logger: Logger) -> None:
            own.append(logger)
            opened.callback(logger.close)

        add(JsonlLogger(run_dir / METRICS, resume_step=resume_step))
        add(MonitorCsvLogger(run_dir / MONITOR, config.env.env_id, time.time(), resume_step, config.env.info_keys))
        if writes_tensorboard(config):
            add(TensorBoardLogger(run_dir, resume_step))
        if config.log.report_every:
            add(LivePage(config, run_dir, read_command(run_dir), resumed=state is not None))
        opened.pop_all()
    has_workers = config.workers.asynchronous or config.workers.runner == "ray"
    episodes = 0 if state is None else int(state["training"]["episodes"]["count"])
    own.append(
        ConsoleLogger(
            budget_of(config), resume_step or 0, episodes, quiet=quiet, has_workers=has_workers,
            episode_lines=config.log.episode_lines, advise=functools.partial(advice, config=config),
        )
    )  # fmt: skip
    return Loggers([*own, *loggers])


# --------------------------------------------------------------------------- after training


def final_evaluation(loop: TrainingLoop, quiet: bool) -> Evaluation | None:
    """Evaluate the best agent (the last one, if none was ever evaluated); None without ``final_episodes``.

    A message announces it: with long episodes it takes minutes, in which the progress display does not move.
    """
    episodes = loop.config.eval.final_episodes
    if episodes == 0:
        return None
    if not quiet:
        loop.logger.message(f"final evaluation: {episodes} greedy episodes")
    return evaluated(loop, lambda: loop.evaluator.final(loop.best_agent()))


def summarize(loop: TrainingLoop, status: str, final: Evaluation | None) -> dict[str, Any]:
    """Return the content of ``summary.json``."""
    config, solved_at, parent = loop.config, loop.evaluator.solved_at, read_parent(loop.run_dir)
    return {
        "env_id": config.env.env_id,
        "algorithm": config.algorithm.algo,
        "seed": config.seed,
        "total_timesteps": loop.runner.num_steps,
        "total_episodes": loop.episodes.count,
        "wall_seconds": loop.seconds,
        "steps_per_second": loop.runner.num_steps / loop.seconds if loop.seconds > 0 else 0.0,
        "best_eval_return": loop.evaluator.best_return,
        "final_eval_return": final.mean_return if final else None,
        "final_eval_std": final.std_return if final else None,
        "final_eval_episodes": final.episodes if final else 0,
        "final_eval_cut": final.cut if final else 0,
        **(env_numbers.to_summary(final.env) if final else {}),
        "solved_at_step": solved_at[0] if solved_at else None,
        "solved_at_seconds": solved_at[1] if solved_at else None,
        "status": status,
        **({} if parent is None else {"parent": parent["from"], "parent_step": parent["step"]}),
    }


def draw_report(run_dir: Path) -> Path:
    """Draw ``report.html``; Matplotlib is loaded only here, after training."""
    from limelight.viewing.report import write_report

    return write_report([run_dir])
