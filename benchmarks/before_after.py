"""Throughput of two source trees, side by side: the ratio after / before, case by case.

python benchmarks/before_after.py --before ../before/src [--after src] [--repeats 5]

Each measurement is a process of its own that trains through the public interface (``limelight.train``), so that both
trees may be arranged as they like. It counts steps per second of its own processor time between the first and the last
progress report, which other processes disturb less than the clock; with worker processes, steps per second of the
clock. The two trees take turns, A B B A, and the ratio is that of the medians. The times of ``limelight --help`` are
whole processes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

QUIET: dict[str, Any] = {
    "eval_every": 0, "final_episodes": 0, "tensorboard": False, "checkpoint_every": 0, "device": "cpu", "seed": 1,
    "log_every": 1_000_000, "preset": "plain", "algo": "a2c",
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "CartPole 8 × 5": {"env": "CartPole-v1", "num_envs": 8, "num_steps": 5, "total_timesteps": 100_000},
    "CartPole 64 × 5": {"env": "CartPole-v1", "num_envs": 64, "num_steps": 5, "total_timesteps": 500_000},
    "CartPole 256 × 5": {"env": "CartPole-v1", "num_envs": 256, "num_steps": 5, "total_timesteps": 1_000_000},
    "FrozenLake 8 × 5": {"env": "FrozenLake-v1", "num_envs": 8, "num_steps": 5, "total_timesteps": 40_000},
    "Taxi 8 × 5, 500 states and a mask": {
        "env": "Taxi-v4", "num_envs": 8, "num_steps": 5, "total_timesteps": 30_000,
    },
    "Blackjack 8 × 5, a Tuple": {
        "env": "Blackjack-v1", "num_envs": 8, "num_steps": 5, "backend": "sync", "total_timesteps": 15_000,
    },
    "CartPole 8 × 5, sync": {
        "env": "CartPole-v1", "num_envs": 8, "num_steps": 5, "backend": "sync", "total_timesteps": 60_000,
    },
    "Pendulum 8 × 5": {
        "env": "Pendulum-v1", "num_envs": 8, "num_steps": 5, "backend": "sync", "total_timesteps": 40_000,
    },
    "CartPole 1 × 1": {"env": "CartPole-v1", "num_envs": 1, "num_steps": 1, "total_timesteps": 10_000},
    "CartPole 8 × 5, autograd": {
        "env": "CartPole-v1", "num_envs": 8, "num_steps": 5, "activation": "silu", "total_timesteps": 30_000,
    },
    "CartPole 16 × 16, LSTM": {
        "env": "CartPole-v1", "num_envs": 16, "num_steps": 16, "core": "lstm", "total_timesteps": 40_000,
    },
    "Pong 32 × 20": {
        "env": "ALE/Pong-v5", "preset": "auto", "num_envs": 32, "num_steps": 20, "total_timesteps": 12_000,
    },
    "HalfCheetah 16 × 5": {
        "env": "HalfCheetah-v5", "num_envs": 16, "num_steps": 5, "backend": "sync", "total_timesteps": 40_000,
    },
    "CartPole A3C, 1 worker, 64 × 5": {
        "env": "CartPole-v1", "algo": "a3c", "num_workers": 1, "num_envs": 64, "num_steps": 5,
        "total_timesteps": 500_000,
    },
}  # fmt: skip
CODE = """
import json, sys, tempfile, time, limelight
from limelight.training import presets

class Clock:
    def __init__(self):
        self.ticks = []
    def tick(self, step, seconds):
        self.ticks.append((step, time.process_time()))
    def log(self, *arguments):
        pass
    episodes = message = close = log

if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    has_workers, clock = "num_workers" in settings, Clock()
    with tempfile.TemporaryDirectory() as folder:
        env = settings.pop("env")
        if "plain" not in getattr(presets, "CHOICES", ()):
            settings["preset"] = "none"  # its name in older trees
        result = limelight.train(env, quiet=True, run_dir=folder + "/run", loggers=[clock], **settings)
        (first, start), (last, end) = [tick for tick in clock.ticks if tick[0]][0], clock.ticks[-1]
        print(result.summary["steps_per_second"] if has_workers else (last - first) / (end - start))
"""


def environment(source: Path) -> dict[str, str]:
    """The environment of a process that imports ``source``."""
    paths = [str(source.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def steps_per_second(source: Path, script: Path, case: str) -> float:
    """Train once and return the throughput."""
    settings = {**QUIET, **CASES[case]}
    command = [sys.executable, str(script), json.dumps(settings)]
    done = subprocess.run(command, env=environment(source), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case} with {source}: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.split()[-1])


def help_seconds(source: Path) -> float:
    """Return the seconds of ``limelight --help``, as a whole process."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "limelight", "--help"], env=environment(source), capture_output=True, check=True
    )
    return time.perf_counter() - start


def main() -> None:
    """Measure, and print one row per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="source folder of the code before")
    parser.add_argument("--after", type=Path, default=Path("src"), help="source folder of the code after")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each tree")
    parser.add_argument("--only", default="", help="only the cases whose name contains this")
    parser.add_argument("--output", type=Path, help="write all samples to this JSON file")
    arguments = parser.parse_args()
    samples: dict[str, dict[str, list[float]]] = {}
    print("| case | before | after | after / before |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "train_once.py"
        script.write_text(CODE, encoding="utf-8")
        measures = {case: (lambda source, c=case: steps_per_second(source, script, c)) for case in CASES}
        measures["limelight --help, seconds"] = help_seconds
        for case, measure in measures.items():
            if arguments.only not in case:
                continue
            found: dict[str, list[float]] = {"before": [], "after": []}
            for turn in range(arguments.repeats):
                order = ["before", "after"] if turn % 2 == 0 else ["after", "before"]
                for name in order:
                    found[name].append(measure(getattr(arguments, name)))
            before, after = (statistics.median(found[name]) for name in ("before", "after"))
            samples[case] = found
            print(f"| {case} | {before:,.3g} | {after:,.3g} | {after / before:.3f} |", flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(samples, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
