"""Settings by plain name, with their types checked, and as ``config.yaml``."""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, final

import yaml

from limelight import __version__
from limelight.errors import CheckpointError, ConfigError, did_you_mean
from limelight.files import read_regular, write_text
from limelight.settings.schema import TrainConfig
from limelight.settings.values import Choices, Range, Search, coerce, options

_MOST_BYTES, _MOST_ALIASES, _DEEPEST = 256 << 10, 20, 50
"""Bytes of a file of settings, YAML aliases in it, and levels, above which it is refused: bounds on time and memory."""
# Names of Stable-Baselines3 and of the classic A3C scripts → the settings here.
ALIASES: dict[str, str] = {
    "env": "env_id",
    "env_name": "env_id",
    "n_envs": "num_envs",
    "n_steps": "num_steps",
    "n_timesteps": "total_timesteps",
    "num_env_steps": "total_timesteps",
    "num_processes": "num_workers",
    "max_episode_length": "max_episode_steps",
    "entropy_coef": "ent_coef",
    "value_loss_coef": "vf_coef",
    "lr": "learning_rate",
    "eval_freq": "eval_every",
    "eval_interval": "eval_every",
    "n_eval_episodes": "eval_episodes",
    "save_freq": "checkpoint_every",
    "save_interval": "checkpoint_every",
    "log_interval": "log_every",
}


# Switches of the classic script → a setting here, and its values where the switch is on and off.
SWITCHES: dict[str, tuple[str, str, str]] = {"no_shared": ("optimizer_statistics", "per_worker", "shared")}


@dataclass(frozen=True)
class Setting:
    """One field of a dataclass or of its sections."""

    name: str
    section: str
    """Path of the section that owns it, such as ``env.atari``; empty at the top."""
    annotation: Any
    """Type of the value."""
    range: Range | None
    """Range of the value if it is a number."""
    default: Any
    """Default value; ``dataclasses.MISSING`` if the field is required."""
    search: tuple[Search | Choices, ...] = ()
    """Where ``limelight tune`` searches, by kind of run; the first that fits a run holds."""

    def is_under(self, section: str) -> bool:
        """Return whether ``section`` is its own section (``atari``, ``env.atari``) or an outer one (``env``)."""
        return not section or {*section.split(".")} <= {*self.section.split(".")}


def sections_of(kind: type[Any], path: str = "") -> dict[str, type[Any]]:
    """Return a dataclass by the empty path and its sections by theirs, such as ``env.atari``."""
    found = {path: kind}
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            found |= sections_of(typing.cast("type[Any]", hint), f"{path}.{name}".strip("."))
    return found


def settings_of(kind: type[Any]) -> dict[str, Setting]:
    """Return all fields of a dataclass and of its sections, by name."""
    found: dict[str, Setting] = {}
    for section, owner in sections_of(kind).items():
        hints = typing.get_type_hints(owner, include_extras=True)
        for f in dataclasses.fields(owner):
            hint = hints[f.name]
            kind, *notes = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
            if not dataclasses.is_dataclass(kind):
                default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
                bounds = next((note for note in notes if isinstance(note, Range)), None)
                search = tuple(note for note in notes if isinstance(note, Search | Choices))
                found[f.name] = Setting(f.name, section, kind, bounds, default, search)
    return found


@functools.cache
def all_settings() -> dict[str, Setting]:
    """Return every setting of a run by its plain name."""
    return settings_of(TrainConfig)


def get_setting(config: TrainConfig, name: str) -> Any:
    """Return the value of a setting by its plain name."""
    owner: Any = config
    for part in all_settings()[name].section.split("."):
        owner = getattr(owner, part) if part else owner
    return getattr(owner, name)


def plain_name(given: str) -> str:
    """Return the name here of a setting that may be given by its name elsewhere."""
    return SWITCHES[given][0] if given in SWITCHES else ALIASES.get(given, given)


def with_settings(config: TrainConfig, settings: dict[str, Any]) -> TrainConfig:
    """Return a copy of ``config`` with settings replaced by their plain names, types checked.

    Raises: ConfigError naming an unknown setting (and near ones) or a value of the wrong type.
    """
    changes: dict[str, dict[str, Any]] = {}
    for given, value in settings.items():
        name = plain_name(given)  # as on the command line
        if given in SWITCHES:
            value = SWITCHES[given][1 if coerce(given, value, bool) else 2]
        setting = all_settings().get(name)
        if setting is None:
            raise ConfigError(f"{given}: no such setting{did_you_mean(given, all_settings())}")
        if name != given and name in settings:
            raise ConfigError(f"{given}: is called {name} here, which is given too; leave one out")
        changes.setdefault(setting.section, {})[name] = coerce(name, value, setting.annotation)
    return typing.cast(TrainConfig, _replace(config, changes))


def _replace(config: Any, changes: dict[str, dict[str, Any]], section: str = "") -> Any:
    """Return a copy of a dataclass with the changes of its fields and sections, given by section."""
    inner = {
        f.name: _replace(part, changes, f"{section}.{f.name}".strip("."))
        for f in dataclasses.fields(config)
        if dataclasses.is_dataclass(part := getattr(config, f.name))
    }
    return dataclasses.replace(config, **inner, **changes.get(section, {}))


