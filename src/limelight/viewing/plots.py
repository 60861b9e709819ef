"""The figures of a report: the learning curve, and small panels of the training metrics and the workers.

Only Matplotlib's object API is used: no pyplot, no global state.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from limelight.files import replacing
from limelight.printable import one_line
from limelight.runs.reader import Floats, RunData, Series
from limelight.viewing.smoothing import (
    MAX_DOTS,
    MAX_POINTS,
    WINDOW,
    exponential_smoothing,
    moving_average,
    thinned,
)

PAPER, INK = "#ffffff", "#1f2328"
COLORS = ("#2f7fd6", "#d9730d", "#2a9d6a", "#a05fd6", "#d6455d", "#1b98a6", "#8a7a1f", "#7a869a")
"""Colours of the runs, in order; each is clearly visible on white and on near-black paper."""
FONTS = "system-ui, 'DejaVu Sans', Verdana, sans-serif"
_STYLE: dict[Any, Any] = {
    "text.usetex": False,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.8,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "limelight",
}


_FALLBACKS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "PingFang SC",
    "Hiragino Sans GB", "Microsoft YaHei", "SimHei", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback",
    "Malgun Gothic", "Apple SD Gothic Neo", "Arial Unicode MS", "Noto Sans", "Noto Sans Arabic", "Noto Sans Hebrew",
    "Noto Sans Devanagari", "Noto Sans Thai",
)  # fmt: skip
"""Fonts for letters that DejaVu Sans has not, as in the name of a folder: those that are installed."""
_GLYPHS = r"Glyph \d+ .*missing from|Matplotlib currently does not support \w+ natively"
"""What Matplotlib warns of where no font has a letter; it draws a box for it."""


@contextmanager
def style() -> Iterator[None]:
    """Apply the report's style, for making a figure and for saving it."""
    installed = {font.name for font in fontManager.ttflist}
    families = ["DejaVu Sans", *(name for name in _FALLBACKS if name in installed)]
    with mpl.rc_context({**_STYLE, "font.family": families}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", _GLYPHS, UserWarning)
        yield


def to_png(figure: Figure, path: Path) -> None:
    """Save a figure with 150 dots per inch on white paper."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, facecolor=PAPER, pil_kwargs={"compress_level": 4})


def to_svg(figure: Figure) -> str:
    """Return a figure as a stand-alone SVG document on white paper."""
    file = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", dpi=144, facecolor=PAPER, metadata=no_metadata)  # dpi of the rasterized dots
    return re.sub(r"font-family: [^;]*;", f"font-family: {FONTS};", file.getvalue())


def inline_svg(svg: str, label: str) -> str:
    """Return an SVG document as an HTML element, transparent and in the page's text colour."""
    body = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(PAPER, "none")
    body = re.sub(r'<g id="[^"]*">', "<g>", body)  # several figures on a page must not repeat ids
    body = re.sub(r' xmlns(:xlink)?="[^"]*"', "", body)
    return re.sub(r'<svg width="[^"]*" height="[^"]*"', f'<svg role="img" aria-label="{label}"', body, count=1)


# --------------------------------------------------------------------------- the learning curve

# The style of each mark, in the panels and in the legend.
_EPISODE: dict[str, Any] = {
    "marker": ".",
    "linestyle": "",
    "markersize": 3,
    "markeredgewidth": 0,
    "alpha": 0.4,
}
_AVERAGE: dict[str, Any] = {"linewidth": 2.4}
_SMOOTHED: dict[str, Any] = {"linewidth": 0.9, "alpha": 0.75}
_EVALUATION: dict[str, Any] = {"marker": "o", "markersize": 4, "linewidth": 1.2}
_STD: dict[str, Any] = {"linewidth": 4, "alpha": 0.3}
_RANGE: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.7}
_BEST: dict[str, Any] = {"marker": "*", "markersize": 14, "linestyle": "", "markeredgecolor": INK}
_LARGEST: dict[str, Any] = {"linewidth": 0.9, "linestyle": "--"}
_TARGET: dict[str, Any] = {"color": INK, "alpha": 0.6, "linewidth": 1, "linestyle": (0, (4, 3))}
_BRANCH: dict[str, Any] = {"color": INK, "alpha": 0.6, "linewidth": 1, "linestyle": ":"}


