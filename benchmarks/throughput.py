"""Measure environment steps per second of A2C and one-step AC, training included, on one thread, on any environment.

Contenders take turns (A B A B …), so a machine that slows down slows all of them. Run it as a script.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

from stats import flat_settings, markdown_table, number, provenance, results_path, save_json

if TYPE_CHECKING:
    from limelight.settings.schema import TrainConfig

ENV_ID = "CartPole-v1"
# A budget that is never used up, so that schedules keep their first value; an interval that never ends.
ENDLESS = NEVER = 1 << 40
# Updates of a first, unmeasured turn, which finds out how many steps a turn can have.
PEER_WARMUP_UPDATES = 50

# The defaults of Stable-Baselines3's A2C, so that both do the same work per step.
SB3_SETTINGS: dict[str, Any] = {
    "preset": "plain",
    "gae_lambda": 1.0,
    "ent_coef": 0.0,
    "vf_coef": 0.5,
    "optimizer": "rmsprop",
    "learning_rate": 7e-4,
    "lr_schedule": "constant",
    "optim_eps": 1e-5,
    "max_grad_norm": 0.5,
    "hidden_sizes": (64, 64),
    "activation": "tanh",
}
# Additional settings for continuous actions.
SB3_CONTINUOUS: dict[str, Any] = {"action_bounds": "clip"}


@dataclass(frozen=True)
class Shape:
    """A row of the benchmark: number of environments, steps per update, and Limelight's settings."""

    name: str
    algo: str
    num_envs: int
    num_steps: int
    critics: tuple[str, ...]
    """The critics to measure; ``separate`` is the network of SB3's MlpPolicy, two towers of 64 × 64."""
    settings: dict[str, Any]
    env_id: str = ENV_ID
    env_backends: tuple[str, ...] = ("auto",)
    """The environment backends to measure, each as a contender."""


SHAPES = {
    shape.name: shape
    for shape in (
        *(
            Shape(f"{num_envs}x5", "a2c", num_envs, 5, ("separate", "shared"), SB3_SETTINGS)
            for num_envs in (8, 16, 64, 256)
        ),
        # The settings of `limelight train ENV_ID --algo ac`.
        Shape("1x1", "ac", 1, 1, ("shared",), {}),
    )
}
CARTPOLE_SHAPES, OTHER_SHAPES = ("8x5", "64x5", "256x5", "1x1"), ("16x5",)


@dataclass(frozen=True)
class Sample:
    """The result of one turn."""

    steps: int
    updates: int
    seconds: float

    @property
    def steps_per_second(self) -> float:
        """Return the environment steps per second."""
        return self.steps / self.seconds

    @property
    def updates_per_second(self) -> float:
        """Return the updates per second."""
        return self.updates / self.seconds


def make_config(shape: Shape, critic: str, seed: int, env_backend: str = "auto") -> TrainConfig:
    """Return Limelight's resolved configuration at ``shape``."""
    from limelight.training.prepare import prepare
    from limelight.training.presets import resolve_config

    own = {"num_envs": shape.num_envs, "num_steps": shape.num_steps, "critic": critic, "seed": seed}
    settings = {**shape.settings, **own, **continuous_settings(shape), "backend": env_backend}
    settings["total_timesteps"] = ENDLESS
    preset = settings.pop("preset", "auto")
    return prepare(resolve_config(shape.env_id, shape.algo, preset, settings), None)


def continuous_settings(shape: Shape) -> dict[str, Any]:
    """Return the additional defaults of SB3 if actions are continuous."""
    from gymnasium.spaces import Box

    from limelight.envs.source import resolve_env
    from limelight.settings.schema import EnvConfig

    env = resolve_env(EnvConfig(shape.env_id))()
    env.close()
    return SB3_CONTINUOUS if shape.settings is SB3_SETTINGS and isinstance(env.action_space, Box) else {}


class Contender(Protocol):
    """An agent that trains for about a number of seconds per turn and continues in its next turn."""

    name: str

    def turn(self, seconds: float) -> Sample:
        """Train for about ``seconds``."""

    def close(self) -> None:
        """Close the environments."""


