"""The figures of groups of runs: curves with their interval over seeds, and scores."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from limelight.files import replacing, write_text
from limelight.runs.statistics import bootstrap_interval, curve_interval, iqm
from limelight.viewing.groups import Group, Score, curve_noun, curves_of
from limelight.viewing.plots import COLORS, PAPER, short_number, to_png, to_svg


def group_curves(groups: Sequence[Group]) -> Figure:
    """Draw each run thin, and the interquartile mean over seeds with its 95 % interval, over environment steps."""
    figure = Figure(figsize=(9, 5))
    ax = figure.subplots()
    figure.subplots_adjust(left=0.09, right=0.985, top=0.90, bottom=0.11)
    noun = curve_noun(groups)
    for group, color in zip(groups, cycle(COLORS), strict=False):
        steps, values = curves_of(group, noun)
        ax.plot(steps, values.T, color=color, linewidth=0.7, alpha=0.45)
        label = f"{group.name.lstrip('_')} ({len(values)} seed{'s' if len(values) > 1 else ''})"
        ax.plot(steps, iqm(values.T), color=color, linewidth=2.4, label=label)
        if len(values) > 1 and len(steps):
            ax.fill_between(steps, *curve_interval(values), color=color, alpha=0.18, linewidth=0)
    ax.set_xlabel("environment steps")
    ax.set_ylabel(noun)
    ax.xaxis.set_major_formatter(FuncFormatter(short_number))
    ax.set_title("interquartile mean over seeds, 95 % interval; thin: each seed", fontweight="normal")
    ax.legend(loc="best")
    return figure


def group_scores(groups: Sequence[Group], score: Score) -> Figure:
    """Draw the score of each run as a dot, and the interquartile mean of each group with its 95 % interval."""
    figure = Figure(figsize=(9, 1.1 + 0.6 * len(groups)))
    ax = figure.subplots()
    for row, (group, color) in enumerate(zip(groups, cycle(COLORS), strict=False)):
        scores = score.scores(group)
        ax.plot(scores, np.full(len(scores), row), "o", color=color, alpha=0.45, markersize=5)
        ax.plot(iqm(np.array(scores)), row, "|", color=color, markersize=22, markeredgewidth=3)
        if len(scores) > 1:
            ax.hlines(row, *bootstrap_interval([[s] for s in scores]), color=color, linewidth=5, alpha=0.3)
    ax.set_yticks(range(len(groups)), [group.name for group in groups])
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.set_xlabel(f"{score.noun}: each seed, interquartile mean, 95 % interval")
    figure.tight_layout()
    return figure


def save_figure(figure: Figure, stem: Path) -> str:
    """Save a figure as PNG, SVG and PDF; return the SVG document."""
    to_png(figure, stem.with_suffix(".png"))
    with replacing(stem.with_suffix(".pdf")) as temporary:
        figure.savefig(temporary, format="pdf", facecolor=PAPER, metadata={"CreationDate": None})
    svg = to_svg(figure)
    write_text(stem.with_suffix(".svg"), svg)
    return svg