def learning_curve(runs: Sequence[RunData], labels: Sequence[str], smoothing: float) -> Figure:
    """Draw episode returns and evaluations of one or more runs, over environment steps, training time and episodes."""
    figure = Figure(figsize=(15, 5))
    axes = figure.subplots(1, 3, sharey=True, gridspec_kw={"wspace": 0.06})
    figure.subplots_adjust(left=0.05, right=0.985, top=0.85 if len(runs) == 1 else 0.80, bottom=0.11)
    unit, unit_name = _time_unit(max(_last_second(run) for run in runs))
    places: tuple[_Places, ...] = (_at_steps, partial(_at_seconds, unit), _at_episodes)
    for ax, x_of in zip(axes, places, strict=True):
        for run, color in zip(runs, cycle(COLORS), strict=False):
            _draw_episodes(ax, run, color, x_of(run, run.episodes), MAX_DOTS // len(runs), smoothing)
            _draw_evaluations(ax, run, COLORS[1] if len(runs) == 1 else color, x_of)
            _draw_branch(ax, run, x_of)
        if (target := runs[0].config.eval.stop_at_return) is not None:
            ax.axhline(target, **_TARGET)
        ax.set_xlim(left=0)
        ax.margins(y=0.04)
    axes[0].set_ylabel("episode return")
    for ax, label in ((axes[0], "environment steps"), (axes[2], "training episodes")):
        ax.set_xlabel(label)
        ax.xaxis.set_major_formatter(FuncFormatter(short_number))
    axes[1].set_xlabel(f"wall-clock time of training ({unit_name})")
    if not any(len(run.episodes.values) or _is_evaluated(run) for run in runs):
        axes[0].text(0.5, 0.5, "no episode has finished yet", ha="center", transform=axes[0].transAxes)
    _add_legend(figure, runs, labels, smoothing)
    return figure


def _draw_episodes(ax: Axes, run: RunData, color: str, x: Floats, most: int, smoothing: float) -> None:
    """Draw the training episodes of one run: at most ``most`` dots, and their two averages."""
    values = run.episodes.values
    if len(values):
        dots, line = thinned(len(x), most), thinned(len(x), MAX_POINTS)
        # The dots of all runs lie below all lines and become one embedded image within the SVG.
        ax.plot(x[dots], values[dots], color=color, rasterized=True, zorder=1, **_EPISODE)
        ax.plot(x[line], exponential_smoothing(values, smoothing)[line], color=color, **_SMOOTHED)
        ax.plot(x[line], moving_average(values)[line], color=color, **_AVERAGE)


def _draw_evaluations(ax: Axes, run: RunData, color: str, x_of: _Places) -> None:
    """Draw the evaluations of one run with their spread, where it was logged, and mark the best one."""
    mean = run.series("eval/mean_reward")
    std, low, high = (run.series(f"eval/{name}_reward").values for name in ("std", "min", "max"))
    x = x_of(run, mean)
    if len(low) == len(high) == len(x):
        ax.vlines(x, low, high, color=color, **_RANGE)
    if len(std) == len(x):
        ax.vlines(x, mean.values - std, mean.values + std, color=color, **_STD)
    if len(x):
        ax.plot(x, mean.values, color=color, **_EVALUATION)
    if np.isfinite(mean.values).any():
        best = len(mean.values) - 1 - int(np.nanargmax(mean.values[::-1]))  # the later of equals, as Evaluator saves
        ax.plot(x[best], mean.values[best], color=color, zorder=5, **_BEST)


def _draw_branch(ax: Axes, run: RunData, x_of: _Places) -> None:
    """Draw where a run began from its parent: the curve before is the parent's."""
    if run.parent is not None:
        step = np.array([float(run.parent["step"])])
        seconds = np.array([max((row["seconds"] for row in run.metrics if row["step"] <= step[0]), default=0.0)])
        ax.axvline(x_of(run, Series(step, seconds, step))[0], **_BRANCH)


def _add_legend(figure: Figure, runs: Sequence[RunData], labels: Sequence[str], smoothing: float) -> None:
    """Add the title and the legends above the panels: the marks, and the colours of several runs."""
    several = len(runs) > 1
    color, eval_color = (INK, INK) if several else COLORS[:2]
    marks = [
        Line2D([], [], color=color, label="episode", **{**_EPISODE, "markersize": 7}),
        Line2D([], [], color=color, label=f"mean of {WINDOW} episodes", **_AVERAGE),
        Line2D([], [], color=color, label=f"exponential smoothing ({smoothing:g})", **_SMOOTHED),
    ]
    if any(_is_evaluated(run) for run in runs):
        evaluation = {"evaluation": _EVALUATION, "± std": _STD, "min to max": _RANGE, "best": _BEST}
        marks += [Line2D([], [], color=eval_color, label=name, **mark) for name, mark in evaluation.items()]
    if runs[0].config.eval.stop_at_return is not None:
        marks.append(Line2D([], [], label="target", **_TARGET))
    if any(run.parent is not None for run in runs):
        marks.append(Line2D([], [], label="branched from its parent", **_BRANCH))
    environments = ", ".join(dict.fromkeys(one_line(run.config.env.env_id) for run in runs))
    title = environments if several else f"{environments} · {labels[0]}"
    figure.text(0.05, 0.945, title, fontsize=13, fontweight="bold")
    _legend_row(figure, marks, len(marks), 0.92)
    if several:  # matplotlib hides labels that start with _
        named = zip(cycle(COLORS), labels, strict=False)
        lines = [Line2D([], [], color=c, linewidth=3, label=label.lstrip("_")) for c, label in named]
        _legend_row(figure, lines, 6, 0.87)


def _legend_row(figure: Figure, handles: list[Line2D], columns: int, y: float) -> None:
    figure.legend(
        handles=handles, ncols=columns, loc="upper left", bbox_to_anchor=(0.05, y), borderpad=0,
        borderaxespad=0, columnspacing=1.6, handlelength=1.6,
    )  # fmt: skip


_Places = Callable[[RunData, Series], Floats]
"""Returns the places of a series of a run on the axis of a panel, [N]."""


def _at_steps(run: RunData, series: Series) -> Floats:
    return series.steps


def _at_seconds(unit: float, run: RunData, series: Series) -> Floats:
    """Return training time in a ``unit`` of seconds."""
    return series.seconds / unit


def _at_episodes(run: RunData, series: Series) -> Floats:
    """Return the number of training episodes that had finished at each place."""
    if series is run.episodes:
        return np.arange(1.0, len(series.steps) + 1)
    return np.searchsorted(run.episodes.steps, series.steps, side="right").astype(np.float64)


def _is_evaluated(run: RunData) -> bool:
    return len(run.series("eval/mean_reward").values) > 0


# --------------------------------------------------------------------------- the training metrics


def training_metrics(runs: Sequence[RunData]) -> Figure | None:
    """Draw a small panel per ``env/…`` and ``train/…`` metric, episode length and speed, over steps; None without."""
    names = dict.fromkeys(name for run in runs for name in run.metric_names())
    shown = [name for prefix in ("env/", "train/") for name in names if name.startswith(prefix)]
    shown += [name for name in ("rollout/ep_len_mean", "time/fps") if name in names]
    if not shown:
        return None
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(12, 2.1 * rows + 0.3))
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True)
    figure.subplots_adjust(
        left=0.045, right=0.985, wspace=0.28, hspace=0.42,
        top=1 - 0.35 / figure.get_figheight(), bottom=0.35 / figure.get_figheight(),
    )  # fmt: skip
    for place, (ax, name) in enumerate(zip(panels.flat, shown, strict=False)):
        for run, color in zip(runs, cycle(COLORS), strict=False):
            _draw_series(ax, run.series(name), color)
        title = name if name.startswith("env/") else name.removeprefix("train/").replace("_", " ")
        _finish_panel(ax, title, place + columns >= len(shown))
    for ax in panels.flat[len(shown) :]:
        ax.remove()
    return figure


