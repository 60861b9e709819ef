"""The composition root: config → environments, model, learner, runner → a run in a folder. Read this first."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from gymnasium.spaces import Space

from limelight.envs.make import explain_backend, num_cores, try_envs
from limelight.envs.source import qualified_name, resolve_env
from limelight.envs.spawn import why_no_workers
from limelight.errors import ConfigError, WorkerError
from limelight.runners.actor_learner import make_actor_learner, make_learner
from limelight.runners.base import Runner
from limelight.runners.processes.runner import SharedMemoryRunner
from limelight.runners.sync import SyncRunner
from limelight.runs.agent import Agent, load
from limelight.runs.checkpoint import latest_checkpoint, read_state
from limelight.runs.evaluation import Evaluation
from limelight.runs.folder import create_run_folder, require_empty, write_json
from limelight.seeds import Stream, derive_seed
from limelight.settings.io import for_resume, load_yaml, save_yaml, with_settings
from limelight.settings.rules import validate
from limelight.settings.schema import TrainConfig
from limelight.threads import single_threaded
from limelight.training.evaluator import Evaluator
from limelight.training.loop import TrainingLoop, catch_signals
from limelight.training.precision import choose_device, choose_precision
from limelight.training.presets import explain_preset, resolve
from limelight.typing import EnvFactory
from limelight.viewing.console import ConsoleLogger
from limelight.viewing.jsonl import JsonlLogger
from limelight.viewing.logger import Logger, Loggers
from limelight.viewing.monitor_csv import MonitorCsvLogger
from limelight.viewing.record import check_video
from limelight.viewing.tensorboard import TensorBoardLogger


@dataclass(frozen=True)
class RunResult:
    """What a run came to."""

    run_dir: Path
    status: str
    """completed, reached_return or interrupted."""
    summary: dict[str, Any]
    """The content of ``summary.json``."""
    report: Path | None
    """``report.html``, if it was drawn."""
    signal_number: int | None = None
    """The signal that interrupted the run."""

    @property
    def agent(self) -> Agent:
        """The best agent."""
        return load(self.run_dir)


def train(
    env: str | Callable[[], gym.Env[Any, Any]] = "CartPole-v1",
    *,
    algo: str = "a2c",
    preset: str = "auto",
    quiet: bool = False,
    loggers: Sequence[Logger] = (),
    **settings: Any,
) -> RunResult:
    """Train an agent: ``train("CartPole-v1", algo="a2c", total_timesteps=200_000, seed=1)``.

    Args:
        env: a Gymnasium id, ``"package.module:callable"``, or a callable that makes an environment.
        algo: a row of :mod:`limelight.training.algorithms`.
        preset: ``auto`` (by environment), ``none`` or a name.
        quiet: no progress display.
        loggers: further loggers beside the run's own.
        settings: any setting of :class:`limelight.TrainConfig` by its plain name.
    Raises: ConfigError with one line for anything that cannot work.
    """
    factory = None if isinstance(env, str) else env
    env_id = env if isinstance(env, str) else qualified_name(env)
    # What one copy of the environment shows is kept in the source, for the preset as for everything that follows.
    source = resolve_env(with_settings(TrainConfig(), {**settings, "env_id": env_id}).env, factory)
    config = resolve(env_id, algo, preset, settings, source)
    return run(config, factory=source, quiet=quiet, loggers=loggers)


def resume(run_dir: str | Path, *, quiet: bool = False, loggers: Sequence[Logger] = (), **settings: Any) -> RunResult:
    """Continue a run in its own folder from its newest checkpoint; ``settings`` as for :func:`train`."""
    folder = Path(run_dir)
    config = for_resume(load_yaml(folder / "config.yaml"), settings)
    return run(config, resume_from=folder, quiet=quiet, loggers=loggers)


def run(
    config: TrainConfig,
    *,
    factory: Callable[[], gym.Env[Any, Any]] | None = None,
    resume_from: Path | None = None,
    quiet: bool = False,
    loggers: Sequence[Logger] = (),
    command: str | None = None,
) -> RunResult:
    """Run ``config`` from its start, or from the newest checkpoint of ``resume_from``, to its end.

    Raises: ConfigError before anything is written if it cannot work; after a checkpoint and ``summary.json`` have been
    written, whatever a failing environment raises, and WorkerError (with ``run_dir``) where workers have failed.
    """
    notes = [] if resume_from is not None else [explain_preset(config.env.env_id, config.preset)]
    source = resolve_env(config.env, factory)
    config = prepare(config, source, notes.append)
    state = read_checkpoint(resume_from) if resume_from is not None else None
    resume_step = int(state["training"]["runner"]["num_steps"]) if state is not None else None
    if resume_from is None:
        require_empty(config)
    with ExitStack() as stack:
        stack.enter_context(single_threaded())
        interrupt = stack.enter_context(catch_signals())
        runner, agent = build(config, source)
        stack.callback(runner.close)
        run_dir = resume_from or create_run_folder(config, command or " ".join(sys.argv))
        evaluator = Evaluator(agent, config, run_dir / "best", reward_threshold(config))
        stack.callback(evaluator.close)
        logger = make_loggers(config, run_dir, resume_step, quiet, loggers)
        stack.callback(logger.close)
        for note in notes:
            (Loggers(loggers) if quiet else logger).message(note)
        loop = TrainingLoop(config, run_dir, runner, agent, evaluator, logger)
        if state is not None:
            save_yaml(config, run_dir / "config.yaml")
            restore(loop, state)
        status, final = "failed", None
        try:
            status = loop.run(interrupt)
            final = final_evaluation(loop, quiet) if status != "interrupted" else None
        except WorkerError as error:
            error.run_dir = run_dir
            raise
        finally:
            summary = summarize(loop, status, final)
            write_json(run_dir / "summary.json", summary)
    return RunResult(run_dir, status, summary, draw_report(run_dir), interrupt.signal_number)


def prepare(
    config: TrainConfig, factory: EnvFactory | None, notify: Callable[[str], None] = lambda note: None
) -> TrainConfig:
    """``config`` checked and with every ``auto`` that the machine decides filled in, so that a saved run repeats.

    ``notify`` is told why the backend was chosen, where it was not given, and of a GPU and a precision that was a
    choice.
    """
    validate(config)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = cuda: PyTorch sees no CUDA device here; use device cpu or auto")
    workers = config.workers
    if workers.runner == "ray":
        if find_spec("ray") is None:
            raise ConfigError("runner = ray: Ray is not installed; pip install 'limelight-rl[ray]'")
        workers = dataclasses.replace(workers, num_workers=workers.num_workers or num_cores())
    elif workers.asynchronous:
        if os.name != "posix":
            raise ConfigError(f"algo = {config.algorithm.algo}: needs Linux or macOS; use algo a2c on {os.name}")
        because = why_no_workers()
        if because is not None:
            raise ConfigError(f"algo = {config.algorithm.algo}: {because}; or use algo a2c, which needs no workers")
        workers = dataclasses.replace(workers, num_workers=workers.num_workers or num_cores())
    source = resolve_env(config.env, factory)
    has_workers = workers.asynchronous or workers.runner == "ray"
    choice = explain_backend(source, may_start_workers=not has_workers)
    if config.env.backend == "auto":
        notify(f"backend {choice.backend}: {choice.reason}")
    if config.log.video_every:
        check_video(config.env, source, f"video_every = {config.log.video_every}")
    env = dataclasses.replace(config.env, backend=choice.backend)
    if choice.backend == "ale" and env.env_threads is None:
        share = num_cores() // (workers.num_workers or 1) if workers.runner == "local" else int(workers.worker_cpus)
        env = dataclasses.replace(env, env_threads=max(1, share))

    def get_spaces() -> Space[Any]:
        return source.spaces()[0]

    device, because = choose_device(config.device, has_workers, config.model, get_spaces)
    precision, why = choose_precision(config.model, device, get_spaces)
    for reason in (because, why):
        if reason is not None:
            notify(reason)
    model = dataclasses.replace(config.model, precision=precision)
    return dataclasses.replace(config, device=device, env=env, model=model, workers=workers)


def build(config: TrainConfig, factory: EnvFactory | None) -> tuple[Runner, Agent]:
    """The runner of ``config``, and the agent that shares its model."""
    source, workers = resolve_env(config.env, factory), config.workers
    if workers.runner == "local" and not workers.asynchronous:
        actor = make_actor_learner(config, source, config.seed)
        envs, model = actor.collector.envs, actor.learner.model
        spaces = envs.single_observation_space, envs.single_action_space
        agent = Agent(model, actor.normalizer, config, *spaces, env_factory=source)
        return SyncRunner(actor, config.total_timesteps), agent
    try_envs(config.env, source)  # the workers make their own
    learner, normalizer = make_learner(config, *source.spaces())
    agent = Agent(learner.model, normalizer, config, *source.spaces(), env_factory=source)
    if workers.runner == "ray":
        from limelight.runners.ray.runner import RayRunner

        return RayRunner(config, learner, normalizer, source), agent
    return SharedMemoryRunner(config, learner, normalizer, source), agent


def reward_threshold(config: TrainConfig) -> float | None:
    """The return that counts as solved: ``stop_at_return``, else what Gymnasium's registry says of the environment."""
    if config.eval.stop_at_return is not None:
        return config.eval.stop_at_return
    spec = gym.registry.get(config.env.env_id)
    return spec.reward_threshold if spec is not None else None


