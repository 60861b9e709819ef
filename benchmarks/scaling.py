"""Measure Ray workers: overhead per update over the local runner, and steps per second with 1 to 32 workers.

Overhead: a network of the Atari size on an environment that costs nothing; the local runner and one asynchronous Ray
worker of each kind take turns. Growth: an environment that waits and does not compute. Needs Ray. Run it as a script.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium as gym
import numpy as np
from stats import markdown_table, number, provenance, results_path, save_json

KINDS = {
    "synchronous": ("a2c", {"worker_output": "gradients"}),
    "asynchronous, gradients": ("a3c", {"worker_output": "gradients"}),
    "asynchronous, rollouts": ("a3c", {"worker_output": "rollouts"}),
    "asynchronous, gradients, one ahead": ("a3c", {"worker_output": "gradients", "prefetch": 1}),
    "asynchronous, rollouts, one ahead": ("a3c", {"worker_output": "rollouts", "prefetch": 1}),
}
QUIET = {"eval_every": 0, "checkpoint_every": 0, "final_episodes": 0, "tensorboard": False, "total_timesteps": 10**12}


class Waits(gym.Env[Any, Any]):
    """An environment that waits ``seconds`` and returns four random numbers, like a simulator on another machine."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Implement gym.Env."""
        super().reset(seed=seed)
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Implement gym.Env."""
        time.sleep(self.seconds)
        return self.np_random.uniform(-1, 1, 4).astype(np.float32), 1.0, False, False, {}


class Still(gym.Env[Any, Any]):
    """An environment without cost whose four frames of 84 × 84 never change, so that only learning takes time."""

    observation_space = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = gym.spaces.Discrete(6)

    def __init__(self) -> None:
        self.obs = np.random.default_rng(0).integers(0, 256, (4, 84, 84), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Implement gym.Env."""
        super().reset(seed=seed)
        return self.obs, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Implement gym.Env."""
        return self.obs, float(action == 0), False, False, {}


class Contender:
    """A runner that takes turns with others."""

    def __init__(self, env_id: str, algo: str, settings: dict[str, Any]) -> None:
        from limelight.training.prepare import prepare
        from limelight.training.presets import resolve_config
        from limelight.training.run import build

        self.config = prepare(resolve_config(env_id, algo, "plain", {**QUIET, "backend": "sync", **settings}), None)
        self.runner, _ = build(self.config, None)
        while self.runner.num_steps == 0:  # starting takes seconds, which are not part of the first turn
            self.runner.advance(1, 1.0)

    def turn(self, seconds: float) -> float:
        """Return environment steps per second over about ``seconds``, and over one update at least."""
        runner = self.runner
        steps, start = runner.num_steps, time.perf_counter()
        # From the end of one update to the end of another.
        while runner.num_steps == steps or time.perf_counter() - start < seconds:
            runner.advance(runner.num_steps + 1, seconds)
        runner.pop_episodes()
        return (runner.num_steps - steps) / (time.perf_counter() - start)


def overhead(seconds: float, repeats: int, num_envs: int, num_steps: int) -> dict[str, Any]:
    """Return milliseconds per update of every kind with one worker and of the local runner, taking turns."""
    shape = {"num_envs": num_envs, "num_steps": num_steps, "encoder": "a3c"}
    runners = {"local": Contender("scaling:Still", "a2c", shape)}
    for name in list(KINDS)[1:]:
        algo, own = KINDS[name]
        runners[name] = Contender("scaling:Still", algo, {**shape, **own, "runner": "ray", "num_workers": 1})
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(repeats):
        for name, contender in runners.items():
            times[name].append(1000.0 * num_envs * num_steps / contender.turn(seconds))
    parameters = len(runners["local"].runner.actor_learner.learner.flat)  # type: ignore[attr-defined]
    for contender in runners.values():
        contender.runner.close()
    alone = ray_alone(parameters, seconds)
    over = {name: median(t - local for t, local in zip(times[name], times["local"], strict=True)) for name in times}
    return {"parameters": parameters, "milliseconds": times, "overhead": over, "ray_alone": alone}


def ray_alone(parameters: int, seconds: float) -> float:
    """Return the milliseconds that Ray takes to store numbers, pass them to an actor and return as many."""
    import ray

    class Echo:
        def echo(self, values: Any) -> Any:
            return values + 0

    actor, values, times = ray.remote(Echo).remote(), np.zeros(parameters, np.float32), []
    ray.get(actor.echo.remote(ray.put(values)))
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        ray.get(actor.echo.remote(ray.put(values)))
        times.append(1000.0 * (time.perf_counter() - start))
    ray.kill(actor)
    return median(times)


def growth(workers: Sequence[int], wait: float, num_steps: int, seconds: float, repeats: int) -> dict[str, Any]:
    """Return steps per second of each kind by number of workers, each worker with one environment that waits."""
    results: dict[str, Any] = {}
    for name in list(KINDS)[1:]:
        algo, own = KINDS[name]
        for count in workers:
            settings = {**own, "runner": "ray", "num_workers": count, "num_envs": 1, "num_steps": num_steps}
            contender = Contender("scaling:Waits", algo, {**settings, "env_kwargs": {"seconds": wait}})
            # Warm up: the first rollouts of a process take longer, and all processes share the cores.
            contender.turn(0.5 * count)
            results.setdefault(name, {})[str(count)] = [contender.turn(seconds) for _ in range(repeats)]
            contender.runner.close()
            print(f"{name}, {count} workers: {median(results[name][str(count)]):.0f} steps/s", flush=True)
    return results


def tables(results: dict[str, Any], wait: float) -> str:
    """Return the tables of overhead and growth."""
    parts = results["overhead"]
    rows = [
        [name, number(median(times), 2), number(parts["overhead"][name], 2) if name != "local" else "–"]
        for name, times in parts["milliseconds"].items()
    ]
    rows.append(["Ray without learning: the same numbers there and back", number(parts["ray_alone"], 2), "–"])
    first = markdown_table(["runner", "ms per update", "over local, ms"], rows)
    rows = []
    for name, by_count in results["growth"].items():
        one = median(next(iter(by_count.values()))) / int(next(iter(by_count)))
        for count, speeds in by_count.items():
            per_worker = median(speeds) / int(count)
            rows.append([name, count, number(median(speeds)), f"{per_worker / one:.0%}", f"{per_worker * wait:.0%}"])
    second = markdown_table(["kind", "workers", "steps/s", "of the first's × workers", "of 1 / waiting"], rows)
    return f"{parts['parameters']:,} parameters\n\n{first}\n\nAn environment that waits {1000 * wait:g} ms\n\n{second}"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--wait", type=float, default=0.02, help="seconds that a step of the waiting environment takes")
    parser.add_argument("--num-steps", type=int, default=20, help="steps per rollout of the waiting environment")
    parser.add_argument("--shape", type=int, nargs=2, default=[4, 5], help="environments and steps for the overhead")
    parser.add_argument("--seconds", type=float, default=2.0, help="per turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/scaling-MACHINE.json")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, save and print."""
    args = parse(argv)
    import logging

    import ray

    from limelight.training.run import single_threaded

    settings = {name: value for name, value in vars(args).items() if name != "output"}
    head = provenance("scaling", settings)
    ray.init(
        num_cpus=max(*args.workers, len(KINDS)),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        with single_threaded():
            results = {
                "overhead": overhead(args.seconds, args.repeats, *args.shape),
                "growth": growth(args.workers, args.wait, args.num_steps, args.seconds, args.repeats),
            }
    finally:
        ray.shutdown()
    path = results_path("scaling", args.output)
    save_json(path, {**head, **results})
    print(tables(results, args.wait))
    print(f"\nAll data: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
