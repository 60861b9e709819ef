"""From the settings of an environment to stepped environments: ids, callables, checks, and the choice of backend.

Used by train.py, evaluate.py and cli.py. Everything that cannot work is refused here, in one line, before a run starts.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import TimeLimit

from limelight.config import ConfigError, EnvConfig, TrainConfig, did_you_mean, validate, with_settings
from limelight.envs.base import EnvBackend
from limelight.envs.gymnasium_backend import SyncBackend, VectorBackend, make_async
from limelight.envs.spaces import check_spaces, describe_space

AnyEnv = gym.Env[Any, Any]
EnvFactory = Callable[[], AnyEnv]
Backend = Literal["vector", "sync", "async"]

# Measured with CartPole-v1: a step of B environments costs 11 µs × B + 2 µs in sync, and 83 µs + B / 8 µs vectorised.
_VECTOR_FROM_ENVS = 8
# A worker process costs about 170 µs per step and environment, so with two cores async gains from 340 µs on.
_ASYNC_FROM_SECONDS = 400e-6
_PROBE_SECONDS = 0.02

# gymnasium.envs.<folder> → the extra of Gymnasium that installs what it needs
_EXTRAS = {
    "box2d": "box2d",
    "classic_control": "classic-control",
    "toy_text": "toy-text",
    "mujoco": "mujoco",
    "phys2d": "jax",
    "tabular": "jax",
}


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
        settings: fields of EnvConfig by their names.
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


def resolve_env(config: EnvConfig, factory: EnvFactory | None = None) -> EnvMaker:
    """What makes one environment of ``config`` (or, in its place, of ``factory``); it pickles if ``factory`` does.

    Raises: ConfigError if the id is unknown (near ones are named) or a module cannot be imported.
    """
    if isinstance(factory, EnvMaker):
        factory = factory.factory
    maker = EnvMaker(config, factory)
    if factory is None:
        maker.resolve()
    return maker


def choose_backend(config: EnvConfig, factory: EnvFactory | None = None) -> Backend:
    """``config.backend``, or for ``auto`` the fastest: save it with the run, as the last rule takes the time.

    1. ``vector`` from 8 environments on, where the environment has a vectorised class that can stand in for it;
    2. ``async`` where there are several cores and environments and one step takes 400 µs or more;
    3. ``sync`` otherwise.

    Raises: ConfigError as :func:`make_envs`.
    """
    if config.backend != "auto":
        return config.backend
    maker = resolve_env(config, factory)
    if config.num_envs >= _VECTOR_FROM_ENVS and _no_vector_because(maker) is None:
        return "vector"
    if config.num_envs == 1 or _cores() == 1:
        return "sync"
    env = maker()
    try:
        check_spaces(env.observation_space, env.action_space, maker.name)
        return "async" if _step_seconds(env) >= _ASYNC_FROM_SECONDS else "sync"
    finally:
        env.close()


@dataclass(frozen=True)
class EnvMaker:
    """Makes one environment at each call: by id, by ``package.module:callable``, or with a callable of the user's."""

    config: EnvConfig
    factory: EnvFactory | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.config.env_id if self.factory is None else callable_name(self.factory)

    def resolve(self) -> EnvSpec | Callable[..., Any]:
        """What the id stands for.

        Raises: ConfigError if nothing does, or what registers it cannot be imported.
        """
        if self.config.env_module is not None:
            _import("env_module", self.config.env_module)
        if self.factory is not None:
            return self.factory
        module, _, name = self.config.env_id.rpartition(":")
        if module:
            creator = getattr(_import("env_id", module), name, None)
            if callable(creator):
                return creator
        if name not in gym.registry:
            raise ConfigError(_unknown_id(self.config.env_id, module, name))
        return gym.registry[name]

    def __call__(self) -> AnyEnv:
        """One environment.

        Raises: ConfigError if it cannot be made with these settings.
        """
        source, limit = self.resolve(), self.config.max_episode_steps
        if isinstance(source, EnvSpec):
            # Without Gymnasium's checker, which looks at the first steps only: `limelight check` is for that.
            return self._made(lambda **kwargs: gym.make(source, limit, True, **kwargs), source)
        env = self._made(source, source)
        return env if limit is None else _limit_steps(env, limit)

    def _made(self, create: Callable[..., Any], source: EnvSpec | Callable[..., Any]) -> AnyEnv:
        kwargs = self.config.env_kwargs
        try:
            env = create(**kwargs)
        except (gym.error.DependencyNotInstalled, ModuleNotFoundError) as error:
            raise ConfigError(_missing_package(self.name, source, error)) from error
        except TypeError as error:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if unknown is None or unknown[1] not in kwargs:
                raise
            raise ConfigError(_unknown_kwarg(self.name, source, unknown[1])) from error
        except Exception as error:
            if not kwargs or isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"env_kwargs = {kwargs}: {self.name} cannot be made with them ({type(error).__name__}: {error})"
            ) from error
        if not isinstance(env, gym.Env):
            single = "; num_envs copies are made of one environment" if isinstance(env, VectorEnv) else ""
            raise ConfigError(
                f"env_id = {self.name}: it returned a {type(env).__module__}.{type(env).__qualname__}, "
                f"which is no gymnasium.Env{single}; return a gymnasium.Env"
            )
        return env


