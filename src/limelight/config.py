"""Every setting of a run, as frozen dataclasses with one docstring per field.

The command line, the saved ``config.yaml`` and docs/settings.md are all generated from this file.
Field names are unique across sections, so every setting has one plain name (``--gamma``).
Imports nothing heavy: ``limelight --help`` must not load torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

EnvKwargs = dict[str, int | float | bool | str]


class ConfigError(ValueError):
    """A setting or an environment that cannot work; the message is one line that names the mend."""


@dataclass(frozen=True)
class EnvConfig:
    """Which environment, how many copies, and how they are stepped."""

    env_id: str = "CartPole-v1"
    """A Gymnasium id (``CartPole-v1``), or ``package.module:callable`` that returns an environment."""
    env_kwargs: EnvKwargs = field(default_factory=dict)
    """Keyword arguments for the environment's constructor, as ``--env-kwargs KEY VALUE ...``."""
    env_module: str | None = None
    """A module to import first because it registers the environment id."""
    max_episode_steps: int | None = None
    """Override the environment's own time limit (in environment steps)."""
    num_envs: int = 8
    """Environments stepped side by side, B."""
    backend: Literal["auto", "vector", "sync", "async"] = "auto"
    """Who steps them: the env's own vectorised class, Gymnasium's sync or async one, or the fastest."""
    autoreset_mode: Literal["next_step", "same_step", "disabled"] = "next_step"
    """When a finished episode restarts. Learning is right in all three; ``next_step`` is the cheapest."""
    normalize_obs: bool = False
    """Standardise Box observations by running moments (frozen in evaluation, saved with the agent)."""


@dataclass(frozen=True)
class AlgorithmConfig:
    """What is learnt from a rollout."""

    algo: str = "a2c"
    """The row of algorithms.py these settings started from (``limelight list algos``)."""
    num_steps: int = 8
    """Environment steps per environment and update, T."""
    gamma: float = 0.99
    """Discount factor γ."""
    gae_lambda: float = 0.95
    """λ of the return estimator: 0 is TD(0), 1 is the n-step return up to the end of the rollout."""
    policy_weight: Literal["advantage", "q"] = "advantage"
    """What weighs ∇log π: the advantage, or the return estimate itself (``q``, plain actor-critic)."""
    normalize_advantages: Literal["none", "batch", "running"] = "none"
    """Standardise the policy weight: over each rollout, by running mean and variance, or not at all."""
    running_decay: float = 0.99
    """Decay per update of the mean that ``normalize_advantages = running`` subtracts."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    value_loss: Literal["mse", "huber"] = "mse"
    """Loss between values and return targets."""
    huber_delta: float = 1.0
    """Where the Huber loss turns from square to linear."""
    reward_scale: float = 1.0
    """Factor on the rewards the learner sees. Reported returns stay raw."""
    reward_clip: float | None = None
    """Clip the rewards the learner sees to [-c, c], before scaling. Reported returns stay raw."""


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    critic: Literal["shared", "separate", "target"] = "shared"
    """One trunk with two heads; two networks; or two networks and a slow copy of the critic for targets."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers."""
    activation: Literal["tanh", "relu", "elu", "silu"] = "tanh"
    """Nonlinearity between layers."""
    orthogonal_init: bool = True
    """Orthogonal weights with gain √2 (1 for the value head) and zero biases; otherwise PyTorch's default."""
    policy_init_gain: float = 0.01
    """Gain of the last policy layer: small, so that the first policy is close to uniform."""
    encoder: str | None = None
    """``package.module:Class`` of your own encoder (docs/extending.md); None: an MLP of ``hidden_sizes``."""
    tau: float = 0.05
    """Polyak factor of the target critic: target ← (1 − tau) target + tau critic."""
    target_update_every: int = 1
    """Updates (or episodes) between two moves of the target critic."""
    target_update_at: Literal["updates", "episode_end"] = "updates"
    """Whether ``target_update_every`` counts updates or finished episodes."""


