"""Groups of runs that differ by their seed: which runs belong together, their scores and curves, their settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from limelight.errors import CheckpointError, ConfigError
from limelight.printable import one_line
from limelight.runs.folder import CONFIG
from limelight.runs.origin import has_other_env
from limelight.runs.reader import Floats, RunData, Series, read_run
from limelight.settings.io import all_settings, get_setting
from limelight.viewing.smoothing import WINDOW, moving_average

POINTS = 200
"""Most points of a curve over seeds."""
_NOT_COMPARED = ("seed", "run_dir")


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seed."""

    name: str
    runs: tuple[RunData, ...]


class Score(NamedTuple):
    """A measure of a run that all runs of a comparison have."""

    noun: str
    of: Callable[[RunData], float | None]
    """None where a run lacks it."""

    def scores(self, group: Group) -> list[float]:
        """Return the scores of the runs of a group that have one."""
        return [score for score in map(self.of, group.runs) if score is not None]


class Curves(NamedTuple):
    """The curves of a group over common steps."""

    steps: Floats
    """[N]; empty where the runs have no steps in common."""
    values: Floats
    """[seeds, N]."""


# --------------------------------------------------------------------------- which runs


def run_folders(folder: Path) -> list[Path]:
    """Return ``folder`` if it is that of a run, else the folders of runs in it, in the order of numbers and names.

    Raises: CheckpointError if there is no run.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; give the folder of a run, or a folder of runs")
    if (folder / CONFIG).exists():
        return [folder]
    found = sorted((path.parent for path in folder.glob(f"*/{CONFIG}")), key=lambda path: _natural(path.name))
    if not found:
        raise CheckpointError(f"{folder}: no {CONFIG} there or in a folder in it; give the folder of a run, or of runs")
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts ``seed-2`` before ``seed-10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def read_groups(folders: Sequence[Path]) -> list[Group]:
    """Read folders of runs as a group each; single runs with equal settings, apart from the seed, form one group.

    Raises: LimelightError when a folder has no run, or a file in it is damaged.
    """
    groups: list[Group] = []
    alone: dict[Any, list[RunData]] = {}
    for folder in folders:
        found = run_folders(folder)
        runs = [read_run(path) for path in found]
        if found == [folder]:
            alone.setdefault(_settings_of(runs[0]), []).append(runs[0])
            groups += [Group("", ())] if len(alone[_settings_of(runs[0])]) == 1 else []
        else:
            groups.append(Group(one_line(folder.resolve().name), tuple(runs)))
    singles = iter(alone.values())
    named = [group if group.runs else _group_of(next(singles)) for group in groups]
    return [Group(name, group.runs) for name, group in zip(_unique([g.name for g in named]), named, strict=True)]


def _group_of(runs: Sequence[RunData]) -> Group:
    return Group(one_line(runs[0].folder.resolve().name), tuple(runs))


def _unique(names: Sequence[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, 1)]


def differ_by_seed_only(runs: Sequence[RunData]) -> bool:
    """Return whether there are several runs of several seeds, equal in all settings that a result depends on."""
    seeds = {run.config.seed for run in runs}
    return len(runs) > 1 and len(seeds) == len(runs) and len({_settings_of(run) for run in runs}) == 1


def _settings_of(run: RunData) -> str:
    return repr([get_setting(run.config, name) for name in all_settings() if name not in _NOT_COMPARED])


def differing_settings(groups: Sequence[Group]) -> list[tuple[str, list[list[Any]]]]:
    """Return the settings that are not the same in all runs, by name, with the distinct values of each group.

    The parents of branches are a row of their own.
    """
    found = []
    for name in all_settings():
        values = [_distinct([get_setting(run.config, name) for run in group.runs]) for group in groups]
        if name not in _NOT_COMPARED and len(_distinct([v for group in values for v in group])) > 1:
            found.append((name, values))
    parents = [_distinct([_parent_of(run) for run in group.runs]) for group in groups]
    if any(parent is not None for values in parents for parent in values):
        found.append(("branched from", parents))
    return found


def _parent_of(run: RunData) -> str | None:
    return None if run.parent is None else f"{run.parent['from']}, step {run.parent['step']:,}"


def _distinct(values: Sequence[Any]) -> list[Any]:
    return [value for i, value in enumerate(values) if value not in values[:i]]


# --------------------------------------------------------------------------- scores


def common_score(groups: Sequence[Group]) -> Score:
    """Return the measure to compare runs by: the best that every finished run has.

    It is the final evaluation of the best agent, else the best evaluation, else the mean return of the last episodes.

    Raises: ConfigError where a group has no run with a score.
    """
    all_runs = [run for group in groups for run in group.runs]
    finished = [run for run in all_runs if run.summary] or all_runs
    scores = (
        Score("final evaluation of the best agent", lambda run: run.summary.get("final_eval_return")),
        Score("best evaluation", lambda run: run.summary.get("best_eval_return", _best_evaluation(run))),
        Score(f"mean return of the last {WINDOW} training episodes", _last_return),
    )
    for score in scores:
        if all(score.of(run) is not None for run in finished) and all(map(score.scores, groups)):
            return score
    bare = next((group for group in groups if not scores[-1].scores(group)), None)
    if bare is not None:
        raise ConfigError(f"{bare.name}: no episode has ended in any of its runs, so there is no score yet")
    return scores[-1]


def _own_evaluations(run: RunData) -> Series:
    """Return the evaluations of a run; those of its parent too, unless that learnt in another environment."""
    series = run.series("eval/mean_reward")
    if run.parent is None or not has_other_env(run.parent):
        return series
    return Series(*(column[series.steps > run.parent["step"]] for column in series))


def _best_evaluation(run: RunData) -> float | None:
    values = _own_evaluations(run).values
    return float(np.nanmax(values)) if np.isfinite(values).any() else None


def _last_return(run: RunData) -> float | None:
    return float(np.mean(run.episodes.values[-WINDOW:])) if len(run.episodes.values) else None


def steps_to(run: RunData, score: float | None) -> float | None:
    """Return the steps of the first evaluation that reaches ``score``; None: never.

    ``score`` None is the run's own target, which its summary has.
    """
    if score is None:
        return run.summary.get("solved_at_step")
    series = _own_evaluations(run)
    reached = np.flatnonzero(series.values >= score)
    return float(series.steps[reached[0]]) if len(reached) else None


# --------------------------------------------------------------------------- curves


def curve_noun(groups: Sequence[Group]) -> str:
    """Return the measure that curves show: evaluations, if every run has two, else training episodes."""
    evaluated = all(len(_evaluations(run).values) >= 2 for group in groups for run in group.runs)
    return "mean return of evaluations" if evaluated else f"mean return of the last {WINDOW} episodes"


def curves_of(group: Group, noun: str) -> Curves:
    """Return the curves of a group's runs over common steps, linear between measurements.

    They begin where all runs have begun, and end with the first run that has not reached its target; a run that
    ended at its target stays at its last value.

    Args:
        group: the runs.
        noun: from :func:`curve_noun`.
    """
    series = [_evaluations(run) if "evaluations" in noun else _averaged(run.episodes) for run in group.runs]
    if not all(len(s.steps) for s in series):
        return Curves(np.empty(0), np.empty((len(series), 0)))
    going = [s for s, run in zip(series, group.runs, strict=True) if run.summary.get("status") != "reached_return"]
    begin = max(s.steps[0] for s in series)
    end = min(s.steps[-1] for s in going) if going else max(s.steps[-1] for s in series)
    steps = np.unique(np.concatenate([s.steps for s in series]))
    steps = steps[(begin <= steps) & (steps <= end)]
    if len(steps) > POINTS:
        steps = np.linspace(begin, end, POINTS)
    return Curves(steps, np.array([np.interp(steps, s.steps, s.values) for s in series]))


def _evaluations(run: RunData) -> Series:
    series = run.series("eval/mean_reward")
    finite = np.isfinite(series.values)
    return Series(series.steps[finite], series.seconds[finite], series.values[finite])


def _averaged(episodes: Series) -> Series:
    return episodes._replace(values=moving_average(episodes.values))
