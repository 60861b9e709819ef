"""Measure asynchronous workers: environment steps per second (training included) and policy lag, on any environment.

The synchronous runner, one worker, several workers and (if installed) Stable-Baselines3 take turns, so a machine that
slows down slows all of them. Each process has one thread. Run it as a script.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from stats import flat_settings, markdown_table, number, provenance, results_path, save_json
from throughput import (
    ENDLESS,
    ENV_ID,
    SB3_SETTINGS,
    Contender,
    Ours,
    Sample,
    Shape,
    StableBaselines3,
    continuous_settings,
    ratio,
    speeds,
)

SHAPES = [(8, 5), (64, 5), (256, 5), (1024, 16)]


@dataclass(frozen=True)
class AsyncSample(Sample):
    """The result of one turn of asynchronous workers."""

    lag: float
    """The mean number of updates by other workers between a pull and its push."""
    lag_max: float
    worker_megabytes: float
    """The resident memory of the largest worker."""


class Workers:
    """Asynchronous workers as ``limelight.train`` builds them; they pause during the turns of other contenders."""

    def __init__(self, name: str, env_id: str, settings: dict[str, Any]) -> None:
        from limelight.training.prepare import prepare
        from limelight.training.presets import resolve_config
        from limelight.training.run import build

        settings = {"preset": "auto", **settings, "total_timesteps": ENDLESS}
        self.name = name
        self.config = prepare(resolve_config(env_id, "a3c", settings.pop("preset"), settings), None)
        self.runner, _ = build(self.config, None)

    def turn(self, seconds: float) -> AsyncSample:
        """See :class:`throughput.Contender`."""
        from limelight.runners.processes.shared import Command, Control
        from limelight.runners.worker_metrics import Counter

        runner = self.runner
        while runner.num_steps == 0:  # starting takes seconds, which are not part of the first turn
            runner.advance(1, 1.0)
        runner.control[Control.COMMAND] = Command.RUN
        start, before = time.perf_counter(), runner.counters.sum(0)
        metrics, deadline = {}, start + seconds
        while (left := deadline - time.perf_counter()) > 0:
            metrics = runner.advance(runner.num_steps + 1, min(left, 0.2)) or metrics
            time.sleep(min(max(deadline - time.perf_counter(), 0.0), 0.2))
            runner.pop_episodes()
        elapsed, after = time.perf_counter() - start, runner.counters.sum(0)
        runner.control[Control.COMMAND] = Command.PAUSE
        steps, updates = (int(after[c] - before[c]) for c in (Counter.STEPS, Counter.UPDATES))
        megabytes = max(resident_megabytes(worker.process.pid) for worker in runner.supervisor.workers)
        lag, lag_max = metrics.get("async/policy_lag", 0.0), metrics.get("async/policy_lag_max", 0)
        return AsyncSample(steps, updates, elapsed, lag, lag_max, megabytes)

    def close(self) -> None:
        """See :class:`throughput.Contender`."""
        self.runner.close()


def resident_megabytes(pid: int) -> float:
    """Return the resident memory of a process; 0 where there is no /proc."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def contenders(shape: Shape, critic: str, workers: int, peer: bool, seed: int) -> list[Contender]:
    """Return the contenders that take turns at one shape."""
    own = {"num_envs": shape.num_envs, "num_steps": shape.num_steps, "critic": critic, "seed": seed}
    settings = {**shape.settings, **own, **continuous_settings(shape), "backend": shape.env_backends[0]}

    def made(name: str, number: int, order: str) -> Workers:
        return Workers(name, shape.env_id, {**settings, "num_workers": number, "update_order": order})

    ours: list[Contender] = [
        Ours(shape, critic, "numpy", seed, shape.env_backends[0]),
        made("1 worker", 1, "lock_free"),
    ]
    ours += [made(f"{workers} workers {order}", workers, order) for order in ("lock_free", "locked")]
    return [*ours, StableBaselines3(shape, seed)] if peer else ours


def measure(runners: Sequence[Contender], seconds: float, repeats: int) -> dict[str, list[Sample]]:
    """Return ``repeats`` turns of each runner, by its name, after one turn to warm up."""
    samples: dict[str, list[Sample]] = {"sync" if isinstance(r, Ours) else r.name: [] for r in runners}
    try:
        for runner in runners:
            runner.turn(min(seconds, 1.0))
        for _ in range(repeats):
            for name, runner in zip(samples, runners, strict=True):
                samples[name].append(runner.turn(seconds))
    finally:
        for runner in runners:
            runner.close()
    return samples


