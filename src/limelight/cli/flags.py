"""The words of a command line as values: spellings of flags, the words that belong to each, errors of one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from limelight.errors import ConfigError, did_you_mean
from limelight.settings.io import SWITCHES, Setting, all_settings, plain_name, settings_of
from limelight.settings.values import NOT_FINITE, describe_type, parse_words, require_short, takes_many

T = TypeVar("T")

Notice = Callable[[str], None]
"""Shows a line about a foreign spelling."""


@dataclass(frozen=True)
class Syntax(Generic[T]):
    """The arguments of a subcommand."""

    prog: str
    """The command as it is typed, ``limelight train``."""
    kind: type[T]
    """Dataclass of the arguments that are its own."""
    positional: tuple[str, ...] = ()
    """Arguments that may be given without a flag, in this order."""
    settings: Collection[str] = ()
    """Plain names of the settings of a run that it takes as well."""

    def flags(self) -> dict[str, Setting]:
        """Return everything that can be given, by plain name."""
        return {**{name: all_settings()[name] for name in self.settings}, **settings_of(self.kind)}


@dataclass(frozen=True)
class Parsed(Generic[T]):
    """A parsed command line."""

    arguments: T
    """The subcommand's own arguments."""
    settings: dict[str, Any]
    """The settings of a run that were given, by plain name; the defaults of all others stay open."""


def parse(syntax: Syntax[T], argv: Sequence[str], notice: Notice) -> Parsed[T]:
    """Read ``argv`` as the arguments of a subcommand; ``notice`` is called with a line about every foreign spelling.

    Raises: ConfigError with one line that names the flag, its value, and what would work.
    """
    flags = syntax.flags()
    given, words = _sort(flags, argv, syntax.prog, notice)
    given |= _positionals(flags, syntax, given, words)
    values = {name: parse_words(name, values, flags[name].annotation) for name, values in given.items()}
    own = {name: values.pop(name) for name in settings_of(syntax.kind) if name in values}
    for name, value in own.items():
        bounds = flags[name].range
        if bounds is not None and value is not None:
            bounds.check(name, value)
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, Path):
                require_short(name, path)
    return Parsed(syntax.kind(**own), values)


def dashed(name: str) -> str:
    """Return ``--num-envs`` for ``num_envs``, and ``--from`` for ``from_``, which Python would not allow otherwise."""
    return "--" + name.rstrip("_").replace("_", "-")


def _sort(
    flags: Mapping[str, Setting], argv: Sequence[str], prog: str, notice: Notice
) -> tuple[dict[str, list[str]], list[str]]:
    """Divide ``argv`` into the words of each flag, by plain name, and the words that belong to no flag."""
    given: dict[str, list[str]] = {}
    spellings: dict[str, str] = {}
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not _is_flag(word):
            words.append(word)
            continue
        spelling, equals, value = word.partition("=")
        flag, negated = _find(flags, spelling, prog, notice)
        _refuse_twice(flag.name, spelling, spellings)
        if (switch := _switch_of(spelling)) is not None:
            is_value = not equals and rest[:1] and rest[0].lower() in ("true", "false")
            given[flag.name] = [_switched(switch, spelling, value if equals else rest.pop(0) if is_value else "true")]
            continue
        if equals:
            values = [value]
        else:
            count = _num_values(flag, negated, rest)
            values, rest = rest[:count], rest[count:]
        if negated and values:
            raise ConfigError(f"{spelling}: takes no value; write {spelling} or {dashed(flag.name)}")
        if not values and flag.annotation is bool:
            values = [str(not negated)]
        if not values and not takes_many(flag.annotation):
            raise ConfigError(f"{flag.name.rstrip('_')}: needs a value, {describe_type(flag.annotation)}")
        given[flag.name] = values
    return given, words


