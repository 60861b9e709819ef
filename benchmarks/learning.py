"""Measure learning: whole training runs over several seeds, with evaluations of the best and the last agent.

Every seed is written to the results file as soon as it is done and is not run again, so an interrupted benchmark
continues with the seeds that are missing. Run it as a script.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from jobs import BASE_JOBS, JOBS, Job, with_variants
from stats import flat_settings, git_commit, machine, markdown_table, number, results_path, save_json, short_commit

from limelight.errors import ConfigError
from limelight.runs.statistics import bootstrap_interval, iqm, median_or_never
from limelight.training.presets import resolve_config

Row = dict[str, Any]
"""The results of one seed's run."""


def choose(names: Sequence[str], ablation: bool) -> list[Job]:
    """Return the jobs of these names, with their ablations if wanted, each once."""
    chosen = [JOBS[name] for name in names]
    if ablation:
        chosen = [JOBS[each.name] for job in chosen for each in with_variants(job)]
    return list({job.name: job for job in chosen}.values())


def config_of(job: Job) -> dict[str, Any]:
    """Return the resolved settings of ``job``, by plain names, without those that differ from seed to seed.

    Raises: ConfigError if the settings cannot work.
    """
    from limelight.settings.rules import validate

    settings = {**job.settings, "total_timesteps": job.total_timesteps}
    preset = settings.pop("preset", "auto")
    flat = flat_settings(validate(resolve_config(job.env_id, job.algo, preset, settings)))
    return {name: value for name, value in flat.items() if name not in ("seed", "run_dir", "tensorboard")}


# --------------------------------------------------------------------------- one run


def run_seed(job: Job, seed: int, episodes: int) -> Row:
    """Train one seed and evaluate its best and its last agent over ``episodes`` greedy episodes each.

    A run that fails returns a row as well, with its ``error``.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="limelight-benchmark-") as folder:
        try:
            row = _train_and_evaluate(job, seed, episodes, Path(folder) / "run")
        except Exception as error:  # the other seeds continue, and the failed one stays in the table
            row = {"seed": seed, "error": f"{type(error).__name__}: {error}"}
    return {**row, "total_seconds": time.perf_counter() - start}


def _train_and_evaluate(job: Job, seed: int, episodes: int, run_dir: Path) -> Row:
    from limelight.runs.agent import load
    from limelight.runs.evaluation import evaluate
    from limelight.seeds import Stream, derive_seed
    from limelight.training.run import single_threaded, train

    own = {
        "seed": seed,
        "run_dir": str(run_dir),
        "tensorboard": False,
        "total_timesteps": job.total_timesteps,
    }
    result = train(job.env_id, algo=job.algo, quiet=True, **{**job.settings, **own})
    if result.status == "interrupted":
        raise KeyboardInterrupt
    evaluation_seed = derive_seed(seed, Stream.FINAL)  # the episodes of the run's own final evaluation
    with single_threaded():
        returns = {
            which: evaluate(load(run_dir, which), episodes=episodes, seed=evaluation_seed).returns
            for which in ("best", "last")
        }
    curve = read_curve(run_dir / "metrics.jsonl")
    reached = (step for step, mean in zip(curve["step"], curve["mean"], strict=True) if mean >= job.threshold)
    return {
        "seed": seed,
        "summary": result.summary,
        "curve": curve,
        "reached_at_step": next(reached, None),
        "best": returns["best"],
        "last": returns["last"],
        "error": None,
    }


def read_curve(metrics: Path) -> dict[str, list[Any]]:
    """Return environment steps and mean returns of a run's evaluations."""
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    evaluations = [row for row in rows if "eval/mean_reward" in row]
    return {
        "step": [row["step"] for row in evaluations],
        "mean": [row["eval/mean_reward"] for row in evaluations],
    }


