"""The algorithms, as rows of settings over one learner. No other file knows an algorithm's name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from limelight.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Algorithm:
    """A row of the table: the settings that make the one learner this algorithm."""

    name: str
    summary: str
    settings: dict[str, Any]
    """Settings by their plain names; all others have the defaults of settings/schema.py."""
    untuned: dict[str, Any]
    """Settings of rollouts and updates for environments without a preset (training/structure.py)."""
    presets: str
    """The algorithm whose settings it takes from a preset (training/presets.py): itself, or one that is tuned alike."""
    untuned_reals: dict[str, Any] = field(default_factory=dict)
    """Settings over ``untuned`` where actions are continuous."""
    reals: dict[str, Any] = field(default_factory=dict)
    """Settings over ``settings`` where actions are continuous."""
    universal: bool = False
    """The settings are for every environment: presets and rules add evaluations and budgets alone."""


_ROWS = (
    Algorithm(
        "ac",
        "one-step actor-critic: one environment, an update every step, ∇log π weighted by Q̂ = r + γV(s')",
        {"num_envs": 1, "num_steps": 1, "gae_lambda": 0.0, "policy_weight": "q"},
        untuned={
            "num_envs": 1, "num_steps": 1, "learning_rate": 7e-4, "normalize_advantages": "running",
            "running_decay": 0.9,
        },
        presets="ac",
    ),
    Algorithm(
        "qac",
        "one-step action-value actor-critic: as ac, but the critic is q(s, a), with a target critic and SARSA's target",
        {
            "num_envs": 1, "num_steps": 1, "gae_lambda": 0.0, "policy_weight": "q", "critic_output": "q",
            "q_bootstrap": "sarsa", "critic": "target",
        },
        untuned={
            "num_envs": 1, "num_steps": 1, "learning_rate": 7e-4, "normalize_advantages": "running",
            "running_decay": 0.9, "critic": "target",
        },
        presets="ac",
    ),
    Algorithm(
        "a2c",
        "advantage actor-critic: N parallel environments, an update every T steps, GAE(λ)",
        {"num_envs": 8, "num_steps": 8, "gae_lambda": 0.95, "policy_weight": "advantage"},
        untuned={"num_envs": 8, "num_steps": 4, "learning_rate": 2.5e-3},
        untuned_reals={"num_envs": 4, "num_steps": 8, "learning_rate": 2e-3},
        presets="a2c",
    ),
    Algorithm(
        "a3c",
        "asynchronous advantage actor-critic: W workers with N environments each update shared parameters, lock-free",
        {"num_envs": 8, "num_steps": 8, "gae_lambda": 0.95, "policy_weight": "advantage", "asynchronous": True},
        untuned={"num_envs": 8, "num_steps": 4, "learning_rate": 2e-3},
        untuned_reals={"num_envs": 4, "num_steps": 8, "learning_rate": 1.5e-3},
        presets="a3c",
    ),
    Algorithm(
        "ppo",
        "proximal policy optimization: A2C with several epochs of minibatches per rollout and a clipped ratio",
        {
            "num_envs": 8, "num_steps": 128, "gae_lambda": 0.95, "num_epochs": 4, "num_minibatches": 4,
            "clip_ratio": 0.2, "normalize_advantages": "batch", "critic": "separate", "optimizer": "adam",
            "learning_rate": 3e-4, "ent_coef": 0.0,
        },
        untuned={"num_envs": 8, "num_steps": 64, "num_epochs": 10, "num_minibatches": 8, "learning_rate": 1e-3},
        presets="ppo",
    ),
    Algorithm(
        "stream-ac",
        "Stream AC(λ): one environment, an update every step with eligibility traces and steps that cannot overshoot",
        {
            "num_envs": 1, "num_steps": 1, "gae_lambda": 0.8, "policy_weight": "advantage", "optimizer": "obgd",
            "learning_rate": 1.0, "lr_schedule": "constant", "max_grad_norm": None, "vf_coef": 1.0, "ent_coef": 0.01,
            "critic": "separate", "hidden_sizes": (32, 32), "activation": "leaky_relu", "layer_norm": True,
            "orthogonal_init": False, "sparse_init": 0.9, "normalize_obs": True, "normalize_rewards": True,
        },
        untuned={"num_envs": 1, "num_steps": 1},
        presets="stream-ac",
        reals={"hidden_sizes": (128, 128), "action_std": "softplus_std", "log_std_init": -0.3665},
        universal=True,
    ),
)  # fmt: skip

ALGORITHMS = {row.name: row for row in _ROWS}
AUTO = "auto"
"""The algorithm is chosen: the one that the presets are tuned for, or by the actions where no preset is."""


def choose_algorithm(real_actions: bool, images: bool, long_episodes: bool) -> tuple[str, str]:
    """Return the name of the algorithm that ``auto`` stands for without a preset, and the reason.

    Args:
        real_actions: whether actions hold real numbers.
        images: whether observations hold images or grids.
        long_episodes: whether episodes may be long, of observations that hold real numbers.
    Source: benchmarks/defaults.py; docs/defaults.md has the table.
    """
    if real_actions:
        return "ppo", "continuous actions; in a study of such tasks it learnt more from the same steps than a2c"
    if images:
        return "ppo", "images or grids; it learns more from the same steps than a2c, in more time for each"
    if long_episodes:
        return "ppo", "episodes may be long, and its rollouts carry a reward farther back than those of a2c"
    return "a2c", "choices, short episodes; in a study of such tasks it learnt as much as ppo, in less time"


def get_algorithm(name: str) -> Algorithm:
    """Return the row called ``name``.

    Raises: ConfigError naming the choices.
    """
    if name.lower() in ALGORITHMS:
        return ALGORITHMS[name.lower()]
    if name not in ALGORITHMS:
        raise ConfigError(f"algo = {name!r}: must be {' | '.join(ALGORITHMS)}{did_you_mean(name, ALGORITHMS)}")
    return ALGORITHMS[name]
