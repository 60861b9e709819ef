"""The page of a search for settings, tune.html: ranking, history, importance, and score over each setting."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from limelight.files import write_text
from limelight.settings.values import Choices, Search, to_text
from limelight.viewing import page
from limelight.viewing.numbers import compact

_WIDTH, _HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 28
MOST_TICKS = 4


@dataclass(frozen=True)
class Row:
    """A row of the ranking."""

    name: str
    settings: Mapping[str, Any]
    scores: Sequence[float]
    middle: float | None
    interval: tuple[float, float] | None
    searched: float | None
    drop: float | None


@dataclass(frozen=True)
class Dot:
    """A trial."""

    number: int
    settings: Mapping[str, Any]
    state: str
    score: float | None
    error: str | None
    is_default: bool


@dataclass(frozen=True)
class TunePage:
    """What the page shows."""

    env_id: str
    algo: str
    command: str
    score: str
    """What the score is, in words."""
    verdict: str
    use: str
    """The command that trains with what was found; empty where the search has not ended."""
    rows: Sequence[Row]
    trials: Sequence[Dot]
    space: Mapping[str, Search | Choices]
    importances: Mapping[str, float]


def write_page(path: Path, shown: TunePage) -> Path:
    """Write the page; return its path."""
    parts = [_header(shown)]
    if shown.rows:
        parts.append(page.section("Ranking on fresh seeds", _note(shown.score) + _ranking(shown.rows)))
    figures = _figure("Score of each trial, and the best so far", _history(shown)) + _importance(shown)
    parts.append(page.chart_section("Search", f'{_legend()}<div class="charts">{figures}</div>'))
    slices = "".join(_figure(name, _slice(shown, name)) for name in _by_importance(shown))
    parts.append(page.chart_section("Score over each setting", f'<div class="charts">{slices}</div>'))
    if shown.rows:
        parts.append(page.section("Settings", _settings(shown)))
    parts.append(page.section("Trials", f"<details><summary>All trials</summary>{_trials(shown)}</details>"))
    write_text(path, page.document(f"{shown.env_id}: settings", "\n".join(parts), None))
    return path


def _note(text: str) -> str:
    return f'<p class="note">{escape(text[:1].upper() + text[1:])}.</p>'


def _header(shown: TunePage) -> str:
    states = [trial.state for trial in shown.trials]
    counts = [(str(len(states)), "trials")] + [
        (str(states.count(state)), state) for state in ("pruned", "failed", "lost") if state in states
    ]
    if shown.rows and shown.rows[0].middle is not None:
        defaults = next((row.middle for row in shown.rows if row.name == "defaults"), None)
        best = [(compact(shown.rows[0].middle), f"best on fresh seeds: {shown.rows[0].name}")]
        counts = best + ([] if defaults is None else [(compact(defaults), "the defaults on fresh seeds")]) + counts
    use = f"<p><code>{escape(shown.use)}</code></p>" if shown.use else ""
    return (
        f"<header><h1>{escape(shown.env_id)} · {escape(shown.algo)} · settings</h1>\n"
        f"<p><code>{escape(shown.command)}</code></p>\n<p>{escape(shown.verdict)}</p>{use}{page.tiles(counts)}</header>"
    )


def ranking_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the ranking as text."""
    header = ["settings", "IQM", "95 % interval", "lowest to highest", "seeds", "score in the search", "drop"]
    lines = []
    for row in rows:
        spread = f"{compact(min(row.scores))} to {compact(max(row.scores))}" if row.scores else "–"
        interval = "–" if row.interval is None else f"{compact(row.interval[0])} to {compact(row.interval[1])}"
        numbers = [_or_dash(row.middle), interval, spread, str(len(row.scores)), _or_dash(row.searched)]
        lines.append([row.name, *numbers, _or_dash(row.drop)])
    return header, lines


def _or_dash(value: float | None) -> str:
    return "–" if value is None else compact(value)


def _ranking(rows: Sequence[Row]) -> str:
    header, lines = ranking_table(rows)
    return page.table(header[1:], [(line[0], [(text, False) for text in line[1:]]) for line in lines])


def _settings(shown: TunePage) -> str:
    """Return the settings of the candidates; those that differ from the defaults are coloured."""
    usual = next((row.settings for row in shown.rows if row.name == "defaults"), {})
    rows = [
        (name, [(_value(row.settings.get(name)), row.settings.get(name) != usual.get(name)) for row in shown.rows])
        for name in shown.space
    ]
    return page.table([row.name for row in shown.rows], rows)


def _trials(shown: TunePage) -> str:
    rows = []
    for trial in shown.trials:
        settings = ", ".join(f"{name} {_value(value)}" for name, value in trial.settings.items())
        result = _or_dash(trial.score) if trial.error is None else trial.error
        rows.append((str(trial.number), [(trial.state, False), (result, False), (settings, False)]))
    return page.table(["state", "score", "settings"], rows)


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else to_text(value)


def _importance(shown: TunePage) -> str:
    """Return the share of each setting in the differences of scores, as bars."""
    if not shown.importances:
        bars = '<p class="note">Too few finished trials to tell which settings matter.</p>'
    else:
        largest = max(shown.importances.values()) or 1.0
        bars = "".join(
            f'<span>{escape(name)}</span><i style="width:{share / largest:.1%}"></i><span>{share:.0%}</span>'
            for name, share in shown.importances.items()
        )
        bars = f'<div class="amounts">{bars}</div>'
    title = '<figcaption class="name">Importance of each setting (PED-ANOVA)</figcaption>'
    return f'<figure class="chart">{title}{bars}</figure>'