def run_all(tasks: Sequence[tuple[Job, int]], episodes: int, parallel: int) -> Iterator[tuple[Job, Row]]:
    """Yield the rows of all ``tasks`` (job, seed) as they finish."""
    if parallel == 1:
        for job, seed in tasks:
            yield job, run_seed(job, seed, episodes)
        return
    with ProcessPoolExecutor(parallel, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(run_seed, job, seed, episodes): job for job, seed in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


# --------------------------------------------------------------------------- the results file


def open_results(path: Path, jobs: Sequence[Job], episodes: int, fresh: bool) -> dict[str, Any]:
    """Return the results that ``path`` already holds, with a place for the rows of ``jobs``.

    Raises: ConfigError if the file holds rows of these jobs with other settings, unless ``fresh`` drops them.
    """
    data: dict[str, Any] = {"benchmark": "learning", "machine": machine(), "jobs": {}}
    if path.exists():
        data = json.loads(path.read_text(encoding="utf-8"))
    for job in jobs:
        head = {"threshold": job.threshold, "episodes": episodes, "config": config_of(job)}
        there = data["jobs"].get(job.name)
        if there is None or fresh:
            data["jobs"][job.name] = {**head, "runs": []}
            continue
        names = different(there, head)
        if names:
            raise ConfigError(
                f"{path}: {job.name} was run with other {', '.join(names)}; use --fresh or another --output"
            )
    return data


def different(there: dict[str, Any], head: dict[str, Any]) -> list[str]:
    """Return the names of the settings in which a stored job differs from ``head``."""
    before, now = {**there, **there["config"]}, {**head, **head["config"]}
    return [name for name in now if name != "config" and before.get(name) != now[name]]


def tasks_left(data: dict[str, Any], jobs: Sequence[Job], seeds: Sequence[int]) -> list[tuple[Job, int]]:
    """Return (job, seed) of every run that the results lack."""
    done = {(name, run["seed"]) for name, job in data["jobs"].items() for run in job["runs"]}
    return [(job, seed) for job in jobs for seed in seeds if (job.name, seed) not in done]


def add_row(data: dict[str, Any], job: Job, row: Row) -> None:
    """Insert ``row`` among the rows of its job, in the order of seeds."""
    runs = data["jobs"][job.name]["runs"]
    runs.append(row)
    runs.sort(key=lambda run: run["seed"])


# --------------------------------------------------------------------------- tables


def seeds_table(data: dict[str, Any], jobs: Sequence[Job]) -> str:
    """Return a table with every seed of every job."""
    header = ["job", "seed", "best agent", "last agent", "reached at step", "training s", "status"]
    rows = [[job.name, str(run["seed"]), *_seed_cells(run)] for job in jobs for run in data["jobs"][job.name]["runs"]]
    return markdown_table(header, rows)


def _seed_cells(run: Row) -> list[str]:
    if run["error"]:
        return ["–", "–", "–", "–", f"failed: {run['error']}".replace("|", "/")]
    best, last = (number(float(np.mean(run[which])), 1) for which in ("best", "last"))
    seconds = number(run["summary"]["wall_seconds"], 1)
    return [best, last, number(run["reached_at_step"]), seconds, run["summary"]["status"]]


def jobs_table(data: dict[str, Any], jobs: Sequence[Job]) -> str:
    """Return a table of jobs: IQM over seeds × episodes with its 95 % interval, and how many seeds learned it."""
    header = [
        "job",
        "threshold",
        "seeds",
        "failed",
        "best agent: IQM",
        "seeds ≥",
        "last agent: IQM",
        "seeds ≥",
        "reached at step: median",
        "all seeds",
        "median training s",
    ]
    return markdown_table(header, [_job_cells(job.name, data["jobs"][job.name]) for job in jobs])


def _job_cells(name: str, results: dict[str, Any]) -> list[str]:
    runs, threshold = results["runs"], results["threshold"]
    finished = [run for run in runs if not run["error"]]
    cells = [name, f"{threshold:g}", str(len(runs)), str(len(runs) - len(finished))]
    for which in ("best", "last"):
        groups = [run[which] for run in finished]
        reached = sum(float(np.mean(group)) >= threshold for group in groups)
        cells += [interval_text(groups), f"{reached}/{len(runs)}"]
    steps = [run.get("reached_at_step") for run in runs]
    seconds = [run["summary"]["wall_seconds"] for run in finished]
    latest = None if not steps or None in steps else max(steps)
    return [
        *cells,
        number(median_or_never(steps), missing="never"),
        number(latest, missing="never"),
        number(median(seconds) if seconds else None, 1),
    ]


def interval_text(groups: Sequence[Sequence[float]]) -> str:
    """Return the interquartile mean of all values and its 95 % interval, as ``498.1 [495.0, 500.0]``."""
    if not groups:
        return "–"
    low, high = bootstrap_interval(groups)
    return f"{float(iqm(np.ravel(groups))):.1f} [{low:.1f}, {high:.1f}]"


# --------------------------------------------------------------------------- the command


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    names = "\n".join(f"  {name}" for name in JOBS)
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"jobs:\n{names}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--jobs",
        nargs="+",
        choices=JOBS,
        default=[job.name for job in BASE_JOBS],
        metavar="NAME",
        help="default: all but the ablations (names with a slash)",
    )
    parser.add_argument("--ablation", action="store_true", help="also run the chosen jobs' ablations")
    parser.add_argument("--seeds", type=int, default=10, help="how many (default: 10)")
    parser.add_argument("--first-seed", type=int, default=0, help="tune on other seeds than you report (default: 0)")
    parser.add_argument(
        "--parallel", type=int, default=1, help="processes; times are comparable with 1 only (default: 1)"
    )
    parser.add_argument("--episodes", type=int, default=100, help="greedy episodes of each evaluation (default: 100)")
    parser.add_argument("--total-timesteps", type=int, help="instead of the jobs' own budgets")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/learning-MACHINE.json")
    parser.add_argument(
        "--fresh", action="store_true", help="drop the stored runs of the chosen jobs and run them again"
    )
    args = parser.parse_args(argv)
    for name in ("seeds", "parallel", "episodes"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be ≥ 1")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the missing seeds, save every row and print both tables; return 1 if a run has failed."""
    args = parse(argv)
    jobs = choose(args.jobs, args.ablation)
    if args.total_timesteps is not None:
        jobs = [replace(job, total_timesteps=args.total_timesteps) for job in jobs]
    path, commit = results_path("learning", args.output), git_commit()
    try:
        data = open_results(path, jobs, args.episodes, args.fresh)
    except ConfigError as error:
        print(f"learning.py: error: {error}", file=sys.stderr)
        return 2
    tasks = tasks_left(data, jobs, range(args.first_seed, args.first_seed + args.seeds))
    try:
        for count, (job, row) in enumerate(run_all(tasks, args.episodes, args.parallel), 1):
            add_row(data, job, {**row, "commit": commit, "parallel": args.parallel})
            save_json(path, data)
            print(
                f"[{count}/{len(tasks)}] {job.name} seed {row['seed']}: {row['total_seconds']:.0f} s "
                f"{row['error'] or ''}",
                file=sys.stderr,
                flush=True,
            )
    except KeyboardInterrupt:
        print("learning.py: interrupted; the same command continues with the missing seeds", file=sys.stderr)
        return 130
    print(seeds_table(data, jobs), jobs_table(data, jobs), sep="\n\n")
    runs = [run for job in jobs for run in data["jobs"][job.name]["runs"]]
    commits = ", ".join(sorted({short_commit(run["commit"]) for run in runs}))
    print(
        f"\n{data['machine']['processor']}; {args.episodes} greedy episodes per agent, 95 % intervals by bootstrap "
        f"over seeds and their episodes; commit {commits}. All data: {path}"
    )
    return 1 if any(run["error"] for run in runs) else 0


if __name__ == "__main__":
    raise SystemExit(main())