_CHANGEABLE = (
    "total_timesteps", "total_episodes", "max_worker_restarts", "ray_address", "worker_cpus", "worker_gpus",
    "worker_placement", "device", "backend", "num_workers", "env_module", "env_threads", "on_env_error",
    "on_nonfinite", "step_timeout",
)  # fmt: skip


def for_resume(saved: TrainConfig, settings: dict[str, Any], folder: Path | str = "RUN") -> TrainConfig:
    """Return ``saved`` with the given settings, of which only some may change when a run is continued.

    ``folder``: of the run, for the message.
    Raises: ConfigError naming a setting that may not change, those that may, and how to change it all the same.
    """
    config = with_settings(saved, settings)
    for name in map(plain_name, settings):
        free = name in _CHANGEABLE or all_settings()[name].section in ("eval", "checkpoint", "log")
        before, after = get_setting(saved, name), get_setting(config, name)
        if not free and before != after:
            raise ConfigError(
                f"{name} = {after}: cannot change on resume, the run has {before}; "
                "only total_timesteps, total_episodes, device, backend, settings of workers, "
                "env_module, on_env_error, on_nonfinite, step_timeout, eval, checkpoint and log settings can; "
                f"train --from {folder} begins a new run from its checkpoint with any setting changed"
            )
    return config


# --------------------------------------------------------------------------- config.yaml


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Return ``config`` as nested plain data, as in config.yaml."""
    data = dataclasses.asdict(config)
    data["model"]["hidden_sizes"] = list(config.model.hidden_sizes)
    data["env"]["info_keys"] = list(config.env.info_keys)
    data["log"]["logger"] = list(config.log.logger)
    data["log"]["callback"] = list(config.log.callback)
    return data


def from_dict(data: dict[str, Any]) -> TrainConfig:
    """Return the TrainConfig of nested plain data; the inverse of :func:`to_dict`.

    Raises: ConfigError on wrong types, and on unknown names or choices, which a newer version may have written.
    """
    settings = dict(_flatten(data))
    for name, value in settings.items():
        annotation = all_settings()[name].annotation
        if isinstance(value, str) and any(typing.get_origin(kind) is Literal for kind in options(annotation)):
            try:
                coerce(name, value, annotation)
            except ConfigError as error:
                raise ConfigError(f"{error}; {_NEWER}") from None
    return with_settings(TrainConfig(), settings)


_NEWER = f"perhaps a newer version of limelight saved it (this is {__version__})"


def _flatten(data: dict[Any, Any], section: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the plain name and value of every setting in nested data."""
    sections = {part for setting in all_settings().values() for part in setting.section.split(".")}
    for key, value in data.items():
        path = f"{section}.{key}".strip(".")
        setting = all_settings().get(key)
        if key in sections:
            if not isinstance(value, dict):
                raise ConfigError(f"{path} = {value!r}: must be a mapping of settings")
            yield from _flatten(value, path)
        elif setting is None or not setting.is_under(section):
            raise ConfigError(f"{path}: no such setting{did_you_mean(str(key), all_settings())}; {_NEWER}")
        else:
            yield key, value


@final
class _Loader(yaml.SafeLoader):
    """Reads ``1e4`` as a number, which YAML 1.1 takes for text; refuses aliases that would multiply, and depth."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._aliases = 0
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node, as PyYAML does."""
        if self.check_event(yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > _MOST_ALIASES:
                raise yaml.YAMLError(f"more than {_MOST_ALIASES} aliases")
        self._depth += 1
        if self._depth > _DEEPEST:
            raise yaml.YAMLError(f"more than {_DEEPEST} levels")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


@final
class _Dumper(yaml.SafeDumper):
    """Writes the text ``1e4`` in quotes, so that :class:`_Loader` reads it as text; no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write every value in full."""
        return True


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )


def save_yaml(config: TrainConfig, path: Path) -> None:
    """Write ``config`` as YAML."""
    settings = to_dict(config)
    text = yaml.dump(settings, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    if re.search("[\x85\u2028\u2029]", text):  # yaml would read these as line breaks
        text = yaml.dump(settings, Dumper=_Dumper, sort_keys=False)
    write_text(path, text, durable=True)


def read_yaml(path: Path) -> Any:
    """Return the data of a file in YAML, in which ``1e4`` is a number.

    Raises: FileNotFoundError; CheckpointError naming the file that cannot be read.
    """
    try:
        return yaml.load(read_regular(path, _MOST_BYTES).decode("utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{path}: not readable as YAML ({reason})") from None


def load_yaml(path: Path) -> TrainConfig:
    """Read a ``config.yaml``.

    Raises: CheckpointError if there is no such file or it cannot be read, ConfigError for a setting in it.
    """
    try:
        data = read_yaml(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent}: no {path.name} there, so it is not a run folder") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: must be a mapping of settings")
    try:
        return from_dict(data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
