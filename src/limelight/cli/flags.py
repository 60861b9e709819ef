"""The words of a command line → a dataclass of arguments. Tyro parses the values and writes the help.

Done before tyro sees them: foreign and sectioned spellings, ``none``, ``1e6``; and every error is one line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import tyro

from limelight.errors import ConfigError, did_you_mean
from limelight.settings.io import expected

T = TypeVar("T")

# Spellings of Stable-Baselines3 and of the classic A3C scripts → ours. Each holds only where ours exists.
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

Notice = Callable[[str], None]


@dataclass(frozen=True)
class Flag:
    """One setting that can be given."""

    name: str
    annotation: Any
    section: str | None
    """The section it may be written with, as in ``--optim.learning-rate``."""
    positional: bool


@dataclass(frozen=True)
class Parsed(Generic[T]):
    """A parsed command line."""

    arguments: T
    given: frozenset[str]
    """Plain names of what the command line set, positional arguments included."""


def parse(kind: type[T], argv: Sequence[str], *, prog: str, notice: Notice) -> Parsed[T]:
    """``argv`` as a ``kind``, a dataclass whose dataclass fields are sections.

    ``notice`` is called with a line about every foreign spelling.
    Raises: ConfigError with one line that names the flag, its value, and what would work.
    """
    flags = flags_of(kind)
    given, words = _sort(flags, argv, prog, notice)
    positionals = [f for f in flags.values() if f.positional]
    _check_count(positionals, words, _required(kind), prog)
    canonical = [*words, *(word for name, values in given.items() for word in (_dashed(name), *values))]
    arguments = _tyro(kind, canonical, prog)
    if arguments is None:
        raise _error_for(kind, flags, given, words, prog)
    filled = {f.name for f, _ in zip(positionals, words, strict=False)}
    return Parsed(arguments, frozenset(given) | filled)


def print_help(kind: type[Any], prog: str, default: Any = None) -> None:
    """Print the help of ``kind`` with the values of ``default``."""
    extra = {} if default is None else {"default": default}
    with contextlib.suppress(SystemExit):
        tyro.cli(kind, args=["--help"], prog=prog, config=(tyro.conf.OmitArgPrefixes,), **extra)


def flags_of(kind: type[Any], section: str | None = None) -> dict[str, Flag]:
    """All flags of a dataclass and its sections by plain name; a positional one replaces its namesake."""
    found: dict[str, Flag] = {}
    for name, annotation in typing.get_type_hints(kind, include_extras=True).items():
        marked = typing.get_origin(annotation) is Annotated
        plain, *marks = typing.get_args(annotation) if marked else (annotation,)
        if dataclasses.is_dataclass(plain):
            inner = flags_of(typing.cast("type[Any]", plain), None if marked else name)
            both = {n: dataclasses.replace(f, section=inner[n].section) for n, f in found.items() if n in inner}
            found = {**inner, **found, **both}
        else:
            found[name] = Flag(name, plain, section, tyro.conf.Positional in marks)
    return found


def _required(kind: type[Any]) -> int:
    """How many arguments of a dataclass have no default: all of them positional."""
    missing = dataclasses.MISSING
    return sum(f.default is missing and f.default_factory is missing for f in dataclasses.fields(kind))


# --------------------------------------------------------------------------- words → flags


def _sort(
    flags: Mapping[str, Flag], argv: Sequence[str], prog: str, notice: Notice
) -> tuple[dict[str, list[str]], list[str]]:
    """Values by flag, in tyro's spelling, and the words that belong to no flag."""
    given: dict[str, list[str]] = {}
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not _is_flag(word):
            words.append(word)
            continue
        spelling, equals, value = word.partition("=")
        flag, negated = _find(flags, spelling, prog, notice)
        if equals:
            values = [value]
        else:
            count = _num_values(flag, negated, rest)
            values, rest = rest[:count], rest[count:]
        if negated and values:
            raise ConfigError(f"{spelling}: takes no value; write {spelling} or {_dashed(flag.name)}")
        if not values and not _is_bool(flag) and not _takes_many(flag):
            raise ConfigError(f"{flag.name}: needs a value, {expected(flag.annotation)}")
        if flag.positional:
            words[:0] = values
        else:
            given[flag.name] = _normalize_values(flag, values) if values or not _is_bool(flag) else [str(not negated)]
    return given, words


def _is_flag(word: str) -> bool:
    if not word.startswith("-") or word == "-":
        return False
    try:
        float(word)
    except ValueError:
        return True
    return False  # a negative number


