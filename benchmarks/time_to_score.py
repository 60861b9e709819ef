"""Measure seconds of training until a score, beside Stable-Baselines3 with the settings of RL Baselines3 Zoo.

Both follow one protocol: 10 greedy episodes every so many environment steps, outside the clock; if their mean reaches
the score, 20 fresh greedy episodes must confirm it. The time is that of training, by the clock on the wall, up to that
evaluation. A run ends when it is confirmed, at the deadline, or at the end of the budget that belongs to its settings.
Every run is a fresh process (A3C's starts one more per core) with one thread per process, on the CPU.

Every run is written to the results file as soon as it is done and is not run again, even with another deadline. Run it
as a script, on a machine that does nothing else, in an environment that has stable-baselines3 beside Limelight.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from stats import ROOT, git_commit, machine, markdown_table, number, results_path, save_json, short_commit
from zoo import hyperparameters, is_tuned, train_until

from limelight.runs.statistics import median_or_never

Row = dict[str, Any]
"""The result of one run."""

EPISODES, CONFIRM_EPISODES = 10, 20
OPEN, CLOSE = "<!-- time_to_score -->", "<!-- /time_to_score -->"
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md")
ALL: dict[str, dict[str, Any]] = {"a2c": {}, "a3c": {}, "ppo": {}}


@dataclass(frozen=True)
class Task:
    """An environment and the score to reach."""

    env_id: str
    score: float
    every: int
    """Environment steps between two evaluations."""
    ours: dict[str, dict[str, Any]] = field(default_factory=lambda: ALL)
    """Limelight's algorithms, each with the settings to take instead of those of ``--preset auto``."""


_ROWS = (
    Task("CartPole-v1", 475, 2_000),
    Task("Acrobot-v1", -85, 5_000),
    Task("LunarLander-v3", 200, 20_000),
    Task("LunarLanderContinuous-v3", 200, 20_000),
    Task("BipedalWalker-v3", 290, 50_000),
    Task("Pendulum-v1", -160, 5_000),
    Task("MountainCarContinuous-v0", 90, 2_000),
    Task("HalfCheetah-v5", 3000, 20_000),
    Task("Hopper-v5", 1500, 20_000),
    Task("Walker2d-v5", 1500, 20_000),
    Task("Ant-v5", 3000, 20_000),
    Task("InvertedDoublePendulum-v5", 9000, 10_000),
)
TASKS = {task.env_id: task for task in _ROWS}
ZOO = {"zoo-ppo": "ppo", "zoo-a2c": "a2c"}
CONTENDERS = (*ALL, *ZOO)


@dataclass(frozen=True)
class Limits:
    """What ends a run that does not reach the score."""

    deadline: float | None
    """Training seconds."""
    steps: int | None
    """Environment steps, if fewer than the budget of the contender's own settings."""

    def reason(self, step: int, seconds: float) -> str | None:
        """Return which limit is passed, if any."""
        if self.deadline is not None and seconds >= self.deadline:
            return "deadline"
        return "steps" if self.steps is not None and step >= self.steps else None


# --------------------------------------------------------------------------- one run


def settings_of(task: Task, contender: str) -> dict[str, Any]:
    """Return the settings of a contender: the zoo's row, or Limelight's algorithm with what replaces the preset's."""
    if contender in ZOO:
        return hyperparameters(task.env_id, ZOO[contender])
    return {"algo": contender, "preset": "auto", **task.ours[contender]}