def summarize(samples: dict[str, list[Sample]], best_peer: Sequence[Sample] | None) -> dict[str, Any]:
    """Return medians, ratios and samples of each contender."""
    baselines = {"sync": samples["sync"], "one_worker": samples["1 worker"], "sb3": samples.get("sb3")}
    baselines["best_sb3"] = list(best_peer) if best_peer else None
    return compare(samples, baselines)


def compare(samples: dict[str, list[Sample]], baselines: dict[str, list[Sample] | None]) -> dict[str, Any]:
    """Return medians and samples of each contender, with its ratios to the ``baselines`` that took part."""
    return {
        name: {
            "steps_per_second": median(speeds(turns)),
            "ratios": {key: ratio(turns, theirs) for key, theirs in baselines.items() if theirs},
            "samples": [asdict(turn) for turn in turns],
        }
        for name, turns in samples.items()
    }


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    header = [
        "envs × steps", "contender", "steps/s", "× sync", "× one worker", "× SB3", "× SB3's best", "lag", "MB",
    ]  # fmt: skip
    rows = []
    for shape, result in results.items():
        for name, row in result["contenders"].items():
            ratios = {key: f"{value['of_medians']:.2f}" for key, value in row["ratios"].items()}
            first = row["samples"][0]
            lag = f"{median(s['lag'] for s in row['samples']):.2f}" if "lag" in first else ""
            megabytes = number(max(s["worker_megabytes"] for s in row["samples"])) if "lag" in first else ""
            keys = ("sync", "one_worker", "sb3", "best_sb3")
            cells = [number(row["steps_per_second"]), *(ratios.get(key, "") for key in keys), lag, megabytes]
            rows.append([shape.replace("x", " × "), name, *cells])
    return markdown_table(header, rows)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default=ENV_ID, metavar="ENV_ID", help=f"default: {ENV_ID}")
    parser.add_argument("--env-backend", choices=("auto", "vector", "sync", "envpool"), default="auto")
    parser.add_argument("--shapes", nargs="+", default=[f"{b}x{t}" for b, t in SHAPES], help="envs x steps, as 256x5")
    parser.add_argument(
        "--workers", type=int, default=2, help="number of workers of the runs with several (default: 2)"
    )
    parser.add_argument(
        "--critic", choices=("shared", "separate"), default="separate", help="separate is SB3's network"
    )
    parser.add_argument("--peer", choices=("none", "sb3"), default="none")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/asynchrony-MACHINE.json")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, save and print."""
    args = parse(argv)
    if args.peer == "sb3" and find_spec("stable_baselines3") is None:
        print("--peer sb3: Stable-Baselines3 is not installed; pip install 'limelight-rl[sb3]'", file=sys.stderr)
        return 2
    from limelight.training.run import single_threaded

    settings = {name: value for name, value in vars(args).items() if name != "output"} | {"threads": 1}
    head = provenance("asynchrony", settings)
    taken: dict[str, dict[str, list[Sample]]] = {}
    config: dict[str, Any] = {}
    with single_threaded():
        for name in args.shapes:
            print(f"{name} …", file=sys.stderr, flush=True)
            num_envs, num_steps = map(int, name.split("x"))
            shape = Shape(name, "a2c", num_envs, num_steps, (args.critic,), SB3_SETTINGS, args.env, (args.env_backend,))
            runners = contenders(shape, args.critic, args.workers, args.peer == "sb3", args.seed)
            config[name] = flat_settings(next(r.config for r in runners if isinstance(r, Workers)))
            taken[name] = measure(runners, args.seconds, args.repeats)
    peers = [samples["sb3"] for samples in taken.values() if "sb3" in samples]
    best_peer = max(peers, key=lambda turns: median(speeds(turns))) if peers else None
    results = {
        name: {"config": config[name], "contenders": summarize(samples, best_peer)} for name, samples in taken.items()
    }
    path = results_path("asynchrony" + ("" if args.env == ENV_ID else f"-{args.env}"), args.output)
    save_json(path, {**head, "results": results})
    print(table(results))
    print(f"\nMedians of {args.repeats} turns of {args.seconds:g} s. All data: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