def callable_name(factory: Callable[..., Any]) -> str:
    """``package.module:callable`` of a callable, or the nearest to it that it has."""
    target = factory if hasattr(factory, "__qualname__") else type(factory)
    return f"{target.__module__}:{target.__qualname__}"


# --------------------------------------------------------------------------- building


def _with_settings(env: EnvConfig, settings: dict[str, Any]) -> EnvConfig:
    names = [f.name for f in dataclasses.fields(EnvConfig)]
    for name in settings:
        if name not in names:
            raise ConfigError(f"{name}: no such setting of environments{did_you_mean(name, names)}")
    return validate(with_settings(TrainConfig(env=env), settings)).env


def _build(config: EnvConfig, maker: EnvMaker, probe: AnyEnv) -> EnvBackend:
    """The backend of ``config``; ``probe`` is one environment, already made, to look at."""
    check_spaces(probe.observation_space, probe.action_space, maker.name)
    if config.normalize_obs and not isinstance(probe.observation_space, Box):
        raise ConfigError(
            f"normalize_obs = true: needs Box observations, but {maker.name} has "
            f"{describe_space(probe.observation_space)}; set it to false"
        )
    backend = choose_backend(config, maker)
    if backend == "vector":
        return _build_vector(config, maker, probe)
    if backend == "async":
        return make_async(maker, config.num_envs, config.autoreset_mode, maker.name)
    envs = [maker() for _ in range(config.num_envs)]
    if any(
        env.unwrapped is probe.unwrapped for env in envs
    ):  # then evaluation would step what training steps
        raise ConfigError(
            f"env_id = {maker.name}: the callable returned the same environment twice; make a new one in every call"
        )
    return SyncBackend(envs, config.autoreset_mode, maker.name)


def _build_vector(config: EnvConfig, maker: EnvMaker, probe: AnyEnv) -> EnvBackend:
    """The environment's own vectorised class."""
    obstacle = _no_vector_because(maker)
    if obstacle is not None:
        raise ConfigError(f"backend = vector: {obstacle}; use backend sync or async")
    kwargs = _vector_kwargs(maker)
    envs = gym.make_vec(maker.resolve(), config.num_envs, "vector_entry_point", **kwargs)
    for role in ("observation_space", "action_space"):
        single, vectorised = getattr(probe, role), getattr(envs, f"single_{role}")
        if single != vectorised:
            envs.close()
            raise ConfigError(
                f"backend = vector: the vectorised class of {maker.name} has {role} {describe_space(vectorised)}, "
                f"its single environment {describe_space(single)}; use backend sync or async"
            )
    return VectorBackend(envs, maker.name)


def _vector_kwargs(maker: EnvMaker) -> dict[str, Any]:
    limit = maker.config.max_episode_steps
    return {**maker.config.env_kwargs, **({} if limit is None else {"max_episode_steps": limit})}


def _no_vector_because(maker: EnvMaker) -> str | None:
    """Why the environment's own vectorised class cannot stand in for it; None if it can."""
    spec, name = maker.resolve(), maker.name
    if not isinstance(spec, EnvSpec) or spec.vector_entry_point is None:
        return f"{name} has no vectorised class"
    if spec.additional_wrappers:
        return f"{name} is registered with wrappers, which its vectorised class cannot take"
    entry = spec.vector_entry_point
    try:
        creator = load_env_creator(entry) if isinstance(entry, str) else entry
    except ImportError as error:
        return f"the vectorised class of {name} cannot be imported ({error})"
    mode = getattr(creator, "metadata", {}).get("autoreset_mode")
    if mode is not AutoresetMode.NEXT_STEP or maker.config.autoreset_mode != "next_step":
        stated = mode.name.lower() if isinstance(mode, AutoresetMode) else "no autoreset mode that it states"
        if stated != maker.config.autoreset_mode or stated != "next_step":
            return f"the vectorised class of {name} has {stated}, not autoreset_mode {maker.config.autoreset_mode}"
    limit = {} if spec.max_episode_steps is None else {"max_episode_steps": spec.max_episode_steps}
    try:
        inspect.signature(creator).bind(num_envs=1, **{**limit, **spec.kwargs, **_vector_kwargs(maker)})
    except TypeError as error:
        return f"the vectorised class of {name} {error}"
    return None