def _by_importance(shown: TunePage) -> list[str]:
    return sorted(shown.space, key=lambda name: -shown.importances.get(name, 0.0))


# --------------------------------------------------------------------------- drawings


def _legend() -> str:
    names = {"c0": "trial", "c1": "ranked on fresh seeds", "c2": "best so far", "c7": "pruned, failed or lost"}
    keys = "".join(f'<span><i class="key" style="color:var(--{k})"></i>{text}</span>' for k, text in names.items())
    return f'<p class="legend">{keys}<span>○ the defaults</span></p>'


def _figure(title: str, svg: str) -> str:
    return f'<figure class="chart drawn"><figcaption class="name">{escape(title)}</figcaption>{svg}</figure>\n'


def _history(shown: TunePage) -> str:
    """Return score over the number of the trial, with the best so far as a line."""
    scored = [trial for trial in shown.trials if trial.score is not None]
    if not scored:
        return _svg("no score yet", "")
    last = max(trial.number for trial in shown.trials)
    across = _scale(0, max(1, last), _LEFT, _WIDTH - _RIGHT)
    y = _heights(scored)
    line, best = "", -math.inf
    for trial in scored:
        if (trial.score or 0.0) > best:
            before = "" if not line else f"L{across(trial.number):.1f},{y(best):.1f}"
            best = trial.score or 0.0
            line += f"{before}{'L' if line else 'M'}{across(trial.number):.1f},{y(best):.1f}"
    line += f"L{across(last):.1f},{y(best):.1f}"
    ticks = [(across(t), str(t)) for t in sorted({0, last // 2, last})]
    dots = "".join(_dot(shown, trial, across(trial.number), y) for trial in scored)
    dots += "".join(
        f'<circle class="pruned" cx="{across(trial.number):.1f}" cy="{_HEIGHT - _BOTTOM}" r="3">'
        f"<title>trial {trial.number}: {escape(trial.error or trial.state)}</title></circle>"
        for trial in shown.trials
        if trial.score is None
    )
    text = f"Score of {len(scored)} trials; the best so far rises to {compact(best)}"
    return _svg(text, _axes(scored, y, ticks) + f'<path d="{line}"/>{dots}')


def _slice(shown: TunePage, name: str) -> str:
    """Return score over the values of a setting."""
    scored = [trial for trial in shown.trials if trial.score is not None and name in trial.settings]
    if not scored:
        return _svg("no score yet", "")
    mark = shown.space[name]
    left, right = _LEFT + 18, _WIDTH - _RIGHT - 18
    place: Callable[[Any], float]
    if isinstance(mark, Choices):
        step = (right - left) / max(1, len(mark.values) - 1)
        places = {to_text(value): left + i * step for i, value in enumerate(mark.values)}
        if len(places) == 1:
            places = dict.fromkeys(places, (left + right) / 2)
        place = lambda value: places[to_text(value)]  # noqa: E731
        ticks = [(x, text) for text, x in places.items()]
    else:
        transform: Callable[[float], float] = math.log if mark.log else float
        linear = _scale(transform(mark.low), transform(mark.high), left, right)
        place = lambda value: linear(transform(value))  # noqa: E731
        middle = math.sqrt(mark.low * mark.high) if mark.log else (mark.low + mark.high) / 2
        ticks = [(place(value), f"{value:.2g}") for value in (mark.low, middle, mark.high)]
    y = _heights(scored)
    dots = "".join(_dot(shown, trial, place(trial.settings[name]), y) for trial in scored)
    return _svg(f"Score over {name}", _axes(scored, y, ticks) + dots)


def _dot(shown: TunePage, trial: Dot, x: float, y: Callable[[float], float]) -> str:
    """Return a trial as a point, with its settings as a tooltip."""
    ranked = {row.name for row in shown.rows}
    kind = "defaults" if trial.is_default else "ranked" if f"trial-{trial.number}" in ranked else "complete"
    settings = ", ".join(f"{name} {_value(value)}" for name, value in trial.settings.items())
    title = f"trial {trial.number}: {compact(trial.score or 0.0)} · {settings}"
    size = 3.5 if kind == "complete" else 4.5
    place = f'cx="{x:.1f}" cy="{y(trial.score or 0.0):.1f}" r="{size}"'
    return f'<circle class="{kind}" {place}><title>{escape(title)}</title></circle>'


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = high - low or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _heights(scored: Sequence[Dot]) -> Callable[[float], float]:
    low, high = _bounds(scored)
    return _scale(low, high, _HEIGHT - _BOTTOM, _TOP)


def _bounds(scored: Sequence[Dot]) -> tuple[float, float]:
    scores = [trial.score or 0.0 for trial in scored]
    room = 0.05 * (max(scores) - min(scores)) or abs(scores[0]) * 0.1 or 1.0
    return min(scores) - room, max(scores) + room


def _axes(scored: Sequence[Dot], y: Callable[[float], float], ticks: Sequence[tuple[float, str]]) -> str:
    low, high = _bounds(scored)
    parts = []
    for value in (low + (high - low) * k / (MOST_TICKS - 1) for k in range(MOST_TICKS)):
        height = y(value)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{height + 4:.1f}" text-anchor="end">{escape(_short(value))}</text>')
    for x, text in ticks:
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{escape(text)}</text>')
    return "".join(parts)


def _short(value: float) -> str:
    """Return three digits of a score, with k for thousands."""
    if abs(value) >= 1e4:
        return f"{value / 1e3:.3g}k"
    return f"{value:.3g}" if abs(value) < 1e3 else f"{value:.0f}"


def _svg(text: str, content: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(text)}">{content}</svg>'
