"""False alarms of ``limelight explain``: the rules on healthy runs of the presets.

A run counts as healthy if its best agent reaches the job's score. Every finding on a healthy run is a false alarm.

    python benchmarks/explain.py --seeds 3
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stats import markdown_table, provenance, results_path, save_json


class Job(NamedTuple):
    """A preset, and the score from which its runs are called healthy."""

    env_id: str
    algo: str
    total_timesteps: int
    score: float


JOBS = (
    Job("CartPole-v1", "a2c", 80_000, 450.0),
    Job("CartPole-v1", "ppo", 80_000, 450.0),
    Job("CartPole-v1", "ac", 100_000, 300.0),
    Job("Acrobot-v1", "a2c", 200_000, -100.0),
    Job("Acrobot-v1", "ppo", 150_000, -100.0),
    Job("Pendulum-v1", "a2c", 150_000, -500.0),
    Job("Pendulum-v1", "ppo", 150_000, -500.0),
)


def measure(job: Job, seed: int) -> dict[str, Any]:
    """Train one seed; return its score and the rules that found something."""
    import limelight
    from limelight.runs.reader import read_run
    from limelight.viewing.explain.diagnosis import diagnose

    with tempfile.TemporaryDirectory() as folder:
        result = limelight.train(
            job.env_id, algo=job.algo, total_timesteps=job.total_timesteps, seed=seed, run_dir=f"{folder}/run",
            quiet=True, tensorboard=False, checkpoint_every=0, final_episodes=20,
        )  # fmt: skip
        findings = diagnose(read_run(result.run_dir))
    score = result.summary["final_eval_return"]
    return {
        "env_id": job.env_id, "algo": job.algo, "seed": seed, "score": score, "healthy": score >= job.score,
        "findings": [f"{finding.rule}: {finding.evidence}" for finding in findings],
    }  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a row per run."""
    header = ["environment", "algorithm", "seed", "score", "healthy", "findings"]
    body = [
        [row["env_id"], row["algo"], str(row["seed"]), f"{row['score']:.1f}", "yes" if row["healthy"] else "no",
         "; ".join(text.partition(":")[0] for text in row["findings"]) or "–"]
        for row in rows
    ]  # fmt: skip
    return markdown_table(header, body)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, save and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each job (default: 3)")
    parser.add_argument("--first-seed", type=int, default=10, help="the first of them (default: 10)")
    parser.add_argument("--jobs", type=int, nargs="+", default=range(len(JOBS)), help="numbers of jobs (default: all)")
    parser.add_argument("--output", type=Path, help="results file (default: one for this machine)")
    arguments = parser.parse_args(argv)
    path = results_path("explain", arguments.output)
    settings = {"jobs": [JOBS[i]._asdict() for i in arguments.jobs], "first_seed": arguments.first_seed}
    data = {**provenance("explain", settings), "runs": []}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for i in arguments.jobs:
            data["runs"].append(measure(JOBS[i], seed))
            save_json(path, data)
    healthy = [row for row in data["runs"] if row["healthy"]]
    alarms = [row for row in healthy if row["findings"]]
    print(f"{table(data['runs'])}\n\n{len(alarms)} of {len(healthy)} healthy runs with a finding; saved: {path}")


if __name__ == "__main__":
    main()
