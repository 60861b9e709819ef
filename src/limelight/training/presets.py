"""Tuned settings per environment over those of an algorithm, and the configuration of a run from all of them."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from limelight.errors import ConfigError, did_you_mean
from limelight.settings.io import ALIASES, SWITCHES, plain_name, with_settings
from limelight.settings.schema import NO_STEP_BUDGET, TrainConfig
from limelight.training.algorithms import ALGORITHMS, AUTO, Algorithm, choose_algorithm, get_algorithm
from limelight.training.preset_file import is_preset_file, read_preset
from limelight.training.structure import MANY_STEPS, Facts, choose_settings, explain, has_images

if TYPE_CHECKING:
    from gymnasium.spaces import Space

    from limelight.envs.source import EnvSource
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
    games: tuple[str, ...] = ()
    """Atari games that take this preset, under any of their ids; "*" is every game that no earlier row names."""
    algorithm: str = "a2c"
    """The algorithm that ``auto`` stands for with this preset."""
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


def _has_reals(space: Space[Any]) -> bool:
    from limelight.envs.probe import real_parts

    return any(real_parts(space))


OF_EVALUATIONS = {"eval_every", "eval_episodes", "final_episodes", "log_every", "checkpoint_every", "total_timesteps"}
"""Settings that a universal algorithm takes from presets and rules."""
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
# The classic script: github.com/ikostrikov/pytorch-a3c
_CLASSIC_A3C = {
    "frame_size": 42,
    "frame_stack": 1,
    "noop_max": 0,
    "fire_reset": False,
    "normalize_obs": True,
    "image_statistics": "frame",
    "reward_clip": 1.0,
    "encoder": "universe",
    "core": "lstm",
    "core_size": 256,
    "num_envs": 1,
    "num_steps": 20,
    "gamma": 0.99,
    "gae_lambda": 1.0,
    "ent_coef": 0.01,
    "vf_coef": 0.5,
    "optimizer": "adam",
    "optim_eps": 1e-8,
    "learning_rate": 1e-4,
    "lr_schedule": "constant",
    "max_grad_norm": 50.0,
    **{name: _ATARI[name] for name in ("eval_every", "eval_episodes", "final_episodes", "log_every")},
    "checkpoint_every": 500_000,
    "total_timesteps": 5_000_000,
}
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
_PPO_SWIMMER = {
    "num_envs": 4,
    "num_steps": 1024,
    "num_epochs": 10,
    "num_minibatches": 16,
    "learning_rate": 6e-4,
    "gae_lambda": 0.98,
    "noise_correlation": 0.0,
    "log_std_init": 0.0,
}
_MINIGRID = {
    "activation": "relu",
    "normalize_advantages": "running",
    "learning_rate": 1e-3,
    "ent_coef": 0.01,
    "eval_every": 50_000,
    "total_timesteps": 1_000_000,
}
# Columns of ppo begin with the hyperparameters of RL Baselines3 Zoo
_PPO_CARTPOLE = {
    "num_envs": 8,
    "num_steps": 32,
    "num_epochs": 20,
    "num_minibatches": 1,
    "gamma": 0.98,
    "gae_lambda": 0.8,
    "learning_rate": 1e-3,
}
_PPO_ACROBOT = {
    "num_envs": 16,
    "num_steps": 64,
    "num_epochs": 4,
    "num_minibatches": 16,
    "gae_lambda": 0.94,
    "normalize_obs": True,
}
_PPO_MOUNTAINCAR = {"num_envs": 16, "num_steps": 16, "num_epochs": 4, "gae_lambda": 0.98}
_PPO_CONTINUOUS = {
    "num_envs": 8,
    "num_steps": 256,
    "num_epochs": 10,
    "num_minibatches": 32,
    "learning_rate": 3e-4,
}
_PPO_PENDULUM = {**_PPO_CONTINUOUS, "gamma": 0.9, "gae_lambda": 0.95, "learning_rate": 1e-3}
_PPO_LANDER = {"num_envs": 16, "num_steps": 256, "num_epochs": 4, "num_minibatches": 64, "learning_rate": 3e-4}
_PPO_IMAGES = {
    "critic": "shared",
    "num_envs": 8,
    "num_steps": 128,
    "gae_lambda": 0.95,
    "clip_ratio": 0.1,
    "learning_rate": 2.5e-4,
}
_PPO_MINIGRID = {
    "num_envs": 16,
    "num_steps": 128,
    "num_epochs": 4,
    "num_minibatches": 8,
    "normalize_advantages": "batch",
    "learning_rate": 2.5e-4,
}


def _with_rollouts(
    settings: dict[str, Any], num_envs: int, num_steps: int, ppo: dict[str, Any] = _PPO_CONTINUOUS
) -> dict[str, dict[str, Any]]:
    """Return ``settings`` for all algorithms, with rollouts of ``num_envs`` × ``num_steps`` for a2c and a3c."""
    rollout = {"num_envs": num_envs, "num_steps": num_steps}
    return {"*": settings, "a2c": rollout, "a3c": rollout, "ac": _ONE_STEP_CONTINUOUS, "ppo": ppo}


_ROWS = (
    Preset(
        "classic",
        "CartPole: a reward of 1 every step, so V grows to 1/(1 − γ) = 100 and is scaled down",
        ("CartPole-",),
        {"*": _SCALED, "a2c": _SIDE_BY_SIDE, "a3c": _SIDE_BY_SIDE, "ac": _ONE_STEP, "ppo": _PPO_CARTPOLE},
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
            "ppo": _PPO_ACROBOT,
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
            "ppo": _PPO_MOUNTAINCAR,
        },
    ),
    Preset(
        "lunarlander",
        "LunarLander: long rollouts, a far horizon and an entropy bonus, so that it lands and does not hover",
        ("LunarLander-",),
        _with_rollouts(_LANDER, 8, 32, _PPO_LANDER),
    ),
    Preset(
        "pendulum",
        "Pendulum: a near horizon (γ .95) and noise that drifts a little, so that swinging up is found",
        ("Pendulum-",),
        _with_rollouts(_PENDULUM, 8, 8, _PPO_PENDULUM),
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
        _with_rollouts({**_LANDER, "log_std_init": -1.0, "ent_coef": 0.0}, 8, 32, _PPO_LANDER),
    ),
    Preset(
        "bipedalwalker",
        "BipedalWalker: as mujoco, with noise that is a smooth function of the state (gSDE), over five million steps",
        ("BipedalWalker-", "BipedalWalkerHardcore-"),
        _with_rollouts(_BIPEDAL, 16, 8),
    ),
    Preset(
        "swimmer",
        "Swimmer: a far horizon (γ .9999) and ppo, which learns it; a2c with noise that drifts as slowly as it strokes",
        ("Swimmer-",),
        _with_rollouts(_SWIMMER, 8, 50, _PPO_SWIMMER),
        algorithm="ppo",
    ),
    Preset(
        "pong",
        "Pong: as atari, with half the side and larger rollouts, which are faster; large steps, a bonus that falls",
        (),
        _with_rollouts(_PONG, 8, 10, _PPO_IMAGES),
        games=("pong",),
    ),
    Preset(
        "breakout",
        "Breakout: as pong, with a larger bonus, and a lost life as an end for the learner",
        (),
        _with_rollouts(_BREAKOUT, 8, 10, _PPO_IMAGES),
        games=("breakout",),
    ),
    Preset(
        "atari",
        "Atari: four standardised frames of 84 × 84, the A3C paper's network, Adam, rewards clipped to ±1",
        (),
        _with_rollouts(_ATARI, 4, 5, _PPO_IMAGES),
        games=("*",),
    ),
    Preset(
        "atari-lstm",
        "Atari with a recurrent core: as pong, with one frame instead of four, an LSTM, and longer rollouts for it",
        (),
        {**_with_rollouts(_ATARI_LSTM, 16, 20, _PPO_IMAGES), "a2c": {"num_envs": 32, "num_steps": 20}},
        games=("*",),
        recurrent=True,
    ),
    Preset(
        "classic-a3c",
        "Atari as the classic PyTorch script of A3C plays it: 42 × 42, LSTM, one game per worker, shared Adam of 1e-4",
        (),
        {"*": _CLASSIC_A3C, "ppo": {"num_minibatches": 1}},
        algorithm="a3c",
    ),
    Preset(
        "minigrid",
        "MiniGrid, BabyAI: advantages of unit size and longer rollouts, as rewards are rare; --core lstm adds a memory",
        ("MiniGrid-", "BabyAI-"),
        {"*": _MINIGRID, "a2c": _SIXTEEN_BY_SIXTEEN, "a3c": _SIXTEEN_BY_SIXTEEN, "ppo": _PPO_MINIGRID},
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
)  # fmt: skip

PRESETS = {row.name: row for row in _ROWS}
_PLAIN = Preset("plain", "the algorithm's own settings", ())

SpacesFn = Callable[[], "tuple[Space[Any], Space[Any]]"]
"""Returns the observation and the action space of the environment; it makes one, so it is called only when needed."""

_STEP_BUDGETS = {"total_timesteps", *(alias for alias, name in ALIASES.items() if name == "total_timesteps")}

CHOICES = ("auto", "none", "plain", *PRESETS)


def choose_preset(env_id: str, preset: str, core: str = "feedforward", get_spaces: SpacesFn | None = None) -> str:
    """Return the name of the preset that ``preset`` means for ``env_id``: a row, ``none`` or ``plain``.

    ``auto`` is the first row that matches the id and the ``core``, and suits the spaces where the id only begins like
    those of the row; otherwise ``none``: rules over the structure of the environment (training/structure.py).
    ``plain`` is the algorithm's own settings.

    Raises: ConfigError naming the choices.
    """
    if preset == "auto":
        matching = next((row for row in PRESETS.values() if row.matches(env_id, core)), None)
        if matching is None:
            return "none"
        if get_spaces is None or matching.is_for(env_id) or matching.why_unsuited(*get_spaces()) is None:
            return matching.name
        return "none"
    if preset not in CHOICES:
        near = did_you_mean(preset, CHOICES)
        raise ConfigError(f"preset = {preset!r}: must be {' | '.join(CHOICES)}, or the path of a .yaml file{near}")
    return preset


def explain_preset(config: TrainConfig, source: EnvSource) -> list[str]:
    """Return in lines which preset the settings of a run started from, and why: a line for each rule, or for the row.

    Args:
        config: the configuration of the run.
        source: its environment.
    """
    env_id, core = config.env.env_id, config.model.core
    if config.preset == "none":
        near = next((row for row in PRESETS.values() if row.matches(env_id, core)), None)
        unsuited = near.why_unsuited(*source.spaces()) if near is not None and not near.is_for(env_id) else None
        not_taken = f"; not {near.name}, which {unsuited}" if near is not None and unsuited else ""
        algo, reason = _algorithm(source)
        rules = [f"algo {algo}: {reason}"] if config.algorithm.algo == algo else []
        rules += explain(config, choose_settings(_facts(config, source)))
        return [f"preset none: settings by the structure of the environment{not_taken} (docs/defaults.md)", *rules]
    if is_preset_file(config.preset):
        try:
            return [read_preset(config.preset).describe(env_id)]
        except ConfigError:  # the settings are those of a saved run, and the file has changed since
            return [f"preset {config.preset}: settings of a file that is not there any more"]
    if config.preset not in PRESETS:
        return ["preset plain: the algorithm's own settings"]
    row = PRESETS[config.preset]
    if row.matches(env_id, core):
        reason = f"for {env_id} with a recurrent core" if row.recurrent else f"for {env_id}"
    else:
        reason = "asked for"
    return [f"preset {row.name} ({reason}): {row.summary}"]


def resolve_config(
    env_id: str, algo: str, preset: str, settings: dict[str, Any], factory: EnvFactory | None = None
) -> TrainConfig:
    """Return the configuration of a run: defaults ← algorithm ← preset or rules ← ``settings``.

    Args:
        env_id: the environment.
        algo: the name of an algorithm, or auto.
        preset: auto, none, plain, the name of a preset, or the path of one in a file (``.yaml``).
        settings: further settings by their plain names.
        factory: makes the environment, where it is not the one that ``env_id`` names.
    Raises: ConfigError for an unknown algorithm, preset or setting; EnvError for an environment that cannot be made.
    """
    if is_preset_file(preset):
        return _with_file(env_id, algo, preset, settings, factory)
    if settings.get("total_episodes") is not None and not settings.keys() & _STEP_BUDGETS:
        settings = {**settings, "total_timesteps": NO_STEP_BUDGET}
    asked = with_settings(TrainConfig(), {**settings, "env_id": env_id})
    algo = algo.lower() if algo.lower() in {*ALGORITHMS, AUTO} else algo
    settings = {name if name in SWITCHES else plain_name(name): value for name, value in settings.items()}
    from limelight.envs.source import import_env_module, resolve_env  # here, because --help loads this module
    from limelight.spaces.describe import check_spaces

    if asked.env.env_module is not None:  # first, as it may register the id
        import_env_module(asked.env)
    name = choose_preset(env_id, preset, asked.model.core, lambda: resolve_env(asked.env, factory).spaces())
    if name == "none":
        source = resolve_env(asked.env, factory)
        source.play_once()
        check_spaces(*source.spaces(), source.name)
        algo = _algorithm(source)[0] if algo == AUTO else algo
        facts = _facts(with_settings(asked, {"algo": algo}), source, settings)
        tuned = {name: value for choice in choose_settings(facts) for name, value in choice.settings.items()}
    else:
        row = PRESETS.get(name, _PLAIN)
        algo = row.algorithm if algo == AUTO else algo
        tuned = {**row.settings.get("*", {}), **row.settings.get(get_algorithm(algo).presets, {})}
    algorithm = get_algorithm(algo)
    own = algorithm.settings
    if algorithm.universal:
        tuned = {name: value for name, value in tuned.items() if name in OF_EVALUATIONS}
        own = _for_spaces(algorithm, *resolve_env(asked.env, factory).spaces())
    if own.get("critic") == "target":  # what makes it this algorithm
        tuned.pop("critic", None)
    merged = _with_one_estimator({**own, **tuned}, settings)
    if merged.get("runner") == "ray" and max(merged.get("num_epochs", 1), merged.get("num_minibatches", 1)) > 1:
        # A worker's gradient is one update; several need the rows themselves
        merged = {"worker_output": "rollouts", **merged}
    return with_settings(TrainConfig(), {**merged, "env_id": env_id, "algo": algo, "preset": name})


def _with_file(env_id: str, algo: str, path: str, settings: dict[str, Any], factory: EnvFactory | None) -> TrainConfig:
    """Return the configuration of a run with the preset in a file: its settings count as given, below ``settings``.

    Raises: ConfigError, also where another algorithm is asked for.
    """
    file = read_preset(path)
    if algo.lower() not in (AUTO, file.algo.lower()):
        raise ConfigError(f"algo = {algo}: the preset {path} was found for {file.algo}; leave one of the two out")
    given = {name if name in SWITCHES else plain_name(name): value for name, value in settings.items()}
    both = _with_one_estimator(file.settings, given)
    config = resolve_config(env_id, file.algo, file.base, {**both, "preset": file.base}, factory)
    return with_settings(config, {"preset": path})


def names_by_rule(config: TrainConfig, source: EnvSource, given: Mapping[str, Any]) -> set[str]:
    """Return the settings of a run whose values come from the rules by structure, and not from ``given`` ones."""
    if config.preset != "none":
        return set()
    return {
        name for choice in choose_settings(_facts(config, source, given)) for name in choice.settings
    } - given.keys()


def _with_one_estimator(tuned: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``tuned`` with ``settings`` over it, without the tuned λ where other returns than GAE(λ) are asked for.

    Raises: ConfigError where both are asked for.
    """
    returns = settings.get("returns", "gae")
    if returns == "gae":
        return {**tuned, **settings}
    if "gae_lambda" in settings:
        raise ConfigError(
            f"gae_lambda = {settings['gae_lambda']}: only returns gae has λ, but returns = {returns}; leave one out"
        )
    return {**{name: value for name, value in tuned.items() if name != "gae_lambda"}, **settings}


