"""The subcommands about run folders: report, compare, explain, replay, export, list runs, push, clean."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from limelight.cli.output import notice, stdout_reserved

if TYPE_CHECKING:
    from limelight.cli.arguments import (
        CleanArguments,
        CompareArguments,
        ExplainArguments,
        ExportArguments,
        PushArguments,
        ReplayArguments,
        ReportArguments,
    )


def report(arguments: ReportArguments) -> int:
    """Draw the report of runs and print its path."""
    from limelight.viewing.report import write_report

    print(write_report(arguments.run_dirs, arguments.output, arguments.smoothing))
    return 0


def compare(arguments: CompareArguments) -> int:
    """Compare groups of runs; print the tables and the folder of the files."""
    from limelight.viewing.compare import write_comparison

    folder, text = write_comparison(arguments.run_dirs, arguments.output, arguments.difference, arguments.score)
    print(f"{text}\n\nfiles: {folder}")
    return 0


def explain(arguments: ExplainArguments) -> int:
    """Print the diagnosis of a run, or of each run in a folder."""
    from limelight.runs.reader import read_run
    from limelight.viewing.explain import diagnosis
    from limelight.viewing.groups import run_folders

    folders = run_folders(arguments.run_dir)
    for i, folder in enumerate(folders):
        name = f"{folder.name}: " if len(folders) > 1 else ""
        first, *others = diagnosis.explain(read_run(folder))
        print(("\n" if i and others else "") + name + first, *others, sep="\n")
    return 0


def replay(arguments: ReplayArguments) -> int:
    """Replay a run, and print the first number that is not finite."""
    from limelight.training.replay import replay as replay_run
    from limelight.viewing.replay_text import replay_lines

    with stdout_reserved():  # environments may print
        end = replay_run(arguments.run_dir, at=arguments.at, notify=notice)
    for line in replay_lines(end.found, end.step, end.update, end.num_envs, end.env, end.actions):
        print(line)
    return 0


def export(arguments: ExportArguments) -> int:
    """Write an agent as a file; print its difference from the agent, its inputs and its outputs."""
    from limelight.runs.agent import load
    from limelight.runs.export.export import default_path, scores_of

    agent = load(arguments.run_dir, arguments.which)
    path = arguments.output or default_path(arguments.run_dir, arguments.format)
    with stdout_reserved():  # environments may print
        exported = agent.export(
            path, format=arguments.format, deterministic=not arguments.stochastic, metadata=scores_of(arguments.run_dir)
        )
    print(json.dumps(exported.to_json()) if arguments.json else "\n".join(exported.lines()))
    return 0


def list_runs(folder: str, as_json: bool) -> int:
    """Print the runs in a folder: a table as wide as the terminal, of any width where it is piped, or JSON."""
    from limelight.runs import listing
    from limelight.runs.folder import as_json as plain
    from limelight.settings.values import require_short
    from limelight.viewing.run_table import run_table

    require_short("text", folder)
    entries = listing.list_runs(Path(folder))
    if as_json:
        print(json.dumps(plain([entry.to_json() for entry in entries]), indent=2, ensure_ascii=False))
        return 0
    columns = shutil.get_terminal_size((0, 0)).columns
    width = columns if columns or not sys.stdout.isatty() else 80
    for line in run_table(entries, width or 10_000):
        print(line)
    return 0


def push(arguments: PushArguments) -> int:
    """Evaluate an agent, write its card and upload both; print the address."""
    from limelight.runs import hub
    from limelight.runs.folder import empty_folder
    from limelight.viewing.model_card import pack

    hub.require_repo(arguments.repo, is_uploaded=arguments.dry_run is None)
    with tempfile.TemporaryDirectory() as temporary, stdout_reserved():
        folder = Path(temporary) if arguments.dry_run is None else empty_folder(arguments.dry_run, "dry_run")
        notice(f"evaluating {arguments.run_dir} over {arguments.episodes} episodes")
        pack(arguments.run_dir, folder, arguments.repo, arguments.episodes, arguments.seed)
        where = str(folder) if arguments.dry_run else hub.upload(folder, arguments.repo, arguments.private)
    print(where)
    return 0


def clean(arguments: CleanArguments) -> int:
    """Drop the checkpoints of runs, and print a line for each run."""
    from limelight.runs import cleaning
    from limelight.viewing.groups import run_folders
    from limelight.viewing.numbers import megabytes

    for given, folder in [(each, run) for each in arguments.run_dirs for run in run_folders(each)]:
        done = cleaning.clean(folder, arguments.unfinished, is_named=folder == given)
        kept = f", {done.kept.name} stays as its only agent" if done.kept else ""
        print(
            f"{folder}: "
            + (f"left as it is ({done.reason})" if done.reason else f"{megabytes(done.freed)} freed{kept}")
        )
    return 0
