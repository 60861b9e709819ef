"""Comparison of groups of runs: scores, probability of improvement, seeds needed, settings; as files and as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from limelight.errors import ConfigError
from limelight.files import write_text
from limelight.runs.listing import status_of
from limelight.runs.reader import RunData
from limelight.runs.statistics import (
    bootstrap_interval,
    improvement_interval,
    iqm,
    median_or_never,
    probability_of_improvement,
    seeds_needed,
)
from limelight.settings.values import to_text
from limelight.viewing import plots
from limelight.viewing.group_plots import group_curves, group_scores, save_figure
from limelight.viewing.groups import Group, Score, common_score, differing_settings, read_groups, steps_to
from limelight.viewing.numbers import compact
from limelight.viewing.tables import csv_table, latex_table, markdown_table

NOTHING = "–"


class Table(NamedTuple):
    """A table of a comparison."""

    title: str
    header: list[str]
    rows: list[list[str]]


def write_comparison(
    folders: Sequence[Path],
    output: Path | None = None,
    difference: float | None = None,
    score: float | None = None,
) -> tuple[Path, str]:
    """Compare groups of runs; tables and figures go into ``output``.

    Args:
        folders: folders of runs, a group each; single runs with equal settings, apart from the seed, form one group.
        output: by default ``compare-<names>`` beside the first folder.
        difference: of scores, that the number of seeds is given for; None: the one between the groups.
        score: that the steps to it are given for; None: the target of the runs.
    Returns: the folder, and the tables as Markdown.
    Raises: LimelightError when there is no run in a folder, or there are not two groups of one environment.
    """
    groups = read_groups([Path(folder) for folder in folders])
    _require_comparable(groups, difference)
    tables, measure = tables_of(groups, difference, score)
    folder = output or Path(folders[0]).resolve().parent / f"compare-{'+'.join(g.name for g in groups)[:100]}"
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output = {folder}: cannot be made ({error.strerror})") from None
    with plots.style():
        save_figure(group_curves(groups), folder / "plots" / "curves")
        save_figure(group_scores(groups, measure), folder / "plots" / "scores")
    text = "\n\n".join(f"{table.title}\n\n{markdown_table(table.header, table.rows)}" for table in tables)
    latex = "\n\n".join(f"% {table.title}\n{latex_table(table.header, table.rows)}" for table in tables)
    for name, content in (("compare.md", text), ("compare.tex", latex)):
        write_text(folder / name, content + "\n")
    for name, table in zip(("compare.csv", "pairs.csv", "settings.csv"), tables, strict=False):
        write_text(folder / name, csv_table(table.header, table.rows))
    write_text(folder / "scores.csv", _scores_csv(groups, measure, score))
    return folder, text


def _require_comparable(groups: Sequence[Group], difference: float | None) -> None:
    if len(groups) < 2:
        raise ConfigError(
            f"run_dirs: one group of runs ({groups[0].name if groups else 'empty'}); give two folders of runs, "
            "or runs whose settings differ"
        )
    environments = sorted({run.config.env.env_id for group in groups for run in group.runs})
    if len(environments) > 1:
        raise ConfigError(f"env_id: {' and '.join(environments)}: returns of different environments do not compare")
    if difference is not None and difference <= 0.0:
        raise ConfigError(f"difference = {difference:g}: must be above 0")


def tables_of(groups: Sequence[Group], difference: float | None, score: float | None) -> tuple[list[Table], Score]:
    """Return the tables of a comparison, and the measure that they compare by."""
    measure = common_score(groups)
    tables = [score_table(groups, measure, score), _pair_table(groups, measure, difference)]
    settings = differing_settings(groups)
    rows = [[name, *(" / ".join(map(to_text, values)) for values in each)] for name, each in settings]
    title = "Settings that differ" if rows else "No setting differs but the seed"
    return [*tables, Table(title, ["setting", *(group.name for group in groups)], rows)], measure


def score_table(groups: Sequence[Group], measure: Score, score: float | None) -> Table:
    """Return a row per group: its score over seeds, and the steps to a score."""
    rows = []
    for group in groups:
        scores = measure.scores(group)
        steps = [steps_to(run, score) for run in group.runs]
        reached = sum(step is not None for step in steps)
        middle = median_or_never(steps)
        rows.append(
            [
                group.name,
                _count(group, scores),
                compact(float(iqm(np.array(scores)))),
                interval_text(scores),
                f"{compact(min(scores))} to {compact(max(scores))}",
                f"{'never' if middle is None else compact(middle)} ({reached} of {len(steps)})",
            ]
        )
    target = "the target" if score is None else compact(score)
    header = ["runs", "seeds", "IQM", "95 % interval", "lowest to highest", f"steps to {target}, median (reached)"]
    return Table(f"Score: {measure.noun}", header, rows)


def _count(group: Group, scores: Sequence[float]) -> str:
    """Return the number of seeds, and how many of them have no score."""
    missing = len(group.runs) - len(scores)
    return f"{len(scores)} ({missing} without score)" if missing else str(len(scores))


def interval_text(scores: Sequence[float]) -> str:
    """Return the 95 % interval of the interquartile mean over seeds; nothing for one seed, whose spread is unknown."""
    if len(scores) < 2:
        return NOTHING
    low, high = bootstrap_interval([[s] for s in scores])
    return f"{compact(low)} to {compact(high)}"


def _pair_table(groups: Sequence[Group], measure: Score, difference: float | None) -> Table:
    """Return a row for each pair: the probability that the first is above the second, and the seeds it takes."""
    rows = []
    for i, first in enumerate(groups):
        for second in groups[i + 1 :]:
            a, b = measure.scores(first), measure.scores(second)
            gap = float(iqm(np.array(a)) - iqm(np.array(b)))
            several = min(len(a), len(b)) > 1
            low, high = improvement_interval(a, b)
            rows.append(
                [
                    f"{first.name} above {second.name}",
                    f"{probability_of_improvement(a, b):.2f}",
                    f"{low:.2f} to {high:.2f}" if several else NOTHING,
                    compact(gap),
                    _seeds_text(a, b, abs(gap) if difference is None else difference),
                ]
            )
    header = ["pair", "probability", "95 % interval", "difference of IQM", "more seeds needed"]
    return Table("Probability that a seed of the first is above one of the second", header, rows)


def _seeds_text(a: Sequence[float], b: Sequence[float], difference: float) -> str:
    """Return how many more seeds each side needs to show a difference."""
    if difference == 0.0:
        return "no difference"
    needed = seeds_needed(a, b, difference)
    if needed is None:
        return "unknown: two seeds a side tell the spread"
    more = [max(0, needed - len(side)) for side in (a, b)]
    return f"{more[0]} + {more[1]} to show {compact(difference)} ({needed} a side)"


def _scores_csv(groups: Sequence[Group], measure: Score, score: float | None) -> str:
    """Return a line per run."""

    def row(group: Group, run: RunData) -> list[str | float | None]:
        status = status_of(run.folder, run.summary)
        return [group.name, str(run.folder), run.config.seed, status, measure.of(run), steps_to(run, score)]

    rows = [row(group, run) for group in groups for run in group.runs]
    return csv_table(["runs", "folder", "seed", "status", "score", "steps_to_score"], rows)