def _limit_steps(env: AnyEnv, limit: int) -> AnyEnv:
    """``env`` with its own time limit replaced, or with one."""
    layer: Any = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, TimeLimit):
            layer._max_episode_steps = limit
            return env
        layer = layer.env
    return TimeLimit(env, limit)


# --------------------------------------------------------------------------- measuring


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _step_seconds(env: AnyEnv) -> float:
    """Mean time of a step with random actions, resets included, over at most about 20 ms."""
    env.action_space.seed(0)
    env.reset(seed=0)
    env.step(env.action_space.sample())  # the first one may compile or load something
    steps, start = 0, time.perf_counter()
    while True:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
        steps, seconds = steps + 1, time.perf_counter() - start
        if seconds >= _PROBE_SECONDS:
            return seconds / steps


# --------------------------------------------------------------------------- what to say when it cannot work


def _import(setting: str, module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{setting} = {module}: there is no module of that name; install it, or run where Python finds it"
            ) from error
        raise ConfigError(
            f"{setting} = {module}: it imports {error.name}, which is not installed; install that"
        ) from error


def _unknown_id(env_id: str, module: str, name: str) -> str:
    if module:
        return (
            f"env_id = {env_id}: {module} has no callable {name!r} and registers no environment of that name"
        )
    near = near_ids(env_id)
    if near:
        return f"env_id = {env_id}: no such environment; did you mean {' or '.join(near)}?"
    return (
        f"env_id = {env_id}: no such environment; `limelight list envs` shows all, and env_module names a module "
        "that registers more"
    )


def near_ids(env_id: str) -> list[str]:
    """Up to three registered ids that ``env_id`` may have meant: other versions of it, or similar names."""
    wanted, _ = _split_version(env_id)
    versions: dict[str, list[str]] = {}
    for known in sorted(gym.registry, key=lambda i: _split_version(i)[1], reverse=True):
        versions.setdefault(_split_version(known)[0], []).append(known)
    if wanted in versions:
        return versions[wanted][:3]
    short = {name: name.rpartition("/")[2] for name in versions}  # without the namespace people forget
    close = set(difflib.get_close_matches(wanted.rpartition("/")[2], short.values(), 3))
    names = [name for name in versions if short[name] in close]
    ranked = sorted(names, key=lambda n: difflib.SequenceMatcher(None, wanted, n).ratio(), reverse=True)
    return [versions[name][0] for name in ranked[:3]]


def _split_version(env_id: str) -> tuple[str, int]:
    """Lower-case name and version (-1 if none) of an id."""
    match = re.fullmatch(r"(.+?)(?:-v(\d+))?", env_id.lower())
    assert match is not None
    return match[1], int(match[2] or -1)


def _missing_package(name: str, source: EnvSpec | Callable[..., Any], error: Exception) -> str:
    entry = source.entry_point if isinstance(source, EnvSpec) else None
    folder = re.match(r"gymnasium\.envs\.(\w+)", entry) if isinstance(entry, str) else None
    if folder and folder[1] in _EXTRAS:
        return f'env_id = {name}: needs a package that is not installed; pip install "gymnasium[{_EXTRAS[folder[1]]}]"'
    if isinstance(error, ModuleNotFoundError):
        return f"env_id = {name}: needs the module {error.name}, which is not installed; install it"
    return f"env_id = {name}: {' '.join(str(error).split())}"


def _unknown_kwarg(name: str, source: EnvSpec | Callable[..., Any], kwarg: str) -> str:
    entry = source.entry_point if isinstance(source, EnvSpec) else source
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    known = [p for p in inspect.signature(creator).parameters if p != "kwargs"] if creator else []
    takes = f"it takes {', '.join(known)}" if known else "it takes none"
    return f"env_kwargs.{kwarg}: {name} has no such argument; {takes}{did_you_mean(kwarg, known)}"
