"""Make the environments of a run: choose a backend, refuse in one line what cannot work, build the backend."""

from __future__ import annotations

import dataclasses
import inspect
import os
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple, assert_never

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from limelight.envs.atari import AtariBackend
from limelight.envs.base import EnvBackend
from limelight.envs.envpool_backend import EnvPoolBackend, why_no_envpool
from limelight.envs.faults import close_env
from limelight.envs.games import check_settings
from limelight.envs.guards import EnvGuard
from limelight.envs.gymnasium_backend import MODES, SAME_ENV, MakeGuard, SyncBackend, VectorBackend, make_async
from limelight.envs.probe import probe
from limelight.envs.source import EnvSource, qualified_name, resolve_env
from limelight.envs.spawn import why_no_workers
from limelight.errors import ConfigError, EnvError, did_you_mean
from limelight.settings.io import all_settings, with_settings
from limelight.settings.rules import validate
from limelight.settings.schema import EnvConfig, TrainConfig
from limelight.settings.values import Range, coerce
from limelight.spaces.describe import check_spaces, space_difference
from limelight.typing import AnyEnv, EnvFactory

Backend = Literal["vector", "sync", "async", "envpool", "ale"]

# `benchmarks/throughput.py --env-backend` compares these; docs/environments.md has the step times with EnvPool.
_VECTOR_FROM_ENVS = 8
_ASYNC_FROM_SECONDS = 400e-6
_ENVPOOL_FROM_ENVS = 8
# Families in which EnvPool plays the same environments, and faster on one thread.
_ENVPOOL_FAMILIES = (
    "gymnasium.envs.mujoco.",
    "gymnasium.envs.box2d.lunar_lander:",
    "gymnasium.envs.box2d.bipedal_walker:",
)
_TIMING_STEPS, _TIMING_SECONDS = 100_000, 0.02
_IN_ONE_PROCESS = "in one process"


class Choice(NamedTuple):
    """A backend, and why it was chosen."""

    backend: Backend
    reason: str


def make_envs(
    config: EnvConfig | str | EnvFactory,
    num_envs: int | None = None,
    seed: int | None = None,
    factory: EnvFactory | None = None,
    **settings: Any,
) -> EnvBackend:
    """Make environments that are stepped together, ready for ``reset``.

    If nothing is known of the environment yet, one copy is made to inspect, and closed before these are made.

    Args:
        config: settings; or an id, or a callable that makes an environment, with the default settings.
        num_envs: overrides ``config.num_envs``.
        seed: if given, the environments are reset with it, so that a later ``reset()`` needs none.
        factory: a callable that makes an environment, or a resolved :class:`EnvSource`; overrides ``config.env_id``.
        settings: fields of EnvConfig and AtariConfig by their names.
    Raises: ConfigError naming what cannot work and what would help: the id, a setting. EnvError if the environment
        cannot be made, or its spaces cannot be learnt from.
    """
    if seed is not None:
        seed = whole_seed(seed)
    if not isinstance(config, EnvConfig | str):
        factory, config = config, EnvConfig(env_id=qualified_name(config))
    env = EnvConfig(env_id=config) if isinstance(config, str) else config
    env = _with_settings(env, settings if num_envs is None else {**settings, "num_envs": num_envs})
    source = resolve_env(env, factory)
    # Evaluations and loops of the user's own, where backend is auto, step Gymnasium's environments.
    backend = _build(source, explain_backend(source, may_use_envpool=False).backend)
    if seed is not None:
        backend.reset(seed)
    return backend


def whole_seed(seed: Any) -> int:
    """Return a seed as a whole number that is not negative.

    Raises: ConfigError.
    """
    seed = coerce("seed", seed, int)
    Range(ge=0).check("seed", seed)
    return int(seed)


def try_envs(config: EnvConfig, source: EnvSource) -> None:
    """Make one environment with ``config.backend``, reset it and close it, so that errors show here and not in workers.

    Raises: ConfigError or EnvError as :func:`make_envs`.
    """
    source = resolve_env(dataclasses.replace(config, num_envs=1), source)
    if config.backend == "sync":  # without looking at a copy first: this one shows as much
        guarded = _guarded(source)
        envs: EnvBackend = SyncBackend(
            [source.make_unguarded()], config.autoreset_mode, source.name, make_guard=guarded
        )
    else:
        envs = _build(source, explain_backend(source).backend)
    try:
        check_spaces(envs.single_observation_space, envs.single_action_space, source.name)
        envs.reset(seed=0)
    finally:
        envs.close()