def worker_metrics(runs: Sequence[RunData]) -> Figure | None:
    """Draw the policy lag and the updates per second of every worker, over steps; None without asynchronous runs."""
    if not any("async/policy_lag" in run.metric_names() for run in runs):
        return None
    figure = Figure(figsize=(12, 3))
    lag, rates = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.045, right=0.985, wspace=0.1, top=0.88, bottom=0.13)
    for run, color in zip(runs, cycle(COLORS), strict=False):
        _draw_series(lag, run.series("async/policy_lag"), color)
        _draw_series(lag, run.series("async/policy_lag_max"), color, **_LARGEST)
        workers = [name for name in run.metric_names() if re.fullmatch(r"async/worker_\d+/updates_per_second", name)]
        for name, own_color in zip(workers, cycle(COLORS if len(runs) == 1 else (color,)), strict=False):
            _draw_series(rates, run.series(name), own_color, linewidth=1)
    ink = COLORS[0] if len(runs) == 1 else INK
    marks = [Line2D([], [], color=ink, label="mean"), Line2D([], [], color=ink, label="max", **_LARGEST)]
    lag.legend(handles=marks, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, ncols=2)
    _finish_panel(lag, "policy lag, in updates by other workers", True)
    _finish_panel(rates, "updates per second, one line per worker", True)
    for ax in (lag, rates):
        ax.set_ylim(bottom=0)
    return figure


