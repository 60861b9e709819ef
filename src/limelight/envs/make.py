"""From settings to environments that are stepped together: the checks, and the choice of backend.

Used by train.py, evaluate.py and cli.py. What cannot work is refused here, in one line, before a run starts.
"""

from __future__ import annotations

import inspect
import os
import statistics
import time
from typing import Any, Literal, NamedTuple

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator

from limelight.envs.atari import AtariBackend
from limelight.envs.base import EnvBackend
from limelight.envs.envpool_backend import EnvPoolBackend, why_no_envpool
from limelight.envs.games import check_settings
from limelight.envs.gymnasium_backend import MODES, SAME_ENV, SyncBackend, VectorBackend, make_async
from limelight.envs.masks import random_action
from limelight.envs.source import EnvMaker, callable_name, resolve_env
from limelight.envs.spawn import why_no_workers
from limelight.errors import ConfigError, did_you_mean
from limelight.settings.io import all_settings, with_settings
from limelight.settings.rules import validate
from limelight.settings.schema import EnvConfig, TrainConfig
from limelight.spaces.describe import check_spaces, describe_space
from limelight.typing import AnyEnv, EnvFactory

__all__ = ["EnvFactory", "EnvMaker", "choose_backend", "explain_backend", "make_envs", "resolve_env"]

Backend = Literal["vector", "sync", "async", "envpool", "ale"]

# CartPole-v1: a step of B environments takes 2 µs + 11 µs × B in sync and 84 µs + B / 7 µs vectorised.
_VECTOR_FROM_ENVS = 8
# A worker process costs about 170 µs per step and environment, so two cores gain from steps of 340 µs on.
_ASYNC_FROM_SECONDS = 400e-6
_PROBE_SECONDS = 0.02

# Where EnvPool, on one thread, is surely faster, and plays the same environment (docs/environments.md): µs of a step of
# 1 / 8 / 16 environments in it and in sync: HalfCheetah-v5 137 and 137 / 559 and 1053 / 1086 and 2956, LunarLander-v3
# 170 and 93 / 230 and 677 / 417 and 1329, but Pendulum-v1 106 and 21 / 140 and 153 / 149 and 309. A resumed run
# restarts its episodes, but so it does with Gymnasium's own MuJoCo and Box2D, whose state cannot be saved either.
_ENVPOOL_FROM_ENVS = 8
_ENVPOOL_FAMILIES = (
    "gymnasium.envs.mujoco.",
    "gymnasium.envs.box2d.lunar_lander:",
    "gymnasium.envs.box2d.bipedal_walker:",
)


class Choice(NamedTuple):
    """A backend, and why it was taken."""

    backend: Backend
    reason: str


def make_envs(
    config: EnvConfig | str | EnvFactory,
    num_envs: int | None = None,
    seed: int | None = None,
    factory: EnvFactory | None = None,
    **settings: Any,
) -> EnvBackend:
    """Environments stepped together, ready for ``reset``.

    Args:
        config: settings; or an id, or a callable that makes an environment, with the default settings.
        num_envs: instead of ``config.num_envs``.
        seed: if given, the environments are reset with it, so that a later ``reset()`` needs none.
        factory: a callable that makes an environment, used instead of ``config.env_id``.
        settings: fields of EnvConfig and AtariConfig by their names.
    Raises: ConfigError naming what cannot work and the mend: the id, a setting, a space, a missing package.
    """
    if not isinstance(config, EnvConfig | str):
        factory, config = config, EnvConfig(env_id=callable_name(config))
    env = EnvConfig(env_id=config) if isinstance(config, str) else config
    env = _with_settings(env, settings if num_envs is None else {**settings, "num_envs": num_envs})
    maker = resolve_env(env, factory)
    probe = maker()
    try:
        backend = _build(env, maker, probe)
    finally:
        probe.close()
    if seed is not None:
        backend.reset(seed)
    return backend


def choose_backend(config: EnvConfig, factory: EnvFactory | None = None, may_start_workers: bool = True) -> Backend:
    """The backend of :func:`explain_backend`."""
    return explain_backend(config, factory, may_start_workers).backend


