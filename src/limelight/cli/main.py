"""The ``limelight`` command: dispatch, printing, exit status. Other modules are imported when they are needed.

The overview of ``limelight --help`` is written here, from one table, so that it loads nothing heavy.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from limelight.cli import views
from limelight.cli.output import HELP_FLAGS, complain, notice, prepare_streams, print_help, printable_stdout

if TYPE_CHECKING:
    from pathlib import Path

    from limelight.cli.arguments import (
        CompletionArguments,
        DoctorArguments,
        EvaluateArguments,
        ListArguments,
        TrainRequest,
    )
    from limelight.runs.agent import Agent
    from limelight.runs.evaluation import Evaluation
    from limelight.runs.origin import Origin
    from limelight.training.cloning import Dataset
    from limelight.training.init_agent import Donor
    from limelight.training.run import RunResult

# Exit statuses: 0 is done, 128 + n is interrupted by signal n, and an unforeseen error is Python's own 1.
RUN_FAILED = 1
USAGE_ERROR = 2
SIGINT_STATUS = 130


_NAMES_OF_DISKS = "ENOSPC EDQUOT EROFS EACCES EPERM EIO ENAMETOOLONG EMFILE ENFILE EISDIR ENOTDIR ELOOP"
_OF_DISKS = {getattr(errno, name) for name in _NAMES_OF_DISKS.split() if hasattr(errno, name)}
"""Errors of a disk or of its rights: one line, as no code is at fault."""


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; no SystemExit, which an environment may raise too."""

    def __init__(self, status: int) -> None:
        self.status = status


@dataclass(frozen=True)
class Command:
    """A subcommand."""

    usage: str
    summary: str
    run: Callable[[Any], int]
    """Returns the exit status; see READ_WORDS for what it takes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return the exit status."""
    if getattr(sys, "frozen", False):  # a program made by PyInstaller and the like starts its workers by itself
        from limelight.runners.processes.portable import run_if_worker

        run_if_worker()
    words = list(sys.argv[1:] if argv is None else argv)
    if "" not in sys.path:  # so that --env-module finds a package in the working directory
        sys.path.append("")  # last, so that a file named yaml.py there hides no library
    prepare_streams()
    try:
        with printable_stdout():
            status = _overview(words) if words[:1] in _OVERVIEWS else _run(words[0], words[1:])
        sys.stdout.flush()  # here, as Python's own flush at the exit has a traceback for a closed pipe
    except BrokenPipeError:  # the reader of a pipe (head, less) has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


_OVERVIEWS: tuple[list[str], ...] = (["--help"], ["-h"], ["help"], [], ["--version"], ["-V"])
"""First words without a subcommand."""


def _overview(words: list[str]) -> int:
    """Print the version, or the list of subcommands."""
    if words and words[0] in ("--version", "-V"):
        from limelight import __version__

        print(f"limelight {__version__}")
        return 0
    print(_help())
    return 0 if words else USAGE_ERROR


def _run(name: str, argv: list[str]) -> int:
    from limelight.envs.crashes import crashes_shown
    from limelight.errors import ConfigError, LimelightError, WorkerError, did_you_mean

    try:
        _require_directory()
        if name not in COMMANDS:
            raise ConfigError(f"{name}: no such command{did_you_mean(name, COMMANDS) or '; see limelight --help'}")
        with crashes_shown(), _exit_on_sigterm():
            return COMMANDS[name].run(argv) if name in READ_WORDS else _run_with_arguments(name, argv)
    except LimelightError as error:
        has_traceback = isinstance(error, WorkerError)  # that of the worker
        # One line, even if an environment's has more
        complain("error:", *([str(error)] if has_traceback else str(error).split()))
        if error.run_dir is not None:
            complain("the run is saved; continue with:", _resume_command(error.run_dir))
        return RUN_FAILED if has_traceback or error.from_callback else USAGE_ERROR
    except Terminated as signalled:
        return signalled.status
    except KeyboardInterrupt:
        complain("interrupted")
        return SIGINT_STATUS
    except OSError as error:
        if error.errno not in _OF_DISKS:
            raise
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        complain(f"error: {where}{error.strerror}")
        return USAGE_ERROR if error.errno == errno.ENAMETOOLONG else RUN_FAILED


def _require_directory() -> None:
    """Refuse a working directory that was deleted, from which libraries cannot be loaded.

    Raises: ConfigError.
    """
    from limelight.errors import ConfigError

    try:
        os.getcwd()
    except FileNotFoundError:
        raise ConfigError("the working directory was deleted; change to one that exists") from None


