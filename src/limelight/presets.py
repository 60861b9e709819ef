"""Tuned settings per environment, laid over an algorithm's row; ``resolve`` puts a run's configuration together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from limelight.algorithms import get_algorithm
from limelight.config import ConfigError, TrainConfig, did_you_mean
from limelight.settings import with_settings


@dataclass(frozen=True)
class Preset:
    """Settings that do well on some environments, for every algorithm or for one."""

    name: str
    summary: str
    env_prefixes: tuple[str, ...]
    """Environment ids that begin so take this preset by themselves."""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Algorithm name ("*" for all) → settings by their plain names."""

    def matches(self, env_id: str) -> bool:
        """Whether ``env_id`` takes this preset by itself."""
        return env_id.startswith(self.env_prefixes)


_ONE_STEP = {"learning_rate": 7e-4, "ent_coef": 0.01, "normalize_advantages": "running", "running_decay": 0.9}
_SCALED = {"reward_scale": 0.05, "ent_coef": 0.0}
_SIDE_BY_SIDE = {"num_envs": 16, "num_steps": 16, "learning_rate": 4e-3}
_LANDER = {
    "critic": "separate",
    "gamma": 0.995,
    "gae_lambda": 1.0,
    "learning_rate": 8.3e-4,
    "ent_coef": 1e-5,
    "reward_clip": 10.0,
    "eval_every": 25_000,
    "total_timesteps": 1_000_000,
}

_ROWS = (
    Preset(
        "classic",
        "CartPole: a reward of 1 every step, so V grows to 1/(1 − γ) = 100 and is scaled down",
        ("CartPole-",),
        {"*": _SCALED, "a2c": _SIDE_BY_SIDE, "a3c": _SIDE_BY_SIDE, "ac": _ONE_STEP},
    ),
    Preset(
        "acrobot",
        "Acrobot: as classic, with smaller steps for asynchronous workers, which otherwise got stuck on some seeds",
        ("Acrobot-",),
        {
            "*": _SCALED,
            "a2c": _SIDE_BY_SIDE,
            "a3c": {**_SIDE_BY_SIDE, "learning_rate": 2e-3},
            "ac": _ONE_STEP,
        },
    ),
    Preset(
        "mountaincar",
        "MountainCar: as classic, with standardised observations (velocities are tiny) and an entropy bonus",
        ("MountainCar-",),
        {
            "*": {"reward_scale": 0.05, "ent_coef": 0.01, "normalize_obs": True},
            "a2c": _SIDE_BY_SIDE,
            "a3c": _SIDE_BY_SIDE,
            "ac": _ONE_STEP,
        },
    ),
    Preset(
        "lunarlander",
        "LunarLander: two networks, a far horizon; the ±100 of an ending is clipped, lest fear of a crash keep it up",
        ("LunarLander-",),
        {"*": _LANDER, "a2c": {"num_envs": 8, "num_steps": 5}, "a3c": {"num_envs": 8, "num_steps": 5}},
    ),
)

PRESETS = {row.name: row for row in _ROWS}


def choose_preset(env_id: str, preset: str) -> str:
    """The name of the preset that ``preset`` (auto, none or a name) means for ``env_id``; "none" if there is none.

    Raises: ConfigError naming the choices.
    """
    if preset == "auto":
        return next((row.name for row in PRESETS.values() if row.matches(env_id)), "none")
    if preset != "none" and preset not in PRESETS:
        choices = ["auto", "none", *PRESETS]
        raise ConfigError(f"preset = {preset!r}: must be {' | '.join(choices)}{did_you_mean(preset, choices)}")
    return preset


def resolve(env_id: str, algo: str, preset: str, settings: dict[str, Any]) -> TrainConfig:
    """The configuration of a run: defaults ← algorithm row ← preset ← ``settings`` (by their plain names).

    Raises: ConfigError for an unknown algorithm, preset or setting.
    """
    name = choose_preset(env_id, preset)
    rows = PRESETS[name].settings if name in PRESETS else {}
    merged = {**get_algorithm(algo).settings, **rows.get("*", {}), **rows.get(algo, {}), **settings}
    return with_settings(TrainConfig(), {**merged, "env_id": env_id, "algo": algo, "preset": name})