def read_checkpoint(run_dir: Path) -> dict[str, Any]:
    """The newest intact checkpoint of a run.

    Raises: ConfigError if there is none.
    """
    newest = latest_checkpoint(run_dir)
    if newest is None:
        raise ConfigError(f"resume = {run_dir}: no intact checkpoint in {run_dir / 'checkpoints'}")
    return read_state(newest)


def restore(loop: TrainingLoop, state: dict[str, Any]) -> None:
    """Put the run where its checkpoint was, and notify so where that is not exactly possible."""
    training = state["training"]
    restart_seed = derive_seed(loop.config.seed, Stream.ENV, int(training["runner"]["num_steps"]))
    inexact = loop.set_state(training, restart_seed)
    loop.logger.message(f"resumed at step {loop.runner.num_steps:,}" + (f"; {inexact}" if inexact else ""))


def make_loggers(
    config: TrainConfig, run_dir: Path, resume_step: int | None, quiet: bool, loggers: Sequence[Logger]
) -> Loggers:
    """The run's own loggers, and the user's."""
    own: list[Logger] = [
        JsonlLogger(run_dir / "metrics.jsonl", resume_step=resume_step),
        MonitorCsvLogger(run_dir / "monitor.csv", config.env.env_id, time.time(), resume_step),
    ]
    if config.log.tensorboard:
        own.append(TensorBoardLogger(run_dir, resume_step))
    own.append(ConsoleLogger(config.total_timesteps, resume_step or 0, quiet=quiet))
    return Loggers([*own, *loggers])


