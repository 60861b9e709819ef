"""Resolve an environment id or callable, once, into an object that makes copies of the environment.

Mistakes are answered in one line: near ids, missing packages, arguments that do not fit.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import logging
import re
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.spaces import Space
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import CloudpickleWrapper
from gymnasium.wrappers import TimeLimit

from limelight.envs import games, minigrid
from limelight.envs.atari import AtariGame
from limelight.envs.episode_info import SumInfo, sum_keys
from limelight.envs.faults import call_fault, close_env, stops_the_run, what_happened
from limelight.envs.guards import tried
from limelight.envs.masks import informs_mask, observes_mask
from limelight.envs.packing import pack_env
from limelight.envs.probe import Probe, probe
from limelight.envs.stalls import watched
from limelight.errors import ConfigError, EnvError, LimelightError, did_you_mean
from limelight.settings.schema import AtariConfig, EnvConfig, EnvKwargs
from limelight.settings.values import Range
from limelight.spaces.packed import MaskSource, Packed
from limelight.typing import AnyEnv, EnvFactory

_LOG = logging.getLogger("limelight")
Creator = Callable[..., Any]
_OF_ARGUMENTS = (TypeError, ValueError, LookupError, AssertionError)
"""Exceptions of a constructor that are no reason to try again: the arguments are wrong."""
Spaces = tuple[Space[Any], Space[Any]]
"""Observation and action space."""

# gymnasium.envs.<folder> → the extra of Gymnasium that installs its requirements
_EXTRAS = {
    "box2d": "box2d",
    "classic_control": "classic-control",
    "toy_text": "toy-text",
    "mujoco": "mujoco",
    "phys2d": "jax",
    "tabular": "jax",
}
# Settings of EnvConfig and AtariConfig that decide how copies are stepped, and not what a copy is.
_FOR_STEPPING = ("num_envs", "backend", "autoreset_mode", "normalize_obs", "on_env_error", "step_timeout")
# Random play for settings by structure stops at the first of these limits. Only steps of more than 3 ms reach the
# second one, which depends on the machine.
_PROBE_STEPS, _PROBE_SECONDS = 1_000, 3.0
_FOR_STEPPING_GAMES = ("env_threads", "terminal_on_life_loss")


def resolve_env(config: EnvConfig, factory: EnvFactory | None = None) -> EnvSource:
    """Resolve the environment of ``config``, or that of ``factory`` if one is given.

    An :class:`EnvSource` as ``factory`` is adapted to ``config``: it keeps the user's callable, and what is known of
    its copies as long as ``config`` describes the same ones.

    Raises: ConfigError if the id is unknown (near ones are named) or a module cannot be imported; EnvError if a package
        that the id needs is missing.
    """
    if isinstance(factory, EnvSource):
        if _same_copies(factory.config, config):
            return dataclasses.replace(factory, config=config)
        factory = factory.factory
    import_env_module(config)
    if factory is not None:
        require_maker(factory)
        return EnvSource(config, "callable", qualified_name(factory), creator=factory, factory=factory)
    game = games.game_of(config.env_id)
    if game is not None:
        games.refuse_kwargs(config)
        return EnvSource(config, "atari", config.env_id, game=game)
    module, _, name = config.env_id.rpartition(":")
    if "<" in name or module == "__main__":
        raise ConfigError(
            f"env_id = {config.env_id}: was a callable of the program that trained, and has no name by which it could "
            "be found; pass it in Python: limelight.resume(run, env=make), limelight.evaluate(agent, make); or name "
            "another with --env-id"
        )
    if module:
        creator = getattr(_import("env_id", module), name, None)
        if callable(creator):
            return EnvSource(config, "callable", config.env_id, creator=creator)
    minigrid.register(name)
    if name not in gym.registry:
        raise ConfigError(_unknown_id(config.env_id, module, name))
    return EnvSource(config, "registered", config.env_id, spec=gym.registry[name])


def _same_copies(a: EnvConfig, b: EnvConfig) -> bool:
    """Return whether both settings describe the same environment; how its copies are stepped may differ."""
    default = {name: getattr(EnvConfig, name) for name in _FOR_STEPPING}
    default_games = {name: getattr(AtariConfig, name) for name in _FOR_STEPPING_GAMES}

    def of_copies(config: EnvConfig) -> EnvConfig:
        return dataclasses.replace(config, **default, atari=dataclasses.replace(config.atari, **default_games))

    return of_copies(a) == of_copies(b)


@dataclass
class Inspection:
    """Facts that copies of an environment have shown so far; None is unknown."""

    spaces: Spaces | None = None
    """Spaces of a copy as :meth:`EnvSource.make` returns it."""
    render_modes: tuple[str, ...] = ()
    masks_in_info: bool | None = None
    """Whether the info of a reset holds a mask of actions."""
    step_seconds: float | None = None
    """Median time of a step with random actions."""
    play: Probe | None = None
    """Random play, if it was wanted and the environment could be played."""
    time_limit: int | None = None
    """Steps after which a copy declares that its episodes are truncated."""
    normalizers: tuple[str, ...] = ()
    """Wrappers of Gymnasium in a copy that normalise with running statistics."""
    first: weakref.ref[AnyEnv] | None = None
    """The first copy without its wrappers, while it exists in this process."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "first": None}


