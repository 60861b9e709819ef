"""Measure the processor time of PPO on CartPole-v1 beside Stable-Baselines3, with its networks, epochs and batches.

python benchmarks/ppo_speed.py        # needs stable-baselines3, which this project does not depend on

Contenders take turns in one process on one thread. Evaluation and logging are off on both sides. The figure is
environment steps per second of processor time, training included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from limelight.runners.sync import SyncRunner
from limelight.training.prepare import prepare
from limelight.training.presets import resolve_config
from limelight.training.run import build

Advance = Callable[[], int]
"""Trains on; returns the environment steps taken since the start."""


def limelight_ppo(num_envs: int, num_steps: int, epochs: int, minibatches: int) -> Advance:
    """Return this project's PPO."""
    settings = {
        "num_envs": num_envs, "num_steps": num_steps, "num_epochs": epochs, "num_minibatches": minibatches,
        "eval_every": 0, "device": "cpu", "total_timesteps": 10_000_000, "lr_schedule": "constant",
    }  # fmt: skip
    runner, _ = build(prepare(resolve_config("CartPole-v1", "ppo", "none", settings), None), None)
    assert isinstance(runner, SyncRunner)

    def advance() -> int:
        runner.advance(runner.num_steps + 1, 1e9)  # one rollout
        return runner.num_steps

    return advance


def sb3_ppo(num_envs: int, num_steps: int, epochs: int, minibatches: int) -> Advance:
    """Return Stable-Baselines3's PPO with its own defaults otherwise."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    batch = num_envs * num_steps // minibatches
    model = PPO(
        "MlpPolicy", make_vec_env("CartPole-v1", num_envs, seed=0), n_steps=num_steps, n_epochs=epochs,
        batch_size=batch, device="cpu", seed=0,
    )  # fmt: skip

    def advance() -> int:
        model.learn(num_envs * num_steps, reset_num_timesteps=False, log_interval=10**9)
        return model.num_timesteps

    return advance


def rate(advance: Advance, seconds: float) -> float:
    """Return steps per second of processor time over at least ``seconds`` of it."""
    before, start = advance(), time.process_time()
    while time.process_time() - start < seconds:
        after = advance()
    elapsed = time.process_time() - start
    return (after - before) / elapsed


SHAPES = ((8, 128, 4, 4), (8, 32, 20, 1), (8, 256, 10, 32))
"""Environments, steps, epochs and minibatches."""


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the settings of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="processor time of a turn")
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="measure only this many shapes")
    return parser.parse_args(argv)


def main() -> None:
    """Print a row per shape."""
    arguments = parse()
    torch.set_num_threads(1)
    print("| envs × steps | epochs × minibatches | this project | Stable-Baselines3 | ratio (lowest–highest turn) |")
    print("| --- | --- | --- | --- | --- |")
    for shape in SHAPES[: arguments.shapes]:
        ours, theirs = limelight_ppo(*shape), sb3_ppo(*shape)
        turns = [(rate(ours, arguments.seconds), rate(theirs, arguments.seconds)) for _ in range(arguments.turns)]
        a, b = (statistics.median(column) for column in zip(*turns, strict=True))
        ratios = sorted(one / other for one, other in turns)
        print(
            f"| {shape[0]} × {shape[1]} | {shape[2]} × {shape[3]} | {a:,.0f} | {b:,.0f} "
            f"| {a / b:.1f} ({ratios[0]:.1f}–{ratios[-1]:.1f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
