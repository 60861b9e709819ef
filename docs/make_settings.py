"""Writes docs/settings.md from src/limelight/settings/schema.py: run it after changing a setting.

tests/test_docs.py fails while the page is not what this script gives.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from limelight.cli.help import field_docs
from limelight.settings.io import Setting, all_settings, sections_of
from limelight.settings.schema import TrainConfig
from limelight.settings.values import describe_type, to_text
from limelight.training.algorithms import ALGORITHMS
from limelight.training.presets import PRESETS, Preset

PAGE = Path(__file__).with_name("settings.md")

_HEAD = """\
<!-- Written by docs/make_settings.py from src/limelight/settings/schema.py; edit that, then run the script. -->
# Settings

Every setting has one plain name:

| where | how |
| --- | --- |
| command line | `--learning-rate 1e-3`, or with its section `--optim.learning-rate 1e-3` |
| Python | `train(..., learning_rate=1e-3)` |
| `config.yaml` | under its section |

On the command line `none` stands for no value, a list is several words (`--hidden-sizes 64 64`), and a switch is
`--normalize-obs` or `--no-normalize-obs`.

A run's settings are, each over the one before: the defaults on this page, the [algorithm's](#algorithms), the
[preset's](#presets), and those that you give. `limelight train ENV_ID --help` shows the result for an environment, and
the run saves it as `config.yaml`. A setting of a part that the run does not have (Atari, Ray, shared memory, workers,
a recurrent core, a target critic) is refused unless it is at its default; a parameter of a choice that was not made
(`huber_delta` without `value_loss huber`) is ignored.

Common spellings of Stable-Baselines3 and of A3C scripts (`--n-envs`, `--n-steps`, `--lr`, `--entropy-coef`,
`--value-loss-coef`, `--env-name`, …) are accepted with a note.
"""

_ALGORITHMS = """\
## Algorithms

Settings of each algorithm (`src/limelight/training/algorithms.py`); all others are at the defaults above.
"""

_PRESETS = """\
## Presets

Settings of each preset (`src/limelight/training/presets.py`), over those of the algorithm. `--preset auto` takes the
preset for the environment's id, else rules over its structure (docs/defaults.md).
"""


def page() -> str:
    """Return the text of docs/settings.md."""
    parts = [_HEAD, *(_section(path, kind) for path, kind in sections_of(TrainConfig).items())]
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
    if "*" in preset.games:
        return "Atari games with a recurrent core" if preset.recurrent else "Atari games"
    if preset.games:
        return f"Atari's {', '.join(preset.games)}"
    return prefixes


def _section(section: str, kind: type[Any]) -> str:
    docs = field_docs(kind)
    rows = [
        (_code(setting.name), _type(setting), _code(to_text(setting.default) or "–"), _markdown(docs[setting.name]))
        for setting in all_settings().values()
        if setting.section == section
    ]
    title = _code(section.rpartition(".")[2]) if section else "The run"
    return f"## {title}\n\n{_markdown(inspect.getdoc(kind))}\n\n" + _table(("name", "type", "default", "meaning"), rows)


def _markdown(doc: str | None) -> str:
    """Return a docstring on one line."""
    return " ".join((doc or "").split()).replace("``", "`")


def _type(setting: Setting) -> str:
    """Return the type of a setting in words, and its range as an interval."""
    words = describe_type(setting.annotation)
    return words if setting.range is None else f"{words}, in {setting.range}"


def _values(settings: dict[str, Any]) -> str:
    return ", ".join(_code(f"{name} = {to_text(value)}") for name, value in settings.items()) or "–"


def _code(text: str) -> str:
    return f"`{text}`"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