@dataclass(frozen=True)
class EnvSource:
    """Makes copies of one environment: an Atari game, a registered id, or what a callable returns.

    Composite spaces and masks of actions are packed (envs/packing.py), everything else is left as it is. The object is
    also an ``EnvFactory``. It can be sent to another process if the callable or the entry point can, and takes with it
    what the copies have shown, so that no other process has to make one to inspect.
    """

    config: EnvConfig
    kind: Literal["atari", "registered", "callable"]
    name: str
    """The environment's name in messages."""
    game: str | None = None
    """The ROM of an Atari game."""
    spec: EnvSpec | None = None
    """The specification of a registered id."""
    creator: Creator | None = None
    """The callable, given as a Python object or found by its path."""
    factory: EnvFactory | None = None
    """The callable, if it was given as a Python object."""
    inspection: Inspection = field(default_factory=Inspection, compare=False, repr=False)

    def __call__(self) -> AnyEnv:
        """Make one copy; see :meth:`make`."""
        return self.make()

    def make(self, render_mode: str | None = None) -> AnyEnv:
        """Make one copy, which draws if there is a ``render_mode`` and is the same otherwise.

        The first copy is reset once if only a reset shows whether actions are masked.

        Raises: EnvError if no copy can be made; ConfigError if it refuses the settings.
        """
        import_env_module(self.config)  # in another process, the constructor may need what the module registers
        env: AnyEnv = AtariGame(self.game, self.config, render_mode) if self.game else self._create(render_mode)
        try:
            env = self._summed(env) if self.game else self._adapt(self._summed(env))
        except BaseException:
            close_env(env, self.name)
            raise
        if self.inspection.spaces is None:
            self.inspection.spaces = (env.observation_space, env.action_space)
            self.inspection.render_modes = tuple(env.metadata.get("render_modes") or ())
            self.inspection.first = weakref.ref(env.unwrapped)
            self.inspection.time_limit = _time_limit(env)
            layers = {type(layer).__name__ for layer in _layers(env)}
            self.inspection.normalizers = tuple(sorted(layers & {"NormalizeObservation", "NormalizeReward"}))
        return env

    def make_unguarded(self) -> AnyEnv:
        """Make a copy that no guard looks after, again where that fails and ``on_env_error`` is restart."""
        with watched(self.config.step_timeout) if self.inspection.spaces is None else nullcontext():
            return tried(self.config.on_env_error == "restart", self.make)

    def spaces(self) -> Spaces:
        """Return observation and action space of the copies; make one and close it if none was made yet."""
        if self.inspection.spaces is None:
            close_env(self.make_unguarded(), self.name)
        assert self.inspection.spaces is not None
        return self.inspection.spaces

    def play_once(self) -> None:
        """Play a copy at random, and close it, unless that was done before; ``inspection.play`` keeps what it showed.

        An environment that cannot be played shows nothing, with a note; the run will meet the error again.
        """
        if self.inspection.play is None:
            env = self.make_unguarded()
            try:
                with watched(self.config.step_timeout):
                    self.inspection.play = probe(env, self.name, _PROBE_STEPS, _PROBE_SECONDS)
                    self.inspection.step_seconds = self.inspection.play.step_seconds
            except EnvError as error:
                _LOG.warning("limelight: note: %s; defaults are chosen without random play", error)
            finally:
                close_env(env, self.name)

    def render_modes(self) -> tuple[str, ...]:
        """Return the render modes that the environment declares; make a copy as :meth:`spaces` does."""
        self.spaces()
        return self.inspection.render_modes

    def time_limit(self) -> int | None:
        """Return the steps after which episodes are truncated, where that is declared; make a copy if needed."""
        self.spaces()
        return self.inspection.time_limit

    def explain_normalizers(self) -> str | None:
        """Return what follows from normalising wrappers inside the environment; None without them."""
        self.spaces()
        found = self.inspection.normalizers
        if not found:
            return None
        settings = {"NormalizeObservation": "normalize_obs", "NormalizeReward": "normalize_rewards"}
        effects = {
            "NormalizeObservation": "every copy and evaluation has statistics of its own",
            "NormalizeReward": "the returns that are reported are of normalised rewards",
        }
        return (
            f"{' and '.join(found)} in the environment: {'; '.join(effects[name] for name in found)}; "
            f"use {' and '.join(settings[name] for name in found)} instead"
        )

    def why_not_sent(self) -> str | None:
        """Return why a process cannot be given this source; None if it can."""
        try:
            CloudpickleWrapper(self).__getstate__()
        except Exception as error:  # the __reduce__ of a user's object may raise anything
            return f"what makes {self.name} cannot be sent to a process ({' '.join(str(error).split())})"
        return None

    def is_packed(self) -> bool:
        """Return whether composite spaces or masks are packed; make a copy as :meth:`spaces` does."""
        return any(isinstance(space, Packed) for space in self.spaces())

    def is_first(self, env: AnyEnv) -> bool:
        """Return whether ``env`` is the very copy that was made first, which a callable must not return again."""
        first = self.inspection.first
        return first is not None and first() is env.unwrapped

    def _create(self, render_mode: str | None) -> AnyEnv:
        """Make a copy without anything of ours but the time limit."""
        spec, creator, limit = self.spec, self.creator, self.config.max_episode_steps
        if limit is not None:  # copies are also made before all settings are checked
            Range(ge=1).check("max_episode_steps", limit)
        rendering = {} if render_mode is None else {"render_mode": render_mode}
        if spec is not None:
            # Gymnasium's own checker is left out: it checks first steps only, and `limelight check` checks more.
            return self._made(lambda **kwargs: gym.make(spec, limit, True, **{**kwargs, **rendering}), spec)
        assert creator is not None
        taken = rendering if _takes(creator, "render_mode") else {}
        env = self._made(lambda **kwargs: creator(**{**kwargs, **taken}), creator)
        return env if limit is None else _limit_steps(env, limit)

    def _made(self, create: Creator, source: EnvSpec | Creator) -> AnyEnv:
        kwargs = self.config.env_kwargs
        try:
            _check_kwargs(self.name, source, kwargs)
            env = create(**kwargs)
        except (gym.error.Error, ImportError) as error:
            raise EnvError(_not_made(self.name, source, error)) from error
        except LimelightError:
            raise
        except BaseException as error:
            if stops_the_run(error):
                raise
            took_them = self.inspection.spaces is not None  # a copy before
            may_refuse = Exception if self.config.on_env_error == "raise" else _OF_ARGUMENTS
            if not kwargs or took_them or not isinstance(error, may_refuse):
                raise call_fault(self.name, "making it", error) from error
            raise ConfigError(f"env_kwargs = {kwargs}: {self.name} refuses them ({_without_verb(error)})") from error
        if not isinstance(env, gym.Env):
            single = "; num_envs copies are made of one environment" if isinstance(env, VectorEnv) else ""
            raise EnvError(
                f"env_id = {self.name}: it made a {type(env).__module__}.{type(env).__qualname__}, "
                f"which is no gymnasium.Env{single}; make a gymnasium.Env"
            )
        for role in ("observation_space", "action_space"):
            if not hasattr(env, role):
                raise EnvError(f"{self.name}: the environment has no {role}; set self.{role} to a gymnasium.Space")
        return env

    def _summed(self, env: AnyEnv) -> AnyEnv:
        """Add up the infos whose sums are asked for."""
        keys = sum_keys(self.config.info_keys)
        return SumInfo(env, keys) if keys else env

    def _adapt(self, env: AnyEnv) -> AnyEnv:
        """Turn texts into numbers, and composite spaces and masks into one array."""
        if minigrid.has_mission(env.observation_space):
            env = minigrid.BagOfWords(env)
        return pack_env(env, self.name, self._mask_source(env))

    def _mask_source(self, env: AnyEnv) -> MaskSource | None:
        if self.config.action_masks == "off":
            return None
        if observes_mask(env, self.name):
            return "observation"
        if self.inspection.masks_in_info is None:
            self.inspection.masks_in_info = informs_mask(env, self.name)
        return "info" if self.inspection.masks_in_info else None


