"""``limelight train --seeds N``: the runs of several seeds, and the line at their end."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from limelight.cli.arguments import TrainRequest
from limelight.cli.output import notice

if TYPE_CHECKING:
    from limelight.training.seed_runs import SeedRuns, SeedsResult

RUNS_FAILED = 1


def train_seeds(request: TrainRequest, command: str) -> tuple[int, str]:
    """Start or continue the runs of several seeds; return the exit status and the last line.

    Raises: ConfigError for a folder that cannot be used.
    """
    from limelight.training.seed_runs import new_seed_runs, resumed_seed_runs, run_seeds

    asked = request.seeds
    assert asked is not None
    if request.resume is not None:
        runs = resumed_seed_runs(request.resume, request.given, asked.num_seeds, asked.parallel)
    else:
        assert asked.num_seeds is not None
        runs = new_seed_runs(request.config, asked.num_seeds, asked.parallel, command)
    result = run_seeds(runs, request.quiet)
    for seed, line in result.failed.items():
        notice(f"seed {seed} failed: {line.removeprefix('limelight: error: ')} (output: {runs.log(seed)})")
    status = 128 + result.signal_number if result.signal_number else RUNS_FAILED if result.failed else 0
    return status, _last_line(result)


def _last_line(result: SeedsResult) -> str:
    """Return the result over seeds, and the report or the command that continues."""
    from limelight.errors import ConfigError
    from limelight.training.seed_runs import is_finished
    from limelight.viewing.compare import NOTHING, score_table
    from limelight.viewing.groups import common_score, read_groups

    runs = result.runs
    head = f"{runs.config.env.env_id} · {runs.config.algorithm.algo} · {runs.num_seeds} seeds: "
    where = f"report: {result.report}" if result.report else f"runs: {runs.folder}"
    again = f"continue with: limelight train --resume {shlex.quote(str(runs.folder))} · "
    if result.report is None:
        return f"{head}no run has begun · {again}{where}"
    groups = read_groups([runs.folder])
    try:
        table = score_table(groups, common_score(groups), None)
    except ConfigError as error:
        return f"{head}{error} · {again}{where}"
    _, seeds, middle, interval, spread, steps = table.rows[0]
    interval = "" if interval == NOTHING else f", 95 % interval {interval}"
    score = f"{table.title.removeprefix('Score: ')}, IQM {middle}{interval}, {spread} over {seeds}"
    again = "" if all(is_finished(runs, seed) for seed in runs.seeds()) else again
    return f"{head}{score}; steps to the target {steps} · {_cut_evaluations(runs)}{again}{where}"


def _cut_evaluations(runs: SeedRuns) -> str:
    """Return the seeds whose final evaluation a signal has cut, with the command that makes one; or an empty text."""
    from limelight.runs.folder import FINAL_EVAL_INTERRUPTED, SUMMARY, read_json

    cut = [seed for seed in runs.seeds() if read_json(runs.run_dir(seed) / SUMMARY).get(FINAL_EVAL_INTERRUPTED)]
    if not cut:
        return ""
    evaluate = f"limelight evaluate {shlex.quote(str(runs.run_dir(cut[0])))}"
    named = f"seed{'s' if len(cut) > 1 else ''} {', '.join(map(str, cut))}"
    return f"the final evaluation of {named} was cut (evaluate with: {evaluate}) · "