class Ours:
    """A runner as ``limelight.train`` builds it; no evaluation, no logging."""

    def __init__(self, shape: Shape, critic: str, backend: str, seed: int, env_backend: str = "auto") -> None:
        from limelight.algo.learner import Learner
        from limelight.nn.network import Engine
        from limelight.nn.numpy_engine.network import NumpyNetwork
        from limelight.runners.actor_learner import ActorLearner
        from limelight.runners.sync import SyncRunner
        from limelight.training.run import build

        config = make_config(shape, critic, seed, env_backend)
        self.name = f"limelight {critic} {backend}" + (f" {env_backend}" if env_backend != "auto" else "")
        self.runner, _ = build(config, None)
        actor = self.runner.actor_learner
        if isinstance(actor.learner.network, NumpyNetwork) != (backend == "numpy"):
            engine: Engine = "numpy" if backend == "numpy" else "autograd"
            learner = Learner(actor.learner.model, config.algorithm, config.optim, engine=engine)
            self.runner = SyncRunner(ActorLearner(actor.collector, learner, actor.policy.rng), config.total_timesteps)

    def turn(self, seconds: float) -> Sample:
        """See :class:`Contender`."""
        runner, start = self.runner, time.perf_counter()
        steps, updates = runner.num_steps, runner.actor_learner.learner.num_updates
        runner.advance(ENDLESS, seconds)
        runner.pop_episodes()
        elapsed = time.perf_counter() - start
        return Sample(runner.num_steps - steps, runner.actor_learner.learner.num_updates - updates, elapsed)

    def close(self) -> None:
        """See :class:`Contender`."""
        self.runner.close()


class StableBaselines3:
    """Stable-Baselines3's A2C with its defaults (MlpPolicy, DummyVecEnv, RMSprop), without logging."""

    def __init__(self, shape: Shape, seed: int) -> None:
        from stable_baselines3 import A2C
        from stable_baselines3.common.env_util import make_vec_env

        self.envs = make_vec_env(shape.env_id, n_envs=shape.num_envs, seed=seed)
        self.name = "sb3"
        self.model = A2C("MlpPolicy", self.envs, n_steps=shape.num_steps, device="cpu", seed=seed)
        self.rollout = shape.num_envs * shape.num_steps
        self.steps_per_second = 0.0

    def turn(self, seconds: float) -> Sample:
        """See :class:`Contender`. ``learn`` takes a number of steps, which the speed of the last turn predicts."""
        rollouts = round(self.steps_per_second * seconds / self.rollout) or PEER_WARMUP_UPDATES
        model, start = self.model, time.perf_counter()
        steps, updates = model.num_timesteps, model._n_updates
        model.learn(rollouts * self.rollout, log_interval=NEVER, reset_num_timesteps=False)
        elapsed = time.perf_counter() - start
        sample = Sample(model.num_timesteps - steps, model._n_updates - updates, elapsed)
        self.steps_per_second = sample.steps_per_second
        return sample

    def close(self) -> None:
        """See :class:`Contender`."""
        self.envs.close()


# --------------------------------------------------------------------------- measuring


def contenders(shape: Shape, backends: Sequence[str], peer: bool, seed: int) -> list[Contender]:
    """Return the contenders that take turns at ``shape``."""
    ours: list[Contender] = [
        Ours(shape, critic, backend, seed, env_backend)
        for critic in shape.critics
        for backend in backends
        for env_backend in shape.env_backends
    ]
    return [*ours, StableBaselines3(shape, seed)] if peer else ours


def measure(
    shape: Shape, backends: Sequence[str], peer: bool, *, seconds: float, repeats: int, seed: int
) -> dict[str, list[Sample]]:
    """Return ``repeats`` turns of about ``seconds`` of every contender, by its name, after one turn to warm up."""
    runners = contenders(shape, backends, peer, seed)
    samples: dict[str, list[Sample]] = {runner.name: [] for runner in runners}
    try:
        for runner in runners:
            runner.turn(min(seconds, 1.0))
        for _ in range(repeats):
            for runner in runners:
                samples[runner.name].append(runner.turn(seconds))
    finally:
        for runner in runners:
            runner.close()
    return samples


def speeds(samples: Sequence[Sample]) -> list[float]:
    """Return the environment steps per second of each turn."""
    return [sample.steps_per_second for sample in samples]


def ratio(samples: Sequence[Sample], baseline: Sequence[Sample]) -> dict[str, float]:
    """Return the speed relative to ``baseline``: ratio of medians, and extremes of the ratios of single turns."""
    ours, theirs = speeds(samples), speeds(baseline)
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {"of_medians": median(ours) / median(theirs), "lowest": min(pairs), "highest": max(pairs)}


