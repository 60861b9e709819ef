"""The search itself: trials in processes, a few at a time, pruned by their evaluations, recorded in the study."""

from __future__ import annotations

import time
from contextlib import closing

from limelight.errors import ConfigError
from limelight.runners.commands import POLL_SECONDS, Processes
from limelight.training.loop import Interrupt
from limelight.training.seed_runs import last_line, variables
from limelight.training.tuning.plan import Plan
from limelight.training.tuning.study import Study, TrialRecord
from limelight.training.tuning.trials import RunningTrial, score, trial_command
from limelight.viewing.tune_progress import TuneProgress


def counted(records: list[TrialRecord]) -> int:
    """Return how many trials have been made; those that were interrupted are made again."""
    return sum(record.state != "lost" for record in records)


def search(plan: Plan, study: Study, display: TuneProgress, interrupt: Interrupt) -> None:
    """Run trials until there are as many as planned, or a signal arrives: those that run are then lost."""
    running: dict[int, RunningTrial] = {}
    done = counted(study.records())
    with closing(Processes(variables(plan.parallel))) as processes:
        while interrupt.signal_number is None:
            while len(running) < plan.parallel and done + len(running) < plan.options.trials:
                trial = _start(plan, study, processes)
                if trial is None:
                    done += 1
                    _show(display, study, study.records()[-1].number)
                else:
                    running[trial[0]] = trial[1]
            if not running:
                break
            time.sleep(POLL_SECONDS)
            for number, one in running.items():
                _watch(study, processes, number, one)
            for number, status in processes.take_exited().items():
                done += 1
                _end(plan, study, number, running.pop(number), status)
                _show(display, study, number)
            display.tick({number: one.share for number, one in running.items()})
    if running:
        study.lose_running()


def _start(plan: Plan, study: Study, processes: Processes) -> tuple[int, RunningTrial] | None:
    """Start the process of the next trial; one whose settings cannot work together has failed at once: None."""
    number, settings = study.ask()
    try:
        config = plan.trial_config(settings, plan.config.seed + number)
    except ConfigError as error:
        study.fail(number, str(error))
        return None
    processes.start(number, trial_command(config, plan.trial_dir(number)))
    return number, RunningTrial(plan.trial_dir(number), plan.limit)


def _watch(study: Study, processes: Processes, number: int, trial: RunningTrial) -> None:
    """Report the new evaluations of a trial, and end its process if it is pruned."""
    for rung, value in trial.read():
        if not trial.pruned and study.report(number, rung, value) and trial.share < 1.0:
            trial.pruned = True
            processes.end(number)


def _end(plan: Plan, study: Study, number: int, trial: RunningTrial, status: int) -> None:
    """Record the end of a trial whose process has exited."""
    for rung, value in trial.read():
        if not trial.pruned:
            study.report(number, rung, value)
    result = score(trial.evaluations)
    if trial.pruned:
        study.prune(number)
    elif status:
        line = last_line(plan.trial_dir(number).with_suffix(".log")).removeprefix("limelight: error: ")
        study.fail(number, line if status > 0 else f"its process was ended by signal {-status}")
    elif result is None:
        study.fail(number, "no evaluation in the last third of the budget; set eval_every lower")
    else:
        study.complete(number, result)


def _show(display: TuneProgress, study: Study, number: int) -> None:
    """Print the line of a trial that has ended."""
    record = next(record for record in study.records() if record.number == number)
    display.trial(number, record.state, record.score, record.error)