@dataclass(frozen=True)
class OptimConfig:
    """How gradients become parameters."""

    optimizer: Literal["rmsprop", "rmsprop_tf", "adam"] = "rmsprop"
    """Optimizer of all parameters; ``rmsprop_tf`` has ε inside the root and its moment starts at 1."""
    learning_rate: float = 7e-4
    """Step size (of the actor, where ``critic_learning_rate`` is given)."""
    critic_learning_rate: float | None = None
    """Step size of the critic's own parameters; None is the same as ``learning_rate``."""
    lr_schedule: Literal["constant", "linear"] = "linear"
    """Constant, or linearly to zero over ``total_timesteps``."""
    rms_alpha: float = 0.99
    """Decay of RMSprop's second moment."""
    adam_beta1: float = 0.9
    """Decay of Adam's first moment."""
    adam_beta2: float = 0.999
    """Decay of Adam's second moment."""
    optim_eps: float = 1e-5
    """ε of the optimizer."""
    max_grad_norm: float | None = 0.5
    """Clip the gradient to this L2 norm; None leaves it."""


@dataclass(frozen=True)
class EvalConfig:
    """How the agent is judged while it trains."""

    eval_every: int = 10_000
    """Environment steps between two evaluations; 0 is never."""
    eval_episodes: int = 20
    """Episodes per evaluation."""
    eval_stochastic: bool = False
    """Sample actions in evaluations instead of taking the most probable one."""
    stop_at_return: float | None = None
    """Stop once the mean evaluation return has reached this and fresh greedy episodes have confirmed it."""
    stop_patience: int = 1
    """Evaluations in a row that must reach ``stop_at_return``."""
    confirm_episodes: int = 100
    """Fresh greedy episodes that confirm ``stop_at_return``."""
    final_episodes: int = 100
    """Episodes that judge the best agent at the end; 0 is none."""


@dataclass(frozen=True)
class CheckpointConfig:
    """What is kept on disk."""

    checkpoint_every: int = 50_000
    """Environment steps between two checkpoints; 0 keeps the last one only."""
    keep_last: int = 3
    """How many checkpoints to keep."""


