"""Measure Stream AC(λ): returns of its last parameters beside AC's, and its updates per second beside a plain loop.

python benchmarks/stream_ac.py --jobs cartpole acrobot --seeds 10        # goes on with the seeds that are missing
python benchmarks/stream_ac.py --speed                                   # updates per second of processor time
python benchmarks/stream_ac.py --table                                   # the results as Markdown, without measuring

Every figure is the mean of 100 greedy episodes of the parameters that training had at that step, not of the best ones.
It is written to the results file at once, so an interrupted benchmark loses one stage of one seed. Settings are those
of ``--algo stream-ac`` and ``--algo ac``. ``ac`` has a schedule of its step size, so each of its budgets is a run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from stats import RESULTS, git_commit, machine, markdown_table, number, save_json

EPISODES = 100
FIRST_SEED = 10
"""Seeds from here on are reported; smaller ones are for trying."""


@dataclass(frozen=True)
class Job:
    """An environment, an algorithm, and the steps at which its parameters are evaluated."""

    env_id: str
    algo: str
    stages: tuple[int, ...]


JOBS = {
    "cartpole": Job("CartPole-v1", "stream-ac", (20_000, 50_000, 100_000, 200_000, 500_000)),
    "acrobot": Job("Acrobot-v1", "stream-ac", (50_000, 100_000, 200_000)),
    "mountaincar": Job("MountainCar-v0", "stream-ac", (100_000, 200_000, 500_000)),
    "lunarlander": Job("LunarLander-v3", "stream-ac", (100_000, 300_000)),
    "hopper": Job("Hopper-v5", "stream-ac", (100_000, 300_000, 1_000_000)),
    "cartpole-ac": Job("CartPole-v1", "ac", (200_000,)),
    "acrobot-ac": Job("Acrobot-v1", "ac", (200_000,)),
    "mountaincar-ac": Job("MountainCar-v0", "ac", (500_000,)),
    "lunarlander-ac": Job("LunarLander-v3", "ac", (300_000,)),
    "hopper-ac": Job("Hopper-v5", "ac", (300_000,)),
}


# --------------------------------------------------------------------------- learning


def measure(job: Job, seed: int, until: int, done: Callable[[int, dict[str, Any]], None]) -> None:
    """Train one seed to the last stage that is at most ``until``; ``done`` takes each stage's result."""
    from limelight.runs.evaluation import evaluate
    from limelight.seeds import Stream, derive_seed
    from limelight.threads import single_threaded
    from limelight.training.prepare import prepare
    from limelight.training.presets import resolve_config
    from limelight.training.run import build

    stages = [stage for stage in job.stages if stage <= until]
    if not stages:
        return
    settings = {"seed": seed, "device": "cpu", "total_timesteps": stages[-1]}
    config = prepare(resolve_config(job.env_id, job.algo, "auto", settings), None)
    with single_threaded():
        runner, agent = build(config, None)
        try:
            seconds = 0.0
            for stage in stages:
                start = time.process_time()
                while runner.num_steps < stage:
                    runner.advance(stage, 60.0)
                seconds += time.process_time() - start
                trained = [e.episode_return for e in runner.pop_episodes()[-100:]]
                found = evaluate(agent, episodes=EPISODES, seed=derive_seed(seed, Stream.FINAL))
                done(
                    stage,
                    {
                        "mean": found.mean_return,
                        "min": min(found.returns),
                        "training_mean": statistics.fmean(trained) if trained else None,
                        "cpu_seconds": seconds,
                    },
                )
        finally:
            runner.close()


def learn(data: dict[str, Any], path: Path, names: Sequence[str], seeds: Sequence[int], until: int) -> None:
    """Measure the jobs' seeds that are missing from ``data`` and write them to ``path``."""
    for name in names:
        rows = data.setdefault("learning", {}).setdefault(name, {})
        stages = [stage for stage in JOBS[name].stages if stage <= until]
        for seed in seeds:
            row = rows.setdefault(str(seed), {})
            if all(str(stage) in row for stage in stages):
                continue

            def done(stage: int, result: dict[str, Any], row: dict[str, Any] = row, seed: int = seed) -> None:
                row[str(stage)] = result
                save_json(path, data)
                print(f"{name} seed {seed} step {stage:,}: {result['mean']:.1f}", flush=True)  # noqa: B023

            measure(JOBS[name], seed, until, done)


# --------------------------------------------------------------------------- speed