def run_limelight(task: Task, settings: Mapping[str, Any], seed: int, limits: Limits) -> Row:
    """Train with Limelight, which evaluates and confirms itself; past a limit the run is interrupted as by Ctrl-C."""
    import limelight

    class Watch:
        """Records evaluations, and interrupts the run past a limit."""

        def __init__(self) -> None:
            self.stopped: str | None = None
            self.evaluations: list[list[float]] = []

        def tick(self, step: int, seconds: float) -> None:
            reason = limits.reason(step, seconds)
            if reason is not None and self.stopped is None:
                self.stopped = reason
                signal.raise_signal(signal.SIGINT)

        def log(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
            if "eval/mean_reward" in metrics:
                self.evaluations.append([step, round(seconds, 3), round(metrics["eval/mean_reward"], 3)])

        def episodes(self, step: int, seconds: float, episodes: Sequence[Any]) -> None:
            pass

        def message(self, text: str) -> None:
            pass

        def close(self) -> None:
            pass

    watch = Watch()
    with tempfile.TemporaryDirectory(prefix="limelight-benchmark-") as folder:
        result = limelight.train(
            task.env_id, seed=seed, run_dir=str(Path(folder) / "run"), quiet=True, loggers=[watch], device="cpu",
            stop_at_return=float(task.score), eval_every=task.every, eval_episodes=EPISODES,
            confirm_episodes=CONFIRM_EPISODES, final_episodes=0, tensorboard=False, **settings,
        )  # fmt: skip
    summary = result.summary
    if result.status == "interrupted" and watch.stopped is None:
        raise KeyboardInterrupt
    step, seconds = summary["solved_at_step"], summary["solved_at_seconds"]
    reached = step is not None and (limits.deadline is None or seconds < limits.deadline)
    return {
        "reached": reached,
        "steps": step if reached else summary["total_timesteps"],
        "seconds": seconds if reached else summary["wall_seconds"],
        "ended_by": "score" if reached else watch.stopped or "budget",
        "evaluations": watch.evaluations,
    }


def run_zoo(task: Task, algo: str, settings: Mapping[str, Any], seed: int, limits: Limits) -> Row:
    """Train with Stable-Baselines3, by the same protocol."""
    evaluations: list[list[float]] = []
    first = 1_000_000 * (seed + 1)

    def is_over(step: int, seconds: float) -> bool:
        return limits.reason(step, seconds) is not None

    def is_reached(step: int, seconds: float, play: Callable[[int, int], float]) -> bool:
        mean = play(EPISODES, first + (EPISODES + CONFIRM_EPISODES) * len(evaluations))
        evaluations.append([step, round(seconds, 3), round(mean, 3)])
        if mean < task.score:
            return False
        confirmation = play(
            CONFIRM_EPISODES, first + (EPISODES + CONFIRM_EPISODES) * len(evaluations) - CONFIRM_EPISODES
        )
        reached.extend([step, seconds] if confirmation >= task.score else [])
        return bool(reached)

    reached: list[float] = []
    ended = train_until(task.env_id, algo, settings, seed, task.every, is_over, is_reached)
    step, seconds = reached or ended
    return {
        "reached": bool(reached),
        "steps": int(step),
        "seconds": seconds,
        "ended_by": "score" if reached else limits.reason(int(step), seconds) or "budget",
        "evaluations": evaluations,
    }


def run(task: Task, contender: str, seed: int, limits: Limits) -> Row:
    """Run one seed; a run that fails returns a row as well, with its ``error``."""
    import torch

    torch.set_num_threads(1)
    settings, started = settings_of(task, contender), time.perf_counter()
    try:
        if contender in ZOO:
            row = run_zoo(task, ZOO[contender], settings, seed, limits)
        else:
            row = run_limelight(task, settings, seed, limits)
    except Exception as error:  # the other runs continue, and the failed one stays in the table
        row = {"error": f"{type(error).__name__}: {error}"}
    return {**row, "total_seconds": time.perf_counter() - started}


# --------------------------------------------------------------------------- which runs


def head(task: Task, contender: str, seed: int) -> Row:
    """Return what a stored run must agree with."""
    settings = json.loads(json.dumps(settings_of(task, contender)))
    return {
        "row": task.env_id, "contender": contender, "seed": seed, "score": task.score, "every": task.every,
        "settings": settings,
    }  # fmt: skip


def jobs_left(
    rows: Sequence[Row], tasks: Sequence[Task], contenders: Sequence[str], seeds: Sequence[int], ours_first: bool
) -> list[tuple[Task, str, int]]:
    """Return the runs that are not stored: row after row, contenders in turn; or ours first, if they set the deadline.

    Raises: ValueError if a stored run had another score or other settings.
    """
    stored = {(row["row"], row["contender"], row["seed"]): row for row in rows}
    jobs = []
    for task in tasks:
        mine = [(seed, name) for seed in seeds for name in contenders if name in ZOO or name in task.ours]
        if ours_first:
            mine.sort(key=lambda job: job[1] in ZOO)
        for seed, name in mine:
            before, now = stored.get((task.env_id, name, seed)), head(task, name, seed)
            if before is None:
                jobs.append((task, name, seed))
                continue
            other = [key for key in now if before[key] != now[key]]
            if other:
                raise ValueError(
                    f"{task.env_id}, {name}, seed {seed} was run with other {', '.join(other)}; use another --output"
                )
    return jobs


def deadline_of(text: str, rows: Sequence[Row], task: Task, contender: str) -> float | None:
    """Return the training seconds of ``--deadline``: ``600``, or ``10x`` the median of ours, which binds the zoo only.

    Raises: ValueError if no run of ours is there to multiply.
    """
    if not text.endswith("x"):
        return float(text)
    if contender not in ZOO:
        return None
    times = [middle for name in ALL if (middle := time_of(of(rows, task.env_id, name))) is not None]
    if not times:
        raise ValueError(f"no run of ours on {task.env_id}; run one, or give seconds")
    return float(text[:-1]) * best_of(times)[0]


# --------------------------------------------------------------------------- the table


def of(rows: Sequence[Row], env_id: str, contender: str) -> list[Row]:
    """Return the stored runs of a contender on a row."""
    return [row for row in rows if (row["row"], row["contender"]) == (env_id, contender)]


def time_of(runs: Sequence[Row]) -> tuple[float, bool] | None:
    """Return the median of the seconds, and whether it was reached; if not, the seconds are a lower bound of it.

    A run that failed counts as never; None if all have failed.
    """
    middle = median_or_never([row["seconds"] if row.get("reached") else None for row in runs])
    if middle is not None:
        return middle, True
    ran = [row["seconds"] for row in runs if "error" not in row]
    return (median(ran), False) if ran else None


def best_of(times: Sequence[tuple[float, bool]]) -> tuple[float, bool]:
    """Return the shortest time that was reached; if none was, the lowest bound."""
    return min(times, key=lambda each: (not each[1], each[0]))


def cell(runs: Sequence[Row]) -> str:
    """Return ``median [lowest–highest], reached/seeds``."""
    found = time_of(runs)
    if not runs or found is None:
        return f"failed, 0/{len(runs)}" if runs else "–"
    seconds = [row["seconds"] for row in runs if row.get("reached")]
    count = f"{len(seconds)}/{len(runs)}"
    mark = "" if "zoo_id" not in runs[0]["settings"] or is_tuned(runs[0]["settings"]) else "\\*"
    if not found[1]:
        return f"never (> {number(found[0], digits(found[0]))} s), {count}{mark}"
    highest = number(max(seconds), digits(max(seconds))) if len(seconds) == len(runs) else "never"
    low = number(min(seconds), digits(min(seconds)))
    return f"{number(found[0], digits(found[0]))} [{low}–{highest}], {count}{mark}"


def digits(seconds: float) -> int:
    """Return the decimal places that seconds are shown with."""
    return 1 if seconds < 100 else 0


def ratio(rows: Sequence[Row], env_id: str) -> str:
    """Return the time of the zoo's best over that of our best; a bound, if one of them was never reached."""
    best = []
    for names in (ZOO, ALL):
        times = [found for name in names if (found := time_of(of(rows, env_id, name))) is not None]
        if not times:
            return "–"
        best.append(best_of(times))
    (theirs, they_did), (ours, we_did) = best
    if not (they_did or we_did):
        return "–"
    sign = "" if they_did and we_did else "> " if we_did else "< "
    return f"{sign}{theirs / ours:.2g}" if theirs < 10 * ours else f"{sign}{theirs / ours:,.0f}"


def table(rows: Sequence[Row]) -> str:
    """Return a line per environment that has runs."""
    shown = [name for name in CONTENDERS if any(row["contender"] == name for row in rows)]
    lines = []
    for env_id in TASKS:
        here = [row for row in rows if row["row"] == env_id]
        if here:
            cells = [cell(of(rows, env_id, name)) for name in shown]
            lines.append([env_id, f"{here[0]['score']:g}".replace("-", "−"), *cells, ratio(rows, env_id)])
    return markdown_table(["environment", "score", *shown, "best zoo / best of ours"], lines)


def section(data: Row, path: Path) -> str:
    """Return the table with what is needed to read it."""
    rows, info = data["rows"], data["machine"]
    commits = ", ".join(sorted({short_commit(row["commit"]) for row in rows}))
    name = path.resolve().relative_to(ROOT).as_posix() if path.resolve().is_relative_to(ROOT) else path.name
    return (
        f"Seconds of training until {EPISODES} greedy episodes reach the score and {CONFIRM_EPISODES} fresh ones\n"
        "confirm it: median [lowest–highest], and how many seeds reached it. `zoo-…` is Stable-Baselines3\n"
        f"{info['stable-baselines3']} with the settings of RL Baselines3 Zoo (\\*: there with the defaults of\n"
        f"Stable-Baselines3, normalization aside). {info['processor']}, {info['cpu_count']} cores, one thread per\n"
        f"process; `a3c` uses a process per core, and its seconds include evaluations. `never (> s)`: not within\n"
        f"the time given, which for the zoo is a multiple of our median. Commit {commits}.\n"
        f"`python benchmarks/time_to_score.py`, `{name}`:\n\n{table(rows)}"
    )


def write(page: Path, text: str) -> None:
    """Put ``text`` between the markers of a page.

    Raises: ValueError if the page does not have them.
    """
    before, found, rest = page.read_text(encoding="utf-8").partition(OPEN)
    _, closed, after = rest.partition(CLOSE)
    if not (found and closed):
        raise ValueError(f"{page}: no {OPEN} … {CLOSE}")
    page.write_text(f"{before}{OPEN}\n\n{text}\n\n{CLOSE}{after}", encoding="utf-8")


# --------------------------------------------------------------------------- the command


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(TASKS), choices=TASKS, metavar="ENV_ID")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--seeds", type=int, default=5, help="how many (default: 5)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--deadline", default="10x",
        help="training seconds of a run, or 10x: that many times the median of our best on the row, for the zoo "
        "(default: 10x)",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, help="end runs after this many steps, for a short try")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/time_to_score-MACHINE.json")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--write", action="store_true", help="put the table into README.md and docs/results.md")
    args = parser.parse_args(argv)
    try:
        positive = float(args.deadline.removesuffix("x")) > 0
    except ValueError:
        positive = False
    if not positive:
        parser.error(f"--deadline {args.deadline}: must be seconds such as 600, or a factor such as 10x")
    if args.seeds < 1:
        parser.error("--seeds must be ≥ 1")
    return args