@dataclass(frozen=True)
class LogConfig:
    """What is written while training."""

    log_every: int = 2_000
    """Environment steps between two rows of metrics."""
    tensorboard: bool = True
    """Also write TensorBoard events."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on; saved as ``config.yaml`` and enough to run it again."""

    env: EnvConfig = field(default_factory=EnvConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    total_timesteps: int = 200_000
    """Environment steps to train for, over all environments."""
    seed: int = 0
    """Seed of everything random in the run."""
    preset: str = "auto"
    """The row of presets.py these settings started from: auto (by environment), none, or a name."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network lives; auto keeps small networks on the CPU."""
    run_dir: str | None = None
    """Folder of the run; None is ``runs/<env>/<algo>-<seed>-<time>``."""


# --------------------------------------------------------------------------- flat view of the settings


def _is_section(annotation: Any) -> bool:
    return dataclasses.is_dataclass(annotation)


@functools.cache
def field_sections() -> dict[str, str | None]:
    """Plain field name → its section (None for TrainConfig's own fields)."""
    hints = typing.get_type_hints(TrainConfig)
    sections: dict[str, str | None] = {}
    for f in dataclasses.fields(TrainConfig):
        if _is_section(hints[f.name]):
            sections.update({g.name: f.name for g in dataclasses.fields(hints[f.name])})
        else:
            sections[f.name] = None
    return sections


def get_setting(config: TrainConfig, name: str) -> Any:
    """The value of a setting by its plain name."""
    section = field_sections()[name]
    return getattr(getattr(config, section) if section else config, name)


def with_settings(config: TrainConfig, settings: dict[str, Any]) -> TrainConfig:
    """A copy of ``config`` with settings replaced by their plain names, types checked.

    Raises: ConfigError naming an unknown setting (and near ones) or a value of the wrong type.
    """
    sections = field_sections()
    grouped: dict[str | None, dict[str, Any]] = {}
    for name, value in settings.items():
        if name not in sections:
            raise ConfigError(f"{name}: no such setting{did_you_mean(name, sections)}")
        section = sections[name]
        owner = type(getattr(config, section)) if section else TrainConfig
        grouped.setdefault(section, {})[name] = _coerce(name, value, typing.get_type_hints(owner)[name])
    changes: dict[str, Any] = grouped.pop(None, {})
    for section, values in grouped.items():
        assert section is not None
        changes[section] = dataclasses.replace(getattr(config, section), **values)
    return dataclasses.replace(config, **changes)


def for_resume(saved: TrainConfig, settings: dict[str, Any]) -> TrainConfig:
    """``saved`` with those settings changed that may change when its run is continued.

    Raises: ConfigError naming a setting that may not.
    """
    config, sections = with_settings(saved, settings), field_sections()
    for name in settings:
        free = name == "total_timesteps" or sections[name] in ("eval", "checkpoint", "log")
        before, after = get_setting(saved, name), get_setting(config, name)
        if not free and before != after:
            raise ConfigError(
                f"{name} = {after}: cannot change on resume, the run has {before}; "
                "only total_timesteps and the eval, checkpoint and log settings can"
            )
    return config


def did_you_mean(name: str, choices: typing.Iterable[str], cutoff: float = 0.6) -> str:
    """``"; did you mean X or Y?"`` for the nearest choices, or an empty string."""
    near = difflib.get_close_matches(name, list(choices), n=3, cutoff=cutoff)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def expected(annotation: Any) -> str:
    """What a value of this type must be, in words: ``"a whole number"``, ``"mse | huber"``."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(expected(a) for a in args)
    if origin is Literal:
        return " | ".join(map(str, args))
    if origin is tuple:
        return f"a list, each {expected(args[0])}"
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "text", type(None): "none"}
    return "a mapping" if origin is dict else words.get(annotation, str(annotation))


def _coerce(name: str, value: Any, annotation: Any) -> Any:
    """``value`` as ``annotation``, or ConfigError; ints pass as floats, lists as tuples, nothing else."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        if type(value) in args:  # an exact match first: 10.0 must not become the int it could pass for
            return value
        for option in args:
            try:
                return _coerce(name, value, option)
            except ConfigError:
                continue
    elif origin is Literal:
        if value in args and isinstance(value, str):
            return value
    elif origin is tuple and isinstance(value, list | tuple):
        return tuple(_coerce(name, v, args[0]) for v in value)
    elif origin is dict and isinstance(value, dict):
        return {str(k): _coerce(f"{name}.{k}", v, args[1]) for k, v in value.items()}
    elif annotation is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif annotation is int and isinstance(value, int | float) and not isinstance(value, bool):
        if value == value // 1:  # false for fractions, infinities and NaN
            return int(value)
    elif annotation in (bool, str) and isinstance(value, annotation):
        return value
    raise ConfigError(f"{name} = {value!r}: must be {expected(annotation)}")


# --------------------------------------------------------------------------- validation

# name → (lowest, highest, lowest allowed, highest allowed)
_RANGES: dict[str, tuple[float, float, bool, bool]] = {
    "num_envs": (1, 65_536, True, True),
    "max_episode_steps": (1, float("inf"), True, False),
    "num_steps": (1, 65_536, True, True),
    "gamma": (0, 1, True, True),
    "gae_lambda": (0, 1, True, True),
    "running_decay": (0, 1, True, False),
    "ent_coef": (0, float("inf"), True, False),
    "vf_coef": (0, float("inf"), True, False),
    "huber_delta": (0, float("inf"), False, False),
    "reward_scale": (0, float("inf"), False, False),
    "reward_clip": (0, float("inf"), False, False),
    "policy_init_gain": (0, float("inf"), False, False),
    "tau": (0, 1, False, True),
    "target_update_every": (1, float("inf"), True, False),
    "learning_rate": (0, 10, False, True),
    "critic_learning_rate": (0, 10, False, True),
    "rms_alpha": (0, 1, True, False),
    "adam_beta1": (0, 1, True, False),
    "adam_beta2": (0, 1, True, False),
    "optim_eps": (0, 1, False, True),
    "max_grad_norm": (0, float("inf"), False, False),
    "eval_every": (0, float("inf"), True, False),
    "eval_episodes": (1, 100_000, True, True),
    "stop_at_return": (float("-inf"), float("inf"), False, False),
    "stop_patience": (1, 10_000, True, True),
    "confirm_episodes": (1, 100_000, True, True),
    "final_episodes": (0, 100_000, True, True),
    "checkpoint_every": (0, float("inf"), True, False),
    "keep_last": (1, float("inf"), True, False),
    "log_every": (1, float("inf"), True, False),
    "total_timesteps": (1, float("inf"), True, False),
    "seed": (0, 2**31 - 1, True, True),
}


def validate(config: TrainConfig) -> TrainConfig:
    """``config`` itself if it can work.

    Raises: ConfigError with one line that names the field, the value and what would work.
    """
    for name in field_sections():
        value = get_setting(config, name)
        if name in _RANGES and value is not None:
            _check_range(name, value)
    algorithm, model, evaluation = config.algorithm, config.model, config.eval
    if not model.hidden_sizes or min(model.hidden_sizes) < 1:
        raise ConfigError(f"hidden_sizes = {list(model.hidden_sizes)}: must be one or more widths, each at least 1")
    batch = config.env.num_envs * algorithm.num_steps
    if algorithm.normalize_advantages == "batch" and batch < 2:
        raise ConfigError(
            "normalize_advantages = batch: needs num_envs × num_steps ≥ 2, got 1; set normalize_advantages to running"
        )
    if evaluation.stop_at_return is not None and evaluation.eval_every == 0:
        raise ConfigError("stop_at_return: needs evaluations, but eval_every = 0; set eval_every, e.g. 10000")
    if config.optim.critic_learning_rate is not None and model.critic == "shared":
        raise ConfigError(
            "critic_learning_rate: needs a critic of its own, but critic = shared; set critic to separate or target"
        )
    if model.critic != "target":
        for name in ("tau", "target_update_every", "target_update_at"):
            default = next(f.default for f in dataclasses.fields(ModelConfig) if f.name == name)
            if getattr(model, name) != default:
                raise ConfigError(
                    f"{name}: only a target critic uses it, but critic = {model.critic}; set critic target"
                )
    return config


def _check_range(name: str, value: float) -> None:
    low, high, low_in, high_in = _RANGES[name]
    inside = (value >= low if low_in else value > low) and (value <= high if high_in else value < high)
    if inside:  # NaN fails every comparison, so it is refused too
        return
    bounds = []
    if low != float("-inf"):
        bounds.append(f"{'≥' if low_in else '>'} {low:.12g}")
    if high != float("inf"):
        bounds.append(f"{'≤' if high_in else '<'} {high:.12g}")
    elif not math.isfinite(value):
        bounds.append("finite")
    raise ConfigError(f"{name} = {value}: must be {' and '.join(bounds)}")


# --------------------------------------------------------------------------- config.yaml


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Nested plain data, as in config.yaml."""
    data = dataclasses.asdict(config)
    data["model"]["hidden_sizes"] = list(config.model.hidden_sizes)
    return data


def from_dict(data: dict[str, Any]) -> TrainConfig:
    """The TrainConfig of nested plain data; the inverse of :func:`to_dict`.

    Raises: ConfigError on unknown names or wrong types.
    """
    flat: dict[str, Any] = {}
    sections = field_sections()
    names = {s for s in sections.values() if s}
    for key, value in data.items():
        if key not in names:
            flat[str(key)] = value
            continue
        if not isinstance(value, dict):
            raise ConfigError(f"{key} = {value!r}: must be a mapping of settings")
        for name, v in value.items():
            if sections.get(name) != key:
                raise ConfigError(f"{key}.{name}: no such setting{did_you_mean(str(name), sections)}")
            flat[name] = v
    return with_settings(TrainConfig(), flat)


def save_yaml(config: TrainConfig, path: Path) -> None:
    """Write ``config`` as YAML."""
    path.write_text(yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")


def load_yaml(path: Path) -> TrainConfig:
    """Read a ``config.yaml``.

    Raises: ConfigError when there is none or it cannot be read as one.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path.parent}: no {path.name} there, so it is not a run folder") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must be a mapping of settings")
    return from_dict(data)
