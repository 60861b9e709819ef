"""Draws what runs left in their folders: plots/learning_curve.{png,svg} and a self-contained report.html.

Called at the end of train.py and by ``limelight report``.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from limelight import __version__
from limelight.errors import ConfigError
from limelight.runs.reader import RunData, read_run
from limelight.settings.io import all_settings, get_setting
from limelight.settings.schema import TrainConfig
from limelight.viewing import plots

_RESULTS = {
    "status": "status",
    "env_id": "environment",
    "algorithm": "algorithm",
    "seed": "seed",
    "total_timesteps": "environment steps",
    "wall_seconds": "training time, s",
    "steps_per_second": "steps per second",
    "best_eval_return": "best evaluation",
    "final_eval_return": "final evaluation of the best agent",
    "final_eval_std": "its standard deviation",
    "final_eval_episodes": "its episodes",
    "solved_at_step": "solved at step",
    "solved_at_seconds": "solved after, s",
}
_TILES = (
    "final_eval_return",
    "best_eval_return",
    "solved_at_step",
    "total_timesteps",
    "wall_seconds",
    "steps_per_second",
)
_EMBED_EACH, _EMBED_TOTAL = 2 << 20, 12 << 20
"""Bytes of a video, and of all together, up to which they become a part of the page."""
_UNFINISHED = "no summary yet (still running, or killed)"

_CSS = """
:root { color-scheme: light dark;
  --paper: #ffffff; --card: #f6f7f9; --ink: #1f2328; --soft: #59636e; --line: #d8dee4; --accent: #1f6fc4; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171c; --card: #1c2128; --ink: #e6e9ed; --soft: #9aa5b1; --line: #313842; --accent: #6cb0ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.25rem 3rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 2.4rem 0 .7rem; }
header p { margin: .3rem 0; color: var(--soft); }
code { font: .92em ui-monospace, SFMono-Regular, Consolas, monospace; overflow-wrap: anywhere; }
.status { font-size: .8rem; font-weight: 600; color: var(--accent); border: 1px solid; border-radius: 1rem;
  padding: .1rem .6rem; margin-left: .6rem; vertical-align: middle; white-space: nowrap; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .7rem;
  margin-top: 1.4rem; }
.tiles div { background: var(--card); border-radius: .6rem; padding: .7rem .9rem; }
.tiles b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); font-size: .82rem; }
svg { width: 100%; min-width: 44rem; height: auto; display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; min-width: 50%; }
th, td { text-align: left; vertical-align: top; padding: .25rem 1.2rem .25rem .4rem;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; font-size: .85rem; }
tbody th { font-weight: 400; }
td.changed { color: var(--accent); font-weight: 600; }
.note { color: var(--soft); font-size: .85rem; margin: 0 0 .5rem; }
.videos { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--card); border-radius: .6rem; overflow: hidden; }
video { display: block; width: 100%; aspect-ratio: 6 / 5; background: #000; }
figcaption { padding: .5rem .8rem .6rem; color: var(--soft); font-size: .85rem; }
footer { margin-top: 3rem; color: var(--soft); font-size: .85rem; }
"""


def write_report(run_dirs: Sequence[Path]) -> Path:
    """Draw one or more runs; plots/ and report.html go into the first one's folder.

    Works on unfinished and interrupted runs with what they have.

    Returns: the path of report.html.
    Raises: ConfigError when there is no run, a folder is not a run's, or a file in it is damaged.
    """
    if not run_dirs:
        raise ConfigError("run_dirs: empty; give at least one run folder")
    runs = [read_run(Path(folder)) for folder in run_dirs]
    labels = _labels(runs)
    folder = runs[0].folder
    (folder / "plots").mkdir(exist_ok=True)
    with plots.style():
        curve = plots.learning_curve(runs, labels)
        plots.to_png(curve, folder / "plots" / "learning_curve.png")
        curve_svg = plots.to_svg(curve)
        figures = (plots.training_metrics(runs), plots.worker_metrics(runs))
        metrics_svg, workers_svg = (plots.to_svg(figure) if figure else None for figure in figures)
    (folder / "plots" / "learning_curve.svg").write_text(curve_svg, encoding="utf-8")
    path = folder / "report.html"
    path.write_text(_page(runs, labels, curve_svg, metrics_svg, workers_svg), encoding="utf-8")
    return path


def _labels(runs: Sequence[RunData]) -> list[str]:
    """Short names of runs that tell them apart: the folder's name, or its whole path where names repeat."""
    names = [run.folder.resolve().name for run in runs]
    return [name if names.count(name) == 1 else str(run.folder) for name, run in zip(names, runs, strict=True)]


# --------------------------------------------------------------------------- HTML


def _page(runs: Sequence[RunData], labels: Sequence[str], curve: str, metrics: str | None, workers: str | None) -> str:
    environments = ", ".join(dict.fromkeys(run.config.env.env_id for run in runs))
    parts = [
        _header(runs, environments),
        _section("Learning curve", plots.inline_svg(curve, "learning curve")),
    ]
    if metrics:
        parts.append(_section("Training", plots.inline_svg(metrics, "training metrics over environment steps")))
    videos = _videos(runs, labels)
    if videos:
        parts.append(_section("Videos", videos))
    if workers:
        drawn = plots.inline_svg(workers, "policy lag and updates per second of workers over environment steps")
        parts.append(_section("Workers", drawn + _workers_table(runs, labels)))
    parts.append(_section("Result", _result_table(runs, labels)))
    parts.append(_section("Settings", _settings_table(runs, labels)))
    names = dict.fromkeys(name for run in runs for name in run.system)
    if names:
        rows = [(name, [(_text(run.system.get(name)), False) for run in runs]) for name in names]
        parts.append(_section("System", _table(labels, rows)))
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(environments)} · Limelight</title>\n<style>{_CSS}</style>\n</head>\n<body>\n{body}\n"
        f"<footer>Limelight {escape(__version__)}</footer>\n</body>\n</html>\n"
    )