def run_all(data: Row, args: argparse.Namespace, path: Path) -> None:
    """Run what is missing, one process after the other, and save each row.

    Raises: ValueError if stored runs had other settings, or a deadline cannot be known.
    """
    tasks = [TASKS[name] for name in args.rows]
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    jobs = jobs_left(data["rows"], tasks, args.contenders, seeds, args.deadline.endswith("x"))
    commit = git_commit()
    for count, (task, contender, seed) in enumerate(jobs, 1):
        limits = Limits(deadline_of(args.deadline, data["rows"], task, contender), args.steps)
        try:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                row = pool.submit(run, task, contender, seed, limits).result()
        except BrokenProcessPool as error:  # a process that was killed is a failed run
            row = {"error": f"{type(error).__name__}: {error}"}
        extra = {"deadline": limits.deadline, "max_steps": limits.steps, "commit": commit}
        data["rows"].append({**head(task, contender, seed), **row, **extra})
        save_json(path, {**data, "machine": machine()})
        said = row.get("error") or f"{row['ended_by']} after {row['seconds']:.1f} s, {row['steps']:,} steps"
        print(f"[{count}/{len(jobs)}] {task.env_id} {contender} seed {seed}: {said}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, and print the table; return 1 if a run has failed."""
    args = parse(argv)
    path = results_path("time_to_score", args.output)
    data: Row = {"benchmark": "time_to_score", "machine": machine(), "rows": []}
    if path.exists():
        data = json.loads(path.read_text(encoding="utf-8"))
    try:
        if not args.table:
            run_all(data, args, path)
        if args.write and data["rows"]:
            for page in PAGES:
                write(page, section(data, path))
    except ValueError as error:
        print(f"time_to_score.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("time_to_score.py: interrupted; the same command continues with the missing runs", file=sys.stderr)
        return 130
    print(table(data["rows"]))
    print(f"\nAll data: {path}")
    return 1 if any("error" in row for row in data["rows"]) else 0


if __name__ == "__main__":
    raise SystemExit(main())
