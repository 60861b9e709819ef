"""The ranking: the best trials and the defaults, trained again on seeds that no trial had."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from limelight.runners.commands import Command, run_commands
from limelight.runs.folder import CONFIG
from limelight.runs.statistics import bootstrap_interval, iqm
from limelight.training.loop import Interrupt
from limelight.training.seed_runs import SeedRuns, is_finished, last_line, save, variables, words_of
from limelight.training.tuning.plan import Plan
from limelight.training.tuning.study import TrialRecord
from limelight.training.tuning.trials import score_of_run
from limelight.viewing.tune_progress import TuneProgress

DEFAULTS = "defaults"
FEW_SEEDS = 5
"""Seeds below which an interval is too narrow to rely on."""


@dataclass(frozen=True)
class Candidate:
    """Settings that are ranked."""

    name: str
    """``defaults`` or ``trial-7``, also the name of the folder of its runs."""
    settings: dict[str, Any]
    searched: float | None
    """The score in the search; None: its trial was pruned or failed."""


@dataclass(frozen=True)
class Ranked:
    """A candidate and its scores on fresh seeds."""

    candidate: Candidate
    scores: list[float]
    """Of the seeds that did not fail."""
    failed: dict[int, str]
    """The last line of output of each run that failed, by seed."""

    @property
    def middle(self) -> float | None:
        """Return the interquartile mean over seeds."""
        return float(iqm(np.array(self.scores))) if self.scores else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return its 95 % interval; None for one seed, whose spread is unknown."""
        return bootstrap_interval([[s] for s in self.scores]) if len(self.scores) > 1 else None

    @property
    def drop(self) -> float | None:
        """Return by how much the score in the search was above that on fresh seeds."""
        if self.candidate.searched is None or self.middle is None:
            return None
        return self.candidate.searched - self.middle


def candidates(plan: Plan, records: Sequence[TrialRecord]) -> list[Candidate]:
    """Return the defaults and the best trials, whose settings all differ."""
    first = next((r for r in records if r.settings == plan.defaults and r.state == "complete"), None)
    chosen = [Candidate(DEFAULTS, dict(plan.defaults), None if first is None else first.score)]
    for record in sorted((r for r in records if r.score is not None), key=lambda r: -(r.score or 0.0)):
        if len(chosen) <= plan.options.best and record.settings not in [c.settings for c in chosen]:
            chosen.append(Candidate(f"trial-{record.number}", record.settings, record.score))
    return chosen


def train_again(plan: Plan, chosen: Sequence[Candidate], display: TuneProgress, interrupt: Interrupt) -> list[Ranked]:
    """Train each candidate on the fresh seeds, those runs that are not finished; return them, the best first."""
    groups = {candidate.name: _seed_runs(plan, candidate) for candidate in chosen}
    for runs in groups.values():
        runs.folder.mkdir(parents=True, exist_ok=True)
        save(runs)
    todo = [
        (name, seed) for seed in range(plan.options.fresh_seeds) for name, runs in groups.items()
        if not is_finished(runs, runs.config.seed + seed)
    ]  # fmt: skip
    places = [(groups[name], groups[name].config.seed + seed) for name, seed in todo]
    commands = [Command(words_of(runs, seed), runs.log(seed)) for runs, seed in places]
    before = len(chosen) * plan.options.fresh_seeds - len(todo)
    display.begin_ranking(len(chosen), plan.options.fresh_seeds, before)

    def poll(running: int) -> bool:
        finished = sum(is_finished(runs, seed) for runs, seed in places)
        display.ranking(before + finished)
        return interrupt.signal_number is None

    statuses = run_commands(commands, plan.parallel, variables(plan.parallel), poll)
    failed: dict[str, dict[int, str]] = {name: {} for name in groups}
    for (name, _), (runs, seed), status in zip(todo, places, statuses, strict=True):
        if status and interrupt.signal_number is None:
            failed[name][seed] = last_line(runs.log(seed)).removeprefix("limelight: error: ")
    ranked = [Ranked(c, _scores(plan, groups[c.name]), failed[c.name]) for c in chosen]
    return sorted(ranked, key=lambda r: -float("inf") if r.middle is None else r.middle, reverse=True)


def _seed_runs(plan: Plan, candidate: Candidate) -> SeedRuns:
    config = dataclasses.replace(plan.trial_config(candidate.settings, plan.fresh_seed()), run_dir=None)
    folder = plan.folder / "ranking" / candidate.name
    return SeedRuns(folder, config, plan.options.fresh_seeds, plan.parallel, {})


def _scores(plan: Plan, runs: SeedRuns) -> list[float]:
    """Return the score of each run that has come to its end."""
    folders: list[Path] = [runs.run_dir(seed) for seed in runs.seeds() if is_finished(runs, seed)]
    found = [score_of_run(folder, plan.limit) for folder in folders if (folder / CONFIG).exists()]
    return [value for value in found if value is not None]


def verdict(ranked: Sequence[Ranked]) -> str:
    """Return in a sentence whether the first is better than the defaults, and how sure that is."""
    first = ranked[0]
    defaults = next(r for r in ranked if r.candidate.name == DEFAULTS)
    if first is defaults:
        return "no trial is above the defaults on fresh seeds"
    one, other = first.interval, defaults.interval
    if one is None or other is None or min(len(first.scores), len(defaults.scores)) < FEW_SEEDS:
        return (
            f"{first.candidate.name} is above the defaults; fewer than {FEW_SEEDS} seeds do not tell how sure that is"
        )
    apart = one[0] > other[1]
    return (
        f"{first.candidate.name} is above the defaults; the 95 % intervals {'do not overlap' if apart else 'overlap'}"
    )


def as_data(ranked: Sequence[Ranked]) -> list[Mapping[str, Any]]:
    """Return a ranking as plain data."""
    return [
        {
            "name": r.candidate.name,
            "iqm": r.middle,
            "interval": None if r.interval is None else list(r.interval),
            "scores": r.scores,
            "score_in_search": r.candidate.searched,
            "failed_seeds": len(r.failed),
        }
        for r in ranked
    ]
