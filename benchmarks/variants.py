"""Training runs of several settings beside each other: the curve of every seed, and a table of their last episodes.

A run has no folder, no evaluation and no report, so that its processor time is that of training. The curve is the mean
return of the training episodes (sampled actions) that ended in each tenth of the budget.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stats import RESULTS, markdown_table, provenance, save_json, short_commit

from limelight.runs.statistics import bootstrap_interval, iqm

BINS = 10
Variant = dict[str, Any]
"""Settings by their plain names, ``algo`` among them."""


def run_seed(env_id: str, variant: Variant, steps: int, seed: int) -> dict[str, Any]:
    """Train one seed; return its curve, [BINS], and its processor seconds."""
    from limelight.runners.base import Runner
    from limelight.settings.io import with_settings
    from limelight.threads import single_threaded
    from limelight.training.prepare import prepare
    from limelight.training.presets import resolve_config
    from limelight.training.run import build

    settings = {**variant, "total_timesteps": steps, "seed": seed, "backend": "vector"}
    config = with_settings(resolve_config(env_id, settings.pop("algo"), "auto", settings), {"eval_every": 0})
    with single_threaded():
        start = time.process_time()
        runner: Runner = build(prepare(config, None), None)[0]
        episodes = []
        while runner.num_steps < steps:
            runner.advance(steps, 60.0)
            episodes += runner.pop_episodes()
        runner.close()
        seconds = time.process_time() - start
    bins: list[list[float]] = [[] for _ in range(BINS)]
    for episode in episodes:
        bins[min(BINS - 1, (episode.step - 1) * BINS // steps)].append(episode.episode_return)
    return {"seed": seed, "curve": [float(np.mean(b)) if b else None for b in bins], "processor_seconds": seconds}


def table(results: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """Return a Markdown table: IQM over seeds of the mean return halfway and in the last tenth, with its interval."""
    rows = []
    for name, runs in results.items():
        cells = []
        for at in (BINS // 2 - 1, BINS - 1):
            means = [run["curve"][at] for run in runs]
            low, high = bootstrap_interval([[mean] for mean in means])
            cells.append(f"{float(iqm(np.array(means))):.0f} [{low:.0f}, {high:.0f}]")
        lowest = min(run["curve"][-1] for run in runs)
        seconds = float(np.median([run["processor_seconds"] for run in runs]))
        rows.append([name, str(len(runs)), *cells, f"{lowest:.0f}", f"{seconds:.1f}"])
    return markdown_table(["variant", "seeds", "halfway", "last tenth", "worst seed", "processor s"], rows)


def curve_table(results: Mapping[str, Sequence[dict[str, Any]]], steps: int) -> str:
    """Return a Markdown table of the curves: IQM over seeds of the mean return in each tenth of the budget."""
    header = ["variant", *(f"–{steps * (i + 1) // BINS // 1000}k" for i in range(BINS))]
    rows = []
    for name, runs in results.items():
        columns = zip(*(run["curve"] for run in runs), strict=True)
        rows.append([name, *("–" if None in column else f"{float(iqm(np.array(column))):.0f}" for column in columns)])
    return markdown_table(header, rows)


def parse(benchmark: str, doc: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line of a script that compares variants."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="CartPole-v1", help="the environment (default: CartPole-v1)")
    parser.add_argument("--only", default="", help="only the variants whose name contains this")
    parser.add_argument("--seeds", type=int, default=10, help="how many (default: 10)")
    parser.add_argument("--first-seed", type=int, default=0, help="tune on other seeds than you report (default: 0)")
    parser.add_argument("--steps", type=int, default=60_000, help="environment steps of a run (default: 60000)")
    parser.add_argument("--output", type=Path, help=f"default: benchmarks/results/{benchmark}.json")
    return parser.parse_args(argv)


def main(benchmark: str, args: argparse.Namespace, variants: Mapping[str, Variant]) -> int:
    """Run the chosen variants seed by seed, save after each run, and print the tables."""
    chosen = {name: variant for name, variant in variants.items() if args.only in name}
    settings = {"env_id": args.env, "steps": args.steps, "variants": chosen}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    head = provenance(benchmark, settings)
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name, variant in chosen.items():
            results[name].append(run_seed(args.env, variant, args.steps, seed))
            save_json(args.output or RESULTS / f"{benchmark}.json", {**head, "results": results})
    print(table(results), curve_table(results, args.steps), sep="\n\n")
    print(f"\ncommit {short_commit(head['commit'])}")
    return 0
