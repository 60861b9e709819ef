"""Measure startup times: the command's help, the import, and a verified CartPole from the shell's prompt.

Every measurement is a process of its own, started as a shell starts it, in a temporary folder. Run it as a script.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from stats import markdown_table, number, provenance, results_path, save_json

from limelight.runs.statistics import median_or_never

# The message of a run once fresh greedy episodes have reached --stop-at-return.
CONFIRMED = re.compile(r"(?<!do not )confirm a return of")
RETURN = 475

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import limelight": ["-c", "import limelight"],
    "limelight --help": ["-m", "limelight", "--help"],
}


def train_command(seed: int) -> list[str]:
    """Return the arguments of Python for a run that stops when CartPole is verified."""
    words = ["train", "CartPole-v1", "--stop-at-return", str(RETURN), "--seed", str(seed), "--run-dir", "run"]
    return ["-m", "limelight", *words]


def environment() -> dict[str, str]:
    """Return the environment variables of this process, with paths that hold in another working directory."""
    paths = os.environ.get("PYTHONPATH")
    if not paths:
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, paths.split(os.pathsep)))}


def wall_seconds(arguments: Sequence[str]) -> float:
    """Return the seconds from the start to the end of ``python ARGUMENTS``.

    Raises: CalledProcessError if the process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=environment(), stdout=subprocess.DEVNULL, check=True
        )
        return time.perf_counter() - start


def verified_run(seed: int) -> dict[str, Any]:
    """Train until verified; return the seconds to the confirmation and to the end, and the run's summary.

    A run that is never confirmed has ``verified_seconds`` None.
    """
    with tempfile.TemporaryDirectory() as folder:
        start, verified, last_line = time.perf_counter(), None, ""
        with subprocess.Popen(
            [sys.executable, *train_command(seed)],
            cwd=folder, env=environment(), text=True, encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                last_line = line.strip() or last_line
                if verified is None and CONFIRMED.search(line):
                    verified = time.perf_counter() - start
        command_seconds = time.perf_counter() - start
        summary_file = Path(folder) / "run" / "summary.json"
        summary = json.loads(summary_file.read_text(encoding="utf-8")) if summary_file.exists() else None
    return {
        "seed": seed,
        "verified_seconds": verified,
        "command_seconds": command_seconds,
        "exit_status": process.returncode,
        "last_line": last_line,
        "summary": summary,
    }


# --------------------------------------------------------------------------- tables


def commands_table(commands: dict[str, list[float]]) -> str:
    """Return a table of the medians of the short commands."""
    rows = [
        [name, number(median(seconds), 3), f"{min(seconds):.3f}–{max(seconds):.3f}"]
        for name, seconds in commands.items()
    ]
    return markdown_table(["command", "median s", "lowest–highest"], rows)


def runs_table(runs: Sequence[dict[str, Any]]) -> str:
    """Return a table of every seed and the medians; a seed that is never verified counts as later than all others."""
    rows = []
    for run in runs:
        summary = run["summary"] or {}
        rows.append(
            [
                str(run["seed"]),
                number(run["verified_seconds"], 2, "never"),
                number(run["command_seconds"], 2),
                number(summary.get("solved_at_seconds"), 2),
                number(summary.get("solved_at_step")),
                summary.get("status", f"exit status {run['exit_status']}: {run['last_line']}".replace("|", "/")),
            ]
        )
    verified = median_or_never([run["verified_seconds"] for run in runs])
    whole = median(run["command_seconds"] for run in runs)
    rows.append(["median", number(verified, 2, "never"), number(whole, 2), "", "", ""])
    return markdown_table(["seed", "verified after s", "command s", "of it training s", "steps", "status"], rows)


# --------------------------------------------------------------------------- the command


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10, help="repeats of each short command (default: 10)")
    parser.add_argument("--seeds", type=int, default=10, help="training runs, 0 for none (default: 10)")
    parser.add_argument("--first-seed", type=int, default=0, help="default: 0")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/startup-MACHINE.json")
    args = parser.parse_args(argv)
    if args.repeats < 1 or args.seeds < 0:
        parser.error("--repeats must be ≥ 1 and --seeds ≥ 0")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, save and print."""
    args = parse(argv)
    settings = {"repeats": args.repeats, "seeds": args.seeds, "first_seed": args.first_seed, "return": RETURN}
    head = provenance("startup", settings)
    for arguments in COMMANDS.values():  # warm up: the first time, files come from the disk and byte code is compiled
        wall_seconds(arguments)
    commands: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(args.repeats):
        for name, arguments in COMMANDS.items():
            commands[name].append(wall_seconds(arguments))
    print(commands_table(commands), flush=True)
    runs = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        print(f"seed {seed} …", file=sys.stderr, flush=True)
        runs.append(verified_run(seed))
    path = results_path("startup", args.output)
    save_json(path, {**head, "commands": commands, "runs": runs})
    if runs:
        print(f"\n{runs_table(runs)}")
    print(f"\n{head['machine']['processor']}, whole processes from start to end. All samples: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
