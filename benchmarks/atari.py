"""Measure environment steps per second on an Atari game, training included, and the share of each part of the work.

The emulator without an agent, asynchronous workers, one environment per worker (the classic script's design), and with
``--peer sb3`` that script itself and Stable-Baselines3 take turns. Run it as a script.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from asynchrony import Workers, compare, measure
from classic import ClassicScript
from stats import flat_settings, markdown_table, number, provenance, results_path, save_json
from throughput import NEVER, Contender, Sample

T = TypeVar("T")

CLASSIC = "one environment per worker"
EMULATOR = "the emulator alone"


class Emulator:
    """ALE's vector environment with random actions: the upper bound for every agent."""

    name = EMULATOR

    def __init__(self, game: str, num_envs: int, threads: int, seed: int) -> None:
        from limelight.envs.make import make_envs

        self.envs = make_envs(game, num_envs, seed=seed, env_threads=threads)
        self.rng = np.random.default_rng(seed)

    def turn(self, seconds: float) -> Sample:
        """See :class:`throughput.Contender`."""
        start, steps = time.perf_counter(), 0
        space, B = self.envs.single_action_space, self.envs.num_envs
        while time.perf_counter() - start < seconds:
            steps += int(self.envs.step(self.rng.integers(space.n, size=B)).valid.sum())
        return Sample(steps, 0, time.perf_counter() - start)

    def close(self) -> None:
        """See :class:`throughput.Contender`."""
        self.envs.close()


