"""``limelight tune``: what its words ask for, the table at its end, and the last line."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from limelight.cli.output import HELP_FLAGS, notice, print_help

if TYPE_CHECKING:
    from limelight.cli.arguments import TuneArguments
    from limelight.training.tuning.plan import Plan
    from limelight.training.tuning.tune import TuneResult

OPTIONS = ("trials", "seconds", "parallel", "best", "fresh_seeds", "pruner")


def tune(argv: Sequence[str]) -> int:
    """Search for settings; print the ranking, and where preset and page are."""
    from limelight.cli.arguments import TUNE
    from limelight.cli.flags import parse
    from limelight.cli.output import stdout_reserved

    if {*argv} & {*HELP_FLAGS}:
        print_help(argv, dataclasses.replace(TUNE, settings=()))
        return 0
    parsed = parse(TUNE, argv, notice)
    from limelight.training.tuning.study import require_optuna

    require_optuna()
    with stdout_reserved(parsed.arguments.quiet):
        plan = _resumed(argv, parsed.arguments, parsed.settings) if parsed.arguments.resume else None
        plan = plan or _new(argv, parsed.arguments, parsed.settings)
        from limelight.training.tuning.tune import tune as run

        result = run(plan, parsed.arguments.quiet)
    for ranked in result.ranked:
        for seed, line in ranked.failed.items():
            notice(f"{ranked.candidate.name}, seed {seed} failed: {line}")
    if result.ranked and not parsed.arguments.quiet:
        print(_table(result))
    print(_last_line(result))
    return 128 + result.signal_number if result.signal_number else 0


def _new(argv: Sequence[str], arguments: TuneArguments, settings: dict[str, Any]) -> Plan:
    from limelight.envs.source import resolve_env
    from limelight.errors import ConfigError
    from limelight.settings.io import with_settings
    from limelight.settings.schema import TrainConfig
    from limelight.training.tuning.plan import Options, new_plan

    env_id = arguments.env_id
    if env_id is None:
        raise ConfigError("ENV_ID: missing; see limelight tune --help, or give --resume FOLDER")
    source = resolve_env(with_settings(TrainConfig(), {**settings, "env_id": env_id}).env)
    options = Options(**{name: getattr(arguments, name) for name in OPTIONS})
    return new_plan(env_id, settings, options, source, shlex.join(["limelight", "tune", *argv]))


def _resumed(argv: Sequence[str], arguments: TuneArguments, settings: dict[str, Any]) -> Plan:
    """Return the plan of a folder with the options that were given.

    Raises: ConfigError for anything that a search cannot change.
    """
    from limelight.errors import ConfigError
    from limelight.settings.values import to_text
    from limelight.training.tuning.plan import resumed_plan

    folder = arguments.resume
    assert folder is not None
    settings = settings if arguments.env_id is None else {"env_id": arguments.env_id, **settings}
    if settings:
        name, value = next(iter(settings.items()))
        raise ConfigError(f"{name} = {to_text(value)}: a search that is resumed has its settings; leave it out")
    words = {word.partition("=")[0].lstrip("-").replace("-", "_") for word in argv if word.startswith("--")}
    changes = {name: getattr(arguments, name) for name in OPTIONS if name in words}
    if "seconds" in changes:
        raise ConfigError(f"seconds = {changes['seconds']:g}: a search that is resumed has its budget; leave it out")
    return resumed_plan(folder, changes)


def _table(result: TuneResult) -> str:
    from limelight.training.tuning.trials import SCORE_IN_WORDS
    from limelight.training.tuning.tune import rows_of
    from limelight.viewing.tables import markdown_table
    from limelight.viewing.tune_page import ranking_table

    table = markdown_table(*ranking_table(rows_of(result.ranked)))
    return f"Score: {SCORE_IN_WORDS} of {result.plan.budget_in_words}\n\n{table}\n"


def _last_line(result: TuneResult) -> str:
    """Return the verdict, and where preset and page are; or the command that continues."""
    from limelight.training.tuning.ranking import verdict

    plan = result.plan
    head = f"{plan.env_id} · {plan.config.algorithm.algo}: "
    if result.preset is None:
        again = f"limelight tune --resume {shlex.quote(str(plan.folder))}"
        return f"{head}interrupted · continue with: {again} · report: {result.page}"
    return f"{head}{verdict(result.ranked)} · preset: {result.preset} · report: {result.page}"
