"""The parts of report.html, as HTML: head, sections, tables, curves with their data. No Matplotlib, no network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from limelight import __version__
from limelight.runners.time_shares import KINDS
from limelight.settings.io import all_settings, get_setting
from limelight.settings.schema import TrainConfig
from limelight.viewing.curves import table_rows
from limelight.viewing.numbers import compact
from limelight.viewing.time_spent import in_words, label

GROUPS = {
    "returns": "Learning curve",
    "training": "Training",
    "env": "The environment's own numbers",
    "time": "Where the time goes",
    "workers": "Workers",
}
"""Group of charts → title of its section, in the order of the page."""
_AXES = {"steps": "environment steps", "seconds": "training time", "episodes": "training episodes"}


def document(title: str, body: str, data: Mapping[str, Any] | None, live_seconds: float = 0.0) -> str:
    """Return a page.

    ``data``: of its curves; None: a page without any. ``live_seconds``: between two looks for a newer page; 0: the page
    is final.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} · Limelight</title>\n<style>\n{_resource('report.css')}</style>\n</head>\n"
        f'<body data-live="{live_seconds:g}">\n{body}\n'
        f"<footer>Limelight {escape(__version__)}</footer>\n{'' if data is None else _script(data)}</body>\n</html>\n"
    )


def _script(data: Mapping[str, Any]) -> str:
    """Return the data of the curves, and the script that draws them."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return (
        f'<svg id="namespace" hidden></svg>\n<script type="application/json" id="data">{text}</script>\n'
        f"<script>\n{_resource('page.js')}</script>\n"
    )


def _resource(name: str) -> str:
    return files("limelight.viewing").joinpath(name).read_text(encoding="utf-8")


def controls(live: bool = False) -> str:
    """Return the choice of the axis and the buttons; they are there only with JavaScript."""
    choices = "".join(
        f'<label><input type="radio" name="axis" value="{name}"{" checked" if name == "steps" else ""}> {text}</label>'
        for name, text in _AXES.items()
    )
    pause = '<button type="button" id="pause" hidden>Pause updates</button>' if live else ""
    return (
        f'<div class="controls"><fieldset><legend>Curves over</legend>{choices}</fieldset>'
        f'<button type="button" id="reset" hidden>Whole run</button>{pause}'
        '<p class="note">Point at a curve to read it; drag to zoom, double-click for the whole run. '
        "On the keyboard: arrows, + and −, 0.</p></div>"
    )


def charts(data: Mapping[str, Any], group: str, static: str = "") -> str:
    """Return the curves of a group, each with a table; ``static``: the same as a picture, where scripts are off."""
    figures = [_figure(number, chart, data) for number, chart in enumerate(data["charts"]) if chart["group"] == group]
    without = f'<noscript><div class="wide">{static}</div></noscript>' if static else ""
    return f'{without}<div class="charts {group}">{"".join(figures)}</div>' if figures else without


def _figure(number: int, chart: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    title = escape(chart["title"])
    header, rows = table_rows(chart, data["axes"])
    details = ""
    if rows:
        cells = "\n".join(_row(text(first), map(text, others)) for first, *others in rows)
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
        details = (
            f'<details><summary>{title} as a table</summary><div class="wide"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{cells}</tbody></table></div></details>"
        )
    spoken = escape(_in_a_sentence(chart))
    return (
        f'<figure class="chart" data-chart="{number}"><figcaption class="name">{title}</figcaption><output></output>'
        f'<div class="plot" tabindex="0" role="img" aria-label="{spoken}"></div>{details}</figure>\n'
    )


def _row(name: str, cells: Iterable[str]) -> str:
    return f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'


def _in_a_sentence(chart: Mapping[str, Any]) -> str:
    """Return a chart in words, for a screen reader."""
    parts = []
    for series in chart["series"][:8]:
        values = [value for value in series["y"] if value is not None]
        if values and series["style"] != "dot":
            parts.append(
                f"{series['label']}: from {compact(values[0])} to {compact(values[-1])}, "
                f"between {compact(min(values))} and {compact(max(values))}"
            )
    return f"{chart['title']}. {'; '.join(parts) or 'no value yet'}."


def time_bar(found: Mapping[str, float], hint: str | None) -> str:
    """Return the shares of the time as a bar with a legend in words, and a line of advice if there is one."""
    if not found:
        return ""
    parts = "".join(
        f'<i style="flex-grow:{found[name]:.4f};background:var(--c{k})"></i>' for k, name in enumerate(KINDS)
    )
    names = "".join(
        f'<span><i class="key" style="color:var(--c{k})"></i>{label(name)} {found[name]:.0%}</span>'
        for k, name in enumerate(KINDS)
    )
    note = f"<p>{escape(hint[0].upper() + hint[1:])}.</p>" if hint else ""
    return (
        f'<div class="bar" role="img" aria-label="{escape(in_words(found))}">{parts}</div>'
        f'<p class="legend">{names}</p>{note}'
    )


def section(title: str, content: str) -> str:
    """Return a titled section whose content scrolls sideways where it is too wide."""
    return f'<section><h2>{escape(title)}</h2>\n<div class="wide">{content}</div></section>'


def chart_section(title: str, content: str) -> str:
    """Return a titled section of curves, which fit any width."""
    return f"<section><h2>{escape(title)}</h2>\n{content}</section>"


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """Return (value, name) pairs as tiles."""
    items = "\n".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in pairs)
    return f'<div class="tiles">{items}</div>'


def table(labels: Sequence[str], rows: Iterable[tuple[str, list[tuple[str, bool]]]]) -> str:
    """Return a row per name with a cell (text, marked) per run; the header names the runs if there are several."""
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in labels)
    lines = [f"<thead><tr><td></td>{head}</tr></thead>"] if len(labels) > 1 else []
    for name, cells in rows:
        values = "".join(f"<td{' class=changed' if marked else ''}>{escape(text)}</td>" for text, marked in cells)
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{values}</tr>')
    return "<table>" + "\n".join(lines) + "</table>"


def settings_table(configs: Sequence[TrainConfig], labels: Sequence[str]) -> str:
    """Return all settings; those that differ from the default are coloured."""
    defaults = TrainConfig()
    rows = []
    for name, setting in all_settings().items():
        usual = get_setting(defaults, name)
        cells = [(value := get_setting(config, name), value != usual) for config in configs]
        rows.append((f"{setting.section}.{name}".strip("."), [(text(value), changed) for value, changed in cells]))
    note = '<p class="note">Coloured: differs from the default.</p>'
    return note + table(labels, rows)


def text(value: Any) -> str:
    """Return any value of a configuration, summary or system as text for a table."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return compact(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {text(item)}" for name, item in value.items()) or "–"
    return str(value)