def _run_with_arguments(name: str, argv: list[str]) -> int:
    """Print the help of a subcommand where ``argv`` asks for it; else run it with its arguments."""
    from limelight.cli.arguments import SYNTAXES
    from limelight.cli.flags import parse

    if print_help(argv, SYNTAXES[name]):
        return 0
    return COMMANDS[name].run(parse(SYNTAXES[name], argv, notice).arguments)


def _help() -> str:
    width = max(len(command.usage) for command in COMMANDS.values())
    rows = (f"  limelight {c.usage:{width}}  {c.summary}" for c in COMMANDS.values())
    return "\n".join(
        [
            "usage: limelight COMMAND ...",
            "",
            "Actor-critic reinforcement learning: AC, A2C, A3C and PPO.",
            "",
            *rows,
            "",
            "  limelight COMMAND --help    the arguments of a command",
            "  limelight --version",
        ]
    )


# --------------------------------------------------------------------------- the subcommands


def _train(argv: list[str]) -> int:
    from limelight.cli.arguments import train_request
    from limelight.cli.output import stdout_reserved

    if {*argv} & {*HELP_FLAGS}:
        return _train_help(argv)
    from limelight.runners.commands import exit_with_parent

    exit_with_parent()
    command = shlex.join(["limelight", "train", *argv])
    with stdout_reserved("--quiet" in argv):
        request = train_request(argv, notice)
        status, line = _train_seeds(request, command) if request.seeds is not None else _train_one(request, command)
    print(line)
    return status


def _train_one(request: TrainRequest, command: str) -> tuple[int, str]:
    """Train one run; return the exit status and the last line."""
    from limelight.training.prepare import require_device  # loads torch, which a wrong setting need not wait for
    from limelight.training.run import run

    require_device(request.given.get("device"))
    begin: Origin | Donor | Dataset | None = request.origin
    if request.init_agent is not None:
        from limelight.training.init_agent import read_donor

        begin = read_donor(request.init_agent)
    if request.init_from_dataset is not None:
        from limelight.training.cloning import Dataset

        begin = Dataset(request.init_from_dataset)
    result = run(
        request.config, factory=request.source, resume_from=request.resume, begin=begin,
        fallback=request.fallback, quiet=request.quiet, command=command,
    )  # fmt: skip
    line = _last_line(result) + ("" if result.saved else " · the end is not saved")
    if result.signal_number:
        return 128 + result.signal_number, line
    return (0 if result.saved else RUN_FAILED), line


def _train_seeds(request: TrainRequest, command: str) -> tuple[int, str]:
    """Train the runs of several seeds; return the exit status and the last line."""
    from limelight.cli.seeds import train_seeds

    return train_seeds(request, command)


def _train_help(argv: list[str]) -> int:
    """Print the help with the defaults and the sections of the run that the rest of ``argv`` asks for."""
    from limelight.cli.arguments import TRAIN, train_request
    from limelight.cli.help import help_text, unused_by
    from limelight.errors import LimelightError

    try:
        request = train_request([word for word in argv if word not in HELP_FLAGS], notice)
        hidden = [] if "--help-all" in argv else unused_by(request.config)
    except LimelightError as error:
        notice(f"{error}; these are the general defaults")
        print(help_text(TRAIN))
    else:
        from limelight.training.presets import names_by_rule

        rules = set() if request.source is None else names_by_rule(request.config, request.source, request.given)
        print(help_text(TRAIN, request.config, hidden, rules))
    return 0


def _resume_command(run_dir: Path) -> str:
    return f"limelight train --resume {shlex.quote(str(run_dir))}"


def _last_line(result: RunResult) -> str:
    """Return the result of a run and its folder, in one line."""
    from limelight.runs.folder import FINAL_EVAL_INTERRUPTED
    from limelight.viewing.numbers import with_spread

    summary = result.summary
    head = f"{summary['env_id']} · {summary['algorithm']}: "
    after = f"after {summary['total_timesteps']:,} steps in {summary['wall_seconds']:.1f} s of training"
    where = f"report: {result.report}" if result.report else f"run: {result.run_dir}"
    if result.status == "interrupted":
        return f"{head}interrupted {after} · continue with: {_resume_command(result.run_dir)} · {where}"
    if summary.get(FINAL_EVAL_INTERRUPTED):
        evaluate = f"limelight evaluate {shlex.quote(str(result.run_dir))}"
        return f"{head}{result.status} {after}; the final evaluation was cut (evaluate with: {evaluate}) · {where}"
    if summary["final_eval_return"] is None:
        return f"{head}{result.status} {after} · {where}"
    spread = with_spread(summary["final_eval_return"], summary["final_eval_std"])
    which = "last" if summary["best_eval_return"] is None else "best"
    score = f"{which} agent {spread} over {summary['final_eval_episodes']} episodes"
    score += f", {summary['final_eval_cut']} of them cut" if summary["final_eval_cut"] else ""
    return f"{head}{score} {after} · {where}"


