"""The help of a subcommand: its usage, its own arguments, and the settings of a run by section."""

from __future__ import annotations

import ast
import functools
import inspect
import shutil
import sys
import textwrap
import typing
from collections.abc import Collection, Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any, Literal

from limelight.cli.flags import Syntax, dashed
from limelight.settings.io import Setting, all_settings, get_setting, sections_of, settings_of
from limelight.settings.rules import settings_without_effect, unused_sections, unused_settings
from limelight.settings.schema import EnvConfig, TrainConfig
from limelight.settings.values import Range, options, takes_many, to_text

_COLUMN = 32
"""Where descriptions begin."""
_NO_BREAK = "\u00a0"
"""A space at which no line ends."""
_WORDS: dict[Any, str] = {int: "INT", float: "FLOAT", bool: "true|false", str: "TEXT", Path: "PATH", type(None): "none"}


def help_text(
    syntax: Syntax[Any], config: TrainConfig | None = None, hidden: Collection[str] = (), by_rule: Collection[str] = ()
) -> str:
    """Return the help of a subcommand, as wide as the terminal.

    Args:
        syntax: its arguments.
        config: the values to show as defaults; the general ones if not given.
        hidden: sections to leave out, by path, and settings, by name.
        by_rule: settings whose values come from the structure of the environment.
    """
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    lines = [f"usage: {_usage(syntax)}", "", *_paragraphs(inspect.getdoc(syntax.kind) or "", width)]
    lines += ["", *_rows(_own_rows(syntax), width)]
    for section, kind in sections_of(TrainConfig).items():
        rows = _section_rows(syntax, section, kind, config or TrainConfig(), by_rule, hidden)
        if rows and section not in hidden:
            title = f"{section.rpartition('.')[2]}: {plain(inspect.getdoc(kind) or '')}".removeprefix(": ")
            lines += ["", *textwrap.wrap(title, width), *_rows(rows, width)]
    if by_rule:
        note = "By rule: chosen by the structure of this environment (docs/defaults.md)."
        lines += ["", *textwrap.wrap(note, width)]
    if hidden:
        names = ", ".join(path.rpartition(".")[2] for path in hidden)
        note = f"Not shown, as this run does not use them: {names}. {syntax.prog} --help-all shows all settings."
        lines += ["", *textwrap.wrap(note, width)]
    return "\n".join(lines)


def unused_by(config: TrainConfig) -> list[str]:
    """Return what a run does not use: paths of sections (Atari games, another runner), then names of settings."""
    from limelight.envs.games import game_of  # here, as it may load Gymnasium

    atari = ["env.atari"] if game_of(config.env.env_id) is None else []
    sections = [*atari, *(f"workers.{section}" for section in unused_sections(config))]
    settings = [name for _, _, names in unused_settings(config) for name in names]
    return [*sections, *settings, *settings_without_effect(config)]


def field_docs(kind: type[Any]) -> dict[str, str]:
    """Return the docstring under each field of a dataclass, on one line."""
    tree = next(c for c in _tree(kind.__module__).body if isinstance(c, ast.ClassDef) and c.name == kind.__name__)
    docs = {}
    for field, doc in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
            docs[ast.unparse(field.target)] = " ".join(str(doc.value.value).split())
    return docs


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(sys.modules[module]))


def plain(doc: str) -> str:
    """Return a docstring on one line, without the quotes around code."""
    return " ".join(doc.split()).replace("``", "")


def _usage(syntax: Syntax[Any]) -> str:
    flags = syntax.flags()
    words = [
        _metavar(flags[name]) if flags[name].default is MISSING else f"[{_metavar(flags[name])}]"
        for name in syntax.positional
    ]
    has_flags = flags.keys() - syntax.positional
    return " ".join([syntax.prog, *words, *(["[--NAME VALUE ...]"] if has_flags else [])])


def _metavar(flag: Setting) -> str:
    """Return the placeholder of a positional argument."""
    if typing.get_origin(flag.annotation) is Literal:
        return _placeholder(flag.annotation)
    return flag.name.upper().removesuffix("S") + "..." if takes_many(flag.annotation) else flag.name.upper()


def _spelling(flag: Setting) -> str:
    """Return a flag and the placeholder of its value."""
    if flag.annotation is bool:
        return dashed(flag.name) if flag.section == "" else f"--[no-]{dashed(flag.name)[2:]}"
    return f"{dashed(flag.name)} {_placeholder(flag.annotation)}"


def _placeholder(annotation: Any) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if len(options(annotation)) > 1:
        return "|".join(_placeholder(option) for option in options(annotation))
    if origin is Literal:
        return "|".join(args)
    if origin is dict:
        return "KEY VALUE ..."
    return f"{_placeholder(args[0])} ..." if origin is tuple else _WORDS[annotation]


def _own_rows(syntax: Syntax[Any]) -> list[tuple[str, str]]:
    """Return positional arguments, then flags that are not settings of a run, with their descriptions."""
    flags, own = syntax.flags(), settings_of(syntax.kind)
    docs = field_docs(EnvConfig) | field_docs(syntax.kind)
    rows = [(_metavar(flags[name]), _description(docs[name], flags[name])) for name in syntax.positional]
    for name, flag in own.items():
        if name not in syntax.positional:
            default = MISSING if flag.default is None or flag.default is False else flag.default
            rows.append((_spelling(flag).removesuffix("|none"), _description(docs[name], flag, default)))
    return rows


def _section_rows(
    syntax: Syntax[Any],
    section: str,
    kind: type[Any],
    config: TrainConfig,
    by_rule: Collection[str],
    hidden: Collection[str],
) -> list[tuple[str, str]]:
    """Return the settings of a section that the subcommand takes, with their descriptions."""
    taken = {*syntax.settings} - {*hidden}
    shown = [s for s in all_settings().values() if s.section == section and s.name in taken]
    docs = field_docs(kind)
    return [
        (_spelling(s), _description(docs[s.name], s, get_setting(config, s.name), s.name in by_rule)) for s in shown
    ]


def _description(doc: str, flag: Setting, value: Any = MISSING, is_by_rule: bool = False) -> str:
    """Return the docstring of a flag, with its default and its range; a default may come from a rule by structure."""
    notes = []
    if value is not MISSING and to_text(value):
        notes.append(f"default: {to_text(value)}{' by rule' if is_by_rule else ''}")
    if flag.range not in (None, Range()):
        notes.append(f"range {flag.range}".replace(" ", _NO_BREAK))
    return plain(doc) + (f" ({', '.join(notes)})" if notes else "")


def _rows(rows: list[tuple[str, str]], width: int) -> Iterator[str]:
    """Yield lines of two columns; a long first column has a line of its own."""
    indent = " " * _COLUMN
    for left, text in rows:
        lines = textwrap.wrap(
            text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
        lines = [line.replace(_NO_BREAK, " ") for line in lines]
        if len(left) + 4 > _COLUMN:
            yield f"  {left}"
            yield from lines
        else:
            yield f"  {left}".ljust(_COLUMN) + lines[0].lstrip()
            yield from lines[1:]


def _paragraphs(doc: str, width: int) -> Iterator[str]:
    for i, paragraph in enumerate(doc.split("\n\n")):
        yield from ([""] if i else []) + textwrap.wrap(plain(paragraph), width)
