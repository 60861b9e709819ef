"""Objects by name: ``package.module:Class`` or ``package.module:Class(patience=5)``, with literals as arguments."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from limelight.errors import ConfigError, LimelightError, did_you_mean


def load_named(setting: str, text: str, known: Mapping[str, str]) -> Any:
    """Make the object that a text names; nothing in the text is evaluated but literals.

    Args:
        setting: the name of the setting, for messages.
        text: ``Name``, ``package.module:Class``, or either with arguments in parentheses.
        known: ``package.module:Class`` of the names that need no module.
    Raises: ConfigError.
    """
    path, parenthesis, rest = text.strip().partition("(")
    args, kwargs = _arguments(setting, text, parenthesis + rest)
    if ":" not in path:
        if path not in known:
            names = " | ".join([*known, "package.module:Class"])
            raise ConfigError(f"{setting} = {text}: must be {names}{did_you_mean(path, known)}")
        path = known[path]
    module_name, _, name = path.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigError(f"{setting} = {text}: must be package.module:Class or package.module:Class(key=value)")
    try:
        module = import_module(module_name)
    except Exception as error:  # code of the user's own may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{setting} = {text}: cannot import {module_name} ({reason})") from error
    make = getattr(module, name, None)
    if not callable(make):
        raise ConfigError(f"{setting} = {text}: {module_name} has no class {name}{did_you_mean(name, vars(module))}")
    try:
        return make(*args, **kwargs)
    except LimelightError as error:
        raise ConfigError(f"{setting} = {text}: {error}") from error
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{setting} = {text}: {name}(…) raised {type(error).__name__}: {reason}") from error


def _arguments(setting: str, text: str, call: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and the named arguments of ``(…)``, which may be empty."""
    if not call:
        return [], {}
    wrong = ConfigError(f"{setting} = {text}: arguments must be literals, e.g. (patience=5, name='level', at=[1, 2])")
    try:
        tree = ast.parse(f"f{call}", mode="eval").body
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
            raise wrong
        named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in tree.keywords}
        values = [ast.literal_eval(value) for value in tree.args]
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise wrong from None
    if None in named:
        raise wrong
    return values, {str(name): value for name, value in named.items()}
