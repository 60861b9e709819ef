"""Tuned settings per environment over those of an algorithm, and the configuration of a run from all of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from limelight.errors import ConfigError, did_you_mean
from limelight.settings.io import with_settings
from limelight.settings.schema import TrainConfig
from limelight.training.algorithms import get_algorithm

if TYPE_CHECKING:
    from gymnasium.spaces import Space

    from limelight.typing import EnvFactory

# Gymnasium and everything that imports it is imported within functions: `limelight --help` loads this module.


@dataclass(frozen=True)
class Preset:
    """Settings that were tuned on some environments, for every algorithm or for one."""

    name: str
    summary: str
    env_prefixes: tuple[str, ...]
    """Environments whose id begins with one of these take this preset."""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Algorithm name ("*" for all) → settings by their plain names."""
    any_continuous: bool = False
    """Environments whose id no row matches take this preset if observations and actions are Boxes of real numbers."""
    games: tuple[str, ...] = ()
    """Atari games that take this preset, under any of their ids; "*" is every game that no earlier row names."""
    recurrent: bool = False
    """The ``games`` take this preset with a recurrent core; False: with a feed-forward one."""

    def matches(self, env_id: str, core: str = "feedforward") -> bool:
        """Return whether the environment takes this preset because of its id (and, a game, because of its core)."""
        if env_id.startswith(self.env_prefixes):
            return True
        if not self.games or self.recurrent != (core != "feedforward"):
            return False
        from limelight.envs.games import game_of

        game = game_of(env_id)
        return game is not None and (game in self.games or "*" in self.games)

    def is_for(self, env_id: str) -> bool:
        """Return whether the id is one that the preset was made for, and not one that only begins alike."""
        given = {name for settings in self.settings.values() for name in settings}
        if not given & _FOR_REAL_ACTIONS or not env_id.startswith(self.env_prefixes):
            return True
        return any(re.fullmatch(re.escape(prefix) + r"(v\d+)?", env_id) for prefix in self.env_prefixes)

    def why_unsuited(self, observations: Space[Any], actions: Space[Any]) -> str | None:
        """Return which spaces the preset needs where these are others; None if it suits them."""
        given = {name for settings in self.settings.values() for name in settings}
        if given & _FOR_REAL_ACTIONS and not _has_reals(actions):
            return "is for continuous actions"
        return "is for real observations" if "normalize_obs" in given and not _has_reals(observations) else None

    def fits(self, observations: Space[Any], actions: Space[Any]) -> bool:
        """Return whether an environment with these spaces takes this preset if no row matches its id."""
        return self.any_continuous and _has_reals(observations) and _has_reals(actions)


def _has_reals(space: Space[Any]) -> bool:
    from gymnasium.spaces import Box

    from limelight.spaces.packed import Packed

    parts = [leaf.space for leaf in space.leaves] if isinstance(space, Packed) else [space]
    return any(isinstance(part, Box) and part.dtype.kind == "f" for part in parts)


_FOR_REAL_ACTIONS = {"log_std_init", "action_std", "action_bounds", "noise_correlation"}


_ONE_STEP = {"learning_rate": 7e-4, "ent_coef": 0.01, "normalize_advantages": "running", "running_decay": 0.9}
_SCALED = {"reward_scale": 0.05, "ent_coef": 0.0}
_SIDE_BY_SIDE = {"num_envs": 16, "num_steps": 16, "learning_rate": 4e-3}
_CONTINUOUS = {
    "critic": "separate",
    "normalize_obs": True,
    "normalize_rewards": True,
    "learning_rate": 2e-3,
    "ent_coef": 0.0,
    "log_std_init": -0.5,
}
_MUJOCO = {**_CONTINUOUS, "eval_every": 100_000, "eval_episodes": 5, "total_timesteps": 1_000_000}
_SIXTEEN_BY_SIXTEEN = {"num_envs": 16, "num_steps": 16}
_ONE_STEP_CONTINUOUS = {"learning_rate": 3e-4, "normalize_advantages": "running", "running_decay": 0.9}
_LANDER = {
    "critic": "separate",
    "normalize_obs": True,
    "normalize_rewards": True,
    "gamma": 0.999,
    "gae_lambda": 0.98,
    "learning_rate": 1.5e-3,
    "ent_coef": 0.01,
    "eval_every": 50_000,
    "total_timesteps": 1_000_000,
}
_BIPEDAL = {
    **_MUJOCO,
    "gae_lambda": 0.9,
    "vf_coef": 0.4,
    "learning_rate": 9.6e-4,
    "action_std": "gsde",
    "log_std_init": 0.0,
    "noise_correlation": 0.95,
    "eval_every": 250_000,
    "eval_episodes": 20,
    "total_timesteps": 5_000_000,
}
_ATARI = {
    "normalize_obs": True,
    "encoder": "a3c",
    "reward_clip": 1.0,
    "gae_lambda": 1.0,
    "optimizer": "adam",
    "learning_rate": 2.5e-4,
    "ent_coef": 0.01,
    "eval_every": 500_000,
    "eval_episodes": 5,
    "final_episodes": 10,
    "log_every": 20_000,
    "checkpoint_every": 500_000,
    "total_timesteps": 10_000_000,
}
_PONG = {
    **_ATARI,
    "frame_size": 42,
    "encoder": "a3c-half",
    "learning_rate": 1e-3,
    "ent_coef": 0.003,
    "ent_schedule": "linear",
    "total_timesteps": 1_500_000,
}
_BREAKOUT = {
    **_PONG,
    "terminal_on_life_loss": True,
    "learning_rate": 7e-4,
    "ent_coef": 0.01,
    "total_timesteps": 6_000_000,
}
_ATARI_LSTM = {**_PONG, "frame_stack": 1, "core": "lstm", "core_size": 256}
_PENDULUM = {
    **_CONTINUOUS,
    "gamma": 0.95,
    "gae_lambda": 0.9,
    "learning_rate": 1e-3,
    "log_std_init": -1.0,
    "noise_correlation": 0.5,
    "eval_every": 50_000,
    "total_timesteps": 1_000_000,
}
_MOUNTAINCAR_CONTINUOUS = {
    **_CONTINUOUS,
    "learning_rate": 7e-4,
    "log_std_init": 0.0,
    "noise_correlation": 0.97,
    "total_timesteps": 100_000,
}
_SWIMMER = {
    **_MUJOCO,
    "gamma": 0.9999,
    "gae_lambda": 0.99,
    "learning_rate": 3e-3,
    "noise_correlation": 0.98,
}
_MINIGRID = {
    "activation": "relu",
    "normalize_advantages": "running",
    "learning_rate": 1e-3,
    "ent_coef": 0.01,
    "eval_every": 50_000,
    "total_timesteps": 1_000_000,
}


