"""The subcommands that show runs: report, compare, explain."""

from __future__ import annotations

from limelight.cli.output import notice, print_help


def report(argv: list[str]) -> int:
    """Draw the report of runs and print its path."""
    from limelight.cli.arguments import REPORT
    from limelight.cli.flags import parse

    if print_help(argv, REPORT):
        return 0
    arguments = parse(REPORT, argv, notice).arguments
    from limelight.viewing.report import write_report

    print(write_report(arguments.run_dirs, arguments.output, arguments.smoothing))
    return 0


def compare(argv: list[str]) -> int:
    """Compare groups of runs; print the tables and the folder of the files."""
    from limelight.cli.arguments import COMPARE
    from limelight.cli.flags import parse

    if print_help(argv, COMPARE):
        return 0
    arguments = parse(COMPARE, argv, notice).arguments
    from limelight.viewing.compare import write_comparison

    folder, text = write_comparison(arguments.run_dirs, arguments.output, arguments.difference, arguments.score)
    print(f"{text}\n\nfiles: {folder}")
    return 0


def explain(argv: list[str]) -> int:
    """Print the diagnosis of a run, or of each run in a folder."""
    from limelight.cli.arguments import EXPLAIN
    from limelight.cli.flags import parse

    if print_help(argv, EXPLAIN):
        return 0
    arguments = parse(EXPLAIN, argv, notice).arguments
    from limelight.runs.reader import read_run
    from limelight.viewing.explain import diagnosis
    from limelight.viewing.groups import run_folders

    folders = run_folders(arguments.run_dir)
    for i, folder in enumerate(folders):
        name = f"{folder.name}: " if len(folders) > 1 else ""
        first, *others = diagnosis.explain(read_run(folder))
        print(("\n" if i and others else "") + name + first, *others, sep="\n")
    return 0
