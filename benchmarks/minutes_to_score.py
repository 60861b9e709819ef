"""Measure the minutes until the mean return of 100 training episodes reaches a goal: whole commands, seed after seed.

A run that has reached the goal is stopped with Ctrl-C after ``--goes-on`` seconds, unless ``--to-the-end`` is given.
Runs are kept in ``--runs``; a run that is there already is read and not run again. Run it as a script.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from stats import markdown_table, number, provenance, results_path, save_json

from limelight.runs.statistics import median_or_never

Row = dict[str, float]

KEPT = (
    "step", "seconds", "rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "train/entropy",
    "train/explained_variance", "train/grad_norm", "train/dead_filters", "async/policy_lag",
)  # fmt: skip
"""The metrics that are kept of a run's rows."""


def read(run_dir: Path) -> list[Row]:
    """Return the rows of a run that have the mean of its last 100 episodes (of all, while there are fewer)."""
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in whole[: whole.rfind("\n") + 1].splitlines()]
    return [{key: row[key] for key in KEPT if key in row} for row in rows if "rollout/ep_rew_mean" in row]


def reached(rows: Sequence[Row], goal: float) -> Row | None:
    """Return the first row with a mean of ``goal`` or more."""
    return next((row for row in rows if row["rollout/ep_rew_mean"] >= goal), None)


def run(words: Sequence[str], run_dir: Path, goal: float, goes_on: float) -> None:
    """Run ``limelight train`` with these words; stop it ``goes_on`` seconds after it has reached the goal."""
    command = [sys.executable, "-m", "limelight", "train", *words, "--run-dir", str(run_dir)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            time.sleep(2.0)
            if reached(read(run_dir), goal):
                process.wait(goes_on)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    finally:  # an interruption of this script reaches the run too
        process.wait()


def table(runs: dict[str, list[Row]], goal: float) -> str:
    """Return a table with a row per seed, and their medians."""
    firsts = {seed: reached(rows, goal) for seed, rows in runs.items()}
    minutes = [None if row is None else row["seconds"] / 60 for row in firsts.values()]
    steps = [None if row is None else row["step"] for row in firsts.values()]
    body = []
    for (seed, rows), m, s in zip(runs.items(), minutes, steps, strict=True):
        best = max((row["rollout/ep_rew_mean"] for row in rows), default=None)
        speed = rows[-1]["step"] / rows[-1]["seconds"] if rows else None
        body.append([seed, *(number(x, digits, "never") for x, digits in ((m, 1), (s, 0), (best, 1), (speed, 0)))])
    last = ["median", number(median_or_never(minutes), 1, missing="never")]
    body.append([*last, number(median_or_never(steps), missing="never"), "", ""])
    return markdown_table(["seed", f"minutes to {goal:g}", "steps to it", "highest mean", "steps/s"], body)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="ALE/Pong-v5")
    parser.add_argument("--algo", default="a3c")
    parser.add_argument("--goal", type=float, default=18.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--goes-on", type=float, default=60.0, help="seconds from the goal to Ctrl-C")
    parser.add_argument("--to-the-end", action="store_true", help="do not stop at the goal")
    parser.add_argument("--runs", type=Path, default=Path("runs/minutes_to_score"))
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/minutes_to_score-MACHINE.json")
    parser.add_argument("words", nargs="*", help="more words for limelight train, after --")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, save and print."""
    args = parse(argv)
    settings = {name: value for name, value in vars(args).items() if name not in ("output", "runs")}
    head, runs = provenance("minutes_to_score", settings), {}
    path = results_path("minutes_to_score", args.output)
    for seed in args.seeds:
        folder = args.runs / f"seed-{seed}"
        if not folder.exists():
            words = [args.env, "--algo", args.algo, "--seed", str(seed), *args.words]
            run(words, folder, args.goal, float("inf") if args.to_the_end else args.goes_on)
        runs[str(seed)] = read(folder)
        save_json(path, {**head, "results": runs})
    print(table(runs, args.goal))
    print(f"\nAll data: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
