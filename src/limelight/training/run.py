"""The composition root: configuration → environments, network, learner, runner → training → a run folder."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from gymnasium.spaces import Box, Space

from limelight.envs.make import explain_backend, num_cores, try_envs
from limelight.envs.source import EnvSource, qualified_name, resolve_env
from limelight.envs.spawn import why_no_workers
from limelight.envs.stalls import watched
from limelight.errors import CheckpointError, ConfigError, EnvError, WorkerError
from limelight.files import remove_debris
from limelight.nn.encoders import is_builtin
from limelight.runners.actor_learner import make_actor_learner, make_learner, reward_statistics
from limelight.runners.base import Runner, budget_of
from limelight.runners.nonfinite import make_skips
from limelight.runners.processes.portable import max_workers
from limelight.runners.processes.runner import ProcessRunner
from limelight.runners.ray.exit_notice import exit_noticed
from limelight.runners.sync import SyncRunner
from limelight.runs import env_numbers
from limelight.runs.agent import Agent, load
from limelight.runs.checkpoint import checkpoints, fitting, has_state, newest_state
from limelight.runs.evaluation import Evaluation
from limelight.runs.folder import (
    CONFIG,
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
from limelight.seeds import Stream, derive_seed
from limelight.settings.io import for_resume, from_dict, save_yaml, with_settings
from limelight.settings.rules import load_valid, validate
from limelight.settings.schema import EnvConfig, EvalConfig, TrainConfig, WorkersConfig
from limelight.settings.values import coerce, shown
from limelight.spaces.describe import describe_space
from limelight.spaces.images import explain_flat_image, is_flat_image
from limelight.spaces.packed import Packed, path_name, walk
from limelight.threads import single_threaded
from limelight.training.branch import begin_branch, branched, changed_settings, require_fitting
from limelight.training.callbacks import Callback, Callbacks, load_callbacks
from limelight.training.cloning import Dataset, clone
from limelight.training.evaluator import Evaluator
from limelight.training.init_agent import Donor, begin_with, read_donor, require_some
from limelight.training.loop import Interrupt, InterruptedRun, TrainingLoop, catch_signals
from limelight.training.precision import choose_device, choose_precision
from limelight.training.presets import explain_preset, resolve_config
from limelight.typing import EnvFactory
from limelight.viewing.clients.client_logger import load_loggers, start_loggers
from limelight.viewing.console import ConsoleLogger
from limelight.viewing.jsonl import JsonlLogger
from limelight.viewing.live import LivePage
from limelight.viewing.logger import Logger, Loggers
from limelight.viewing.monitor_csv import MonitorCsvLogger
from limelight.viewing.record import check_video
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
    """The signal that interrupted the run."""
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
        environment and WorkerError (with ``run_dir``) are raised after a checkpoint and ``summary.json`` were written.
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
        begin = clone(agent, begin, notes.append) if isinstance(begin, Dataset) else begin
        # The folder, the evaluations and the loggers
        run_dir = resume_from or _new_run(config, agent, begin, command, stack)
        if config.workers.runner == "ray":
            stack.enter_context(exit_noticed(run_dir))
        evaluator = Evaluator(agent, config, run_dir / "best", reward_threshold(config), interrupt.check)
        stack.callback(evaluator.close)
        logger = stack.enter_context(closing(make_loggers(config, run_dir, state, quiet, loggers)))
        lines = Loggers(loggers) if quiet else logger
        loop = TrainingLoop(config, run_dir, runner, agent, evaluator, logger, lines, told)
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
    state = read_checkpoint(resume_from, notify, fallback)
    with fitting(resume_from):
        require_budget(config, state)
    return state


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
        require_own(state, loop.agent, loop.run_dir)
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
    status, final, failure = "failed", None, None
    try:
        status = loop.run(interrupt)
        if status != "interrupted":
            with suppress(InterruptedRun):
                final = final_evaluation(loop, quiet)
    except Exception as error:
        failure = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        if isinstance(error, WorkerError):
            error.run_dir = loop.run_dir
        raise
    finally:
        summary = summarize(loop, status, final)
        summary |= failure or {}
        with loop.disk.writing(SUMMARY):
            write_json(loop.run_dir / SUMMARY, summary)
    return status, summary


def _result(
    loop: TrainingLoop, status: str, summary: dict[str, Any], interrupt: Interrupt, factory: EnvFactory | None
) -> RunResult:
    """Draw the report, unless the disk refuses it, and return the result."""
    report = None
    with loop.disk.writing("report.html"):
        report = draw_report(loop.run_dir)
    saved = not loop.disk.is_failing("checkpoint")
    return RunResult(loop.run_dir, status, summary, report, interrupt.signal_number, factory, saved)


# --------------------------------------------------------------------------- before the run


def prepare(
    config: TrainConfig,
    factory: EnvFactory | None,
    notify: Callable[[str], None] = lambda note: None,
    is_resumed: bool = False,
) -> TrainConfig:
    """Check ``config`` and fill in every ``auto`` that depends on the machine, so that a saved run can be repeated.

    Args:
        config: the settings.
        factory: makes the environment, where it is not the one that ``env_id`` names.
        notify: called with a line on each choice that was made.
        is_resumed: the settings are those of a run that another machine may have begun.
    Raises: ConfigError or EnvError for settings or an environment that cannot work here.
    """
    validate(config)
    if config.device == "cuda" and not torch.cuda.is_available():
        if not is_resumed:
            raise ConfigError("device = cuda: PyTorch sees no CUDA device here; use device cpu or auto")
        notify("device cpu: PyTorch sees no CUDA device here, where the run had cuda; it goes on, rounding otherwise")
        config = dataclasses.replace(config, device="cpu")
    # Workers and backend
    workers = _prepare_workers(config)
    has_workers = workers.asynchronous or workers.runner == "ray"
    source = resolve_env(config.env, factory)
    choice = explain_backend(source, may_start_workers=not has_workers)
    if config.env.backend == "auto":
        notify(f"backend {choice.backend}: {choice.reason}")
    env = _prepare_env(dataclasses.replace(config.env, backend=choice.backend), workers)
    evaluation = _prepare_evaluation(config)
    obstacle = source.why_not_sent() if has_workers else None
    if obstacle is not None:
        raise ConfigError(f"algo = {config.algorithm.algo}: {obstacle}; use algo a2c, which needs no workers")
    if config.log.video_every:
        check_video(config.env, source, f"video_every = {config.log.video_every}")

    # Device and precision
    @functools.cache
    def get_space() -> Space[Any]:
        return source.spaces()[0]

    device, device_note = choose_device(config.device, has_workers, config.model, get_space)
    precision, precision_note = choose_precision(config.model, device, get_space)
    for note in (device_note, precision_note):
        if note is not None:
            notify(note)
    model = dataclasses.replace(config.model, precision=precision)
    return dataclasses.replace(config, device=device, env=env, eval=evaluation, model=model, workers=workers)


def _prepare_workers(config: TrainConfig) -> WorkersConfig:
    """Return the workers' settings with their number filled in.

    Raises: ConfigError if workers cannot be started here.
    """
    workers, algo = config.workers, config.algorithm.algo
    if workers.runner == "ray":
        if find_spec("ray") is None:
            raise ConfigError("runner = ray: Ray is not installed; pip install 'limelight-rl[ray]'")
    elif workers.asynchronous:
        obstacle = why_no_workers()
        if obstacle is not None:
            raise ConfigError(f"algo = {algo}: {obstacle}; or use algo a2c, which needs no workers")
    else:
        return workers
    most = max_workers() if workers.runner == "local" else None
    if most is not None and (workers.num_workers or 0) > most:
        raise ConfigError(
            f"num_workers = {workers.num_workers}: Windows can supervise {most} processes at most; use fewer workers, "
            "with more environments each (num_envs), or runner ray"
        )
    chosen = workers.num_workers or min(num_cores(), most or num_cores())
    return dataclasses.replace(workers, num_workers=chosen)


def _prepare_evaluation(config: TrainConfig) -> EvalConfig:
    """Return the settings of evaluations with their backend filled in: the one that was set, not the one chosen."""
    evaluation, backend = config.eval, config.env.backend
    if evaluation.eval_backend != "auto":
        return evaluation
    return dataclasses.replace(evaluation, eval_backend=backend if backend in ("sync", "async") else "fastest")


def _prepare_env(env: EnvConfig, workers: WorkersConfig) -> EnvConfig:
    """Return the environment's settings with the threads of ALE's emulator filled in: every worker's share of cores."""
    if env.backend != "ale" or env.atari.env_threads is not None:
        return env
    share = num_cores() // (workers.num_workers or 1) if workers.runner == "local" else int(workers.ray.worker_cpus)
    return dataclasses.replace(env, atari=dataclasses.replace(env.atari, env_threads=max(1, share)))


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