def require_maker(env: Any) -> None:
    """Refuse an object that makes no environments, with a line that says what to pass.

    Raises: ConfigError.
    """
    if isinstance(env, gym.Env | VectorEnv):
        spec = getattr(env, "spec", None)
        kind = "one environment" if isinstance(env, gym.Env) else "a vector environment"
        example = f"{spec.id!r}, or lambda: gym.make({spec.id!r})" if spec is not None else "lambda: MyEnv(size=5)"
        raise ConfigError(
            f"env = {type(env).__name__}: is {kind}, but copies of it are made; pass an id or a callable: {example}"
        )
    if isinstance(env, EnvSpec):
        raise ConfigError(f"env = EnvSpec: is a specification; pass its id, {env.id!r}")
    if not callable(env):
        text = " ".join(repr(env).split())
        raise ConfigError(f"env = {text[:60]}: must be an id, or a callable that makes an environment")


def qualified_name(factory: Creator) -> str:
    """Return ``package.module:callable`` of a callable, by which another process finds it if it can be imported.

    What its name does not lead to (a partial, an object, a decorated function) gets a name in angle brackets, so that
    no other environment is taken for it.
    """
    require_maker(factory)
    if isinstance(factory, functools.partial):
        module, _, name = qualified_name(factory.func).rpartition(":")
        return f"{module}:<partial of {name}>"
    target = factory if hasattr(factory, "__qualname__") else type(factory)
    name = f"{target.__module__}:{target.__qualname__}"
    return name if "<" in name or _find(name) is factory else f"{target.__module__}:<{target.__qualname__}>"