def summarize(samples: dict[str, list[Sample]]) -> dict[str, Any]:
    """Return samples and medians of each contender, with ratios to the peer, autograd and sync if they ran too."""
    summary: dict[str, Any] = {}
    for name, turns in samples.items():
        ratios = {}
        autograd, sync = name.replace(" numpy", " torch"), name.replace(" envpool", " sync")
        if "sb3" in samples and name != "sb3":
            ratios["sb3"] = ratio(turns, samples["sb3"])
        if autograd != name and autograd in samples:
            ratios["autograd"] = ratio(turns, samples[autograd])
        if sync != name and sync in samples:
            ratios["sync"] = ratio(turns, samples[sync])
        summary[name] = {
            "steps_per_second": median(speeds(turns)),
            "updates_per_second": median(turn.updates_per_second for turn in turns),
            "ratios": ratios,
            "samples": [asdict(turn) for turn in turns],
        }
    return summary


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown: medians, followed by lowest–highest."""
    header = ["num_envs × num_steps", "contender", "steps/s", "updates/s", "× SB3", "× autograd", "× sync"]
    rows = []
    for shape, result in results.items():
        for name, row in result["contenders"].items():
            turns = speeds([Sample(**sample) for sample in row["samples"]])
            rows.append(
                [
                    shape.replace("x", " × "),
                    name,
                    f"{number(row['steps_per_second'])} ({number(min(turns))}–{number(max(turns))})",
                    number(row["updates_per_second"]),
                    _ratio_text(row["ratios"].get("sb3")),
                    _ratio_text(row["ratios"].get("autograd")),
                    _ratio_text(row["ratios"].get("sync")),
                ]
            )
    kept = [i for i in range(len(header)) if i < 4 or any(row[i] for row in rows)]
    return markdown_table([header[i] for i in kept], [[row[i] for i in kept] for row in rows])


def _ratio_text(value: dict[str, float] | None) -> str:
    return f"{value['of_medians']:.2f} ({value['lowest']:.2f}–{value['highest']:.2f})" if value else ""


# --------------------------------------------------------------------------- the command


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default=ENV_ID, metavar="ENV_ID", help=f"default: {ENV_ID}")
    parser.add_argument(
        "--env-backend",
        nargs="+",
        choices=("auto", "vector", "sync", "async", "envpool"),
        default=["auto"],
        help="environment backends, each a contender (default: auto)",
    )
    parser.add_argument(
        "--shapes",
        nargs="+",
        choices=SHAPES,
        metavar="SHAPE",
        help=f"environments × steps: {' '.join(SHAPES)} "
        f"(default: {' '.join(CARTPOLE_SHAPES)} for CartPole, {' '.join(OTHER_SHAPES)} for others)",
    )
    parser.add_argument(
        "--peer",
        choices=("none", "sb3", "auto"),
        default="none",
        help="also measure Stable-Baselines3's A2C; auto: if installed",
    )
    parser.add_argument(
        "--backend",
        nargs="+",
        choices=("numpy", "torch"),
        default=["numpy"],
        help="written-out gradients (numpy, the default), autograd (torch), or both",
    )
    parser.add_argument("--repeats", type=int, default=5, help="turns of each contender (default: 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a turn (default: 3)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/throughput[-ENV_ID]-MACHINE.json")
    args = parser.parse_args(argv)
    args.shapes = args.shapes or (CARTPOLE_SHAPES if args.env == ENV_ID else OTHER_SHAPES)
    if args.repeats < 1 or args.seconds <= 0:
        parser.error("--repeats must be ≥ 1 and --seconds > 0")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, save and print."""
    args = parse(argv)
    installed = find_spec("stable_baselines3") is not None
    if args.peer == "sb3" and not installed:
        print("--peer sb3: Stable-Baselines3 is not installed; pip install 'limelight-rl[sb3]'", file=sys.stderr)
        return 2
    args.with_peer = installed and args.peer != "none"
    from limelight.training.run import single_threaded

    settings = {
        "env_id": args.env,
        "env_backend": args.env_backend,
        "threads": 1,
        "peer": "sb3" if args.with_peer else "none",
        "backend": args.backend,
        "repeats": args.repeats,
        "seconds": args.seconds,
        "seed": args.seed,
    }
    head = provenance("throughput", settings)  # before the turns: sources may change while they run
    results: dict[str, Any] = {}
    with single_threaded():
        for name in args.shapes:
            print(f"{name} …", file=sys.stderr, flush=True)
            shape = replace(SHAPES[name], env_id=args.env, env_backends=tuple(args.env_backend))
            samples = measure(
                shape,
                args.backend,
                args.with_peer,
                seconds=args.seconds,
                repeats=args.repeats,
                seed=args.seed,
            )
            # Contenders differ in critic and backend only, which their names say.
            config = flat_settings(make_config(shape, shape.critics[0], args.seed, shape.env_backends[0]))
            results[name] = {"config": config, "contenders": summarize(samples)}
    of_env = "" if args.env == ENV_ID else f"-{args.env.replace('/', '-')}"
    path = results_path(f"throughput{of_env}", args.output)
    save_json(path, {**head, "results": results})
    print(table(results))
    print(
        f"\n{head['machine']['processor']}, 1 thread; medians of {args.repeats} turns of {args.seconds:g} s "
        f"(lowest–highest). All samples: {path}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