def explain_backend(source: EnvSource, may_start_workers: bool = True, may_use_envpool: bool = True) -> Choice:
    """Return the backend of ``source.config``, or for ``auto`` the fastest.

    The third rule measures, so a run saves the choice:

    0. ``ale`` for Atari games, in the autoreset mode that it has;
    1. ``vector`` from 8 environments on, if the environment has a vectorised class that can replace it;
    2. ``envpool`` from 8 environments on, for MuJoCo and Box2D, if it is installed and can replace the environment;
    3. ``async`` with several cores and environments, if one step takes 400 µs or more, and worker processes may be
       started: by this program, and by the caller, which may have used up the cores;
    4. ``sync`` otherwise.

    Raises: ConfigError or EnvError as :func:`make_envs`; ConfigError for a setting that neither environment nor backend
        would use.
    """
    config = source.config
    if config.backend != "auto":
        choice = Choice(config.backend, "as set")
    else:
        choice = _fastest(source, may_start_workers, may_use_envpool)
    check_settings(config, source.name, source.kind == "atari", choice.backend)
    return choice


def _fastest(source: EnvSource, may_start_workers: bool, may_use_envpool: bool) -> Choice:
    """Apply the rules of :func:`explain_backend`."""
    config = source.config
    alone = config.on_env_error == "restart"  # only those that are stepped one by one can be replaced
    if source.kind == "atari" and config.autoreset_mode == "next_step" and not alone:
        return Choice("ale", f"{source.name} is an Atari game")
    if config.num_envs >= _VECTOR_FROM_ENVS and not alone and _why_no_vector(source) is None:
        return Choice("vector", f"{source.name} has a vectorised class")
    may_use_envpool = may_use_envpool and not alone
    no_envpool = _why_not_envpool(source) if may_use_envpool else "EnvPool is used only for training"
    if no_envpool is None:
        return Choice("envpool", f"faster, and EnvPool has {source.name} with the same spaces")
    if not _may_be_async(config, may_start_workers):
        return Choice("sync", no_envpool)
    seconds = _time_steps(source)
    taken = f"a step takes {seconds * 1e6:.0f} µs" + (f"; {no_envpool}" if no_envpool != _IN_ONE_PROCESS else "")
    if seconds < _ASYNC_FROM_SECONDS:
        return Choice("sync", taken)
    obstacle = source.why_not_sent()
    return Choice("async", taken) if obstacle is None else Choice("sync", f"{taken}, but {obstacle}")


def _may_be_async(config: EnvConfig, may_start_workers: bool) -> bool:
    return config.num_envs > 1 and may_start_workers and num_cores() > 1 and why_no_workers() is None


def _why_not_envpool(source: EnvSource) -> str | None:
    """Return why ``auto`` does not choose EnvPool; None if it does."""
    entry = source.spec.entry_point if source.spec is not None else None
    if not isinstance(entry, str) or not entry.startswith(_ENVPOOL_FAMILIES):
        return _IN_ONE_PROCESS
    if source.config.num_envs < _ENVPOOL_FROM_ENVS:
        return f"EnvPool is used from {_ENVPOOL_FROM_ENVS} environments on"
    return why_no_envpool(source)


# --------------------------------------------------------------------------- building


def _with_settings(env: EnvConfig, settings: dict[str, Any]) -> EnvConfig:
    names = [setting.name for setting in all_settings().values() if setting.is_under("env")]
    for name in settings:
        if name not in names:
            raise ConfigError(f"{name}: no such setting of environments{did_you_mean(name, names)}")
    return validate(with_settings(TrainConfig(env=env), settings)).env


def _build(source: EnvSource, backend: Backend) -> EnvBackend:
    """Build ``backend``; copies that were made to be inspected are closed by then."""
    config = source.config
    if backend == "ale":
        return _build_ale(source)
    check_spaces(*source.spaces(), source.name)
    if backend == "envpool":
        obstacle = why_no_envpool(source)
        if obstacle is not None:
            instead = "ale" if source.kind == "atari" else "sync"
            raise ConfigError(f"backend = envpool: {obstacle}; use backend {instead}")
        return EnvPoolBackend(source, config.num_envs)
    if backend == "vector":
        return _build_vector(source)
    if backend == "async":
        return make_async(
            source, config.num_envs, config.autoreset_mode, source.name, source.spaces(), config.info_keys,
            config.on_env_error == "restart", config.step_timeout,
        )  # fmt: skip
    if backend == "sync":
        return _build_sync(source)
    assert_never(backend)


