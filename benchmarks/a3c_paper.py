"""Repeat two experiments of the A3C paper: time to a score by the number of workers, and the spread over step sizes.

python benchmarks/a3c_paper.py workers --envs CartPole-v1 Acrobot-v1 --workers 1 2 4 --seeds 5
python benchmarks/a3c_paper.py step-sizes --env CartPole-v1 --steps 100000 --number 20 --plot docs/images/step-sizes.png

Each run is a whole ``limelight.train``; numbers of workers take turns. Seconds are those of training until 100 fresh
greedy episodes confirm the score. Step sizes are log-uniform (source of both: Mnih et al. 2016, table 2 and figure 2).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stats import markdown_table, number, provenance, results_path, save_json

from limelight.runs.statistics import median_or_never

SCORES = {"CartPole-v1": 475.0, "Acrobot-v1": -90.0, "LunarLander-v3": 200.0, "Pendulum-v1": -250.0}
"""The return to reach; other environments need ``--score``."""
QUIET: dict[str, Any] = {"algo": "a3c", "quiet": True, "tensorboard": False, "final_episodes": 0, "report_every": 0.0}


def seconds_to_score(env_id: str, score: float, num_workers: int, seed: int, steps: int | None) -> dict[str, Any]:
    """Train until a score is reached and confirmed; return seconds and steps, None where it was not."""
    import limelight

    budget = {} if steps is None else {"total_timesteps": steps}
    with tempfile.TemporaryDirectory() as folder:
        result = limelight.train(
            env_id, num_workers=num_workers, seed=seed, stop_at_return=score, run_dir=f"{folder}/run", **QUIET, **budget
        )
    summary = result.summary
    return {
        "seed": seed, "seconds": summary["solved_at_seconds"], "steps": summary["solved_at_step"],
        "steps_per_second": summary["steps_per_second"],
    }  # fmt: skip


def workers(arguments: argparse.Namespace) -> None:
    """Measure the seconds to a score for each number of workers, in turns."""
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for env_id in arguments.envs:
        score = SCORES[env_id] if arguments.score is None else arguments.score
        runs = results[env_id] = {str(w): [] for w in arguments.workers}
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            for w in arguments.workers:
                runs[str(w)].append(seconds_to_score(env_id, score, w, seed, arguments.steps))
    rows = []
    for env_id, runs in results.items():
        medians = {w: median_or_never([run["seconds"] for run in found]) for w, found in runs.items()}
        first = medians[str(arguments.workers[0])]
        for w, found in runs.items():
            reached = sum(run["seconds"] is not None for run in found)
            now = medians[w]
            speedup = first / now if first is not None and now is not None else None
            speed = float(np.median([run["steps_per_second"] for run in found]))
            cells = [number(now, 1, "never"), number(speedup, 2), number(speed)]
            rows.append([env_id, w, f"{reached} of {len(found)}", *cells])
    header = ["environment", "workers", "seeds there", "seconds, median", "speedup", "steps/s"]
    print(markdown_table(header, rows))
    save(arguments, "a3c_workers", results)


def last_return(env_id: str, learning_rate: float, seed: int, steps: int) -> float:
    """Train with a step size; return the mean of the last 100 training episodes."""
    import limelight

    with tempfile.TemporaryDirectory() as folder:
        limelight.train(
            env_id, learning_rate=learning_rate, seed=seed, total_timesteps=steps, eval_every=0,
            run_dir=f"{folder}/run", **QUIET,
        )  # fmt: skip
        rows = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    return float([row["rollout/ep_rew_mean"] for row in rows if "rollout/ep_rew_mean" in row][-1])


def step_sizes(arguments: argparse.Namespace) -> None:
    """Train with log-uniform step sizes."""
    low, high = (np.log(bound) for bound in arguments.range)
    rates = np.exp(np.random.default_rng(arguments.first_seed).uniform(low, high, arguments.number))
    results = [
        {"learning_rate": float(rate), "return": last_return(arguments.env, float(rate), seed, arguments.steps)}
        for seed, rate in enumerate(sorted(rates), arguments.first_seed)
    ]
    rows = [[f"{row['learning_rate']:.2g}", number(row["return"], 1)] for row in results]
    print(markdown_table(["step size", "mean return of the last 100 training episodes"], rows))
    save(arguments, "a3c_step_sizes", results)
    if arguments.plot is not None:
        plot(arguments.env, arguments.steps, results, arguments.plot)


def plot(env_id: str, steps: int, results: Sequence[dict[str, float]], path: Path) -> None:
    """Draw the returns over the step sizes."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.4), layout="constrained")
    axes.semilogx([row["learning_rate"] for row in results], [row["return"] for row in results], "o", color="#1f6feb")
    axes.set_xlabel("step size")
    axes.set_ylabel("return, last 100 episodes")
    axes.set_title(f"A3C on {env_id}, {steps:,} steps, a run for each point")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def save(arguments: argparse.Namespace, name: str, results: Any) -> None:
    """Write the samples."""
    settings = {key: value for key, value in vars(arguments).items() if key not in ("output", "plot", "measure")}
    save_json(results_path(name, arguments.output), {**provenance(name, settings), "results": results})


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write the samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--first-seed", type=int, default=0)
    common.add_argument("--output", type=Path, help="JSON file (default: benchmarks/results/)")
    experiments = parser.add_subparsers(required=True, metavar="workers|step-sizes")
    one = experiments.add_parser("workers", parents=[common], help="seconds to a score by number of workers")
    one.add_argument("--envs", nargs="+", default=["CartPole-v1", "Acrobot-v1"])
    one.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    one.add_argument("--seeds", type=int, default=5)
    one.add_argument("--score", type=float, help="of environments that are not in the script")
    one.add_argument("--steps", type=int, help="instead of the preset's budget")
    one.set_defaults(measure=workers)
    other = experiments.add_parser("step-sizes", parents=[common], help="returns over log-uniform step sizes")
    other.add_argument("--env", default="CartPole-v1")
    other.add_argument("--steps", type=int, default=100_000)
    other.add_argument("--number", type=int, default=20)
    other.add_argument("--range", nargs=2, type=float, default=[1e-4, 1e-1], metavar=("LOW", "HIGH"))
    other.add_argument("--plot", type=Path, help="draw them into this file")
    other.set_defaults(measure=step_sizes)
    arguments = parser.parse_args(argv)
    arguments.measure(arguments)


if __name__ == "__main__":
    main()
