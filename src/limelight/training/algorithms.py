"""The algorithms, as rows of settings over one learner. No other file knows an algorithm's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from limelight.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Algorithm:
    """A row of the table: the settings that make the one learner this algorithm."""

    name: str
    summary: str
    settings: dict[str, Any]
    """Settings by their plain names; all others have the defaults of settings/schema.py."""
    presets: str
    """The algorithm whose settings it takes from a preset (training/presets.py): itself, or one that is tuned alike."""


_ROWS = (
    Algorithm(
        "ac",
        "one-step actor-critic: one environment, an update every step, ∇log π weighted by Q̂ = r + γV(s')",
        {"num_envs": 1, "num_steps": 1, "gae_lambda": 0.0, "policy_weight": "q"},
        presets="ac",
    ),
    Algorithm(
        "a2c",
        "advantage actor-critic: N parallel environments, an update every T steps, GAE(λ)",
        {"num_envs": 8, "num_steps": 8, "gae_lambda": 0.95, "policy_weight": "advantage"},
        presets="a2c",
    ),
    Algorithm(
        "a3c",
        "asynchronous advantage actor-critic: W workers with N environments each update shared parameters, lock-free",
        {"num_envs": 8, "num_steps": 8, "gae_lambda": 0.95, "policy_weight": "advantage", "asynchronous": True},
        presets="a3c",
    ),
)

ALGORITHMS = {row.name: row for row in _ROWS}


def get_algorithm(name: str) -> Algorithm:
    """Return the row called ``name``.

    Raises: ConfigError naming the choices.
    """
    if name.lower() in ALGORITHMS:
        return ALGORITHMS[name.lower()]
    if name not in ALGORITHMS:
        raise ConfigError(f"algo = {name!r}: must be {' | '.join(ALGORITHMS)}{did_you_mean(name, ALGORITHMS)}")
    return ALGORITHMS[name]
