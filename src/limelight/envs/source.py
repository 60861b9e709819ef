"""What an environment id or callable stands for, and one line on what is wrong where it stands for nothing.

Used by make.py, which hands on :class:`EnvMaker` to whoever needs one more environment.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, cast

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import TimeLimit

from limelight.envs import games, minigrid
from limelight.envs.atari import AtariGame
from limelight.envs.masks import informs_mask, observes_mask
from limelight.envs.packing import pack_env
from limelight.errors import ConfigError, did_you_mean
from limelight.settings.schema import EnvConfig, EnvKwargs
from limelight.spaces.packed import MaskSource, Packed
from limelight.typing import AnyEnv, EnvFactory

# gymnasium.envs.<folder> → the extra of Gymnasium that installs what it needs
_EXTRAS = {
    "box2d": "box2d",
    "classic_control": "classic-control",
    "toy_text": "toy-text",
    "mujoco": "mujoco",
    "phys2d": "jax",
    "tabular": "jax",
}


def resolve_env(config: EnvConfig, factory: EnvFactory | None = None) -> EnvMaker:
    """What makes one environment of ``config``, or of ``factory`` if given; it pickles if ``factory`` does.

    Raises: ConfigError if the id is unknown (near ones are named) or a module cannot be imported.
    """
    if isinstance(factory, EnvMaker):
        factory = factory.factory
    maker = EnvMaker(config, factory)
    if factory is None:
        maker.resolve()
    return maker


@dataclass(frozen=True)
class EnvMaker:
    """Makes one environment per call: by id, by ``package.module:callable``, or by the user's callable.

    What has composite spaces, or masks of actions, comes packed (envs/packing.py); all else comes as it is.
    """

    config: EnvConfig
    factory: EnvFactory | None = None
    _seen: dict[str, bool] = field(default_factory=dict, compare=False, repr=False)
    """What the first environment has shown; copies of this maker in other processes need not look again."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.config.env_id if self.factory is None else callable_name(self.factory)

    def game(self) -> str | None:
        """The Atari game that the id stands for; None if it is none.

        Raises: ConfigError as :func:`limelight.envs.games.game_of`.
        """
        return None if self.factory is not None else games.game_of(self.config.env_id)

    def resolve(self) -> EnvSpec | Callable[..., Any]:
        """What the id stands for.

        Raises: ConfigError if nothing does, or what registers it cannot be imported.
        """
        import_env_module(self.config)
        if self.factory is not None:
            return self.factory
        game = self.game()
        if game is not None:
            games.refuse_kwargs(self.config)
            return functools.partial(AtariGame, game, self.config)
        module, _, name = self.config.env_id.rpartition(":")
        if module:
            creator = getattr(_import("env_id", module), name, None)
            if callable(creator):
                return cast("Callable[..., Any]", creator)
        minigrid.register(name)
        if name not in gym.registry:
            raise ConfigError(_unknown_id(self.config.env_id, module, name))
        return gym.registry[name]

    def __call__(self, render_mode: str | None = None) -> AnyEnv:
        """One environment; the first one is reset once if only that tells whether it masks actions.

        With a ``render_mode`` it draws, and is the same otherwise; a callable is told where it takes such an argument.

        Raises: ConfigError if it cannot be made with these settings.
        """
        shown = {} if render_mode is None else {"render_mode": render_mode}
        source = self.resolve()
        if self.game() is not None and not isinstance(source, EnvSpec):
            self._seen["packed"] = False
            return cast(AnyEnv, source(**shown))
        env = self._as_it_is(shown)
        if minigrid.has_mission(env.observation_space):
            env = minigrid.BagOfWords(env)
        env = pack_env(env, self.name, self._mask_source(env))
        self._seen["packed"] = isinstance(env.observation_space, Packed) or isinstance(env.action_space, Packed)
        return env

    def is_packed(self) -> bool:
        """Whether its environments come packed; makes one to see, if none was made yet.

        Raises: ConfigError if none can be made.
        """
        if "packed" not in self._seen:
            self().close()
        return self._seen["packed"]

    def _mask_source(self, env: AnyEnv) -> MaskSource | None:
        if self.config.action_masks == "off":
            return None
        if observes_mask(env, self.name):
            return "observation"
        if "info_mask" not in self._seen:
            self._seen["info_mask"] = informs_mask(env)
        return "info" if self._seen["info_mask"] else None

    def _as_it_is(self, shown: dict[str, str]) -> AnyEnv:
        source, limit = self.resolve(), self.config.max_episode_steps
        if isinstance(source, EnvSpec):
            # Without Gymnasium's checker, which looks at the first steps only: `limelight check` is for that.
            return self._made(lambda **kwargs: gym.make(source, limit, True, **{**kwargs, **shown}), source)
        taken = shown if _takes(source, "render_mode") else {}
        env = self._made(lambda **kwargs: source(**{**kwargs, **taken}), source)
        return env if limit is None else _limit_steps(env, limit)

    def _made(self, create: Callable[..., Any], source: EnvSpec | Callable[..., Any]) -> AnyEnv:
        kwargs = self.config.env_kwargs
        try:
            _check_kwargs(self.name, source, kwargs)
            env = create(**kwargs)
        except (gym.error.Error, ImportError) as error:
            raise ConfigError(_not_made(self.name, source, error)) from error
        except ConfigError:
            raise
        except Exception as error:
            if not kwargs:
                raise
            raise ConfigError(
                f"env_kwargs = {kwargs}: {self.name} refuses them ({type(error).__name__}: {error})"
            ) from error
        if not isinstance(env, gym.Env):
            single = "; num_envs copies are made of one environment" if isinstance(env, VectorEnv) else ""
            raise ConfigError(
                f"env_id = {self.name}: it made a {type(env).__module__}.{type(env).__qualname__}, "
                f"which is no gymnasium.Env{single}; make a gymnasium.Env"
            )
        return env


