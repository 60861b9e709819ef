"""Measure the seconds of training until CartPole-v1 is solved: A2C against A3C, with the same settings, in turns.

No evaluation disturbs the training: parameters are copied during it and evaluated after it, the earliest first, over
100 greedy episodes. The clock starts when environments are made and workers have started. Run it as a script.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from stats import flat_settings, markdown_table, number, provenance, results_path, save_json

from limelight.runs.statistics import median_or_never

ENV_ID, THRESHOLD, EPISODES = "CartPole-v1", 475.0, 100
Run = dict[str, Any]


def train_and_evaluate(algo: str, settings: dict[str, Any], seed: int, total_timesteps: int, every: int) -> Run:
    """Train one seed; return after how many seconds and steps the agent first passed, and its last return."""
    from limelight.runs.evaluation import evaluate
    from limelight.training.prepare import prepare
    from limelight.training.presets import resolve_config
    from limelight.training.run import build, single_threaded

    own = {**settings, "seed": seed, "total_timesteps": total_timesteps}
    config = prepare(resolve_config(ENV_ID, algo, "auto", own), None)
    copies: list[tuple[float, int, Any]] = []
    with single_threaded():
        runner, agent = build(config, None)
        try:
            while runner.num_steps < total_timesteps:
                due = runner.num_steps + every
                while runner.num_steps < min(due, total_timesteps):
                    runner.advance(min(due, total_timesteps), 0.2)
                    runner.pop_episodes()
                copies.append((runner.seconds, runner.num_steps, agent.get_state()["params"].clone()))
        finally:
            runner.close()
        solved: tuple[float | None, int | None] = (None, None)
        for seconds, steps, params in copies:
            set_params(agent, params)
            if evaluate(agent, episodes=EPISODES, seed=seed).mean_return >= THRESHOLD:
                solved = (seconds, steps)
                break
        set_params(agent, copies[-1][2])
        last = evaluate(agent, episodes=EPISODES, seed=seed).mean_return
    return {"seed": seed, "seconds": solved[0], "steps": solved[1], "last": last, "training_seconds": copies[-1][0]}


def set_params(agent: Any, params: Any) -> None:
    """Set the parameters of ``agent`` to ``params`` [n]."""
    start = 0
    for parameter in agent.model.parameters():
        stop = start + parameter.numel()
        parameter.data.copy_(params[start:stop].view_as(parameter))
        start = stop


def table(results: dict[str, list[Run]]) -> str:
    """Return a table of medians and extremes."""
    header = [
        "algorithm",
        "seeds",
        "solved",
        "seconds: median",
        "lowest–highest",
        "steps: median",
        "steps/s",
        "last ≥ 475",
    ]
    rows = []
    for name, runs in results.items():
        seconds = [run["seconds"] for run in runs]
        known = [s for s in seconds if s is not None]
        extremes = f"{min(known):.2f}–{max(known):.2f}" if known else "–"
        speeds = [run["steps"] / run["seconds"] for run in runs if run["seconds"]]
        rows.append(
            [
                name,
                str(len(runs)),
                str(len(known)),
                number(median_or_never(seconds), 2, missing="never"),
                extremes,
                number(median_or_never([run["steps"] for run in runs]), missing="never"),
                number(median(speeds) if speeds else None),
                str(sum(run["last"] >= THRESHOLD for run in runs)),
            ]
        )
    return markdown_table(header, rows)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--total-timesteps", type=int, default=200_000)
    parser.add_argument("--every", type=int, default=2_560, help="steps between two copies")
    parser.add_argument("--ray", action="store_true", help="also Ray's three kinds; needs Ray")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/time_to_solve-MACHINE.json")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, save and print."""
    args = parse(argv)
    from limelight.training.presets import resolve_config

    contenders: dict[str, tuple[str, dict[str, Any]]] = {
        "a2c": ("a2c", {}),
        f"a3c, {args.workers} workers": ("a3c", {"num_workers": args.workers}),
    }
    if args.ray:
        own = {"runner": "ray", "num_workers": args.workers}
        contenders[f"a2c on Ray, {args.workers} workers"] = ("a2c", own)
        contenders[f"a3c on Ray, {args.workers} workers, gradients"] = ("a3c", own)
        contenders[f"a3c on Ray, {args.workers} workers, rollouts"] = ("a3c", {**own, "worker_output": "rollouts"})
    settings = {name: value for name, value in vars(args).items() if name != "output"}
    head = provenance("time_to_solve", {**settings, "env_id": ENV_ID})
    configs = {
        name: flat_settings(resolve_config(ENV_ID, algo, "auto", own)) for name, (algo, own) in contenders.items()
    }
    results: dict[str, list[Run]] = {name: [] for name in contenders}
    start = time.perf_counter()
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name, (algo, own) in contenders.items():
            results[name].append(train_and_evaluate(algo, own, seed, args.total_timesteps, args.every))
        print(f"seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    path = results_path("time_to_solve", args.output)
    save_json(path, {**head, "configs": configs, "results": results})
    print(table(results))
    print(f"\nAll data: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
