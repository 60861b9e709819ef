"""Train A3C for minutes on an environment that fails at random, and watch memory, files and processes.

    python benchmarks/soak.py --minutes 4 --output runs/soak.json

Each worker's environment raises, exits, or kills its process with a small probability per step. The script prints a row
every few seconds, and fails if memory, open files or child processes grow between the first and the last third of the
run, if a process remains at the end, or if failures are not all counted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import limelight

FAULTS = ("raise", "exit", "kill")
FOLDER = "LIMELIGHT_SOAK_FOLDER"
"""Environment variable with the folder in which each failure leaves a file."""


class FailsAtRandom(gym.Wrapper):  # type: ignore[type-arg]
    """CartPole that fails in the processes of workers with a probability per step."""

    def __init__(self, probability: float = 2e-5) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.probability = probability
        self.dice = np.random.default_rng([os.getpid(), time.monotonic_ns()])
        self.main = int(os.environ[f"{FOLDER}_PID"])

    def step(self, action: Any) -> Any:
        """Step, or fail."""
        if os.getpid() != self.main and self.dice.random() < self.probability:
            fault = FAULTS[int(self.dice.integers(len(FAULTS)))]
            (Path(os.environ[FOLDER]) / f"{os.getpid()}-{time.monotonic_ns()}.{fault}").touch()
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif fault == "exit":
                sys.exit(3)
            raise RuntimeError("the simulator broke")
        return self.env.step(action)


def resources() -> dict[str, int]:
    """Return memory in KiB of this process, its open files, its child processes, and its names in /dev/shm (Linux)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    tracker = resource_tracker._resource_tracker._pid  # one of Python's own, which exits after this process
    children = {pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}
    children.discard(str(tracker))
    memory = int(status["VmRSS"].split()[0])
    files = len(os.listdir("/proc/self/fd"))
    shared = sum(str(os.getpid()) in name for name in os.listdir("/dev/shm"))
    return {"memory": memory, "files": files, "children": len(children), "shared": shared}


class Watch:
    """A callback that notes the resources now and then, and ends the run after some seconds."""

    def __init__(self, seconds: float, every: float = 5.0) -> None:
        self.end = time.monotonic() + seconds
        self.every = every
        self.due = 0.0
        self.rows: list[dict[str, float]] = []

    def on_rollout(self, run: Any) -> bool:
        """Note a row if it is due; return False at the end."""
        now = time.monotonic()
        if now >= self.due:
            self.due = now + self.every
            self.rows.append({"step": run.step, **resources()})
            print(self.rows[-1], flush=True)
        return now < self.end


class Restarts:
    """A logger that counts the restarts of workers by their messages."""

    def __init__(self) -> None:
        self.count = 0

    def message(self, text: str) -> None:
        """Count a restart."""
        self.count += "with fresh seeds (restart" in text

    def log(self, *args: Any) -> None:
        """Ignore rows."""

    def episodes(self, *args: Any) -> None:
        """Ignore episodes."""

    def close(self) -> None:
        """Do nothing."""


def grows(values: Sequence[float], tolerance: float) -> bool:
    """Return whether the median of the last third is above that of the second third by more than a share."""
    third = len(values) // 3
    if third == 0:
        return False
    middle, last = np.median(values[third : 2 * third]), np.median(values[-third:])
    return bool(last > middle * (1.0 + tolerance) + 1.0)


def soak(minutes: float, workers: int, probability: float) -> dict[str, Any]:
    """Train, and return the rows, the failures, and what is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ[FOLDER], os.environ[f"{FOLDER}_PID"] = folder, str(os.getpid())
        before, watch, restarts = resources(), Watch(60.0 * minutes), Restarts()
        run_dir = Path(folder) / "run"
        result = limelight.train(
            FailsAtRandom, algo="a3c", num_workers=workers, total_timesteps=10**9, run_dir=str(run_dir), quiet=True,
            callbacks=[watch], loggers=[restarts], max_worker_restarts=10**6, eval_every=0, final_episodes=1,
            env_kwargs={"probability": probability}, tensorboard=False, log_every=5_000, checkpoint_every=50_000,
        )  # fmt: skip
        failures = len([path for path in Path(folder).iterdir() if path.suffix.removeprefix(".") in FAULTS])
    counted = restarts.count
    time.sleep(1.0)
    after, wrong = resources(), []
    for name, tolerance in (("memory", 0.1), ("files", 0.0), ("children", 0.0), ("shared", 0.0)):
        if grows([row[name] for row in watch.rows], tolerance):
            wrong.append(f"{name} grow")
    if after["children"] > before["children"]:
        wrong.append(f"{after['children'] - before['children']} processes remain")
    if abs(failures - counted) > workers:  # the last ones may come after the last row
        wrong.append(f"{failures} failures, {counted} restarts counted")
    return {
        "status": result.status, "steps": result.summary["total_timesteps"], "failures": failures, "counted": counted,
        "before": before, "after": after, "rows": watch.rows, "wrong": wrong,
    }  # fmt: skip


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--probability", type=float, default=2e-5, help="of a failure at each step of a worker")
    parser.add_argument("--output", type=Path, help="write the rows and the result as JSON")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = parse(argv)
    result = soak(args.minutes, args.workers, args.probability)
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(result, indent=1))
    print({name: value for name, value in result.items() if name != "rows"})
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
