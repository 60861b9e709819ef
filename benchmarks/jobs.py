"""The jobs of benchmarks/learning.py: every training run that the documentation quotes, and its ablations, by name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Job:
    """An environment, an algorithm and settings, with the return that counts as learned."""

    name: str
    env_id: str
    algo: str
    threshold: float
    """The mean return that counts as learned."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings by plain names, laid over the algorithm's row and the environment's preset (or the ``preset`` here)."""
    total_timesteps: int = 200_000
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The ablations: name suffix → settings laid over this job's, each of which undoes one measure."""


_TARGET_CRITIC = {
    "critic": "target",
    "num_envs": 1,
    "num_steps": 1,
    "gae_lambda": 0.0,
    "learning_rate": 3e-4,
    "critic_learning_rate": 1e-3,
}

_NAIVE = {
    "reward_scale": 1.0,
    "ent_coef": 0.0,
    "lr_schedule": "constant",
    "max_grad_norm": None,
    "normalize_advantages": "none",
    "optimizer": "adam",
    "optim_eps": 1e-8,
    "learning_rate": 1e-3,
}
"""The settings of tutorials: Adam at 1e-3, raw rewards, no entropy bonus, no schedule, no clipping."""

_MASKED = "limelight.envs.wrappers:masked_cartpole"
"""CartPole-v1 without its velocities, which a recurrent policy can infer and a feed-forward policy cannot."""
_MEMORY = {
    "core": "lstm",
    "reward_scale": 0.05,
    "ent_coef": 0.0,
    "num_envs": 16,
    "num_steps": 16,
    "learning_rate": 2e-3,
    "eval_every": 25_000,
}

_DOORS = {"core": "lstm", "core_size": 128}
"""Two doors to open in order; the agent does not see a door behind it, so a memory helps."""

_LONG = {"final_episodes": 0}
"""learning.py evaluates the best agent itself, so the run need not."""

_DRIFTS = ("pendulum", "mountaincar-continuous", "swimmer")
_WHITE = {"white-noise": {"noise_correlation": 0.0}}

BASE_JOBS = (
    Job(
        "a2c", "CartPole-v1", "a2c", 495.0,
        variants={"no-scaling": {"reward_scale": 1.0}, "constant-lr": {"lr_schedule": "constant"}},
    ),
    Job(
        "a2c-target", "CartPole-v1", "a2c", 475.0, settings=_TARGET_CRITIC,
        variants={
            "no-scaling": {"reward_scale": 1.0},
            "constant-lr": {"lr_schedule": "constant"},
            "no-target": {"critic": "separate"},
            "one-rate": {"critic_learning_rate": None},
            "naive": {**_NAIVE, "critic_learning_rate": None},
        },
    ),
    Job(
        "ac", "CartPole-v1", "ac", 195.0,
        variants={"no-baseline": {"normalize_advantages": "none"}, "naive": _NAIVE},
    ),
    Job("a2c-acrobot", "Acrobot-v1", "a2c", -85.0, settings={"eval_every": 50_000}, total_timesteps=300_000),
    Job(
        "a2c-mountaincar", "MountainCar-v0", "a2c", -110.0, settings={"eval_every": 50_000}, total_timesteps=500_000
    ),
    Job("a3c", "CartPole-v1", "a3c", 495.0, settings={"num_workers": 2}, total_timesteps=500_000),
    Job(
        "a3c-memory", _MASKED, "a3c", 475.0, settings={**_MEMORY, "num_workers": 2}, total_timesteps=500_000,
        variants={"feedforward": {"core": "feedforward"}, "gru": {"core": "gru"}},
    ),
    Job("a2c-memory", _MASKED, "a2c", 475.0, settings=_MEMORY, total_timesteps=500_000),
    Job(
        "a3c-acrobot", "Acrobot-v1", "a3c", -83.0, settings={"eval_every": 50_000, "num_workers": 2},
        total_timesteps=500_000,
    ),
    Job("a2c-acrobot-500k", "Acrobot-v1", "a2c", -83.0, settings={"eval_every": 50_000}, total_timesteps=500_000),
    Job("a2c-lunarlander", "LunarLander-v3", "a2c", 200.0, total_timesteps=1_000_000),
    Job(
        "a3c-lunarlander", "LunarLander-v3", "a3c", 200.0, settings={"num_workers": 2}, total_timesteps=1_000_000
    ),
    Job(
        "minigrid-memory", "MiniGrid-RedBlueDoors-6x6-v0", "a2c", 0.9, settings=_DOORS, total_timesteps=2_000_000,
        variants={"feedforward": {"core": "feedforward", "core_size": 64}},
    ),
    *(
        Job(name, env_id, "a2c", threshold, _LONG, steps, variants=_WHITE if name in _DRIFTS else {})
        for name, env_id, threshold, steps in (
            ("pendulum", "Pendulum-v1", -160.0, 1_000_000),
            ("mountaincar-continuous", "MountainCarContinuous-v0", 91.0, 100_000),
            ("lunarlander-continuous", "LunarLanderContinuous-v3", 200.0, 1_000_000),
            ("bipedalwalker", "BipedalWalker-v3", 290.0, 5_000_000),
            ("halfcheetah", "HalfCheetah-v5", 3041.0, 1_000_000),
            ("hopper", "Hopper-v5", 1253.0, 1_000_000),
            ("walker2d", "Walker2d-v5", 1092.0, 1_000_000),
            ("ant", "Ant-v4", 3485.0, 1_000_000),
            ("swimmer", "Swimmer-v5", 201.0, 1_000_000),
            ("humanoid", "Humanoid-v5", 1726.0, 1_000_000),
            ("inverted-pendulum", "InvertedPendulum-v5", 1000.0, 1_000_000),
            ("inverted-double-pendulum", "InvertedDoublePendulum-v5", 9258.0, 1_000_000),
            ("reacher", "Reacher-v5", -6.7, 1_000_000),
        )
    ),
)  # fmt: skip


def with_variants(job: Job) -> list[Job]:
    """Return ``job`` and its ablations, named ``job/suffix``."""
    changed = [
        replace(job, name=f"{job.name}/{suffix}", settings={**job.settings, **settings}, variants={})
        for suffix, settings in job.variants.items()
    ]
    return [job, *changed]


JOBS = {job.name: job for base in BASE_JOBS for job in with_variants(base)}
