"""Measure training on composite, masked and large discrete observations, beside a flat environment of the same cost.

Every environment does the same work in a step and shows the same numbers in another form; networks have the same hidden
layers. Contenders take turns (A B A B …) in one process on one thread; seconds are processor time. A share is the ratio
of the medians to that of the flat environment. Run it as a script.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from stats import flat_settings, markdown_table, number, provenance, results_path, save_json

from limelight.runners.base import Runner
from limelight.training.prepare import prepare
from limelight.training.presets import resolve_config
from limelight.training.run import build

ENDLESS = 1 << 40
SETTINGS: dict[str, Any] = {"num_envs": 8, "num_steps": 5, "hidden_sizes": (64, 64), "backend": "sync", "device": "cpu"}
NUM_ACTIONS = 6


class Walk(gym.Env[Any, Any]):
    """A random walk of eight numbers and two categories; the flat form shows ten numbers."""

    observation_space: gym.Space[Any] = Box(-np.inf, np.inf, (10,), np.float32)
    action_space: gym.Space[Any] = Discrete(NUM_ACTIONS)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start at 0."""
        super().reset(seed=seed)
        self.steps = 0
        self.numbers = np.zeros(8, np.float32)
        self.mask = np.ones(NUM_ACTIONS, np.int8)
        return self.show(), self.info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move, at the cost of a step of classic control."""
        self.steps += 1
        self.numbers = 0.9 * self.numbers + self.np_random.standard_normal(8, dtype=np.float32)
        self.numbers[action] += 0.1
        self.mask = np.ones(NUM_ACTIONS, np.int8)  # in every form, so that a step costs the same
        self.mask[self.steps % NUM_ACTIONS] = 0
        return self.show(), float(self.numbers[0]), False, self.steps >= 200, self.info()

    def show(self) -> Any:
        """Return the observation."""
        obs = np.empty(10, np.float32)
        obs[:8] = self.numbers
        obs[8], obs[9] = self.steps % 4, self.steps % 3
        return obs

    def info(self) -> dict[str, Any]:
        """Return the info."""
        return {}


class AsDict(Walk):
    """The walk as a Dict of numbers and categories."""

    observation_space = Dict(
        position=Box(-np.inf, np.inf, (4,), np.float32),
        speed=Box(-np.inf, np.inf, (4,), np.float32),
        phase=Discrete(4),
        gear=Discrete(3),
    )

    def show(self) -> Any:
        """See :class:`Walk`."""
        numbers = self.numbers
        return {"position": numbers[:4], "speed": numbers[4:], "phase": self.steps % 4, "gear": self.steps % 3}


class AsTuple(Walk):
    """The walk as a Tuple."""

    observation_space = Tuple([Box(-np.inf, np.inf, (8,), np.float32), MultiDiscrete([4, 3])])

    def show(self) -> Any:
        """See :class:`Walk`."""
        return self.numbers, np.array([self.steps % 4, self.steps % 3])


class Many(Walk):
    """One of 500 states, as in Taxi."""

    observation_space = Discrete(500)

    def show(self) -> Any:
        """See :class:`Walk`."""
        return int(abs(self.numbers[0]) * 1000) % 500


class Masked(AsDict):
    """The Dict, with a mask of actions in it."""

    observation_space = Dict({**AsDict.observation_space.spaces, "action_mask": MultiBinary(NUM_ACTIONS)})

    def show(self) -> Any:
        """See :class:`Walk`."""
        return {**super().show(), "action_mask": self.mask}


class MaskedMany(Many):
    """500 states, with a mask of actions in info, as Taxi has it."""

    def info(self) -> dict[str, Any]:
        """See :class:`Walk`."""
        return {"action_mask": self.mask}


CASES: dict[str, type[Walk]] = {
    "flat": Walk,
    "Dict": AsDict,
    "Tuple": AsTuple,
    "Discrete(500)": Many,
    "Dict with mask": Masked,
    "Discrete(500), mask in info": MaskedMany,
}


def make_runner(make: Callable[[], Any], seed: int) -> tuple[Runner, dict[str, Any]]:
    """Return a runner as ``limelight.train`` builds it, and its settings."""
    settings = {**SETTINGS, "seed": seed, "total_timesteps": ENDLESS}
    config = prepare(resolve_config("composite", "a2c", "none", settings), make)
    return build(config, make)[0], flat_settings(config)


def turn(runner: Runner, steps: int) -> float:
    """Train for about ``steps`` steps; return steps per second of processor time."""
    before, start = runner.num_steps, time.process_time()
    while runner.num_steps < before + steps:
        runner.advance(before + steps, 60.0)
    runner.pop_episodes()
    return (runner.num_steps - before) / (time.process_time() - start)


def environment_speed(make: Callable[[], Any], steps: int) -> float:
    """Return the steps per second of the environment alone."""
    env = make()
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(NUM_ACTIONS, size=steps)
    start = time.process_time()
    for action in actions:
        if env.step(action)[3]:
            env.reset()
    return steps / (time.process_time() - start)


def measure(names: Sequence[str], repeats: int, steps: int, seed: int) -> dict[str, Any]:
    """Return the steps per second of every turn, of training and of the environment alone."""
    runners = {name: make_runner(CASES[name], seed) for name in names}
    results: dict[str, Any] = {name: {"training": [], "environment": []} for name in names}
    for runner, _ in runners.values():
        turn(runner, steps // 4)
    for _ in range(repeats):
        for name, (runner, _) in runners.items():
            results[name]["training"].append(turn(runner, steps))
            results[name]["environment"].append(environment_speed(CASES[name], steps))
    for runner, _ in runners.values():
        runner.close()
    return results


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write the samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--repeats", type=int, default=7, help="turns of each contender")
    parser.add_argument("--steps", type=int, default=10_000, help="environment steps of a turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file (default: benchmarks/results/)")
    arguments = parser.parse_args(argv)
    names = ["flat", *(name for name in arguments.cases if name != "flat")]
    results = measure(names, arguments.repeats, arguments.steps, arguments.seed)
    flat = median(results["flat"]["training"])
    rows = []
    for name, result in results.items():
        result["share"] = median(result["training"]) / flat
        speeds = [number(median(result[kind])) for kind in ("environment", "training")]
        rows.append([name, *speeds, f"{result['share']:.2f}"])
    print(markdown_table(["observations", "environment alone", "training", "share of flat"], rows))
    settings = {**SETTINGS, "hidden_sizes": list(SETTINGS["hidden_sizes"]), "steps": arguments.steps}
    data = {**provenance("composite", {**settings, "seed": arguments.seed}), "steps_per_second": results}
    save_json(results_path("composite", arguments.output), data)


if __name__ == "__main__":
    main()