def plain_loop(hidden: int = 128) -> Callable[[int], None]:
    """Return the one-step actor-critic of tutorials: a trunk of two ReLU layers, Adam, autograd; n updates a call."""
    import gymnasium as gym
    import torch
    from torch import nn

    env = gym.make("CartPole-v1")
    body = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
    policy, value = nn.Linear(hidden, 2), nn.Linear(hidden, 1)
    optimizer = torch.optim.Adam([p for m in (body, policy, value) for p in m.parameters()], lr=1e-3)
    state = env.reset(seed=0)[0]

    def advance(updates: int) -> None:
        nonlocal state
        for _ in range(updates):
            features = body(torch.as_tensor(state, dtype=torch.float32))
            actions = torch.distributions.Categorical(logits=policy(features))
            action = actions.sample()
            state, reward, terminated, truncated, _ = env.step(action.item())
            with torch.no_grad():
                next_value = value(body(torch.as_tensor(state, dtype=torch.float32)))
                target = float(reward) + 0.99 * next_value * (1.0 - float(terminated))
            loss = (value(features) - target).pow(2).sum() - (actions.log_prob(action) * target).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if terminated or truncated:
                state = env.reset()[0]

    return advance


def ours(algo: str, **settings: Any) -> Callable[[int], None]:
    """Return the updates of a run of an algorithm with one environment, between evaluations; n a call."""
    from limelight.training.prepare import prepare
    from limelight.training.presets import resolve_config
    from limelight.training.run import build

    settings = {"device": "cpu", "total_timesteps": 100_000_000, **settings}
    runner = build(prepare(resolve_config("CartPole-v1", algo, "auto", settings), None), None)[0]

    def advance(updates: int) -> None:
        runner.advance(runner.num_steps + updates, 1e9)

    return advance


def speed(turns: int, updates: int) -> dict[str, list[float]]:
    """Return updates per second of processor time, turn by turn; the contenders take turns."""
    import torch

    torch.set_num_threads(1)
    contenders = {
        "plain PyTorch loop, 128–128": plain_loop(),
        "plain PyTorch loop, 32–32": plain_loop(32),
        "stream-ac, 32–32": ours("stream-ac"),
        "stream-ac, 128–128": ours("stream-ac", hidden_sizes=(128, 128)),
        "ac": ours("ac"),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns + 1):
        for name, advance in contenders.items():
            start = time.process_time()
            advance(updates)
            if turn:  # the first warms up
                rates[name].append(updates / (time.process_time() - start))
    return rates


# --------------------------------------------------------------------------- output


def table(data: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = []
    for name, rows in data.get("learning", {}).items():
        for stage in map(str, JOBS[name].stages):
            means = [row[stage]["mean"] for row in rows.values() if stage in row]
            if means:
                spread = ", ".join(number(mean, 1) for mean in means)
                job = JOBS[name]
                median = number(statistics.median(means), 1)
                lines.append([job.env_id, job.algo, number(int(stage)), str(len(means)), median, spread])
    header = ["environment", "algorithm", "steps", "seeds", "median of seeds", "mean of 100 greedy episodes, by seed"]
    tables = [markdown_table(header, lines)] if lines else []
    rates = {name: statistics.median(values) for name, values in data.get("speed", {}).items()}
    if rates:
        plain = next(iter(data["speed"].values()))
        rows_ = [
            [name, number(rates[name]), number(statistics.median(a / b for a, b in zip(values, plain, strict=True)), 1)]
            for name, values in data["speed"].items()
        ]
        tables.append(markdown_table(["contender", "updates per second", "of the plain loop's"], rows_))
    return "\n\n".join(tables)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the settings of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=[], help="jobs to train")
    parser.add_argument("--seeds", type=int, default=10, help="seeds of each job")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--until", type=int, default=10**9, help="leave out stages beyond this many steps")
    parser.add_argument("--speed", action="store_true", help="measure updates per second")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--updates", type=int, default=1_000, help="updates of a turn")
    parser.add_argument("--table", action="store_true", help="print the results and measure nothing")
    parser.add_argument("--output", type=Path, default=RESULTS / "stream_ac.json")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    arguments = parse(argv)
    path = arguments.output
    data = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if not arguments.table:
        data |= {"benchmark": "stream_ac", "commit": git_commit(), "machine": machine()}
        seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        learn(data, path, arguments.jobs, seeds, arguments.until)
        if arguments.speed:
            data["speed"] = speed(arguments.turns, arguments.updates)
            save_json(path, data)
    print(table(data))


if __name__ == "__main__":
    main()
