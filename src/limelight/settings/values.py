"""Types, ranges and search spaces of settings: in words, and values read from Python, YAML and the command line."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shlex
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from limelight.errors import ConfigError

_WORDS: dict[Any, str] = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    type(None): "none",
}


_LONGEST_NAME = 255
"""Bytes of the name of a file or folder, on all usual file systems."""
_INSIDE = "checkpoints/.step_000000000000.tmp/" + 64 * "-"
"""About as long as the names of files in the folder of a run."""


@dataclass(frozen=True)
class Range:
    """The finite numbers that a setting may be: ``Range(ge=0, lt=1)`` is the interval [0, 1)."""

    ge: float | None = None
    """Lowest value."""
    gt: float | None = None
    """Bound below all values."""
    le: float | None = None
    """Highest value."""
    lt: float | None = None
    """Bound above all values."""

    def __contains__(self, value: float) -> bool:
        """Return whether ``value`` is finite and within the bounds; NaN is not."""
        return (
            float("-inf") < value < float("inf")
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def check(self, name: str, value: float) -> None:
        """Raise ConfigError if ``value`` of the setting ``name`` is outside."""
        if value in self:
            return
        symbols = {"≥": self.ge, ">": self.gt, "≤": self.le, "<": self.lt}
        bounds = [f"{symbol} {bound:.12g}" for symbol, bound in symbols.items() if bound is not None]
        if self.le is None and self.lt is None and not float("-inf") < value < float("inf"):
            bounds.append("finite")
        raise ConfigError(f"{name} = {shown(value)}: must be {' and '.join(bounds)}")

    def __str__(self) -> str:
        """Return the interval in mathematical notation."""
        left = f"[{self.ge:.12g}" if self.ge is not None else f"({self.gt:.12g}" if self.gt is not None else "(−∞"
        right = f"{self.le:.12g}]" if self.le is not None else f"{self.lt:.12g})" if self.lt is not None else "∞)"
        return f"{left}, {right}"


@dataclass(frozen=True)
class Search:
    """The interval that ``limelight tune`` searches for a number."""

    low: float
    high: float
    log: bool = False
    """Search over the logarithm."""
    only: str = ""
    """Kinds of runs, separated by spaces, all of which a run must be (training/tuning/space.py); empty: any run."""


@dataclass(frozen=True)
class Choices:
    """The values that ``limelight tune`` chooses from."""

    values: tuple[Any, ...]
    only: str = ""
    """As for :class:`Search`."""


NOT_FINITE = {".nan": math.nan, ".inf": math.inf, "-.inf": -math.inf}
"""YAML's words for the numbers that are not finite; without the dot they are texts, where a text is possible."""


