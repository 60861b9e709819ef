"""Measure the share of the environments' own speed that training by two workers reaches.

The environments alone are stepped with random actions by as many processes as there are workers, through the same
backend and preprocessing; both take turns, so a machine that slows down slows both. Run it as a script.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from asynchrony import Workers
from stats import flat_settings, markdown_table, number, provenance, results_path, save_json

from limelight.envs.make import make_envs
from limelight.settings.schema import EnvConfig

ENVS = ("ALE/Pong-v5", "HalfCheetah-v5", "LunarLander-v3", "Pendulum-v1")
NUM_ACTIONS = 64
"""Different batches of random actions, drawn before the clock starts."""


def step_alone(pipe: Connection, config: EnvConfig, seed: int) -> None:
    """Step environments for the seconds that the pipe sends, and send back how many steps they took; None ends it."""
    envs = make_envs(config, seed=seed)
    envs.single_action_space.seed(seed)
    batches = [np.stack([envs.single_action_space.sample() for _ in range(envs.num_envs)]) for _ in range(NUM_ACTIONS)]
    pipe.send(None)
    while (seconds := pipe.recv()) is not None:
        steps, start = 0, time.perf_counter()
        while time.perf_counter() < start + seconds:
            for batch in batches:
                steps += int(np.count_nonzero(envs.step(batch).valid))
        pipe.send(steps / (time.perf_counter() - start))
    envs.close()


class Alone:
    """Processes that step environments with random actions."""

    def __init__(self, config: EnvConfig, num_processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for seed in range(num_processes):
            pipe, theirs = context.Pipe()
            process = context.Process(target=step_alone, args=(theirs, config, seed), daemon=True)
            process.start()
            pipe.recv()
            self.pipes.append(pipe)
            self.processes.append(process)

    def turn(self, seconds: float) -> float:
        """Return steps per second of all processes together."""
        for pipe in self.pipes:
            pipe.send(seconds)
        return float(sum(pipe.recv() for pipe in self.pipes))

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.send(None)
            process.join()


def measure(env_id: str, num_envs: int, num_workers: int, repeats: int, seconds: float) -> dict[str, Any]:
    """Return the steps per second of every turn of both, and the settings of training."""
    settings = {"num_envs": num_envs // num_workers, "num_workers": num_workers, "eval_every": 0}
    workers = Workers("training", env_id, settings)
    alone = Alone(workers.config.env, num_workers)
    speeds: dict[str, list[float]] = {"alone": [], "training": []}
    workers.turn(seconds)  # a first, unmeasured turn
    for _ in range(repeats):
        speeds["alone"].append(alone.turn(seconds))
        sample = workers.turn(seconds)
        speeds["training"].append(sample.steps / sample.seconds)
    workers.close()
    alone.close()
    return {**speeds, "settings": flat_settings(workers.config)}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", default=list(ENVS))
    parser.add_argument("--num-envs", type=int, default=16, help="environments of all workers together")
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="turns of each")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of a turn")
    parser.add_argument("--output", type=Path, help="JSON file (default: benchmarks/results/)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write the samples."""
    arguments = parse(argv)
    chosen = arguments.num_envs, arguments.num_workers, arguments.repeats, arguments.seconds
    results = {env_id: measure(env_id, *chosen) for env_id in arguments.envs}
    rows = []
    for env_id, result in results.items():
        alone, training = median(result["alone"]), median(result["training"])
        result["share"] = training / alone
        rows.append([env_id, number(alone), number(training), f"{result['share']:.2f}"])
    print(markdown_table(["environment", "alone, steps/s", "training, steps/s", "share"], rows))
    settings = {name: value for name, value in vars(arguments).items() if name != "output"}
    save_json(results_path("env_share", arguments.output), {**provenance("env_share", settings), "results": results})


if __name__ == "__main__":
    main()