def _draw_series(ax: Axes, series: Series, color: str, **line: Any) -> None:
    """Draw one metric as a thinned line; a single value as a dot."""
    points = thinned(len(series.values), MAX_POINTS)
    marker = "o" if len(points) < 2 else None
    line = {"linewidth": 1.3, **line}
    ax.plot(series.steps[points], series.values[points], color=color, marker=marker, markersize=4, **line)


def _finish_panel(ax: Axes, title: str, labels_below: bool) -> None:
    """Set the title, and give the axes few and short numbers."""
    ax.set_title(title)
    ax.set_xlim(left=0)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(short_number))
        axis.set_major_locator(MaxNLocator(4))
    ax.tick_params(labelsize=8, labelbottom=labels_below)


# --------------------------------------------------------------------------- arithmetic


def _last_second(run: RunData) -> float:
    """Return the training seconds of the last episode or row."""
    ends = [float(run.episodes.seconds[-1])] if len(run.episodes.seconds) else []
    return max([*ends, *(row["seconds"] for row in run.metrics)], default=0.0)


def _time_unit(longest: float) -> tuple[float, str]:
    """Return the seconds per unit and the name of the unit for an axis up to ``longest`` seconds."""
    for unit, name in ((3600.0, "hours"), (60.0, "minutes")):
        if longest >= 3 * unit:
            return unit, name
    return 1.0, "seconds"


def short_number(value: float, _position: int | None = None) -> str:
    """Return 1500000 as ``1.5M``, 20000 as ``20k``, 0.0004 as ``0.0004``."""
    scales = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e3, 1e3, "k"), (0.0, 1.0, ""))
    unit, letter = next((unit, letter) for least, unit, letter in scales if abs(value) >= least)
    return f"{value / unit:g}{letter}".replace("-", "−")
