"""A whole tuning: the search, the ranking on fresh seeds, ``preset.yaml`` and ``tune.html``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limelight.errors import ConfigError
from limelight.runners.processes.portable import only_holder
from limelight.runs.folder import read_command
from limelight.training.loop import catch_signals
from limelight.training.preset_file import PresetFile, write_preset
from limelight.training.tuning.plan import Plan, save_plan
from limelight.training.tuning.ranking import DEFAULTS, Ranked, as_data, candidates, train_again, verdict
from limelight.training.tuning.search import counted, search
from limelight.training.tuning.study import Study, TrialRecord
from limelight.training.tuning.trials import SCORE_IN_WORDS
from limelight.viewing.tune_page import Dot, Row, TunePage, write_page
from limelight.viewing.tune_progress import TuneProgress

PRESET, PAGE, LOCK = "preset.yaml", "tune.html", "lock"


@dataclass(frozen=True)
class TuneResult:
    """The end of a tuning."""

    plan: Plan
    ranked: list[Ranked]
    """The best first; empty where a signal ended the tuning before the ranking did."""
    preset: Path | None
    page: Path
    signal_number: int | None


def tune(plan: Plan, quiet: bool = False) -> TuneResult:
    """Start or continue a search, rank what it found, and write the preset and the page.

    Raises: ConfigError where no trial came to its end.
    """
    (plan.folder / LOCK).touch()
    with only_holder(plan.folder / LOCK) as is_free:
        if not is_free:
            raise ConfigError(f"resume = {plan.folder}: another process searches there; wait for it or end it")
        save_plan(plan)  # its options may be other ones than before
        return _tune_alone(plan, quiet)


def _tune_alone(plan: Plan, quiet: bool) -> TuneResult:
    with closing(Study(plan.folder, plan.space, plan.options.pruner, plan.config.seed)) as study:
        study.lose_running()
        records = study.records()
        if not records:
            study.enqueue(plan.defaults)
        best = max(
            ((r.number, r.score) for r in records if r.score is not None), key=lambda pair: pair[1], default=None
        )
        with closing(TuneProgress(plan.options.trials, counted(records), best, quiet)) as display:
            return _tune(plan, study, display)


def _tune(plan: Plan, study: Study, display: TuneProgress) -> TuneResult:
    ranked: list[Ranked] = []
    preset = None
    with catch_signals() as interrupt:
        search(plan, study, display, interrupt)
        records = study.records()
        if interrupt.signal_number is None:
            _require_scores(records)
            ranked = train_again(plan, candidates(plan, records), display, interrupt)
        if interrupt.signal_number is None:
            _require_ranks(ranked)
            preset = _write_preset(plan, ranked)
    page = write_page(plan.folder / PAGE, _page(plan, study, records, ranked if preset is not None else []))
    return TuneResult(plan, ranked if preset is not None else [], preset, page, interrupt.signal_number)


def _require_scores(records: Sequence[TrialRecord]) -> None:
    if not any(record.score is not None for record in records):
        reason = next((f": {record.error}" for record in records if record.error), "")
        raise ConfigError(f"tune: no trial came to its end; the first failed{reason}")


def _require_ranks(ranked: Sequence[Ranked]) -> None:
    if ranked[0].middle is None:
        line = next((line for r in ranked for line in r.failed.values()), "no evaluation in the last third")
        raise ConfigError(f"tune: no run of the ranking came to its end; the first failed: {line}")


def _write_preset(plan: Plan, ranked: Sequence[Ranked]) -> Path:
    """Write the settings that are first in the ranking; of the defaults, none but those that were given."""
    first = ranked[0].candidate
    settings = plan.of_preset({} if first.name == DEFAULTS else first.settings)
    found: dict[str, Any] = {
        "command": read_command(plan.folder),
        "score": f"{SCORE_IN_WORDS} of {plan.budget_in_words}",
        "fresh_seeds": plan.options.fresh_seeds,
        "verdict": verdict(ranked),
        "ranking": as_data(ranked),
    }
    path = plan.folder / PRESET
    preset = PresetFile(str(path), plan.env_id, plan.config.algorithm.algo, plan.preset, settings, found)
    write_preset(preset, f"limelight train {plan.env_id} --preset {path}")
    return path


def _page(plan: Plan, study: Study, records: Sequence[TrialRecord], ranked: Sequence[Ranked]) -> TunePage:
    """Return what the page shows."""
    dots = [Dot(r.number, r.settings, r.state, r.score, r.error, r.settings == plan.defaults) for r in records]
    return TunePage(
        env_id=plan.env_id,
        algo=plan.config.algorithm.algo,
        command=read_command(plan.folder),
        score=f"{SCORE_IN_WORDS} of {plan.budget_in_words}; higher is better",
        verdict=verdict(ranked) if ranked else "the search has not ended",
        use=f"limelight train {plan.env_id} --preset {plan.folder / PRESET}" if ranked else "",
        rows=rows_of(ranked),
        trials=dots,
        space=plan.space,
        importances=study.importances(),
    )


def rows_of(ranked: Sequence[Ranked]) -> list[Row]:
    """Return the rows of a ranking."""
    return [
        Row(r.candidate.name, r.candidate.settings, r.scores, r.middle, r.interval, r.candidate.searched, r.drop)
        for r in ranked
    ]
