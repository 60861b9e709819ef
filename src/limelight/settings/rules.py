"""Which settings can work, alone and together. Asked by train.py and envs/make.py before anything is made."""

from __future__ import annotations

import dataclasses
import math

from limelight.errors import ConfigError
from limelight.settings.io import field_sections, get_setting
from limelight.settings.schema import ModelConfig, TrainConfig, WorkersConfig

# name → (lowest, highest, lowest allowed, highest allowed)
RANGES: dict[str, tuple[float, float, bool, bool]] = {
    "num_envs": (1, 65_536, True, True),
    "max_episode_steps": (1, float("inf"), True, False),
    "env_threads": (1, 1024, True, True),
    "frame_size": (36, 256, True, True),
    "frame_stack": (1, 64, True, True),
    "frame_skip": (1, 64, True, True),
    "sticky_actions": (0, 1, True, True),
    "noop_max": (0, 10_000, True, True),
    "num_steps": (1, 65_536, True, True),
    "gamma": (0, 1, True, True),
    "gae_lambda": (0, 1, True, True),
    "noise_correlation": (0, 1, True, False),
    "running_decay": (0, 1, True, False),
    "ent_coef": (0, float("inf"), True, False),
    "vf_coef": (0, float("inf"), True, False),
    "huber_delta": (0, float("inf"), False, False),
    "reward_scale": (0, float("inf"), False, False),
    "reward_clip": (0, float("inf"), False, False),
    "policy_init_gain": (0, float("inf"), False, False),
    "log_std_init": (-5, 2, True, True),
    "core_size": (1, 65_536, True, True),
    "tau": (0, 1, False, True),
    "target_update_every": (1, float("inf"), True, False),
    "learning_rate": (0, 10, False, True),
    "critic_learning_rate": (0, 10, False, True),
    "rms_alpha": (0, 1, True, False),
    "adam_beta1": (0, 1, True, False),
    "adam_beta2": (0, 1, True, False),
    "optim_eps": (0, 1, False, True),
    "max_grad_norm": (0, float("inf"), False, False),
    "num_workers": (1, 1024, True, True),
    "max_worker_restarts": (0, float("inf"), True, False),
    "max_policy_lag": (0, float("inf"), True, False),
    "prefetch": (0, 16, True, True),
    "worker_cpus": (0, float("inf"), False, False),
    "worker_gpus": (0, float("inf"), True, False),
    "eval_every": (0, float("inf"), True, False),
    "eval_episodes": (1, 100_000, True, True),
    "stop_at_return": (float("-inf"), float("inf"), False, False),
    "stop_patience": (1, 10_000, True, True),
    "confirm_episodes": (1, 100_000, True, True),
    "final_episodes": (0, 100_000, True, True),
    "checkpoint_every": (0, float("inf"), True, False),
    "keep_last": (1, float("inf"), True, False),
    "log_every": (1, float("inf"), True, False),
    "video_every": (0, float("inf"), True, False),
    "total_timesteps": (1, float("inf"), True, False),
    "seed": (0, 2**31 - 1, True, True),
}


def validate(config: TrainConfig) -> TrainConfig:
    """``config`` itself if it can work.

    Raises: ConfigError with one line that names the field, the value and what would work.
    """
    for name in field_sections():
        value = get_setting(config, name)
        if name in RANGES and value is not None:
            _check_range(name, value)
    env = config.env
    if env.backend in ("envpool", "ale") and env.autoreset_mode != "next_step":
        who = "EnvPool" if env.backend == "envpool" else "ALE"
        raise ConfigError(f"autoreset_mode = {env.autoreset_mode}: {who} has next_step alone; set that")
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
    _check_workers(config)
    if model.core == "feedforward" and model.core_size != ModelConfig.core_size:
        raise ConfigError("core_size: only a recurrent core uses it, but core = feedforward; set core to lstm or gru")
    if model.critic != "target":
        for name in ("tau", "target_update_every", "target_update_at"):
            default = next(f.default for f in dataclasses.fields(ModelConfig) if f.name == name)
            if getattr(model, name) != default:
                raise ConfigError(
                    f"{name}: only a target critic uses it, but critic = {model.critic}; set critic target"
                )
    return config


_SHARED_MEMORY = ("update_order", "optimizer_statistics")
_RAY = ("ray_address", "worker_output", "max_policy_lag", "prefetch", "worker_cpus", "worker_gpus", "worker_placement")


def _check_workers(config: TrainConfig) -> None:
    """Settings of workers that this run does not have, and environments that would start processes in every worker."""
    workers, on_ray = config.workers, config.workers.runner == "ray"
    for field in dataclasses.fields(WorkersConfig):
        value = getattr(workers, field.name)
        if value == field.default or field.name in ("runner", "asynchronous"):
            continue
        if field.name in _RAY and not on_ray:
            raise ConfigError(f"{field.name} = {value}: only Ray uses it; set runner to ray")
        if field.name in _SHARED_MEMORY and on_ray:
            raise ConfigError(f"{field.name} = {value}: on Ray one process updates the parameters; leave it out")
        alone = not (workers.asynchronous or on_ray)
        if alone and not (field.name == "num_workers" and value == 1):
            raise ConfigError(
                f"{field.name} = {value}: {config.algorithm.algo} trains in one process; "
                "use algo a3c, set asynchronous to true, or runner to ray"
            )
    if (workers.asynchronous or on_ray) and config.env.backend == "async":
        raise ConfigError("backend = async: workers are processes already; use backend sync, vector, envpool or auto")
    if on_ray:
        _check_ray(config)


def _check_ray(config: TrainConfig) -> None:
    """Settings that cannot be had together on a Ray cluster."""
    workers = config.workers
    for name in ("max_policy_lag", "prefetch"):
        value = getattr(workers, name)
        if value and not workers.asynchronous:
            raise ConfigError(f"{name} = {value}: synchronous workers all have the newest parameters; use algo a3c")
    if workers.ray_address is not None and workers.num_workers is None:
        raise ConfigError("num_workers: how much of a cluster to use is yours to say; set it, e.g. --num-workers 8")
    if workers.asynchronous and workers.worker_output == "rollouts" and config.algorithm.policy_weight != "advantage":
        raise ConfigError(
            f"policy_weight = {config.algorithm.policy_weight}: V-trace weights by advantages; "
            "set policy_weight to advantage, or worker_output to gradients"
        )


def _check_range(name: str, value: float) -> None:
    low, high, low_in, high_in = RANGES[name]
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