def explain_run(config: TrainConfig, source: EnvSource, agent: Agent, notes: list[str]) -> list[str]:
    """Return the lines that a new run begins with: its preset, ``notes``, and what its environment makes of it."""
    further = (source.explain_normalizers(), explain_flattened(agent))
    return [*explain_preset(config, source), *notes, *(note for note in further if note is not None)]


def explain_flattened(agent: Agent) -> str | None:
    """Return a line if observations may be images that no convolutional encoder sees; None if not."""
    space = agent.observation_space
    original = space.original if isinstance(space, Packed) else space
    parts = [
        f"{path_name(path)} {describe_space(part)} {explain_flat_image(part)}".strip()
        for path, part in walk(original)
        if isinstance(part, Box) and is_flat_image(part)
    ]
    return f"observations {'; '.join(parts)}" if parts and is_builtin(agent.config.model.encoder) else None


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
    resume_step = None if state is None else _step_of(state)
    start_loggers(loggers, run_dir, config, resume_step)
    own: list[Logger] = [
        JsonlLogger(run_dir / METRICS, resume_step=resume_step),
        MonitorCsvLogger(run_dir / MONITOR, config.env.env_id, time.time(), resume_step, config.env.info_keys),
    ]
    if writes_tensorboard(config):
        own.append(TensorBoardLogger(run_dir, resume_step))
    if config.log.report_every:
        own.append(LivePage(config, run_dir, read_command(run_dir), resumed=state is not None))
    has_workers = config.workers.asynchronous or config.workers.runner == "ray"
    episodes = 0 if state is None else int(state["training"]["episodes"]["count"])
    own.append(
        ConsoleLogger(
            budget_of(config), resume_step or 0, episodes, quiet=quiet, has_workers=has_workers,
            episode_lines=config.log.episode_lines, advise=functools.partial(advice, config=config),
        )
    )  # fmt: skip
    return Loggers([*own, *loggers])


