"""The ``limelight`` command: dispatch, print, exit status. Everything else is imported when needed.

Its own help is written here, from one table, because ``limelight --help`` has to be instant.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

    from limelight.cli.arguments import EvaluateArguments
    from limelight.runs.agent import Agent
    from limelight.runs.evaluation import Evaluation
    from limelight.training.run import RunResult

T = TypeVar("T")

# Exit statuses: 0 is done, 128 + n is interrupted by signal n, and an unforeseen error is Python's own 1.
WORKERS_DIED = 1
USAGE_ERROR = 2
SIGINT_STATUS = 130


@dataclass(frozen=True)
class Command:
    """A subcommand."""

    usage: str
    summary: str
    run: Callable[[list[str]], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "" not in sys.path:  # as `python -m` has it, so that --env-module finds a package in the present folder
        sys.path.insert(0, "")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show γ shows a ? and does not crash
            stream.reconfigure(errors="replace")
    if words[:1] in (["--help"], ["-h"], ["help"], []):
        print(_help())
        return 0 if words else USAGE_ERROR
    if words[0] in ("--version", "-V"):
        from limelight import __version__

        print(f"limelight {__version__}")
        return 0
    return _run(words[0], words[1:])


def _run(name: str, argv: list[str]) -> int:
    from limelight.errors import ConfigError, LimelightError, did_you_mean

    try:
        if name not in COMMANDS:
            raise ConfigError(f"{name}: no such command{did_you_mean(name, COMMANDS) or '; see limelight --help'}")
        return COMMANDS[name].run(argv)
    except LimelightError as error:
        print("limelight: error:", *str(error).split(), file=sys.stderr)  # one line, whatever an env has raised
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("limelight: interrupted", file=sys.stderr)
        return SIGINT_STATUS
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _help() -> str:
    width = max(len(command.usage) for command in COMMANDS.values())
    rows = (f"  limelight {c.usage:{width}}   {c.summary}" for c in COMMANDS.values())
    return "\n".join(
        [
            "usage: limelight COMMAND ...",
            "",
            "Actor-critic reinforcement learning: AC, A2C and A3C.",
            "",
            *rows,
            "",
            "  limelight COMMAND --help    everything the command can be told",
            "  limelight --version",
        ]
    )


def _wants_help(argv: Sequence[str]) -> bool:
    return "--help" in argv or "-h" in argv


def _arguments(kind: type[T], prog: str, argv: Sequence[str]) -> T | None:
    """``argv`` as a ``kind``; None if it asked for help, which is then printed."""
    from limelight.cli.flags import parse, print_help

    if _wants_help(argv):
        print_help(kind, prog)
        return None
    return parse(kind, argv, prog=prog, notice=_notice).arguments


def _notice(text: str) -> None:
    print(f"limelight: note: {text}", file=sys.stderr)


# --------------------------------------------------------------------------- the subcommands


def _train(argv: list[str]) -> int:
    from limelight.cli.arguments import train_request

    if _wants_help(argv):
        return _train_help([word for word in argv if word not in ("--help", "-h")])
    request = train_request(argv, _notice)
    from limelight.errors import WorkerError
    from limelight.training.run import run  # torch is loaded here, once the settings are known to be right

    command = shlex.join(["limelight", "train", *argv])
    try:
        result = run(request.config, resume_from=request.resume, quiet=request.quiet, command=command)
    except WorkerError as error:
        print(f"limelight: error: {error}", file=sys.stderr)
        if error.run_dir is not None:
            print(f"limelight: the run is saved; continue with: {_resume_command(error.run_dir)}", file=sys.stderr)
        return WORKERS_DIED
    print(_last_line(result))
    return 128 + result.signal_number if result.signal_number else 0


def _train_help(argv: list[str]) -> int:
    from limelight.cli.arguments import TrainArguments, train_request
    from limelight.cli.flags import print_help
    from limelight.errors import LimelightError

    try:
        config = train_request(argv, _notice).config
    except LimelightError as error:
        _notice(f"{error}; these are the general defaults")
        print_help(TrainArguments, "limelight train")
    else:
        print_help(TrainArguments, "limelight train", TrainArguments(config.env.env_id, config))
    return 0


def _resume_command(run_dir: Path) -> str:
    return f"limelight train --resume {shlex.quote(str(run_dir))}"


def _last_line(result: RunResult) -> str:
    """What the run reached and where it is, in one line."""
    summary = result.summary
    head = f"{summary['env_id']} · {summary['algorithm']}: "
    after = f"after {summary['total_timesteps']:,} steps in {summary['wall_seconds']:.1f} s"
    where = f"report: {result.report}" if result.report else f"run: {result.run_dir}"
    if result.status == "interrupted":
        return f"{head}interrupted {after} · continue with: {_resume_command(result.run_dir)} · {where}"
    if summary["final_eval_return"] is None:
        return f"{head}{result.status} {after} · {where}"
    spread = f"{summary['final_eval_return']:.1f} ± {summary['final_eval_std']:.1f}"
    score = f"{spread} over {summary['final_eval_episodes']} episodes"
    return f"{head}best agent {score} {after} · {where}"


def _evaluate(argv: list[str]) -> int:
    from limelight.cli.arguments import EvaluateArguments, checked

    arguments = _arguments(EvaluateArguments, "limelight evaluate", argv)
    if arguments is None:
        return 0
    wanted = checked(arguments)
    from limelight.runs.agent import load

    agent = load(wanted.run_dir, wanted.which)
    result, video = _evaluate_and_show(agent, wanted)
    if wanted.json:
        import json

        print(json.dumps({**result.to_json(), **({"video": str(video[0])} if video else {})}))
        return 0
    print(
        f"{wanted.env_id or agent.config.env.env_id} · {wanted.which} agent of {wanted.run_dir}: "
        f"{result.mean_return:.1f} ± {result.std_return:.1f} over {result.episodes} episodes (median "
        f"{result.median_return:.1f}, IQM {result.iqm_return:.1f}, mean length {result.mean_length:.1f})"
    )
    if video:
        path, played = video
        print(f"video: {path}" + (f" (cut after {sum(played.lengths):,} steps)" if played.cut else ""))
    return 0


def _evaluate_and_show(agent: Agent, wanted: EvaluateArguments) -> tuple[Evaluation, tuple[Path, Evaluation] | None]:
    """Show ``agent`` as ``wanted``, and judge it if that is asked for too; the result, and the video with its own."""
    how: dict[str, Any] = {"seed": wanted.seed, "deterministic": not wanted.stochastic}
    result, video = None, None
    if wanted.video or wanted.render:
        from limelight.viewing.record import record_to_run, show

        shown = {**how, "episodes": wanted.video_episodes}
        if wanted.video:
            name = f"{wanted.which}-evaluate-seed{wanted.seed}{'-stochastic' if wanted.stochastic else ''}"
            video = record_to_run(agent, wanted.run_dir, name, wanted.env_id, which=wanted.which, **shown)
            result = video[1]
        if wanted.render:
            result = show(agent, wanted.env_id, **shown)
    if wanted.episodes is not None:
        how["episodes"] = wanted.episodes
    elif result is not None:
        return result, video
    from limelight.runs.evaluation import evaluate

    return evaluate(agent, wanted.env_id, **how), video


def _report(argv: list[str]) -> int:
    from limelight.cli.arguments import ReportArguments

    wanted = _arguments(ReportArguments, "limelight report", argv)
    if wanted is None:
        return 0
    from limelight.viewing.report import write_report

    print(write_report(wanted.run_dirs))
    return 0


def _list(argv: list[str]) -> int:
    from limelight.cli.arguments import ListArguments

    wanted = _arguments(ListArguments, "limelight list", argv)
    if wanted is None:
        return 0
    from limelight.cli.catalog import CATALOGUES

    for line in CATALOGUES[wanted.what](wanted.text):
        print(line)
    return 0


def _check(argv: list[str]) -> int:
    from limelight.cli.arguments import CheckArguments, check_config

    wanted = _arguments(CheckArguments, "limelight check", argv)
    if wanted is None:
        return 0
    from limelight.cli.env_check.check import check_env

    findings = check_env(check_config(wanted))
    for finding in findings:
        print(f"{finding.level:4}  {finding.subject:12} {finding.message}")
    return USAGE_ERROR if any(finding.level == "fail" for finding in findings) else 0


COMMANDS: dict[str, Command] = {
    "train": Command("train [ENV_ID] [--algo NAME] [--SETTING VALUE ...]", "train an agent and judge it", _train),
    "evaluate": Command(
        "evaluate RUN_DIR [--episodes N] [--video] [--render] [--json]", "judge a trained agent, or watch it", _evaluate
    ),
    "report": Command("report RUN_DIR...", "learning curves and report.html", _report),
    "list": Command("list envs|algos|presets [TEXT]", "what there is to choose from", _list),
    "check": Command("check ENV_ID", "can this environment be trained on?", _check),
}
