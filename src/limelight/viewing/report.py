"""The report of one or more runs: plots/learning_curve.{png,svg} and a self-contained report.html."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from limelight.errors import ConfigError
from limelight.files import write_text
from limelight.printable import one_line
from limelight.runs.checkpoint import NUMBERS, fitting
from limelight.runs.folder import FINAL_EVAL_INTERRUPTED, VideoInfo
from limelight.runs.listing import status_in_words
from limelight.runs.origin import describe_parent
from limelight.runs.reader import RunData, read_run
from limelight.viewing import curves, page, plots
from limelight.viewing.compare import score_table
from limelight.viewing.explain.diagnosis import as_html
from limelight.viewing.group_plots import group_curves, save_figure
from limelight.viewing.groups import Group, common_score, differ_by_seed_only, run_folders
from limelight.viewing.numbers import decimal, with_spread
from limelight.viewing.page import chart_section, section, table, text
from limelight.viewing.smoothing import MAX_DOTS
from limelight.viewing.time_spent import advice, shares, spent

_RESULTS = {
    "status": "status",
    "env_id": "environment",
    "algorithm": "algorithm",
    "seed": "seed",
    "total_timesteps": "environment steps",
    "total_episodes": "training episodes",
    "wall_seconds": "training time, s",
    "steps_per_second": "steps per second",
    "best_eval_return": "best evaluation",
    "final_eval_return": "final evaluation of the best agent",
    FINAL_EVAL_INTERRUPTED: "final evaluation cut by a signal",
    "final_eval_std": "standard deviation of the final evaluation",
    "final_eval_episodes": "episodes of the final evaluation",
    "final_eval_cut": "episodes of it that were cut",
    "final_eval_success_rate": "success rate of the final evaluation",
    "final_eval_success_interval": "its 95 % interval (Wilson)",
    "final_eval_success_episodes": "episodes that tell success",
    "final_eval_env_means": "means of the environment's own numbers",
    "solved_at_step": "solved at step",
    "solved_at_seconds": "solved after, s",
    "parent": "branched from",
    "parent_step": "branched at step",
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
"""Bytes of one video, and of all together, up to which videos are embedded in the page."""


def write_report(run_dirs: Sequence[Path], output: Path | None = None, smoothing: float | None = None) -> Path:
    """Draw one or more runs; plots/ and report.html go into ``output``.

    By default, that is the given folder, of a run or of several. Several folders get one of their own beside the first,
    so that no run's own report is overwritten. An unfinished or interrupted run shows the data that it has written so
    far. Runs that differ by their seed alone begin with their interquartile mean.
    ``smoothing``: weight of the exponential smoothing; None: the setting of the first run.

    Returns: the path of report.html.
    Raises: LimelightError when there is no run, a folder is not a run folder, or a file in it is damaged.
    """
    if not run_dirs:
        raise ConfigError("run_dirs: empty; give at least one run folder")
    runs = [read_run(path) for folder in run_dirs for path in run_folders(Path(folder))]
    with fitting(", ".join(str(run.folder) for run in runs), NUMBERS), np.errstate(all="ignore"):
        return _write(runs, run_dirs, output, smoothing)


def _write(runs: Sequence[RunData], run_dirs: Sequence[Path], output: Path | None, smoothing: float | None) -> Path:
    labels = _labels(runs)
    folder = output or (Path(run_dirs[0]) if len(run_dirs) == 1 else _common_folder(runs))
    if (folder / "plots").is_symlink():
        raise ConfigError(
            f"{folder / 'plots'}: is a link, and a report writes into its own folder alone; remove the link"
        )
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output = {folder}: cannot be made ({error.strerror})") from None
    with plots.style():
        weight = runs[0].config.log.smoothing if smoothing is None else smoothing
        curve = plots.learning_curve(runs, labels, weight)
        plots.to_png(curve, folder / "plots" / "learning_curve.png")
        curve_svg = plots.to_svg(curve)
        figures = (plots.training_metrics(runs), plots.worker_metrics(runs))
        metrics_svg, workers_svg = (plots.to_svg(figure) if figure else None for figure in figures)
        over_seeds = _over_seeds(runs, folder)
    write_text(folder / "plots" / "learning_curve.svg", curve_svg)
    path = folder / "report.html"
    write_text(path, _page(runs, labels, weight, folder, over_seeds, curve_svg, metrics_svg, workers_svg))
    return path


def _common_folder(runs: Sequence[RunData]) -> Path:
    """Return ``report-<names>`` beside the first run."""
    names = "+".join(run.folder.resolve().name for run in runs)
    return runs[0].folder.resolve().parent / f"report-{names[:100]}"


def _labels(runs: Sequence[RunData]) -> list[str]:
    """Return a short, unique name of every run: the name of its folder, or the whole path where names repeat."""
    names = [one_line(run.folder.resolve().name) for run in runs]
    return [
        name if names.count(name) == 1 else one_line(str(run.folder)) for name, run in zip(names, runs, strict=True)
    ]


# --------------------------------------------------------------------------- HTML


def _page(
    runs: Sequence[RunData], labels: Sequence[str], smoothing: float, folder: Path, over_seeds: str, curve: str,
    metrics: str | None, workers: str | None,
) -> str:  # fmt: skip
    environments = ", ".join(dict.fromkeys(run.config.env.env_id for run in runs))
    data = curves.page_data(
        [curves.page_run(run, label, smoothing, MAX_DOTS // len(runs)) for run, label in zip(runs, labels, strict=True)]
    )
    parts = [
        _header(runs, environments),
        section("What to look at", _diagnosis(runs, labels)),
        over_seeds,
        page.controls(),
        *_curves(data, {
            "returns": plots.inline_svg(curve, "learning curve"),
            "training": plots.inline_svg(metrics, "training metrics over environment steps") if metrics else "",
        }),
    ]  # fmt: skip
    if bars := _time_bars(runs, labels):
        parts.append(chart_section(page.GROUPS["time"], bars + page.charts(data, "time")))
    if workers:
        figure = plots.inline_svg(workers, "policy lag and updates per second of workers over environment steps")
        shown = page.charts(data, "workers", figure) + f'<div class="wide">{_workers_table(runs, labels)}</div>'
        parts.append(chart_section(page.GROUPS["workers"], shown))
    videos = _videos(runs, labels, folder)
    if videos:
        parts.append(section("Videos", videos))
    parts.append(section("Result", _result_table(runs, labels)))
    parts.append(section("Settings", page.settings_table([run.config for run in runs], labels)))
    names = dict.fromkeys(name for run in runs for name in run.system)
    if names:
        rows = [(name, [(text(run.system.get(name)), False) for run in runs]) for name in names]
        parts.append(section("System", table(labels, rows)))
    return page.document(environments, "\n".join(parts), data)


def _curves(data: Mapping[str, Any], static: Mapping[str, str]) -> list[str]:
    """Return the sections of returns, training metrics and numbers of the environment that there are."""
    found = [(group, page.charts(data, group, static.get(group, ""))) for group in ("returns", "training", "env")]
    return [chart_section(page.GROUPS[group], content) for group, content in found if content]


def _time_bars(runs: Sequence[RunData], labels: Sequence[str]) -> str:
    """Return where the time of each run went, named if there are several."""
    bars = []
    for run, name in zip(runs, labels, strict=True):
        found = shares(spent(run.metrics))
        bar = page.time_bar(found, advice(found, run.config))
        bars.append(f"<h3>{escape(name)}</h3>{bar}" if bar and len(runs) > 1 else bar)
    return "".join(bars)


def _diagnosis(runs: Sequence[RunData], labels: Sequence[str]) -> str:
    """Return the diagnosis of every run, named if there are several."""
    names = [f"<h3>{escape(label)}</h3>" if len(runs) > 1 else "" for label in labels]
    return "".join(name + as_html(run) for name, run in zip(names, runs, strict=True))


def _over_seeds(runs: Sequence[RunData], folder: Path) -> str:
    """Return the section on runs that differ by their seed alone, and save its figure; nothing for other runs."""
    if not differ_by_seed_only(runs):
        return ""
    group = Group(folder.resolve().name, tuple(runs))
    svg = save_figure(group_curves([group]), folder / "plots" / "seeds")
    content = plots.inline_svg(svg, "interquartile mean over seeds over environment steps")
    try:
        scores = score_table([group], common_score([group]), None)
    except ConfigError as error:  # no score yet
        return section("Over seeds", f"{content}<p>{escape(str(error))}</p>")
    rows = [(name, [(value, False)]) for name, value in zip(scores.header, scores.rows[0], strict=True)]
    return section("Over seeds", f'{content}<p class="note">{escape(scores.title)}</p>{table([""], rows)}')


def _header(runs: Sequence[RunData], environments: str) -> str:
    """Return the title and the command lines; for one run also its status and main results."""
    commands = "\n".join(f"<p><code>{escape(run.command)}</code></p>" for run in runs if run.command)
    commands += "".join(f"\n<p>{escape(describe_parent(run.parent))}</p>" for run in runs if run.parent is not None)
    if len(runs) > 1:
        return f"<header><h1>{escape(environments)}</h1>\n<p>{len(runs)} runs</p>\n{commands}</header>"
    run = runs[0]
    status = escape(status_in_words(run.folder, run.summary))
    shown = [(_tile(run.summary, key), _RESULTS[key]) for key in _TILES if run.summary.get(key) is not None]
    title = f"{environments} · {run.config.algorithm.algo} · seed {run.config.seed}"
    return (
        f'<header><h1>{escape(title)}<span class="status">{status}</span></h1>\n{commands}\n'
        f"{page.tiles(shown)}</header>"
    )


def _tile(summary: dict[str, Any], key: str) -> str:
    """Return a main result as text; the final evaluation with its standard deviation."""
    value = summary[key]
    if key != "final_eval_return":
        return text(value)
    spread = summary.get("final_eval_std")
    return decimal(value) if spread is None else with_spread(value, spread)


def _result_table(runs: Sequence[RunData], labels: Sequence[str]) -> str:
    keys = dict.fromkeys([*_RESULTS, *(key for run in runs for key in run.summary)])
    rows = []
    for key in keys:
        if any(key in run.summary for run in runs):
            rows.append((_RESULTS.get(key, key), [(text(run.summary.get(key)), False) for run in runs]))
    if rows:
        return table(labels, rows)
    states = dict.fromkeys(status_in_words(run.folder, run.summary) for run in runs)
    return f"<p>No results yet: {escape('; '.join(states))}.</p>"


def _videos(runs: Sequence[RunData], labels: Sequence[str], folder: Path) -> str:
    """Return a grid of all videos; small ones are embedded in the page, larger ones are linked."""
    figures, room = [], _EMBED_TOTAL
    for run, label in zip(runs, labels, strict=True):
        for video in run.videos:
            size = video.path.stat().st_size
            if size <= min(_EMBED_EACH, room):
                room -= size
                source = f"data:video/mp4;base64,{b64encode(video.path.read_bytes()).decode()}"
            else:
                source = quote(Path(os.path.relpath(video.path, folder)).as_posix())
            words = _caption(video.info) if video.info else video.path.stem
            caption = f"{label} · {words}" if len(runs) > 1 else words
            figures.append(
                f'<figure><video controls muted playsinline preload="metadata" src="{source}"></video>'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )
    return f'<div class="videos">{"".join(figures)}</div>' if figures else ""


def _caption(info: VideoInfo) -> str:
    """Return which agent was recorded when, and its results."""
    when = f"{info.which} agent, seed {info.seed}" if info.step is None else f"step {info.step:,}"
    when += ", sampled actions" if info.sampled else ""
    score = f"return{'s' if len(info.returns) > 1 else ''} {text(info.returns)}"
    return " · ".join([when, score, f"{sum(info.lengths):,} steps", *(["cut"] if info.cut else [])])


def _workers_table(runs: Sequence[RunData], labels: Sequence[str]) -> str:
    """Return the failures of asynchronous runs; a run without workers has empty cells."""
    counts = {"restarted workers": "async/worker_restarts", "updates skipped (not finite)": "async/skipped_updates"}
    rows = []
    for title, name in counts.items():
        totals = [run.total(name) for run in runs]
        rows.append((title, [(text(total), bool(total)) for total in totals]))
    return table(labels, rows)