# --------------------------------------------------------------------------- a resumed run


def read_checkpoint(
    run_dir: Path, notify: Callable[[str], None] = lambda note: None, fallback: bool = False
) -> dict[str, Any]:
    """Read the newest checkpoint of a run; with ``fallback`` the newest intact one, and ``notify`` gets a line on it.

    Raises: CheckpointError if there is none.
    """
    if not checkpoints(run_dir):
        begin = f"; --init-agent {run_dir} begins a new run with its best agent" if has_state(run_dir / "best") else ""
        raise CheckpointError(f"resume = {run_dir}: no intact checkpoint in {run_dir / 'checkpoints'}{begin}")
    _, state, skipped = newest_state(run_dir, fallback)
    if skipped is not None:
        notify(skipped)
    return state


def require_own(state: Mapping[str, Any], agent: Agent, run_dir: Path) -> None:
    """Refuse a checkpoint of another environment or network than the run's.

    Raises: CheckpointError.
    """
    where = f"resume = {run_dir}: its newest checkpoint"
    with fitting(where):
        env_id, own = state["config"]["env"]["env_id"], agent.get_state()
        if env_id != agent.config.env.env_id:
            raise CheckpointError(f"{where} is of {env_id}, the run of {agent.config.env.env_id}; it is of another run")
        for name in ("observation_space", "action_space"):
            if state[name] != json.loads(json.dumps(own[name])):
                raise CheckpointError(f"{where} has another {name} than the environment; it is of another run")
        if len(state["params"]) != len(own["params"]):
            counts = f"{len(state['params'])} parameters, the network {len(own['params'])}"
            raise CheckpointError(f"{where} has {counts}; it is of another run")


def require_budget(config: TrainConfig, state: dict[str, Any]) -> None:
    """Refuse another budget that the checkpoint has passed already; the same one is a finished run, evaluated again.

    Raises: ConfigError.
    """
    done = {"total_timesteps": _step_of(state), "total_episodes": int(state["training"]["episodes"]["count"])}
    for name, number in done.items():
        budget, before = getattr(config, name), state["config"][name]
        if budget is not None and budget != before and budget <= number:
            unit = name.removeprefix("total_").replace("timesteps", "steps")
            raise ConfigError(f"{name} = {budget}: the run has done {number} {unit} already; give a larger number")


def _step_of(state: dict[str, Any]) -> int:
    return int(state["training"]["runner"]["num_steps"])


def restore(loop: TrainingLoop, state: dict[str, Any]) -> None:
    """Continue from a checkpoint, with a message that says so, and what is not exact about it; save the settings.

    The summary of the end before is removed: a run that is killed from here on has none.
    """
    save_yaml(loop.config, loop.run_dir / CONFIG)
    (loop.run_dir / SUMMARY).unlink(missing_ok=True)
    restart_seed = derive_seed(loop.config.seed, Stream.ENV, _step_of(state))
    inexact = loop.set_state(state["training"], restart_seed)
    step, episodes, budget = loop.runner.num_steps, loop.runner.num_episodes, budget_of(loop.config)
    parts = [f"resumed at step {step:,}", *_moved(state["config"], loop.config)]
    if step >= budget.timesteps:
        parts.append(f"the budget of {budget.timesteps:,} steps is used up; set total_timesteps to train further")
    elif budget.is_used_up(step, episodes):
        parts.append(f"the budget of {budget.episodes:,} episodes is used up; set total_episodes to train further")
    loop.logger.message("; ".join([*parts, inexact] if inexact else parts))


def _moved(saved: dict[str, Any], config: TrainConfig) -> list[str]:
    """Return what another machine or command has changed, after which a run does not repeat exactly."""
    before, after = from_dict(saved), config
    pairs = {
        "device": (before.device, after.device),
        "backend": (before.env.backend, after.env.backend),
        "num_workers": (before.workers.num_workers, after.workers.num_workers),
    }
    return [f"{name} was {old}, so it does not repeat exactly" for name, (old, new) in pairs.items() if old != new]


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
    return loop.evaluator.final(loop.best_agent())


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
