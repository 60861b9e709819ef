"""Rules of settings: ranges, combinations that cannot work, and settings of parts that a run does not have."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limelight.errors import ConfigError
from limelight.settings.io import all_settings, get_setting, load_yaml
from limelight.settings.schema import TrainConfig
from limelight.settings.values import shown, to_text

_OTHER_SUMMARIES = ("mean", "max", "min", "last", "first", "std", "Sum", "SUM", "total")
_WIDEST = 65_536
"""Largest width of a hidden layer, as that of a recurrent core."""
_DEEPEST = 100
"""Most hidden layers; more take seconds to build, whatever their widths."""


def validate(config: TrainConfig) -> TrainConfig:
    """Return ``config`` if it can work.

    Raises: ConfigError with one line that names the field, the value and what would work.
    """
    for setting in all_settings().values():
        value = get_setting(config, setting.name)
        if setting.range is not None and value is not None:
            setting.range.check(setting.name, value)
    for section, reason in unused_sections(config).items():
        refuse_unused(getattr(config.workers, section), reason)
    for owner, reason, names in unused_settings(config):
        refuse_unused(owner, reason, *names)
    _check_env(config)
    _check_info_keys(config.env.info_keys)
    _check_workers(config)
    _check_nonfinite(config)
    _check_model(config)
    _check_updates(config)
    _check_action_values(config)
    _check_returns(config)
    _check_streaming(config)
    evaluation = config.eval
    if evaluation.stop_at_return is not None and evaluation.eval_every == 0:
        raise ConfigError("stop_at_return: needs evaluations, but eval_every = 0; set eval_every, e.g. 10000")
    return config


def load_valid(path: Path) -> TrainConfig:
    """Read a ``config.yaml`` that can work.

    Raises: CheckpointError or ConfigError that names the file, as :func:`limelight.settings.io.load_yaml`.
    """
    config = load_yaml(path)
    try:
        return validate(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


# --------------------------------------------------------------------------- parts that the run does not have


def refuse_unused(section: Any, reason: str, *names: str) -> None:
    """Refuse settings of a part that the run does not have, unless they are at their defaults.

    Args:
        section: the section of the configuration that owns them.
        reason: which run would use them, and what to do.
        names: the settings of the part; all of the section if none are named.
    Raises: ConfigError naming the first such setting and its value.
    """
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if (not names or field.name in names) and value != field.default:
            raise ConfigError(f"{field.name} = {to_text(value)}: {reason}")


def unused_sections(config: TrainConfig) -> dict[str, str]:
    """Return the sections of ``config.workers`` that the runner does not use, each with the reason for an error."""
    workers, unused = config.workers, {}
    if workers.runner == "ray":
        unused["shared_memory"] = "on Ray one process updates the parameters; leave it out"
    else:
        unused["ray"] = "only Ray uses it; set runner to ray"
        if not workers.asynchronous:
            unused["shared_memory"] = _one_process(config)
    return unused


def unused_settings(config: TrainConfig) -> list[tuple[Any, str, tuple[str, ...]]]:
    """Return the settings that a run does not use: the section of each group, the reason for an error, their names."""
    a, model, optim = config.algorithm, config.model, config.optim
    unused: list[tuple[Any, str, tuple[str, ...]]] = []
    if not config.env.normalize_obs:
        only = "only normalize_obs uses it; set that to true, or leave this out"
        unused.append((config.env, only, ("image_statistics",)))
    if a.num_epochs == a.num_minibatches == 1:
        only = "it never acts on the one update per rollout; set num_epochs or num_minibatches above 1, or this to none"
        ratios = () if _learns_from_older_policies(config) else ("clip_ratio", "target_kl")
        unused.append((a, only, ("value_clip", *ratios)))
    if model.critic_output == "v":
        only = "only an action-value critic bootstraps so; set critic_output to q"
        unused.append((a, only, ("q_bootstrap",)))
    if a.returns != "gae":
        only = f"only returns gae has λ, but returns = {a.returns}; leave one of the two out"
        unused.append((a, only, ("gae_lambda",)))
    if a.returns != "n_step":
        only = f"only n-step returns use it, but returns = {a.returns}; set returns to n_step"
        unused.append((a, only, ("return_steps",)))
    if a.value_loss != "huber":
        only = f"only the Huber loss has it, but value_loss = {a.value_loss}; set value_loss to huber"
        unused.append((a, only, ("huber_delta",)))
    if model.core == "feedforward":
        only = "only a recurrent core uses it, but core = feedforward; set core to lstm or gru"
        unused.append((model, only, ("core_size",)))
    if model.critic != "target":
        only = f"only a target critic uses it, but critic = {model.critic}; set critic target"
        unused.append((model, only, ("tau", "target_update_every", "target_update_at")))
    if model.critic == "shared":
        only = "needs a critic of its own, but critic = shared; set critic to separate or target"
        unused.append((optim, only, ("critic_learning_rate",)))
    workers = config.workers
    if workers.runner == "local" and not workers.asynchronous:
        number = () if workers.num_workers == 1 else ("num_workers",)
        unused.append((workers, _one_process(config), ("on_worker_error", "max_worker_restarts", *number)))
    return unused + _unused_by_optimizer(config)


def _unused_by_optimizer(config: TrainConfig) -> list[tuple[Any, str, tuple[str, ...]]]:
    """Return the settings of other optimizers, as :func:`unused_settings`."""
    optim, name = config.optim, config.optim.optimizer
    own = {"rmsprop": ("rms_alpha",), "adam": ("adam_beta1", "adam_beta2"), "obgd": ("actor_kappa", "critic_kappa")}
    help_to = {
        "rmsprop": "set optimizer to rmsprop",
        "adam": "set optimizer to adam",
        "obgd": "leave it out, or use algo stream-ac",
    }
    return [
        (optim, f"only {other} uses it, but optimizer = {name}; {help_to[other]}", names)
        for other, names in own.items()
        if other != name.removesuffix("_tf")
    ]


def settings_without_effect(config: TrainConfig) -> list[str]:
    """Return the settings that depend on another one that is off; a preset may set them, so they are not refused."""
    depends = {
        "running_decay": config.algorithm.normalize_advantages == "running",
        "ent_schedule": config.algorithm.ent_coef > 0.0,
        "stop_patience": config.eval.stop_at_return is not None,
        "confirm_episodes": config.eval.stop_at_return is not None,
    }
    return [name for name, has_effect in depends.items() if not has_effect]


def _one_process(config: TrainConfig) -> str:
    """Return the reason for an error where a run has no workers."""
    return f"{config.algorithm.algo} trains in one process; use algo a3c, set asynchronous to true, or runner to ray"


# --------------------------------------------------------------------------- combinations


def _check_env(config: TrainConfig) -> None:
    """Refuse an autoreset mode that the backend does not have, and worker processes inside workers."""
    env, workers = config.env, config.workers
    if env.backend in ("envpool", "ale") and env.autoreset_mode != "next_step":
        stepper = "EnvPool" if env.backend == "envpool" else "ALE"
        raise ConfigError(f"autoreset_mode = {env.autoreset_mode}: {stepper} has only next_step; set that")
    if env.backend in ("vector", "envpool", "ale") and env.on_env_error == "restart":
        raise ConfigError(
            f"on_env_error = restart: backend {env.backend} steps all environments in one call, so none can be "
            "replaced; set backend to sync, async or auto"
        )
    if env.backend == "async" and (workers.asynchronous or workers.runner == "ray"):
        raise ConfigError("backend = async: workers are processes already; use backend sync, vector, envpool or auto")


def _check_info_keys(keys: Sequence[str]) -> None:
    """Refuse keys of infos that are empty, given twice, or of another summary than the sum."""
    for key in keys:
        prefix, colon, name = key.partition(":")
        if not key.strip() or (colon and not name):
            raise ConfigError(f"info_keys = {key!r}: must be KEY or sum:KEY, the key of a number in info")
        if colon and prefix in _OTHER_SUMMARIES:
            raise ConfigError(f"info_keys = {key}: must be {name} (at the end of an episode) or sum:{name} (over it)")
        if keys.count(key) > 1:
            raise ConfigError(f"info_keys = {key}: is given twice; leave one out")


def _check_workers(config: TrainConfig) -> None:
    """Refuse settings of workers where there are none, and those that exclude each other on Ray."""
    workers, ray = config.workers, config.workers.ray
    if workers.runner == "local":
        return
    if not workers.asynchronous:
        newest = "synchronous workers always have the newest parameters; use algo a3c"
        refuse_unused(ray, newest, "max_policy_lag", "prefetch")
    if ray.ray_address is not None and workers.num_workers is None:
        raise ConfigError("num_workers: is required with ray_address; set it, e.g. --num-workers 8")
    if _learns_from_older_policies(config) and config.algorithm.policy_weight != "advantage":
        raise ConfigError(
            f"policy_weight = {config.algorithm.policy_weight}: V-trace weights by advantages; "
            "set policy_weight to advantage, or worker_output to gradients"
        )


def _check_nonfinite(config: TrainConfig) -> None:
    """Refuse reactions to numbers that are not finite where several processes would have to agree on them."""
    mode, workers = config.optim.on_nonfinite, config.workers
    if mode == "rollback" and (workers.asynchronous or workers.runner == "ray"):
        raise ConfigError("on_nonfinite = rollback: needs one process that learns; use skip, or algo a2c")
    if mode == "skip" and workers.runner == "ray":
        raise ConfigError("on_nonfinite = skip: on Ray only asynchronous gradients are skipped; use auto or raise")


def _check_updates(config: TrainConfig) -> None:
    """Refuse minibatches that would be empty, and several updates where a rollout makes one."""
    a, workers = config.algorithm, config.workers
    parts, sequences = a.num_minibatches, config.env.num_envs
    rows = sequences * a.num_steps
    if config.model.core != "feedforward" and parts > sequences:
        raise ConfigError(
            f"num_minibatches = {parts}: with core {config.model.core} a minibatch is whole environments, and "
            f"num_envs = {sequences}; set num_minibatches to at most {sequences}, or num_envs higher"
        )
    if parts > rows:
        raise ConfigError(f"num_minibatches = {parts}: must be ≤ num_envs × num_steps = {rows}")
    if a.normalize_advantages == "batch" and rows < 2 * parts:
        raise ConfigError(
            f"normalize_advantages = batch: needs num_envs × num_steps ≥ {2 * parts} (2 per minibatch), got {rows}; "
            "set normalize_advantages to running"
        )
    is_ray = workers.runner == "ray"
    acts_older = _learns_from_older_policies(config)
    if a.num_epochs == parts == 1:
        return
    if is_ray and workers.ray.worker_output == "gradients":
        name = "num_epochs" if a.num_epochs > 1 else "num_minibatches"
        raise ConfigError(
            f"{name} = {getattr(a, name)}: on Ray needs the rollouts themselves, as a worker's gradient is one update; "
            "set worker_output to rollouts"
        )
    if acts_older and a.clip_ratio is None:
        name = "num_epochs" if a.num_epochs > 1 else "num_minibatches"
        raise ConfigError(
            f"{name} = {getattr(a, name)}: V-trace corrects one update per rollout; set clip_ratio, e.g. 0.2"
        )


def _check_action_values(config: TrainConfig) -> None:
    """Refuse weights of an action-value critic without one, and V-trace with one."""
    a = config.algorithm
    if config.model.critic_output == "v":
        if a.policy_weight == "td_error":
            raise ConfigError(
                "policy_weight = td_error: only with critic_output q; set that, or policy_weight to advantage, which "
                "is the TD error of V(s) where gae_lambda = 0"
            )
    elif _corrects_by_vtrace(config):
        raise ConfigError(
            "critic_output = q: V-trace corrects values of states; set critic_output to v, or worker_output to "
            "gradients"
        )


def _check_returns(config: TrainConfig) -> None:
    """Refuse returns of too few rows, and returns that V-trace does not make."""
    a, rows = config.algorithm, config.env.num_envs * config.algorithm.num_steps
    if a.return_steps is not None and a.return_steps > a.num_steps:
        raise ConfigError(
            f"return_steps = {a.return_steps}: must be ≤ num_steps = {a.num_steps}, the rows of a rollout; "
            "set num_steps higher"
        )
    if a.normalize_returns and rows < 2:
        raise ConfigError(
            "normalize_returns = true: one row has no deviation; set num_envs × num_steps to at least 2, or it to false"
        )
    if _corrects_by_vtrace(config):
        vtrace = "V-trace makes the returns; leave it out, or set worker_output to gradients"
        refuse_unused(a, vtrace, "returns", "normalize_returns")


def _learns_from_older_policies(config: TrainConfig) -> bool:
    """Return whether rollouts may be of older parameters than the learner's."""
    workers = config.workers
    return workers.runner == "ray" and workers.asynchronous and workers.ray.worker_output == "rollouts"


