"""Settings by plain name, types checked, and as ``config.yaml``. For the command line and train.py."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from pathlib import Path
from typing import Any, Literal

import yaml

from limelight.errors import ConfigError, did_you_mean
from limelight.settings.schema import TrainConfig


def _is_section(annotation: Any) -> bool:
    return dataclasses.is_dataclass(annotation)


@functools.cache
def field_sections() -> dict[str, str | None]:
    """Plain field name → its section (None for TrainConfig's own fields)."""
    hints = typing.get_type_hints(TrainConfig)
    sections: dict[str, str | None] = {}
    for f in dataclasses.fields(TrainConfig):
        if _is_section(hints[f.name]):
            sections.update({g.name: f.name for g in dataclasses.fields(hints[f.name])})
        else:
            sections[f.name] = None
    return sections


def get_setting(config: TrainConfig, name: str) -> Any:
    """The value of a setting by its plain name."""
    section = field_sections()[name]
    return getattr(getattr(config, section) if section else config, name)


def with_settings(config: TrainConfig, settings: dict[str, Any]) -> TrainConfig:
    """A copy of ``config`` with settings replaced by their plain names, types checked.

    Raises: ConfigError naming an unknown setting (and near ones) or a value of the wrong type.
    """
    sections = field_sections()
    grouped: dict[str | None, dict[str, Any]] = {}
    for name, value in settings.items():
        if name not in sections:
            raise ConfigError(f"{name}: no such setting{did_you_mean(name, sections)}")
        section = sections[name]
        owner = type(getattr(config, section)) if section else TrainConfig
        grouped.setdefault(section, {})[name] = _coerce(name, value, typing.get_type_hints(owner)[name])
    changes: dict[str, Any] = grouped.pop(None, {})
    for section, values in grouped.items():
        assert section is not None
        changes[section] = dataclasses.replace(getattr(config, section), **values)
    return dataclasses.replace(config, **changes)


_FREE = ("total_timesteps", "max_worker_restarts", "ray_address", "worker_cpus", "worker_gpus", "worker_placement")


def for_resume(saved: TrainConfig, settings: dict[str, Any]) -> TrainConfig:
    """``saved`` with those settings changed that may change when its run is continued.

    Raises: ConfigError naming a setting that may not.
    """
    config, sections = with_settings(saved, settings), field_sections()
    for name in settings:
        free = name in _FREE or sections[name] in ("eval", "checkpoint", "log")
        before, after = get_setting(saved, name), get_setting(config, name)
        if not free and before != after:
            raise ConfigError(
                f"{name} = {after}: cannot change on resume, the run has {before}; "
                "only total_timesteps, where Ray has its workers, and the eval, checkpoint and log settings can"
            )
    return config


def expected(annotation: Any) -> str:
    """What a value of this type must be, in words: ``"a whole number"``, ``"mse | huber"``."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(expected(a) for a in args)
    if origin is Literal:
        return " | ".join(map(str, args))
    if origin is tuple:
        return f"a list, each {expected(args[0])}"
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "text", type(None): "none"}
    return "a mapping" if origin is dict else words.get(annotation, str(annotation))


def _coerce(name: str, value: Any, annotation: Any) -> Any:
    """``value`` as ``annotation``, or ConfigError; ints pass as floats, lists as tuples, nothing else."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        if type(value) in args:  # an exact match first: 10.0 must not become the int it could pass for
            return value
        for option in args:
            try:
                return _coerce(name, value, option)
            except ConfigError:
                continue
    elif origin is Literal:
        if value in args and isinstance(value, str):
            return value
    elif origin is tuple and isinstance(value, list | tuple):
        return tuple(_coerce(name, v, args[0]) for v in value)
    elif origin is dict and isinstance(value, dict):
        return {str(k): _coerce(f"{name}.{k}", v, args[1]) for k, v in value.items()}
    elif annotation is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif annotation is int and isinstance(value, int | float) and not isinstance(value, bool):
        if value == value // 1:  # false for fractions, infinities and NaN
            return int(value)
    elif annotation in (bool, str) and isinstance(value, annotation):
        return value
    raise ConfigError(f"{name} = {value!r}: must be {expected(annotation)}")


# --------------------------------------------------------------------------- config.yaml


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Nested plain data, as in config.yaml."""
    data = dataclasses.asdict(config)
    data["model"]["hidden_sizes"] = list(config.model.hidden_sizes)
    return data


def from_dict(data: dict[str, Any]) -> TrainConfig:
    """The TrainConfig of nested plain data; the inverse of :func:`to_dict`.

    Raises: ConfigError on unknown names or wrong types.
    """
    flat: dict[str, Any] = {}
    sections = field_sections()
    names = {s for s in sections.values() if s}
    for key, value in data.items():
        if key not in names:
            flat[str(key)] = value
            continue
        if not isinstance(value, dict):
            raise ConfigError(f"{key} = {value!r}: must be a mapping of settings")
        for name, v in value.items():
            if sections.get(name) != key:
                raise ConfigError(f"{key}.{name}: no such setting{did_you_mean(str(name), sections)}")
            flat[name] = v
    return with_settings(TrainConfig(), flat)


def save_yaml(config: TrainConfig, path: Path) -> None:
    """Write ``config`` as YAML."""
    path.write_text(yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")


def load_yaml(path: Path) -> TrainConfig:
    """Read a ``config.yaml``.

    Raises: ConfigError when there is none or it cannot be read as one.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path.parent}: no {path.name} there, so it is not a run folder") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must be a mapping of settings")
    return from_dict(data)
