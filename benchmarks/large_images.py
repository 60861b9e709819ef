"""Measure A2C on large images beside Stable-Baselines3's (CnnPolicy): one process, one thread, processor time.

Both have the Nature network, 8 environments and RMSprop with SB3's settings, and take turns (A B A B …). The time
within the environments is measured apart, as it is no merit of either: with CarRacing it is most of the time, and it
depends on the track and on where the car is. Environments called ``HxWxC`` return random frames of that shape, which
costs next to nothing. Run it as a script.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from stats import markdown_table, number, provenance, results_path, save_json
from throughput import ENDLESS, NEVER, SB3_SETTINGS

NUM_ENVS = 8
ENVS = ("64x64x3", "96x96x3", "128x128x3", "210x160x3", "CarRacing-v3")
ENCODERS = ("nature",)


class Frames(gym.Env[Any, Any]):
    """Returns random frames [H, W, C] of bytes; three continuous actions, a reward every fifth step, 200 steps."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
        self._frames = np.random.default_rng(0).integers(0, 256, (64, *shape), dtype=np.uint8)
        self._step = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Start an episode."""
        super().reset(seed=seed)
        self._step = 0
        return self._frames[0], {}

    def step(self, action: Any) -> Any:
        """Take a step."""
        self._step += 1
        return self._frames[self._step % 64], float(self._step % 5 == 0), False, self._step >= 200, {}


class Clocked(gym.Wrapper[Any, Any, Any, Any]):
    """Adds the processor time of an environment's steps and resets to a clock that several environments share."""

    def __init__(self, env: gym.Env[Any, Any], clock: list[float]) -> None:
        super().__init__(env)
        self._clock = clock

    def reset(self, **kwargs: Any) -> Any:
        """Start an episode."""
        start = time.process_time()
        try:
            return self.env.reset(**kwargs)
        finally:
            self._clock[0] += time.process_time() - start

    def step(self, action: Any) -> Any:
        """Take a step."""
        start = time.process_time()
        try:
            return self.env.step(action)
        finally:
            self._clock[0] += time.process_time() - start


def make_factory(name: str, clock: list[float]) -> Callable[[], gym.Env[Any, Any]]:
    """Return a callable that makes the environment ``name`` with a clock."""
    if name[0].isdigit():
        shape = tuple(int(side) for side in name.split("x"))
        return lambda: Clocked(Frames(shape), clock)
    return lambda: Clocked(gym.make(name), clock)


@dataclass(frozen=True)
class Sample:
    """The result of one turn: processor seconds, in all and within the environments."""

    steps: int
    seconds: float
    env_seconds: float

    @property
    def steps_per_second(self) -> float:
        """Return the environment steps per second."""
        return self.steps / self.seconds

    @property
    def milliseconds(self) -> float:
        """Return the milliseconds per step without the environment: acting and learning."""
        return 1e3 * (self.seconds - self.env_seconds) / self.steps

    @property
    def env_milliseconds(self) -> float:
        """Return the milliseconds per step within the environment."""
        return 1e3 * self.env_seconds / self.steps


class Contender(Protocol):
    """An agent that trains, and continues in its next turn."""

    clock: list[float]

    def train(self, rollouts: int) -> int:
        """Train for a number of rollouts; return the environment steps."""

    def close(self) -> None:
        """Close the environments."""


class Ours:
    """A runner as ``limelight.train`` builds it; no evaluation, no logging."""

    def __init__(self, name: str, num_steps: int, seed: int, encoder: str) -> None:
        from limelight.training.prepare import prepare
        from limelight.training.presets import resolve_config
        from limelight.training.run import build

        self.clock = [0.0]
        factory = make_factory(name, self.clock)
        settings = {k: v for k, v in SB3_SETTINGS.items() if k not in ("preset", "hidden_sizes", "activation")}
        settings |= {"num_envs": NUM_ENVS, "num_steps": num_steps, "total_timesteps": ENDLESS, "seed": seed}
        settings |= {"encoder": encoder, "action_bounds": "clip", "backend": "sync", "device": "cpu"}
        config = prepare(resolve_config("env", "a2c", "none", settings, factory), factory)
        self.runner, _ = build(config, factory)
        self._rollout = NUM_ENVS * num_steps

    def train(self, rollouts: int) -> int:
        """See :class:`Contender`."""
        start = self.runner.num_steps
        self.runner.advance(start + rollouts * self._rollout, 1e9)
        self.runner.pop_episodes()
        return self.runner.num_steps - start

    def close(self) -> None:
        """See :class:`Contender`."""
        self.runner.close()