def _corrects_by_vtrace(config: TrainConfig) -> bool:
    """Return whether the learner corrects rollouts of older policies by V-trace, and not by a clipped ratio."""
    a = config.algorithm
    return _learns_from_older_policies(config) and a.clip_ratio is None and a.target_kl is None


def _check_model(config: TrainConfig) -> None:
    """Refuse a network without hidden layers, and two ways of initial weights."""
    model = config.model
    check_hidden_sizes(model.hidden_sizes)
    if model.sparse_init and model.orthogonal_init:
        raise ConfigError(
            f"sparse_init = {to_text(model.sparse_init)}: replaces orthogonal weights; set orthogonal_init to false"
        )


def check_hidden_sizes(widths: Sequence[int]) -> None:
    """Refuse a network without hidden layers, with too many, or with a width out of range.

    Raises: ConfigError.
    """
    if not widths or len(widths) > _DEEPEST or min(widths) < 1 or max(widths) > _WIDEST:
        must = f"must be one or more widths, at most {_DEEPEST}, each at least 1 and at most {_WIDEST}"
        raise ConfigError(f"hidden_sizes = {shown(list(widths))}: {must}")


def _check_streaming(config: TrainConfig) -> None:
    """Refuse what the optimizer with eligibility traces cannot learn from."""
    a, optim, workers = config.algorithm, config.optim, config.workers
    if optim.optimizer != "obgd":
        return
    if workers.asynchronous or workers.runner == "ray":
        raise ConfigError(
            "optimizer = obgd: its traces follow one stream of steps in one process; set asynchronous to false and "
            "runner to local"
        )
    needs: dict[str, tuple[Any, Any, str]] = {
        "num_envs": (config.env.num_envs, 1, "its traces follow the steps of one environment"),
        "num_steps": (a.num_steps, 1, "it learns from every single step"),
        "num_epochs": (a.num_epochs, 1, "it learns from every single step, once"),
        "returns": (a.returns, "gae", "its traces are those of TD(λ)"),
        "normalize_returns": (a.normalize_returns, False, "it learns from one return at a time"),
        "critic_output": (config.model.critic_output, "v", "its TD error is that of V(s)"),
        "core": (config.model.core, "feedforward", "its traces do not reach back through a recurrent state"),
        "critic": (config.model.critic, "separate", "it bounds the steps of actor and critic each"),
        "policy_weight": (a.policy_weight, "advantage", "its steps are the TD error times the trace"),
        "normalize_advantages": (a.normalize_advantages, "none", "its steps are the TD error times the trace"),
        "value_loss": (a.value_loss, "mse", "its steps are the TD error times the trace"),
        "vf_coef": (a.vf_coef, 1.0, "critic_kappa bounds the critic's steps instead"),
        "max_grad_norm": (optim.max_grad_norm, None, "it bounds the steps itself"),
    }
    for name, (value, needed, reason) in needs.items():
        if value != needed:
            raise ConfigError(f"{name} = {to_text(value)}: with optimizer obgd, {reason}; set it to {to_text(needed)}")
