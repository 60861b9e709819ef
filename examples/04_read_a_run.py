"""Read the files of a run with the standard library only.

    python examples/04_read_a_run.py [STEPS]

``limelight report RUN_DIR`` draws these numbers; this script reads them.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import limelight


def read_evaluations(run_dir: Path) -> list[tuple[int, float, float]]:
    """Return environment steps, mean and standard deviation of every evaluation."""
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [(r["step"], r["eval/mean_reward"], r["eval/std_reward"]) for r in rows if "eval/mean_reward" in r]


def read_episodes(run_dir: Path) -> list[tuple[float, int]]:
    """Return the raw return and the length of every training episode."""
    with (run_dir / "monitor.csv").open(encoding="utf-8", newline="") as file:
        file.readline()  # a comment: start time and environment, as Stable-Baselines3's Monitor writes it
        return [(float(row["r"]), int(row["l"])) for row in csv.DictReader(file)]


def main(total_timesteps: int) -> None:
    result = limelight.train(
        "CartPole-v1", seed=1, total_timesteps=total_timesteps, eval_every=max(1, total_timesteps // 5), quiet=True
    )
    summary = json.loads((result.run_dir / "summary.json").read_text(encoding="utf-8"))
    print(f"{summary['status']}: {summary['steps_per_second']:,.0f} steps/s, solved at {summary['solved_at_step']}")

    for step, mean, std in read_evaluations(result.run_dir):
        print(f"{step:>8,}  {mean:6.1f} ± {std:.1f}")

    episodes = read_episodes(result.run_dir)
    best_return, length = max(episodes)
    print(f"{len(episodes):,} training episodes, the best {best_return:.0f} in {length} steps")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60_000)