class StableBaselines3:
    """Stable-Baselines3's A2C with its defaults and CnnPolicy, without logging."""

    def __init__(self, name: str, num_steps: int, seed: int) -> None:
        from stable_baselines3 import A2C
        from stable_baselines3.common.env_util import make_vec_env

        self.clock = [0.0]
        self.envs = make_vec_env(make_factory(name, self.clock), n_envs=NUM_ENVS, seed=seed)
        self.model = A2C("CnnPolicy", self.envs, n_steps=num_steps, device="cpu", seed=seed)
        self._rollout = NUM_ENVS * num_steps

    def train(self, rollouts: int) -> int:
        """See :class:`Contender`."""
        start = self.model.num_timesteps
        self.model.learn(rollouts * self._rollout, log_interval=NEVER, reset_num_timesteps=False)
        return self.model.num_timesteps - start

    def close(self) -> None:
        """See :class:`Contender`."""
        self.envs.close()


def turn(contender: Contender, rollouts: int) -> Sample:
    """Return the sample of a turn of ``rollouts`` rollouts."""
    start, env_start = time.process_time(), contender.clock[0]
    steps = contender.train(rollouts)
    return Sample(steps, time.process_time() - start, contender.clock[0] - env_start)


def measure(contenders: dict[str, Contender], seconds: float, repeats: int) -> dict[str, list[Sample]]:
    """Return ``repeats`` turns of about ``seconds`` of every contender, by its name, after a first one to warm up."""
    rollouts, samples = {}, {name: [] for name in contenders}  # type: dict[str, int], dict[str, list[Sample]]
    for name, contender in contenders.items():
        turn(contender, 2)
        rollouts[name] = max(1, round(seconds / (turn(contender, 2).seconds / 2)))
    for _ in range(repeats):
        for name, contender in contenders.items():
            samples[name].append(turn(contender, rollouts[name]))
    return samples


def summarize(samples: dict[str, list[Sample]]) -> dict[str, Any]:
    """Return each contender's medians, its speed relative to SB3 with and without the environment, and samples."""
    summary: dict[str, Any] = {}
    for name, turns in samples.items():
        row = {
            key: median(getattr(sample, key) for sample in turns)
            for key in ("steps_per_second", "milliseconds", "env_milliseconds")
        }
        peer = samples.get("sb3")
        if peer and name != "sb3":
            pairs = list(zip(turns, peer, strict=True))
            row["faster_than_sb3"] = median(a.steps_per_second / b.steps_per_second for a, b in pairs)
            row["faster_than_sb3_without_env"] = median(b.milliseconds / a.milliseconds for a, b in pairs)
        summary[name] = {**row, "samples": [asdict(sample) for sample in turns]}
    return summary


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    times_header = ["ms a step, environment", "ms a step, acting and learning"]
    header = ["environment", "contender", "steps/s", *times_header, "× SB3", "× SB3 without the environment"]
    rows = []
    for env, result in results.items():
        for name, row in result.items():
            ratios = [f"{row[key]:.2f}" if key in row else "" for key in
                      ("faster_than_sb3", "faster_than_sb3_without_env")]  # fmt: skip
            times = [f"{row[key]:.2f}" for key in ("env_milliseconds", "milliseconds")]
            rows.append([env, name, number(row["steps_per_second"]), *times, *ratios])
    return markdown_table(header, rows)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--envs", nargs="+", default=ENVS, metavar="ENV", help=f"default: {' '.join(ENVS)}")
    parser.add_argument("--encoders", nargs="+", default=ENCODERS, help="of Limelight (default: nature, as SB3's)")
    parser.add_argument("--num-steps", type=int, default=5, help="steps of a rollout (default: 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn (default: 4)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each contender (default: 5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/large_images-MACHINE.json")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, save and print."""
    args = parse(argv)
    has_peer = find_spec("stable_baselines3") is not None
    if not has_peer:
        print("Stable-Baselines3 is not installed: Limelight alone is measured", file=sys.stderr)
    from limelight.training.run import single_threaded

    settings = {key: value for key, value in vars(args).items() if key != "output"} | {"num_envs": NUM_ENVS}
    head = provenance("large_images", {**settings, "threads": 1, "peer": "sb3" if has_peer else "none"})
    results: dict[str, Any] = {}
    with single_threaded():
        for env in args.envs:
            print(f"{env} …", file=sys.stderr, flush=True)
            contenders: dict[str, Contender] = {
                f"limelight {encoder}": Ours(env, args.num_steps, args.seed, encoder) for encoder in args.encoders
            }
            if has_peer:
                contenders["sb3"] = StableBaselines3(env, args.num_steps, args.seed)
            results[env] = summarize(measure(contenders, args.seconds, args.repeats))
            for contender in contenders.values():
                contender.close()
    path = results_path("large_images", args.output)
    save_json(path, {**head, "results": results})
    print(table(results))
    print(f"\n{head['machine']['processor']}, 1 thread; medians of {args.repeats} turns. All samples: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