def _with_rollouts(settings: dict[str, Any], num_envs: int, num_steps: int) -> dict[str, dict[str, Any]]:
    """Return ``settings`` for all algorithms, with rollouts of ``num_envs`` × ``num_steps`` for a2c and a3c."""
    rollout = {"num_envs": num_envs, "num_steps": num_steps}
    return {"*": settings, "a2c": rollout, "a3c": rollout, "ac": _ONE_STEP_CONTINUOUS}


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
        "LunarLander: long rollouts, a far horizon and an entropy bonus, so that it lands and does not hover",
        ("LunarLander-",),
        _with_rollouts(_LANDER, 8, 32),
    ),
    Preset(
        "pendulum",
        "Pendulum: a near horizon (γ .95) and noise that drifts a little, so that swinging up is found",
        ("Pendulum-",),
        _with_rollouts(_PENDULUM, 8, 8),
    ),
    Preset(
        "mountaincar-continuous",
        "MountainCarContinuous: noise that drifts rocks the car out of the valley, where white noise averages out",
        ("MountainCarContinuous-",),
        _with_rollouts(_MOUNTAINCAR_CONTINUOUS, 8, 16),
    ),
    Preset(
        "lunarlander-continuous",
        "LunarLanderContinuous: as lunarlander, without the bonus and with less noise, which is exploration enough",
        ("LunarLanderContinuous-",),
        _with_rollouts({**_LANDER, "log_std_init": -1.0, "ent_coef": 0.0}, 8, 32),
    ),
    Preset(
        "bipedalwalker",
        "BipedalWalker: as mujoco, with noise that is a smooth function of the state (gSDE), over five million steps",
        ("BipedalWalker-", "BipedalWalkerHardcore-"),
        _with_rollouts(_BIPEDAL, 16, 8),
    ),
    Preset(
        "swimmer",
        "Swimmer: a far horizon, and noise that drifts as slowly as it strokes",
        ("Swimmer-",),
        _with_rollouts(_SWIMMER, 8, 50),
    ),
    Preset(
        "pong",
        "Pong: as atari, with half the side and larger rollouts, which are faster; large steps, a bonus that falls",
        (),
        _with_rollouts(_PONG, 8, 10),
        games=("pong",),
    ),
    Preset(
        "breakout",
        "Breakout: as pong, with a larger bonus, and a lost life as an end for the learner",
        (),
        _with_rollouts(_BREAKOUT, 8, 10),
        games=("breakout",),
    ),
    Preset(
        "atari",
        "Atari: four standardised frames of 84 × 84, the A3C paper's network, Adam, rewards clipped to ±1",
        (),
        _with_rollouts(_ATARI, 4, 5),
        games=("*",),
    ),
    Preset(
        "atari-lstm",
        "Atari with a recurrent core: as pong, with one frame instead of four, an LSTM, and longer rollouts for it",
        (),
        {**_with_rollouts(_ATARI_LSTM, 16, 20), "a2c": {"num_envs": 32, "num_steps": 20}},
        games=("*",),
        recurrent=True,
    ),
    Preset(
        "minigrid",
        "MiniGrid, BabyAI: advantages of unit size and longer rollouts, as rewards are rare; --core lstm adds a memory",
        ("MiniGrid-", "BabyAI-"),
        {"*": _MINIGRID, "a2c": _SIXTEEN_BY_SIXTEEN, "a3c": _SIXTEEN_BY_SIXTEEN},
    ),
    Preset(
        "hopper",
        "Hopper: as mujoco, with longer rollouts and a farther horizon, beyond the next fall",
        ("Hopper-",),
        _with_rollouts({**_MUJOCO, "gamma": 0.995}, 8, 16),
    ),
    Preset(
        "humanoid",
        "Humanoid: as mujoco, with smaller steps, from which it learns several times as much",
        ("Humanoid-",),
        _with_rollouts({**_MUJOCO, "learning_rate": 7e-4}, 16, 5),
    ),
    Preset(
        "mujoco",
        "MuJoCo: two networks, standardised observations, scaled rewards, σ a parameter, large steps that fall to 0",
        (
            "Ant-", "HalfCheetah-", "HumanoidStandup-", "InvertedDoublePendulum-", "InvertedPendulum-",
            "Pusher-", "Reacher-", "Walker2d-",
        ),
        _with_rollouts(_MUJOCO, 16, 5),
    ),
    Preset(
        "continuous",
        "any other environment with real observations and continuous actions: as mujoco",
        (),
        _with_rollouts(_CONTINUOUS, 16, 5),
        any_continuous=True,
    ),
)  # fmt: skip

