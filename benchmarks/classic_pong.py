"""Measure the learning curve of the classic A3C script's settings on Pong beside Limelight's own, in one table.

Both are runs of the command, one after the other, with as many workers: ``classic-a3c`` is the script's network,
optimizer and rollout with one game per worker, ``pong`` is what ``--preset auto`` takes. The figures are means of the
last 100 training episodes. Runs are kept in ``--runs``; a run that is there already is read and not run again. Run it
as a script, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from minutes_to_score import Row, reached, read, run
from stats import markdown_table, number, provenance, results_path, save_json

PRESETS = ("classic-a3c", "pong")


def at(rows: Sequence[Row], step: float) -> float | None:
    """Return the mean return at the first row from ``step`` on; None where the run is shorter."""
    return next((row["rollout/ep_rew_mean"] for row in rows if row["step"] >= step), None)


def table(runs: dict[str, dict[str, list[Row]]], marks: Sequence[int], goal: float) -> str:
    """Return a table with a row per preset and seed: the mean return at each mark, and when the goal was reached."""
    body = []
    for preset, seeds in runs.items():
        for seed, rows in seeds.items():
            first = reached(rows, goal)
            means = [number(at(rows, mark), 1, missing="") for mark in marks]
            speed = rows[-1]["step"] / rows[-1]["seconds"] if rows else None
            step, seconds = (None, None) if first is None else (first["step"], first["seconds"] / 60)
            ends = [number(step, missing="never"), number(seconds, 1, missing="never"), number(speed)]
            body.append([preset, seed, *means, *ends])
    steps = [f"{mark // 1000}k" for mark in marks]
    return markdown_table(["preset", "seed", *steps, f"steps to {goal:g}", "minutes", "steps/s"], body)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="PongDeterministic-v4")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, help="of every run; default: the budget of each preset, and its schedules")
    parser.add_argument("--every", type=int, default=250_000, help="steps between two columns of the table")
    parser.add_argument("--goal", type=float, default=18.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--runs", type=Path, default=Path("runs/classic_pong"))
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/classic_pong-MACHINE.json")
    parser.add_argument("words", nargs="*", help="more words for limelight train, after --")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, save and print."""
    args = parse(argv)
    settings = {name: value for name, value in vars(args).items() if name not in ("output", "runs")}
    head, path = provenance("classic_pong", settings), results_path("classic_pong", args.output)
    runs: dict[str, dict[str, list[Row]]] = {preset: {} for preset in args.presets}
    for seed in args.seeds:
        for preset in args.presets:
            folder = args.runs / f"{preset}-{seed}"
            if not read(folder):
                words = [args.env, "--algo", "a3c", "--preset", preset, "--num-workers", str(args.workers)]
                words += ["--seed", str(seed), "--eval-every", "0", *args.words]
                words += [] if args.steps is None else ["--total-timesteps", str(args.steps)]
                run(words, folder, float("inf"), 0.0)
            runs[preset][str(seed)] = read(folder)
            save_json(path, {**head, "results": runs})
    longest = max((rows[-1]["step"] for seeds in runs.values() for rows in seeds.values() if rows), default=0)
    print(table(runs, range(args.every, int(longest) + 1, args.every), args.goal))
    print(f"\nAll data: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