def _find(name: str) -> Any:
    """Return what a name ``module:callable`` means in this process; None if nothing."""
    module, _, path = name.rpartition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def _takes(creator: Creator, argument: str) -> bool:
    try:
        parameters = inspect.signature(creator).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature
        return False
    return any(p.name == argument or p.kind is p.VAR_KEYWORD for p in parameters)


def _limit_steps(env: AnyEnv, limit: int) -> AnyEnv:
    """Replace the time limit of ``env``, or give it one."""
    layer: Any = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, TimeLimit):
            layer._max_episode_steps = limit
            return env
        layer = layer.env
    return TimeLimit(env, limit)


def _layers(env: AnyEnv) -> Iterator[AnyEnv]:
    """Yield an environment and those it wraps, from the outside in."""
    layer: Any = env
    while isinstance(layer, gym.Wrapper):
        yield layer
        layer = layer.env
    yield layer


def _time_limit(env: AnyEnv) -> int | None:
    """Return the limit of a TimeLimit among the wrappers, or of the environment's specification."""
    for layer in _layers(env):
        if isinstance(layer, TimeLimit):
            return int(layer._max_episode_steps)
    return env.spec.max_episode_steps if env.spec is not None else None


# --------------------------------------------------------------------------- modules and ids


def import_env_module(config: EnvConfig) -> None:
    """Import the user's module, which registers environments.

    Raises: ConfigError if it cannot be imported.
    """
    if config.env_module is not None:
        _import("env_module", config.env_module)