PRESETS = {row.name: row for row in _ROWS}

SpacesFn = Callable[[], "tuple[Space[Any], Space[Any]]"]
"""Returns the observation and the action space of the environment; it makes one, so it is called only when needed."""


def choose_preset(env_id: str, preset: str, get_spaces: SpacesFn | None = None, core: str = "feedforward") -> str:
    """Return the name of the preset that ``preset`` (auto, none or a name) means for ``env_id``; "none" if none.

    ``auto`` is the first row that matches the id and the ``core``, otherwise the row that fits the spaces, if
    ``get_spaces`` is given.

    Raises: ConfigError naming the choices.
    """
    if preset == "auto":
        matching = next((row for row in PRESETS.values() if row.matches(env_id, core)), None)
        if matching is not None and (get_spaces is None or matching.is_for(env_id)):
            return matching.name
        if get_spaces is None:
            return "none"
        if matching is not None and matching.why_unsuited(*get_spaces()) is None:
            return matching.name
        spaces = get_spaces()
        return next((row.name for row in PRESETS.values() if row.fits(*spaces)), "none")
    if preset != "none" and preset not in PRESETS:
        choices = ["auto", "none", *PRESETS]
        raise ConfigError(f"preset = {preset!r}: must be {' | '.join(choices)}{did_you_mean(preset, choices)}")
    return preset


def explain_preset(config: TrainConfig, spaces: tuple[Space[Any], Space[Any]]) -> str:
    """Return in one line which preset the settings of a run started from, and why that one.

    Args:
        config: the configuration of the run.
        spaces: observation and action space of its environment.
    """
    env_id = config.env.env_id
    near = next((row for row in PRESETS.values() if row.matches(env_id, config.model.core)), None)
    unsuited = near.why_unsuited(*spaces) if near is not None and not near.is_for(env_id) else None
    not_taken = f"; not {near.name}, which {unsuited}" if near is not None and unsuited else ""
    if config.preset not in PRESETS:
        return f"preset none: the algorithm's own settings{not_taken} (limelight list presets)"
    row = PRESETS[config.preset]
    if row.matches(env_id, config.model.core):
        reason = f"for {env_id} with a recurrent core" if row.recurrent else f"for {env_id}"
    else:
        reason = "fits the spaces" if row.fits(*spaces) else "asked for"
    return f"preset {row.name} ({reason}{not_taken}): {row.summary}"


def resolve_config(
    env_id: str, algo: str, preset: str, settings: dict[str, Any], factory: EnvFactory | None = None
) -> TrainConfig:
    """Return the configuration of a run: defaults ← algorithm ← preset ← ``settings``, each over the one before.

    Args:
        env_id: the environment.
        algo: the name of an algorithm.
        preset: auto, none or the name of a preset.
        settings: further settings by their plain names.
        factory: makes the environment, where it is not the one that ``env_id`` names.
    Raises: ConfigError for an unknown algorithm, preset or setting; EnvError for an environment that cannot be made.
    """
    algorithm = get_algorithm(algo)
    asked = with_settings(TrainConfig(), {**algorithm.settings, **settings, "env_id": env_id})
    if asked.env.env_module is not None:  # first, as it may register the id
        from limelight.envs.source import import_env_module  # here, because --help loads this module

        import_env_module(asked.env)

    def get_spaces() -> tuple[Space[Any], Space[Any]]:
        from limelight.envs.make import inspect_env
        from limelight.envs.source import resolve_env

        has_workers = asked.workers.asynchronous or asked.workers.runner == "ray"
        return inspect_env(resolve_env(asked.env, factory), may_start_workers=not has_workers)

    name = choose_preset(env_id, preset, get_spaces, asked.model.core)
    tuned = PRESETS[name].settings if name in PRESETS else {}
    merged = {**algorithm.settings, **tuned.get("*", {}), **tuned.get(algorithm.presets, {}), **settings}
    return with_settings(TrainConfig(), {**merged, "env_id": env_id, "algo": algorithm.name, "preset": name})