def explain_backend(
    config: EnvConfig,
    factory: EnvFactory | None = None,
    may_start_workers: bool = True,
    may_use_envpool: bool = True,
) -> Choice:
    """``config.backend``, or for ``auto`` the fastest: save it with the run, as the third rule takes the time.

    0. ``ale`` for Atari games, in the autoreset mode that it has;
    1. ``vector`` from 8 environments on, where the environment has a vectorised class that can replace it;
    2. ``envpool`` from 8 environments on, for MuJoCo and Box2D, where it is installed and can replace the environment;
    3. ``async`` where there are several cores and environments, one step takes 400 µs or more, and worker processes
       may be started: by the program, and by the caller, who may have filled the cores already;
    4. ``sync`` otherwise.

    Raises: ConfigError as :func:`make_envs`, and for a setting that neither environment nor backend would use.
    """
    maker = resolve_env(config, factory)
    if config.backend != "auto":
        choice = Choice(config.backend, "as set")
    else:
        choice = _fastest(config, maker, may_start_workers, may_use_envpool)
    check_settings(config, maker.name, maker.game() is not None, choice.backend)
    return choice


def _fastest(config: EnvConfig, maker: EnvMaker, may_start_workers: bool, may_use_envpool: bool) -> Choice:
    """The rules of :func:`explain_backend`."""
    if maker.game() is not None and config.autoreset_mode == "next_step":
        return Choice("ale", f"{maker.name} is an Atari game")
    if config.num_envs >= _VECTOR_FROM_ENVS and _why_no_vector(maker) is None:
        return Choice("vector", f"{maker.name} has a vectorised class")
    no_envpool = _why_not_envpool(maker) if may_use_envpool else "EnvPool is taken for training alone"
    if no_envpool is None:
        return Choice("envpool", f"faster, and EnvPool has {maker.name} with the same spaces")
    if config.num_envs == 1 or not may_start_workers or num_cores() == 1 or why_no_workers() is not None:
        return Choice("sync", no_envpool)
    env = maker()
    try:
        check_spaces(env.observation_space, env.action_space, maker.name)
        seconds = _step_seconds(env)
    finally:
        env.close()
    backend: Backend = "async" if seconds >= _ASYNC_FROM_SECONDS else "sync"
    return Choice(backend, f"a step takes {seconds * 1e6:.0f} µs; {no_envpool}")


def _why_not_envpool(maker: EnvMaker) -> str | None:
    """Why ``auto`` does not take EnvPool; None if it does."""
    spec = maker.resolve()
    entry = spec.entry_point if isinstance(spec, EnvSpec) else None
    if not isinstance(entry, str) or not entry.startswith(_ENVPOOL_FAMILIES):
        return "EnvPool is taken for MuJoCo and Box2D alone"
    if maker.config.num_envs < _ENVPOOL_FROM_ENVS:
        return f"EnvPool is taken from {_ENVPOOL_FROM_ENVS} environments on"
    return why_no_envpool(maker)


# --------------------------------------------------------------------------- building


def _with_settings(env: EnvConfig, settings: dict[str, Any]) -> EnvConfig:
    names = [setting.name for setting in all_settings().values() if setting.is_under("env")]
    for name in settings:
        if name not in names:
            raise ConfigError(f"{name}: no such setting of environments{did_you_mean(name, names)}")
    return validate(with_settings(TrainConfig(env=env), settings)).env


def _build(config: EnvConfig, maker: EnvMaker, probe: AnyEnv) -> EnvBackend:
    """The backend of ``config``; ``probe`` is one environment, already made, to look at."""
    check_spaces(probe.observation_space, probe.action_space, maker.name)
    # Evaluations and loops of one's own that leave the choice to us step Gymnasium's environments.
    backend = explain_backend(config, maker, may_use_envpool=False).backend
    if backend == "envpool":
        obstacle = why_no_envpool(maker)
        if obstacle is not None:
            instead = "sync" if maker.game() is None else "ale"
            raise ConfigError(f"backend = envpool: {obstacle}; use backend {instead}")
        return EnvPoolBackend(maker, probe, config.num_envs)
    if backend == "ale":
        return _build_ale(config, maker)
    if backend == "vector":
        return _build_vector(config, maker, probe)
    if backend == "async":
        return make_async(maker, config.num_envs, config.autoreset_mode, maker.name)
    envs = [maker() for _ in range(config.num_envs)]
    # One environment for all calls would also be the one that evaluation steps in the middle of training.
    if any(env.unwrapped is probe.unwrapped for env in envs):
        raise ConfigError(SAME_ENV.format(maker.name))
    return SyncBackend(envs, config.autoreset_mode, maker.name)