def _import(setting: str, module: str) -> Any:
    if not all(part.isidentifier() for part in module.split(".")):
        raise ConfigError(f"{setting} = {module}: must be the dotted name of a module, e.g. my_package.envs")
    if module.endswith(".py"):
        raise ConfigError(
            f"{setting} = {module}: is a file; write the name of its module, {module.removesuffix('.py')}"
        )
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
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # code of the module's own, or its syntax
        raise ConfigError(f"{setting} = {module}: importing it {what_happened(error)}") from error


def _unknown_id(env_id: str, module: str, name: str) -> str:
    if module:
        found = getattr(sys.modules.get(module), name, None)
        if found is not None:
            return f"env_id = {env_id}: it is a {type(found).__name__}, not a callable; name the class that makes it"
        return f"env_id = {env_id}: {module} has no callable {name!r} and registers no environment of that name"
    package, _, last = env_id.rpartition(".")
    if package and all(part.isidentifier() for part in env_id.split(".")):
        return (
            f"env_id = {env_id}: no such environment; a callable in a module is written with a colon, {package}:{last}"
        )
    near = near_ids(env_id)
    if near:
        return f"env_id = {env_id}: no such environment; did you mean {' or '.join(near)}?"
    atari = "" if games.all_games() else f"Atari games need {games.INSTALL}, "
    return (
        f"env_id = {env_id}: no such environment; `limelight list envs` shows all, {atari}and env_module imports "
        "a package that registers more"
    )


def near_ids(env_id: str) -> list[str]:
    """Return up to three known ids for an unknown one: other versions of it, or similar names."""
    wanted, _ = _split_version(env_id)
    versions: dict[str, list[str]] = {}
    for known in sorted(known_ids(), key=lambda i: _split_version(i)[1], reverse=True):
        versions.setdefault(_split_version(known)[0], []).append(known)
    if wanted in versions:
        return versions[wanted][:3]
    short = {name: name.rpartition("/")[2] for name in versions}  # the namespace is easily forgotten
    close = set(difflib.get_close_matches(wanted.rpartition("/")[2], short.values(), 3))
    names = [name for name in versions if short[name] in close]
    ranked = sorted(names, key=lambda n: difflib.SequenceMatcher(None, wanted, n).ratio(), reverse=True)
    return [versions[name][0] for name in ranked[:3]]


def known_ids() -> list[str]:
    """Return all registered ids, with every Atari game under one of its ids."""
    registered = [env_id for env_id, spec in gym.registry.items() if not games.is_registered_by_ale(spec.entry_point)]
    return [*registered, *map(games.id_of, games.all_games().values())]


def _split_version(env_id: str) -> tuple[str, int]:
    """Split an id into its lower-case name and its version (-1 if it has none)."""
    match = re.fullmatch(r"(.*?)(?:-v(\d+))?", env_id.lower(), re.DOTALL)
    assert match is not None
    return match[1], int(match[2] or -1)


# --------------------------------------------------------------------------- messages


def _without_verb(error: BaseException) -> str:
    return what_happened(error).removeprefix("raised ")


def _not_made(name: str, source: EnvSpec | Creator, error: Exception) -> str:
    entry = source.entry_point if isinstance(source, EnvSpec) else None
    folder = re.match(r"gymnasium\.envs\.(\w+)", entry) if isinstance(entry, str) else None
    missing = isinstance(error, gym.error.DependencyNotInstalled | ModuleNotFoundError)
    if missing and folder and folder[1] in _EXTRAS:
        return f'env_id = {name}: needs more than is installed; pip install "gymnasium[{_EXTRAS[folder[1]]}]"'
    if isinstance(error, ModuleNotFoundError):
        return f"env_id = {name}: needs the module {error.name}, which is not installed; install it"
    return f"env_id = {name}: {' '.join(str(error).split())}"


def _check_kwargs(name: str, source: EnvSpec | Creator, kwargs: EnvKwargs) -> None:
    """Refuse arguments that the constructor does not take, and missing ones that it requires."""
    creator: Any = source.entry_point if isinstance(source, EnvSpec) else source
    creator = load_env_creator(creator) if isinstance(creator, str) else creator
    try:
        parameters = inspect.signature(creator).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature
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