def _refuse_twice(name: str, spelling: str, spellings: dict[str, str]) -> None:
    """Refuse a setting by its own name and by a foreign one, or by two foreign ones: which value is meant is unclear.

    ``spellings``: by plain name, of the flags before; this one is added.
    """
    before = spellings.setdefault(name, spelling)
    foreign = [s for s in (before, spelling) if _word(s) not in (name, f"no_{name}")]
    if _word(before) != _word(spelling) and foreign:
        raise ConfigError(f"{spelling}: is the same setting as {before}, which is given too; leave one out")


def _word(spelling: str) -> str:
    """Return ``num_envs`` for ``--env.num-envs``."""
    return spelling.lstrip("-").replace("-", "_").rpartition(".")[2]


def _switch_of(spelling: str) -> tuple[str, str, str] | None:
    return SWITCHES.get(_word(spelling)) if spelling.startswith("--") else None


def _switched(switch: tuple[str, str, str], spelling: str, value: str) -> str:
    """Return the word of the setting that a switch of another program stands for."""
    if value.lower() not in ("true", "false"):
        raise ConfigError(f"{spelling} = {value}: must be true or false")
    return switch[1 if value.lower() == "true" else 2]


def _is_flag(word: str) -> bool:
    if not word.startswith("-") or word == "-" or word.lower() in NOT_FINITE:
        return False
    try:
        float(word)
    except ValueError:
        return True
    return False  # a negative number


def _find(flags: Mapping[str, Setting], spelling: str, prog: str, notice: Notice) -> tuple[Setting, bool]:
    """Return the flag of a spelling such as ``--env.num_envs``, and whether it is the ``--no-`` of a switch."""
    section, _, name = spelling.lstrip("-").replace("-", "_").rpartition(".")
    switch = flags.get(name.removeprefix("no_"))
    negated = name not in flags and switch is not None and switch.annotation is bool
    if negated:
        name = name.removeprefix("no_")
    if f"{name}_" in flags:
        name += "_"
    if name not in flags and (own := plain_name(name)) in flags:
        value = f" {SWITCHES[name][1]}" if name in SWITCHES else ""
        notice(f"{spelling} is called {dashed(own)}{value} here")
        name = own
    if name not in flags or not spelling.startswith("--"):
        near = did_you_mean(dashed(name), map(dashed, flags))
        raise ConfigError(f"{spelling}: no such setting{near or f'; see {prog} --help'}")
    flag = flags[name]
    if not flag.is_under(section):
        own = flag.section.rpartition(".")[2]
        right = f"--{own.replace('_', '-')}.{dashed(name)[2:]} or " if own else ""
        raise ConfigError(f"{spelling}: not a setting of {section}; write {right}{dashed(name)}")
    return flag, negated


def _num_values(flag: Setting, negated: bool, rest: Sequence[str]) -> int:
    """Return how many of the words after a flag are its values."""
    end = next((i for i, word in enumerate(rest) if _is_flag(word)), len(rest))
    if flag.annotation is bool:
        return int(not negated and end > 0 and rest[0].lower() in ("true", "false"))
    return end if takes_many(flag.annotation) else min(1, end)


def _positionals(
    flags: Mapping[str, Setting], syntax: Syntax[Any], given: Collection[str], words: Sequence[str]
) -> dict[str, list[str]]:
    """Return the words of each positional argument that was not given by its flag.

    Raises: ConfigError if a required one is missing, or there are more words than arguments.
    """
    found: dict[str, list[str]] = {}
    rest = list(words)
    for name in syntax.positional:
        if name in given:
            continue
        count = len(rest) if takes_many(flags[name].annotation) else min(1, len(rest))
        if count:
            found[name], rest = rest[:count], rest[count:]
        elif flags[name].default is dataclasses.MISSING:
            raise ConfigError(f"{name.upper()}: missing; see {syntax.prog} --help")
    if rest and (twice := next((name for name in syntax.positional if name in given), None)) is not None:
        raise ConfigError(f"{rest[0]}: {twice.upper()} is given by a flag too; leave one out")
    if rest:
        names = " and ".join(name.upper() for name in syntax.positional)
        raise ConfigError(f"{rest[0]}: one word too many; {syntax.prog} takes only {names}")
    return found