class StableBaselines3:
    """Stable-Baselines3's A2C with the zoo's settings for Atari: CnnPolicy (Nature's network), 16 environments × 5."""

    name = "sb3"

    def __init__(self, game: str, seed: int) -> None:
        from stable_baselines3 import A2C
        from stable_baselines3.common.env_util import make_atari_env
        from stable_baselines3.common.vec_env import VecFrameStack

        self.envs = VecFrameStack(make_atari_env(f"{game.title().replace('_', '')}NoFrameskip-v4", 16, seed), 4)
        self.model = A2C("CnnPolicy", self.envs, ent_coef=0.01, vf_coef=0.25, device="cpu", seed=seed)

    def turn(self, seconds: float) -> Sample:
        """See :class:`throughput.Contender`; it learns ten updates at a time until the time is over."""
        model, start, before = self.model, time.perf_counter(), self.model.num_timesteps
        while time.perf_counter() - start < seconds:
            model.learn(800, log_interval=NEVER, reset_num_timesteps=False)
        steps = model.num_timesteps - before
        return Sample(steps, steps // 80, time.perf_counter() - start)

    def close(self) -> None:
        """See :class:`throughput.Contender`."""
        self.envs.close()


def settings_of(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the settings of Limelight's contenders, by name."""
    own = {"num_workers": args.workers, "seed": args.seed, "precision": args.precision}
    base = {**own, "frame_size": 84}
    half = {"frame_size": 42, "encoder": "a3c-half"}
    return {
        f"{args.workers} workers × 16 × 5, a3c": {**base, "num_envs": 16, "num_steps": 5, "encoder": "a3c"},
        f"{args.workers} workers × 32 × 20, a3c": {**base, "num_envs": 32, "num_steps": 20, "encoder": "a3c"},
        f"{args.workers} workers × 16 × 5, nature": {**base, "num_envs": 16, "num_steps": 5, "encoder": "nature"},
        f"{args.workers} workers × 8 × 10, 42 × 42, a3c-half": {**own, **half, "num_envs": 8, "num_steps": 10},
        CLASSIC: {**base, "num_envs": 1, "num_steps": 20, "encoder": "a3c"},
    }


def contenders(args: argparse.Namespace, peer: bool) -> list[Contender]:
    """Return the contenders that take turns."""
    ours = [Workers(name, args.game, settings) for name, settings in settings_of(args).items()]
    emulator = Emulator(args.game, 16 * args.workers, args.workers, args.seed)
    if not peer:
        return [emulator, *ours]
    from limelight.envs.games import id_of

    script = ClassicScript(id_of(args.game), args.workers, args.seed)
    return [emulator, *ours, script, StableBaselines3(args.game, args.seed)]


# --------------------------------------------------------------------------- shares of the time


def shares(game: str, settings: dict[str, Any], seconds: float) -> dict[str, float]:
    """Return the shares of one worker's time: environment steps, acting, gradients, optimizer, and the rest."""
    from limelight.runners.actor_learner import make_actor_learner
    from limelight.training.prepare import prepare
    from limelight.training.presets import resolve_config

    own = {**settings, "num_workers": None, "env_threads": 1, "total_timesteps": NEVER}
    actor = make_actor_learner(prepare(resolve_config(game, "a2c", "auto", own), None), None, settings["seed"])
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, function: Callable[..., T]) -> Callable[..., T]:
        def call(*args: Any, **kwargs: Any) -> T:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            spent[name] += time.perf_counter() - start
            return result

        return call

    envs: Any = actor.collector.envs
    learner: Any = actor.learner
    envs.step = timed("environments", envs.step)
    actor.policy.act = timed("acting", actor.policy.act)
    learner.gradients = timed("gradients", learner.gradients)
    learner.apply = timed("optimizer", learner.apply)
    try:
        for _ in range(5):
            learner.update(actor.collect(), 0.0)
        spent.clear()
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            learner.update(actor.collect(), 0.0)
        whole = time.perf_counter() - start
    finally:
        actor.close()
    return {**{name: value / whole for name, value in spent.items()}, "the rest": 1 - sum(spent.values()) / whole}


# --------------------------------------------------------------------------- the command


def summarize(samples: dict[str, list[Sample]]) -> dict[str, Any]:
    """Return medians, ratios and samples of each contender."""
    baselines = {"emulator": samples[EMULATOR], "classic": samples[CLASSIC]}
    peers = {"script": samples.get(ClassicScript.name), "sb3": samples.get("sb3")}
    return compare(samples, {**baselines, **peers})


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    keys = ("emulator", "classic", "script", "sb3")
    rows = [
        [name, number(row["steps_per_second"])]
        + [f"{row['ratios'][key]['of_medians']:.2f}" if key in row["ratios"] else "" for key in keys]
        for name, row in results.items()
    ]
    return markdown_table(["contender", "steps/s", "× emulator", "× one environment", "× the script", "× SB3"], rows)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--game", default="pong", help="default: pong")
    parser.add_argument("--workers", type=int, default=2, help="default: 2")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument(
        "--peer",
        choices=("none", "sb3"),
        default="none",
        help="sb3 adds Stable-Baselines3 and the classic script; both need opencv-python-headless",
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a turn (default: 10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/atari-MACHINE.json")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, save and print."""
    args = parse(argv)
    if args.peer == "sb3" and (find_spec("stable_baselines3") is None or find_spec("cv2") is None):
        print(
            "--peer sb3: Stable-Baselines3 or OpenCV is not installed; "
            "pip install 'limelight-rl[sb3]' opencv-python-headless",
            file=sys.stderr,
        )
        return 2
    from limelight.training.run import single_threaded

    head = provenance("atari", {name: value for name, value in vars(args).items() if name != "output"})
    with single_threaded():
        runners = contenders(args, args.peer == "sb3")
        config = {runner.name: flat_settings(runner.config) for runner in runners if isinstance(runner, Workers)}
        results = summarize(measure(runners, args.seconds, args.repeats))
        spent = {name: shares(args.game, own, args.seconds) for name, own in settings_of(args).items()}
    path = results_path("atari", args.output)
    save_json(path, {**head, "config": config, "results": results, "shares": spent})
    print(table(results))
    columns = list(next(iter(spent.values())))
    rows = [[name, *(f"{row.get(column, 0.0):.0%}" for column in columns)] for name, row in spent.items()]
    print("\n" + markdown_table(["one process alone", *columns], rows))
    print(f"\nMedians of {args.repeats} turns of {args.seconds:g} s. All data: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
