"""The settings of a run made ready for this machine: every ``auto`` is filled in, and lines say what was chosen."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from gymnasium.spaces import Box, Space

from limelight.envs.make import explain_backend, num_cores
from limelight.envs.source import EnvSource, resolve_env
from limelight.envs.spawn import why_no_workers
from limelight.errors import ConfigError
from limelight.nn.encoders import is_builtin
from limelight.runners.processes.portable import max_workers
from limelight.runs.agent import Agent
from limelight.settings.rules import validate
from limelight.settings.schema import EnvConfig, EvalConfig, TrainConfig, WorkersConfig
from limelight.spaces.describe import describe_space
from limelight.spaces.images import explain_flat_image, is_flat_image
from limelight.spaces.packed import Packed, path_name, walk
from limelight.training.precision import choose_device, choose_precision
from limelight.training.presets import explain_preset
from limelight.typing import EnvFactory
from limelight.viewing.record import check_video


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
    if not is_resumed:
        require_device(config.device)
    elif config.device == "cuda" and not torch.cuda.is_available():
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


def require_device(device: str | None) -> None:
    """Refuse a device that a user has asked for, where it is not there.

    Raises: ConfigError.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = cuda: PyTorch sees no CUDA device here; use device cpu or auto")


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