def _for_spaces(algorithm: Algorithm, observations: Space[Any], actions: Space[Any]) -> dict[str, Any]:
    """Return the settings of a universal algorithm, without those that the spaces have no use for."""
    settings = {**algorithm.settings, **(algorithm.reals if _has_reals(actions) else {})}
    return settings if _has_reals(observations) else {**settings, "normalize_obs": False}


def _algorithm(source: EnvSource) -> tuple[str, str]:
    """Return the algorithm for an environment without a preset, and the reason."""
    observations, actions = source.spaces()
    return choose_algorithm(_has_reals(actions), has_images(observations), has_long_episodes(source))


def has_long_episodes(source: EnvSource) -> bool:
    """Return whether observations hold real numbers and episodes of random play, or the declared limit, are long."""
    play, limit = source.inspection.play, source.inspection.time_limit or 0
    lengths = play.episode_lengths if play is not None else []
    return _has_reals(source.spaces()[0]) and max(limit, statistics.median(lengths or [0])) >= MANY_STEPS


def _facts(config: TrainConfig, source: EnvSource, given: Mapping[str, Any] | None = None) -> Facts:
    """Return what the rules know of a run."""
    algorithm, reals = get_algorithm(config.algorithm.algo), _has_reals(source.spaces()[1])
    return Facts(
        *source.spaces(),
        source.inspection.play,
        rollout={**algorithm.untuned, **(algorithm.untuned_reals if reals else {})},
        recurrent=config.model.core != "feedforward",
        total_timesteps=config.total_timesteps,
        time_limit=source.inspection.time_limit,
        given=given or {},
    )