def _find(flags: Mapping[str, Flag], spelling: str, prog: str, notice: Notice) -> tuple[Flag, bool]:
    """The flag of a spelling such as ``--env.num_envs``, and whether it is the ``--no-`` of a switch."""
    section, _, name = spelling.lstrip("-").replace("-", "_").rpartition(".")
    switch = flags.get(name.removeprefix("no_"))
    negated = name not in flags and switch is not None and _is_bool(switch)
    if negated:
        name = name.removeprefix("no_")
    if name not in flags and ALIASES.get(name) in flags:
        notice(f"{spelling} is called {_dashed(ALIASES[name])} here")
        name = ALIASES[name]
    if name not in flags or not spelling.startswith("--"):
        near = did_you_mean(_dashed(name), map(_dashed, flags))
        raise ConfigError(f"{spelling}: no such setting{near or f'; see {prog} --help'}")
    flag = flags[name]
    if section and section != flag.section:
        right = f"--{flag.section}.{_dashed(name)[2:]} or " if flag.section else ""
        raise ConfigError(f"{spelling}: not a setting of {section}; write {right}{_dashed(name)}")
    return flag, negated


def _num_values(flag: Flag, negated: bool, rest: Sequence[str]) -> int:
    """How many of the words that follow a flag are its own."""
    end = next((i for i, word in enumerate(rest) if _is_flag(word)), len(rest))
    if _is_bool(flag):
        return int(not negated and end > 0 and rest[0].lower() in ("true", "false"))
    return end if _takes_many(flag) else min(1, end)


def _normalize_values(flag: Flag, values: list[str]) -> list[str]:
    """Values as tyro spells them: None, True and False with a capital, whole numbers without exponent."""
    options = _options(flag)
    if type(None) in options and [v.lower() for v in values] == ["none"]:
        return ["None"]
    if bool in options or typing.get_origin(flag.annotation) is dict:
        return [v.capitalize() if v.lower() in ("true", "false") else v for v in values]
    return [_whole(v) for v in values] if int in options else values


def _whole(text: str) -> str:
    """``1e6`` as ``1000000``; anything else as it is."""
    with contextlib.suppress(ValueError):
        if "e" in text.lower() and float(text).is_integer():
            return str(int(float(text)))
    return text


def _options(flag: Flag) -> tuple[Any, ...]:
    union = typing.get_origin(flag.annotation) in (typing.Union, types.UnionType)
    return typing.get_args(flag.annotation) if union else (flag.annotation,)


def _is_bool(flag: Flag) -> bool:
    return flag.annotation is bool


def _takes_many(flag: Flag) -> bool:
    return typing.get_origin(flag.annotation) in (dict, tuple, list)


def _dashed(name: str) -> str:
    return "--" + name.replace("_", "-")


# --------------------------------------------------------------------------- tyro, and what to say if it refu


def _tyro(kind: type[T], argv: Sequence[str], prog: str) -> T | None:
    """What tyro makes of canonical ``argv``; None where it refuses."""
    markers = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff)
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        return tyro.cli(kind, args=argv, prog=prog, console_outputs=False, add_help=False, config=markers)
    return None


def _check_count(positionals: Sequence[Flag], words: Sequence[str], required: int, prog: str) -> None:
    names = [f.name.upper() for f in positionals]
    if len(words) < required:
        raise ConfigError(f"{names[len(words)]}: missing; see {prog} --help")
    many = any(_takes_many(f) for f in positionals)
    if len(words) > len(positionals) and not many:
        takes = f"takes only {' and '.join(names)}" if names else "takes flags only"
        raise ConfigError(f"{words[len(positionals)]}: one word too many; {prog} {takes}")


def _error_for(
    kind: type[Any],
    flags: Mapping[str, Flag],
    given: Mapping[str, Sequence[str]],
    words: Sequence[str],
    prog: str,
) -> ConfigError:
    """The error that names what tyro refused: it is asked again, one flag at a time."""
    positionals = [f for f in flags.values() if f.positional]
    blamed = [(f, [word]) for f, word in zip(positionals, words, strict=False) if f.annotation is not str]
    if _tyro(kind, words, prog) is not None:
        blamed = [(flags[name], list(values)) for name, values in given.items()]
        blamed = [(f, v) for f, v in blamed if _tyro(kind, [*words, _dashed(f.name), *v], prog) is None]
    flag, values = blamed[0]
    is_mapping = typing.get_origin(flag.annotation) is dict
    must = "KEY VALUE pairs" if is_mapping else expected(flag.annotation)
    return ConfigError(f"{flag.name} = {' '.join(values)}: must be {must}")
