"""Writes docs/settings.md from the docstrings in src/limelight/config.py: run it after changing a setting.

tests/test_docs.py fails while the page is not what this script gives.
"""

from __future__ import annotations

import ast
import inspect
import typing
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from limelight.settings.io import expected
from limelight.settings.rules import RANGES
from limelight.settings.schema import TrainConfig
from limelight.training.algorithms import ALGORITHMS
from limelight.training.presets import PRESETS, Preset

PAGE = Path(__file__).with_name("settings.md")

_HEAD = """\
<!-- Written by docs/make_settings.py from src/limelight/config.py; edit that, then run the script. -->
# Settings

Every setting has one plain name. The command line writes it `--learning-rate 1e-3`, or with its section
`--optim.learning-rate 1e-3`; Python writes `train(..., learning_rate=1e-3)`; `config.yaml` writes it under its section.
`none` stands for no value. Lists are given as words: `--hidden-sizes 64 64`. Switches are `--normalize-obs` and
`--no-normalize-obs`.

A run's configuration is put together from the left to the right: the defaults on this page, the
[algorithm's row](#algorithms), the [preset's row](#presets), what you give. `limelight train ENV_ID --help` shows the
result for an environment, and the run saves it as `config.yaml`.

Other spellings that are accepted with a note: `--n-envs`, `--n-steps`, `--lr`, `--entropy-coef`, `--value-loss-coef`,
`--env-name` and other usual ones of Stable-Baselines3 and of A3C scripts.
"""

_ALGORITHMS = """\
## Algorithms

What each row of `src/limelight/training/algorithms.py` sets; everything else is the default above.
"""

_PRESETS = """\
## Presets

What each row of `src/limelight/training/presets.py` sets on top. `--preset auto` takes the row whose prefix fits the
environment's id, else one that fits its spaces; `--preset none` takes none (docs/presets.md).
"""


def page() -> str:
    """The text of docs/settings.md."""
    hints = typing.get_type_hints(TrainConfig)
    parts = [_HEAD, _section("The run", TrainConfig)]
    parts += [_section(f"`{name}`", kind) for name, kind in hints.items() if is_dataclass(kind)]
    rows = [(_code(a.name), a.summary, _values(a.settings)) for a in ALGORITHMS.values()]
    parts.append(_ALGORITHMS + "\n" + _table(("algorithm", "what it is", "sets"), rows))
    rows = [
        (_code(p.name), _environments(p), f"`{algo}`", _values(settings))
        for p in PRESETS.values()
        for algo, settings in p.settings.items()
    ]
    parts.append(_PRESETS + "\n" + _table(("preset", "environments", "algorithm", "sets"), rows))
    return "\n".join(parts)


def _environments(preset: Preset) -> str:
    prefixes = ", ".join(f"`{prefix}…`" for prefix in preset.env_prefixes)
    if preset.any_continuous:
        return "others with real observations and continuous actions"
    if "*" in preset.games:
        return "Atari games with a recurrent core" if preset.recurrent else "Atari games"
    if preset.games:
        return f"Atari's {', '.join(preset.games)}"
    return prefixes


def _section(title: str, kind: type[Any]) -> str:
    hints, docs = typing.get_type_hints(kind), field_docs(kind)
    default = kind()
    rows = [
        (_code(f.name), _type(f.name, hints[f.name]), _code(_value(getattr(default, f.name))), docs[f.name])
        for f in fields(kind)
        if not is_dataclass(hints[f.name])
    ]
    return f"## {title}\n\n{_markdown(inspect.getdoc(kind))}\n\n" + _table(("name", "type", "default", "meaning"), rows)


def field_docs(kind: type[Any]) -> dict[str, str]:
    """The docstring under each field of a dataclass, as Markdown on one line."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    docs = {}
    for field, doc in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
            docs[ast.unparse(field.target)] = _markdown(str(doc.value.value))
    return docs


def _markdown(doc: str | None) -> str:
    """A docstring on one line."""
    return " ".join((doc or "").split()).replace("``", "`")


def _type(name: str, annotation: Any) -> str:
    """What a value must be: its type in words, and its range as an interval."""
    words = expected(annotation)
    if name not in RANGES:
        return words
    low, high, low_in, high_in = RANGES[name]
    ends = ("−∞" if low == float("-inf") else f"{low:g}", "∞" if high == float("inf") else f"{high:.12g}")
    return f"{words}, in {'[' if low_in else '('}{ends[0]}, {ends[1]}{']' if high_in else ')'}"


def _values(settings: dict[str, Any]) -> str:
    return ", ".join(_code(f"{name} = {_value(value)}") for name, value in settings.items()) or "–"


def _value(value: Any) -> str:
    """A value as the command line takes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _code(text: str) -> str:
    return f"`{text}`"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