def _build_ale(config: EnvConfig, maker: EnvMaker) -> EnvBackend:
    """ALE's own vector environment."""
    game = maker.game()
    if game is None:
        raise ConfigError(f"backend = ale: {maker.name} is no Atari game; use backend auto")
    return AtariBackend(game, config, config.num_envs, config.atari.env_threads or num_cores())


def _build_vector(config: EnvConfig, maker: EnvMaker, probe: AnyEnv) -> EnvBackend:
    """The environment's own vectorised class."""
    obstacle, spec = _why_no_vector(maker), maker.resolve()
    if obstacle is not None or not isinstance(spec, EnvSpec):
        raise ConfigError(f"backend = vector: {obstacle}; use backend sync or async")
    envs = gym.make_vec(spec, config.num_envs, "vector_entry_point", **_vector_kwargs(maker, spec))
    for role in ("observation_space", "action_space"):
        single, vectorised = getattr(probe, role), getattr(envs, f"single_{role}")
        if single != vectorised:
            envs.close()
            raise ConfigError(
                f"backend = vector: {maker.name} has {role} {describe_space(single)}, its "
                f"vectorised class {describe_space(vectorised)}; use backend sync or async"
            )
    return VectorBackend(envs, maker.name)


def _why_no_vector(maker: EnvMaker) -> str | None:
    """Why the environment's own vectorised class cannot replace it; None if it can."""
    spec, mode = maker.resolve(), maker.config.autoreset_mode
    if not isinstance(spec, EnvSpec) or spec.vector_entry_point is None:
        return f"{maker.name} has no vectorised class"
    vectorised = f"the vectorised class of {maker.name}"
    if spec.additional_wrappers:
        return f"{vectorised} cannot take the wrappers that {maker.name} is registered with"
    try:
        creator: Any = spec.vector_entry_point
        creator = load_env_creator(creator) if isinstance(creator, str) else creator
        inspect.signature(creator).bind(num_envs=1, **_vector_kwargs(maker, spec))
    except ImportError as error:
        return f"{vectorised} cannot be imported ({error})"
    except TypeError as error:
        return f"{vectorised} {error}"
    if getattr(creator, "metadata", {}).get("autoreset_mode") is not MODES[mode]:
        return f"{vectorised} does not have autoreset_mode {mode}"
    if maker.is_packed():
        return f"{vectorised} cannot carry the composite spaces or action masks of {maker.name}"
    return None


def _vector_kwargs(maker: EnvMaker, spec: EnvSpec) -> dict[str, Any]:
    limit = maker.config.max_episode_steps or spec.max_episode_steps
    return {
        **spec.kwargs,
        **maker.config.env_kwargs,
        **({} if limit is None else {"max_episode_steps": limit}),
    }


# --------------------------------------------------------------------------- measuring


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _step_seconds(env: AnyEnv) -> float:
    """Median time of a step with random actions, over about 20 ms; a median, as other programs interrupt."""
    env.action_space.seed(0)
    obs, info = env.reset(seed=0)
    obs, _, _, _, info = env.step(random_action(env, obs, info))  # the first one may compile or load something
    durations: list[float] = []
    while sum(durations) < _PROBE_SECONDS:
        action, start = random_action(env, obs, info), time.perf_counter()
        obs, _, terminated, truncated, info = env.step(action)
        durations.append(time.perf_counter() - start)
        if terminated or truncated:
            obs, info = env.reset()
    return statistics.median(durations)