def final_evaluation(loop: TrainingLoop, quiet: bool) -> Evaluation | None:
    """The final evaluation, of the best agent (of the last one, if none was ever evaluated).

    Announced, as it can take minutes in which the bar stands still, where the agent's games are long.
    """
    episodes = loop.config.eval.final_episodes
    if episodes == 0:
        return None
    if not quiet:
        loop.logger.message(f"final evaluation: {episodes} greedy episodes")
    return loop.evaluator.final(loop.best_agent())


def summarize(loop: TrainingLoop, status: str, final: Evaluation | None) -> dict[str, Any]:
    """The content of ``summary.json``."""
    config, solved_at = loop.config, loop.evaluator.solved_at
    return {
        "env_id": config.env.env_id,
        "algorithm": config.algorithm.algo,
        "seed": config.seed,
        "total_timesteps": loop.runner.num_steps,
        "wall_seconds": loop.seconds,
        "steps_per_second": loop.runner.num_steps / loop.seconds if loop.seconds > 0 else 0.0,
        "best_eval_return": loop.evaluator.best_return,
        "final_eval_return": final.mean_return if final else None,
        "final_eval_std": final.std_return if final else None,
        "final_eval_episodes": final.episodes if final else 0,
        "solved_at_step": solved_at[0] if solved_at else None,
        "solved_at_seconds": solved_at[1] if solved_at else None,
        "status": status,
    }


def draw_report(run_dir: Path) -> Path:
    """Draw ``report.html``; matplotlib is only loaded here, after training."""
    from limelight.viewing.report import write_report

    return write_report([run_dir])