def callable_name(factory: Callable[..., Any]) -> str:
    """``package.module:callable`` of a callable, or the nearest to it that it has."""
    target = factory if hasattr(factory, "__qualname__") else type(factory)
    return f"{target.__module__}:{target.__qualname__}"


def _takes(creator: Callable[..., Any], argument: str) -> bool:
    try:
        parameters = inspect.signature(creator).parameters.values()
    except (TypeError, ValueError):  # some builtins have none to look at
        return False
    return any(p.name == argument or p.kind is p.VAR_KEYWORD for p in parameters)


def _limit_steps(env: AnyEnv, limit: int) -> AnyEnv:
    """``env`` with its own time limit replaced, or with one."""
    layer: Any = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, TimeLimit):
            layer._max_episode_steps = limit
            return env
        layer = layer.env
    return TimeLimit(env, limit)


# --------------------------------------------------------------------------- what to say when it cannot work


def import_env_module(config: EnvConfig) -> None:
    """Let the user's module register its environments.

    Raises: ConfigError if it cannot be imported.
    """
    if config.env_module is not None:
        _import("env_module", config.env_module)


def _import(setting: str, module: str) -> Any:
    if not all(part.isidentifier() for part in module.split(".")):
        raise ConfigError(f"{setting} = {module}: must be the dotted name of a module, e.g. my_package.envs")
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{setting} = {module}: no module of that name; install it, or run where Python finds it"
            ) from error
        raise ConfigError(
            f"{setting} = {module}: it imports {error.name}, which is not installed; install that"
        ) from error


def _unknown_id(env_id: str, module: str, name: str) -> str:
    if module:
        return f"env_id = {env_id}: {module} has no callable {name!r} and registers no environment of that name"
    near = near_ids(env_id)
    if near:
        return f"env_id = {env_id}: no such environment; did you mean {' or '.join(near)}?"
    atari = "" if games.all_games() else f"Atari games need {games.INSTALL}, "
    return (
        f"env_id = {env_id}: no such environment; `limelight list envs` shows all, {atari}and env_module imports "
        "a package that registers more"
    )


def near_ids(env_id: str) -> list[str]:
    """Up to three ids, registered or of Atari games, that it may have meant: other versions of it, or similar names."""
    wanted, _ = _split_version(env_id)
    versions: dict[str, list[str]] = {}
    for known in sorted(known_ids(), key=lambda i: _split_version(i)[1], reverse=True):
        versions.setdefault(_split_version(known)[0], []).append(known)
    if wanted in versions:
        return versions[wanted][:3]
    short = {name: name.rpartition("/")[2] for name in versions}  # without the namespace people forget
    close = set(difflib.get_close_matches(wanted.rpartition("/")[2], short.values(), 3))
    names = [name for name in versions if short[name] in close]
    ranked = sorted(names, key=lambda n: difflib.SequenceMatcher(None, wanted, n).ratio(), reverse=True)
    return [versions[name][0] for name in ranked[:3]]


def known_ids() -> list[str]:
    """All ids that are registered, with every Atari game under one of its ids."""
    registered = [env_id for env_id, spec in gym.registry.items() if not games.is_registered_by_ale(spec.entry_point)]
    return [*registered, *map(games.id_of, games.all_games().values())]


def _split_version(env_id: str) -> tuple[str, int]:
    """Lower-case name and version (-1 if none) of an id."""
    match = re.fullmatch(r"(.*?)(?:-v(\d+))?", env_id.lower())
    assert match is not None
    return match[1], int(match[2] or -1)


def _not_made(name: str, source: EnvSpec | Callable[..., Any], error: Exception) -> str:
    entry = source.entry_point if isinstance(source, EnvSpec) else None
    folder = re.match(r"gymnasium\.envs\.(\w+)", entry) if isinstance(entry, str) else None
    missing = isinstance(error, gym.error.DependencyNotInstalled | ModuleNotFoundError)
    if missing and folder and folder[1] in _EXTRAS:
        return f'env_id = {name}: needs more than is installed; pip install "gymnasium[{_EXTRAS[folder[1]]}]"'
    if isinstance(error, ModuleNotFoundError):
        return f"env_id = {name}: needs the module {error.name}, which is not installed; install it"
    return f"env_id = {name}: {' '.join(str(error).split())}"


def _check_kwargs(name: str, source: EnvSpec | Callable[..., Any], kwargs: EnvKwargs) -> None:
    """Refuse arguments that the constructor lacks, and the lack of those it requires."""
    creator: Any = source.entry_point if isinstance(source, EnvSpec) else source
    creator = load_env_creator(creator) if isinstance(creator, str) else creator
    try:
        parameters = inspect.signature(creator).parameters.values()
    except (TypeError, ValueError):  # some builtins have none to look at
        return
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for key in kwargs:
        if key not in known and not takes_any:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise ConfigError(f"env_kwargs.{key}: {name} has no such argument; {takes}{did_you_mean(key, known)}")
    given = {**(source.kwargs if isinstance(source, EnvSpec) else {}), **kwargs}
    required = [p.name for p in parameters if p.name in known and p.default is p.empty and p.name not in given]
    if required:
        raise ConfigError(f"env_kwargs: {name} needs {', '.join(required)}; give a value for each")
