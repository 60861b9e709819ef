"""Completion of the command line in bash, zsh and fish: scripts made of the table of commands and their arguments."""

from __future__ import annotations

import shlex
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from limelight.cli.arguments import SYNTAXES
from limelight.cli.flags import Syntax, dashed
from limelight.cli.help import field_docs, plain
from limelight.settings.io import Setting, sections_of
from limelight.settings.schema import TrainConfig
from limelight.settings.values import options

Shell = Literal["bash", "zsh", "fish"]
FILES = "files"
"""Stands for the paths below the working directory."""


def completion(shell: Shell, summaries: Mapping[str, str], names: Mapping[str, Sequence[str]]) -> str:
    """Return the script of a shell.

    Args:
        shell: for which.
        summaries: what each command does, by its name.
        names: values of arguments that are plain text, such as ``env_id``, by the name of the argument.
    """
    return _fish(summaries, names) if shell == "fish" else _bash(shell, summaries, names)


def _values(flag: Setting, names: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Return the words that may follow a flag, or :data:`FILES`; none where any text or number may."""
    if flag.name in names:
        return names[flag.name]
    words: list[str] = []
    for option in _leaves(flag.annotation):
        if option is Path:
            return FILES
        words += typing.get_args(option) if typing.get_origin(option) is Literal else []
    return words


def _leaves(annotation: Any) -> Iterator[Any]:
    """Yield the types of single words in an annotation."""
    for option in options(annotation):
        if typing.get_origin(option) is tuple:
            yield from _leaves(typing.get_args(option)[0])
        else:
            yield option


def _positional(syntax: Syntax[Any], names: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Return the values of the first positional argument."""
    return _values(syntax.flags()[syntax.positional[0]], names) if syntax.positional else ()


# --------------------------------------------------------------------------- bash and zsh

_BASH = """\
# Completion of limelight; put it where the shell reads it: see docs/install.md.
_limelight() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="COMMANDS"
  else
    case "${COMP_WORDS[1]} $prev" in
CASES
    esac
    if [ -z "$words" ]; then
      case "${COMP_WORDS[1]} $cur" in
FLAGS
      esac
    fi
    if [ -z "$words" ]; then
      case "${COMP_WORDS[1]}" in
POSITIONALS
      esac
    fi
  fi
  if [ "$words" = "files" ]; then
    COMPREPLY=($(compgen -f -- "$cur"))
  else
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
  fi
}
"""


def _bash(shell: Shell, summaries: Mapping[str, str], names: Mapping[str, Sequence[str]]) -> str:
    cases, flags, positionals = [], [], []
    for name, syntax in SYNTAXES.items():
        for flag in syntax.flags().values():
            if values := _values(flag, names):
                cases.append(f'      "{name} {dashed(flag.name)}") words="{_words(values)}";;')
        spellings = [dashed(flag) for flag in syntax.flags() if flag not in syntax.positional]
        flags.append(f'        "{name} -"*) words="{" ".join([*spellings, "--help"])}";;')
        if values := _positional(syntax, names):
            positionals.append(f'        {name}) words="{_words(values)}";;')
    script = _BASH.replace("COMMANDS", " ".join(summaries)).replace("CASES", "\n".join(cases))
    script = script.replace("FLAGS", "\n".join(flags)).replace("POSITIONALS", "\n".join(positionals))
    head = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return f"{head}{script}complete -o filenames -F _limelight limelight"


def _words(values: Sequence[str]) -> str:
    return values if isinstance(values, str) else " ".join(values)


# --------------------------------------------------------------------------- fish


def _fish(summaries: Mapping[str, str], names: Mapping[str, Sequence[str]]) -> str:
    note = "# Completion of limelight; put it where the shell reads it: see docs/install.md."
    lines = [note, "complete -c limelight -f"]
    for name, summary in summaries.items():
        lines.append(f"complete -c limelight -n __fish_use_subcommand -a {name} -d {shlex.quote(summary)}")
    for name, syntax in SYNTAXES.items():
        head = f'complete -c limelight -n "__fish_seen_subcommand_from {name}"'
        if values := _positional(syntax, names):
            lines.append(f"{head} {_fish_values(values)}")
        docs = _docs(syntax)
        for flag in syntax.flags().values():
            if flag.name not in syntax.positional:
                values = _values(flag, names)
                takes = "" if flag.annotation is bool else " " + (_fish_values(values) if values else "-x")
                summary = plain(docs[flag.name]).partition(". ")[0].rstrip(".")
                lines.append(f"{head} -l {dashed(flag.name)[2:]}{takes} -d {shlex.quote(summary)}")
    return "\n".join(lines)


def _fish_values(values: Sequence[str]) -> str:
    return "-r -F" if values == FILES else f"-x -a {shlex.quote(' '.join(values))}"


def _docs(syntax: Syntax[Any]) -> dict[str, str]:
    """Return the docstring of every argument, by plain name."""
    docs: dict[str, str] = {}
    for kind in [*sections_of(TrainConfig).values(), syntax.kind]:
        docs |= field_docs(kind)
    return docs