def _header(runs: Sequence[RunData], environments: str) -> str:
    """Title and command lines; for one run also its status and its main numbers."""
    commands = "\n".join(f"<p><code>{escape(run.command)}</code></p>" for run in runs if run.command)
    if len(runs) > 1:
        return f"<header><h1>{escape(environments)}</h1>\n<p>{len(runs)} runs</p>\n{commands}</header>"
    run = runs[0]
    status = escape(str(run.summary.get("status", _UNFINISHED)).replace("_", " "))
    tiles = "\n".join(
        f"<div><b>{escape(_text(run.summary[key]))}</b><span>{escape(_RESULTS[key])}</span></div>"
        for key in _TILES
        if run.summary.get(key) is not None
    )
    title = f"{environments} · {run.config.algorithm.algo} · seed {run.config.seed}"
    return (
        f'<header><h1>{escape(title)}<span class="status">{status}</span></h1>\n{commands}\n'
        f'<div class="tiles">{tiles}</div></header>'
    )


def _result_table(runs: Sequence[RunData], labels: Sequence[str]) -> str:
    keys = dict.fromkeys([*_RESULTS, *(key for run in runs for key in run.summary)])
    rows = []
    for key in keys:
        if any(key in run.summary for run in runs):
            rows.append((_RESULTS.get(key, key), [(_text(run.summary.get(key)), False) for run in runs]))
    return _table(labels, rows) if rows else f"<p>{_UNFINISHED}</p>"


def _videos(runs: Sequence[RunData], labels: Sequence[str]) -> str:
    """A grid of all videos; small ones are part of the page, larger ones lie beside it."""
    figures, room = [], _EMBED_TOTAL
    for run, label in zip(runs, labels, strict=True):
        for video in run.videos:
            size = video.path.stat().st_size
            if size <= min(_EMBED_EACH, room):
                room -= size
                source = f"data:video/mp4;base64,{b64encode(video.path.read_bytes()).decode()}"
            else:
                source = quote(Path(os.path.relpath(video.path, runs[0].folder)).as_posix())
            words = _caption(video.about) or video.path.stem
            caption = f"{label} · {words}" if len(runs) > 1 else words
            figures.append(
                f'<figure><video controls muted playsinline preload="metadata" src="{source}"></video>'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )
    return f'<div class="videos">{"".join(figures)}</div>' if figures else ""


def _caption(about: dict[str, Any]) -> str:
    """Who played when, and what it came to; empty where nothing is known of it."""
    if not about:
        return ""
    step, returns = about["step"], about["returns"]
    when = f"{about['which']} agent, seed {about['seed']}" if step is None else f"step {step:,}"
    when += ", sampled actions" if about["sampled"] else ""
    score = f"return{'s' if len(returns) > 1 else ''} {_text(returns)}"
    return " · ".join([when, score, f"{sum(about['lengths']):,} steps", *(["cut"] if about["cut"] else [])])


def _workers_table(runs: Sequence[RunData], labels: Sequence[str]) -> str:
    """What went wrong in asynchronous runs; nothing of a run that was not."""
    counts = {"restarted workers": "async/worker_restarts", "updates skipped (not finite)": "async/skipped_updates"}
    rows = []
    for title, name in counts.items():
        totals = [run.total(name) for run in runs]
        rows.append((title, [(_text(total), bool(total)) for total in totals]))
    return _table(labels, rows)


def _settings_table(runs: Sequence[RunData], labels: Sequence[str]) -> str:
    default = TrainConfig()
    rows = []
    for name, setting in all_settings().items():
        usual = get_setting(default, name)
        cells = [(value := get_setting(run.config, name), value != usual) for run in runs]
        rows.append((f"{setting.section}.{name}".strip("."), [(_text(value), changed) for value, changed in cells]))
    note = '<p class="note">Coloured: differs from the default.</p>'
    return note + _table(labels, rows)


def _section(title: str, content: str) -> str:
    return f'<section><h2>{escape(title)}</h2>\n<div class="wide">{content}</div></section>'


def _table(labels: Sequence[str], rows: Iterable[tuple[str, list[tuple[str, bool]]]]) -> str:
    """A row per name with a cell per run, (text, marked) each; run names on top where there are several."""
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in labels)
    lines = [f"<thead><tr><td></td>{head}</tr></thead>"] if len(labels) > 1 else []
    for name, cells in rows:
        values = "".join(f"<td{' class=changed' if marked else ''}>{escape(text)}</td>" for text, marked in cells)
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{values}</tr>')
    return "<table>" + "\n".join(lines) + "</table>"


def _text(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:,.1f}" if 100 <= abs(value) < 1e12 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text(item)}" for name, item in value.items()) or "–"
    return str(value)
