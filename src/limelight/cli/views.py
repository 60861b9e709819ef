"""The subcommands that show runs: report, compare."""

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

    print(write_report(arguments.run_dirs, arguments.output))
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