def _tune(argv: list[str]) -> int:
    from limelight.cli.tune import tune

    return tune(argv)


def _evaluate(argv: list[str]) -> int:
    from limelight.cli.arguments import EVALUATE, evaluate_arguments
    from limelight.cli.output import stdout_reserved

    if print_help(argv, EVALUATE):
        return 0
    arguments = evaluate_arguments(argv, notice)
    from limelight.runs import env_numbers
    from limelight.viewing.numbers import decimal, with_spread

    with stdout_reserved() if arguments.json else contextlib.nullcontext():
        if arguments.full or arguments.inspect is not None:
            lines = _evaluate_in_full(arguments)
        else:
            agent, result, video = _evaluate_and_show(arguments)
    if arguments.full or arguments.inspect is not None:
        print(*lines, sep="\n")
        return 0
    if arguments.json:
        import json

        from limelight.runs.folder import as_json

        print(json.dumps(as_json({**result.to_json(), **({"video": str(video[0])} if video else {})}), allow_nan=False))
        return 0
    if arguments.episode_lines:
        for number, (episode_return, length) in enumerate(zip(result.returns, result.lengths, strict=True), 1):
            print(f"episode {number}  return {decimal(episode_return)}  length {length:,}")
    asked = arguments.episodes or result.episodes
    print(
        f"{arguments.env_id or agent.config.env.env_id} · {_which(arguments)} agent of {arguments.run_dir}: "
        f"{with_spread(result.mean_return, result.std_return)} over {result.episodes} "
        f"episode{'' if result.episodes == 1 else 's'}{result.describe_cut(asked)} (median "
        f"{decimal(result.median_return)}, IQM {decimal(result.iqm_return)}, mean length {decimal(result.mean_length)})"
    )
    if result.env:
        print(env_numbers.describe(result.env, result.episodes))
    if arguments.record_dataset is not None:
        print(f"dataset: {arguments.record_dataset} ({result.episodes} episodes, {sum(result.lengths):,} steps)")
    if video:
        path, played = video
        print(f"video: {path}" + (f" (cut after {sum(played.lengths):,} steps)" if played.cut else ""))
    return 0


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into :class:`Terminated`, so that environments and their processes are closed before the exit.

    A run has a handler of its own for the first signal; after a second one it leaves a checkpoint by this exception.
    """

    def leave(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
        raise Terminated(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # Python sets signal handlers in the main thread only
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the process at once: C++ code of some environments aborts on an exception instead."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, signal.SIG_DFL)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _which(arguments: EvaluateArguments) -> str:
    """Return which agent of a run is evaluated, in words: the last one where none was the best."""
    from limelight.runs.checkpoint import has_state

    never_judged = (arguments.run_dir / "checkpoints").is_dir() and not has_state(arguments.run_dir / "best")
    return "last" if never_judged else arguments.which


def _evaluate_in_full(arguments: EvaluateArguments) -> list[str]:
    from limelight.cli.evaluate import evaluate_in_full
    from limelight.runs.agent import load

    return evaluate_in_full(arguments, load(arguments.run_dir, arguments.which), _which(arguments))


def _evaluate_and_show(arguments: EvaluateArguments) -> tuple[Agent, Evaluation, tuple[Path, Evaluation] | None]:
    """Load an agent, show it and evaluate it; return it, the result, and the video with the result of its episodes."""
    from limelight.cli.arguments import evaluation_env
    from limelight.runs.agent import folder_of_files, load

    agent = load(arguments.run_dir, arguments.which)
    env = evaluation_env(arguments, agent)
    options: dict[str, Any] = {"seed": arguments.seed, "deterministic": not arguments.stochastic}
    result, video = None, None
    if arguments.video or arguments.render:
        from limelight.viewing.record import record_to_run, show

        shown = {**options, "episodes": arguments.video_episodes}
        if arguments.video:
            name = f"{arguments.which}-evaluate-seed{arguments.seed}{'-stochastic' if arguments.stochastic else ''}"
            folder = folder_of_files(arguments.run_dir)
            video = record_to_run(agent, folder, name, env, which=arguments.which, **shown)
            result = video[1]
        if arguments.render:
            result = show(agent, env, **shown)
    if arguments.episodes is not None:
        options["episodes"] = arguments.episodes
    elif result is not None and arguments.record_dataset is None:
        return agent, result, video
    if arguments.record_dataset is not None:
        from limelight.runs.datasets import record_dataset

        return agent, record_dataset(agent, arguments.record_dataset, env, **options), video
    from limelight.runs.evaluation import evaluate

    return agent, evaluate(agent, env, **options), video


def _list(arguments: ListArguments) -> int:
    if arguments.what == "runs":
        return views.list_runs(arguments.text or "runs", arguments.json)
    if arguments.json:
        from limelight.errors import ConfigError

        raise ConfigError(f"json: only runs are listed as JSON; leave it out with {arguments.what}")
    from limelight.cli.catalog import CATALOGUES
    from limelight.cli.output import stdout_reserved

    with stdout_reserved(), _ended_by_signals():  # importing and making environments may print
        lines = CATALOGUES[arguments.what](arguments.text)
    for line in lines:
        print(line)
    return 0


def _check(argv: list[str]) -> int:
    from limelight.cli.arguments import CHECK
    from limelight.cli.flags import parse

    if print_help(argv, CHECK):
        return 0
    asked = parse(CHECK, argv, notice).arguments
    status = 0 if asked.throughput and not asked.probe else _check_contract(argv)
    if asked.throughput and status == 0:
        _check_throughput(argv)
    return status


def _check_contract(argv: list[str]) -> int:
    """Print the findings on an environment, and those of a probe if it is asked for; return the exit status."""
    from limelight.cli.arguments import check_config
    from limelight.cli.env_check.check import check_env
    from limelight.cli.env_check.findings import printed
    from limelight.cli.output import flush_stdout, stdout_collected

    config, probed = check_config(argv, _say_nothing)
    with stdout_collected() as output:
        findings = check_env(config, probed)
        flush_stdout()
        findings += printed(output)
    for finding in findings:
        print(f"{finding.level:4}  {finding.subject:12} {finding.message}")
    return USAGE_ERROR if any(finding.level == "fail" for finding in findings) else 0


def _check_throughput(argv: list[str]) -> None:
    """Print the table of trials."""
    from limelight.cli.arguments import throughput_request
    from limelight.cli.env_check.throughput import as_lines, try_settings
    from limelight.cli.output import stdout_reserved

    with stdout_reserved():
        request = throughput_request(argv, _say_nothing)
        assert request is not None
        assert request.source is not None
        trials = try_settings(request.config, request.source)
    print("\n".join(as_lines(trials, request.config, request.given)))


def _say_nothing(line: str) -> None:
    """Leave out the notes on a command line that has been read before."""


def _doctor(arguments: DoctorArguments) -> int:
    from limelight.cli.doctor import doctor

    return doctor(arguments)


def _completion(arguments: CompletionArguments) -> int:
    from limelight.cli.completion import FILES, completion
    from limelight.envs.source import known_ids
    from limelight.training.algorithms import ALGORITHMS, AUTO
    from limelight.training.presets import CHOICES

    names = {"env_id": known_ids(), "algo": [AUTO, *ALGORITHMS], "preset": CHOICES, "run_dir": FILES}
    print(completion(arguments.shell, {name: command.summary for name, command in COMMANDS.items()}, names))
    return 0


READ_WORDS = ("train", "tune", "evaluate", "check")
"""Commands that take the words of the command line, and print their help; all others take their arguments."""
COMMANDS: dict[str, Command] = {
    "train": Command("train [ENV_ID] [--algo NAME] ...", "train and evaluate an agent", _train),
    "tune": Command("tune ENV_ID [--trials N] ...", "search for settings, as a preset", _tune),
    "evaluate": Command("evaluate RUN_DIR [--video] ...", "evaluate a trained agent, or watch it", _evaluate),
    "export": Command("export RUN_DIR [--output FILE] ...", "an agent as one ONNX or PyTorch file", views.export),
    "report": Command("report RUN_DIR...", "learning curves and report.html", views.report),
    "compare": Command("compare RUN_DIR...", "two or more groups of runs over their seeds", views.compare),
    "explain": Command("explain RUN_DIR", "why does this run not learn?", views.explain),
    "replay": Command("replay RUN_DIR", "where did this run's NaN begin?", views.replay),
    "list": Command("list envs|algos|presets|runs [TEXT]", "environments, algorithms, presets or runs", _list),
    "check": Command("check ENV_ID", "can this environment be trained on?", _check),
    "push": Command("push AGENT user/name", "share an agent on the Hugging Face Hub", views.push),
    "clean": Command("clean RUN_DIR...", "drop checkpoints, keep results", views.clean),
    "doctor": Command("doctor [--json]", "versions, machine, missing extras, and a self-test", _doctor),
    "completion": Command("completion bash|zsh|fish", "the script that completes commands in a shell", _completion),
}