def options(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union; of any other type, the type itself."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def takes_many(annotation: Any) -> bool:
    """Return whether a value of this type is several words on the command line."""
    return typing.get_origin(annotation) in (dict, tuple)


def describe_type(annotation: Any) -> str:
    """Return in words what a value of this type must be: ``"a whole number"``, ``"mse | huber"``."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if len(options(annotation)) > 1:
        return " or ".join(describe_type(option) for option in options(annotation))
    if origin is Literal:
        return " | ".join(map(str, args))
    if origin is tuple:
        return f"a list, each {describe_type(args[0])}"
    if origin is list:
        return "a list"
    return "a mapping" if origin is dict else _WORDS.get(annotation, str(annotation))


def coerce(name: str, value: Any, annotation: Any) -> Any:
    """Return ``value`` as ``annotation``: whole floats pass as ints, ints as floats, lists as tuples, nothing else.

    Raises: ConfigError that names the setting ``name``, the value and the type.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # a number of NumPy or PyTorch
        value = value.item()
    if annotation is Any:
        return _plain(name, value)
    if len(options(annotation)) > 1:
        if type(value) in args:  # an exact match first: 10.0 must not become the int it could pass for
            return value
        for option in filter(lambda option: _may_be(value, option), args):
            with contextlib.suppress(ConfigError):
                return coerce(name, value, option)
    elif origin is Literal:
        if isinstance(value, str) and value in args:
            return value
    elif origin is tuple and isinstance(value, list | tuple):
        return tuple(coerce(name, element, args[0]) for element in value)
    elif origin is list and (isinstance(value, list | tuple) or hasattr(value, "tolist")):
        return [_plain(name, element) for element in (value.tolist() if hasattr(value, "tolist") else value)]
    elif origin is dict and isinstance(value, dict):
        return {str(key): coerce(f"{name}.{key}", element, args[1]) for key, element in value.items()}
    elif annotation in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
        if annotation is float or value == value // 1:  # false for fractions, infinities and NaN
            with contextlib.suppress(OverflowError):  # whole numbers beyond float64
                return annotation(value)
    elif annotation is Path and isinstance(value, str | Path):
        return Path(value)
    elif annotation is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    elif annotation in (bool, str) and isinstance(value, annotation):
        return value
    elif annotation is type(None) and value is None:
        return None
    raise ConfigError(f"{name} = {shown(value)}: must be {describe_type(annotation)}")


def _may_be(value: Any, option: Any) -> bool:
    """Return whether a value may be of a type; each refusal of a nested list would write it out."""
    origin = typing.get_origin(option)
    return origin is dict if isinstance(value, dict) else origin in (list, tuple) or not isinstance(value, list)


def require_list(name: str, value: Any) -> None:
    """Refuse an argument that is neither a list nor a tuple: one object alone, or None.

    Raises: ConfigError.
    """
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{name} = {shown(value)}: must be a list")


def require_short(name: str, path: str | Path) -> None:
    """Refuse a path that no file could have, given as the argument ``name``.

    Raises: ConfigError.
    """
    text = os.fspath(path)
    longest = max((len(part.encode("utf-8", "surrogatepass")) for part in Path(text).parts), default=0)
    reason = f"a name in it has {longest} bytes; at most {_LONGEST_NAME} are possible"
    if longest <= _LONGEST_NAME:
        try:
            os.lstat(os.path.join(text, _INSIDE))
        except ValueError:  # a null character, which has a message of its own
            return
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                return
            reason = f"with the files in it, it is longer than the system allows ({len(text):,} characters)"
        else:
            return
    raise ConfigError(f"{name} = {text if len(text) <= 200 else f'{text[:100]} …'}: too long for a path: {reason}")


def shown(value: Any) -> str:
    """Return a refused value for a message, on one line and not endless: arrays and long numbers are."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:100]} …"


def _plain(name: str, value: Any) -> Any:
    """Return a value inside a list or mapping as config.yaml can hold it."""
    return coerce(name, value, bool | int | float | str | list[Any] | dict[str, Any] | None)


def parse_words(name: str, words: Sequence[str], annotation: Any) -> Any:
    """Return the value that words of a command line stand for.

    Raises: ConfigError as :func:`coerce`, with the words as they were written.
    """
    is_mapping, args = typing.get_origin(annotation) is dict, typing.get_args(annotation)
    value: Any
    if is_mapping:
        value = {key: _scalar(word, args[1]) for key, word in zip(words[::2], words[1::2], strict=False)}
    elif takes_many(annotation):
        value = [_scalar(word, args[0]) for word in words]
    else:
        value = _scalar(" ".join(words), annotation)
    try:
        if not is_mapping or (len(words) % 2 == 0 and not any("=" in key for key in words[::2])):
            return coerce(name, value, annotation)
    except ConfigError:
        pass
    must = f"KEY VALUE pairs{_as_pairs(name, words)}" if is_mapping else describe_type(annotation)
    raise ConfigError(f"{name} = {' '.join(words)}: must be {must}")


def _as_pairs(name: str, words: Sequence[str]) -> str:
    """Return how words such as ``how=raise`` are written as pairs; an empty text for any other."""
    pairs = [word.partition("=") for word in words]
    if not pairs or not all(key and equals for key, equals, _ in pairs):
        return ""
    flag = "--" + name.replace("_", "-")
    return f"; give: {flag} {' '.join(f'{shlex.quote(key)} {shlex.quote(value)}' for key, _, value in pairs)}"


def _scalar(word: str, annotation: Any) -> Any:
    """Return the value that a word stands for as ``annotation``, or the word itself if it stands for none."""
    kinds = options(annotation)
    if type(None) in kinds and word.lower() == "none":
        return None
    if bool in kinds and word.lower() in ("true", "false"):
        return word.lower() == "true"
    if list[Any] in kinds and word[:1] in ("[", "{"):
        with contextlib.suppress(ValueError):
            return json.loads(word)
    if float in kinds and word.lower() in NOT_FINITE:
        return NOT_FINITE[word.lower()]
    for kind in (int, float):
        if int in kinds or float in kinds:
            with contextlib.suppress(ValueError):
                number = kind(word)
                if str in kinds and not math.isfinite(number):
                    return word  # nan and inf are texts, as in YAML
                return number
    return word


def to_text(value: Any) -> str:
    """Return a value as the command line takes it; an empty list or mapping is an empty text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, dict):
        return " ".join(f"{key} {to_text(element)}" for key, element in value.items())
    return " ".join(map(to_text, value)) if isinstance(value, tuple | list) else str(value)