def _build_sync(source: EnvSource) -> EnvBackend:
    """Build a SyncBackend; if one of the environments cannot be made, the others are closed."""
    config = source.config
    with ExitStack() as stack:
        envs: list[AnyEnv] = []
        for _ in range(config.num_envs):
            envs.append(source.make_unguarded())
            stack.callback(close_env, envs[-1], source.name)
        # A callable that always returns one environment would also return it to the evaluations during training.
        if any(map(source.is_first, envs)):
            raise EnvError(SAME_ENV.format(source.name))
        backend = SyncBackend(envs, config.autoreset_mode, source.name, config.info_keys, _guarded(source))
        stack.pop_all()
    return backend


def _guarded(source: EnvSource) -> MakeGuard | None:
    """Return what guards the environments of one process; None where they are not guarded."""
    config = source.config
    if config.on_env_error == "raise" and config.step_timeout is None:
        return None
    replaces = config.on_env_error == "restart"
    shown: set[str] = set()
    return lambda env, i, put: EnvGuard(source.make, env, source.name, i, replaces, put, shown)


def _build_ale(source: EnvSource) -> EnvBackend:
    """Build ALE's own vector environment."""
    config = source.config
    assert source.game is not None
    return AtariBackend(source.game, config, config.num_envs, config.atari.env_threads or num_cores())


def _build_vector(source: EnvSource) -> EnvBackend:
    """Build the environment's own vectorised class."""
    obstacle = _why_no_vector(source)
    if obstacle is not None or source.spec is None:
        raise ConfigError(f"backend = vector: {obstacle}; use backend sync or async")
    envs = gym.make_vec(source.spec, source.config.num_envs, "vector_entry_point", **_vector_kwargs(source))
    for role, single in zip(("observation_space", "action_space"), source.spaces(), strict=True):
        vectorised = getattr(envs, f"single_{role}")
        difference = None if single == vectorised else space_difference(single, vectorised)
        if difference is not None:
            envs.close()
            raise ConfigError(
                f"backend = vector: {source.name} and its vectorised class differ in {role}, {difference}; "
                "use backend sync or async"
            )
    return VectorBackend(envs, source.name, source.config.info_keys)


def _why_no_vector(source: EnvSource) -> str | None:
    """Return why the environment's own vectorised class cannot replace it; None if it can."""
    spec, mode = source.spec, source.config.autoreset_mode
    if spec is None or spec.vector_entry_point is None:
        return f"{source.name} has no vectorised class"
    vectorised = f"the vectorised class of {source.name}"
    if spec.additional_wrappers:
        return f"{vectorised} cannot take the wrappers that {source.name} is registered with"
    try:
        creator: Any = spec.vector_entry_point
        creator = load_env_creator(creator) if isinstance(creator, str) else creator
        inspect.signature(creator).bind(num_envs=1, **_vector_kwargs(source))
    except ImportError as error:
        return f"{vectorised} cannot be imported ({error})"
    except TypeError as error:
        return f"{vectorised} {error}"
    if getattr(creator, "metadata", {}).get("autoreset_mode") is not MODES[mode]:
        return f"{vectorised} does not have autoreset_mode {mode}"
    if source.is_packed():
        return f"{vectorised} cannot carry the composite spaces or action masks of {source.name}"
    return None


def _vector_kwargs(source: EnvSource) -> dict[str, Any]:
    assert source.spec is not None
    limit = source.config.max_episode_steps or source.spec.max_episode_steps
    return {
        **source.spec.kwargs,
        **source.config.env_kwargs,
        **({} if limit is None else {"max_episode_steps": limit}),
    }


# --------------------------------------------------------------------------- measuring


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _time_steps(source: EnvSource) -> float:
    """Return the seconds of a step; measured with a copy that is closed afterwards, unless they are known."""
    if source.inspection.step_seconds is None:
        env = source.make_unguarded()
        try:
            check_spaces(env.observation_space, env.action_space, source.name)
            source.inspection.step_seconds = _step_seconds(env, source.name)
        except EnvError as error:
            if source.config.on_env_error != "restart" or not error.from_env:
                raise
            source.inspection.step_seconds = 0.0  # not known; the run replaces it where it fails
        finally:
            close_env(env, source.name)
    return source.inspection.step_seconds


def _step_seconds(env: AnyEnv, name: str) -> float:
    """Return the median time of a step with random actions, over about 20 ms; other programs disturb a mean."""
    return probe(env, name, _TIMING_STEPS, _TIMING_SECONDS).step_seconds
