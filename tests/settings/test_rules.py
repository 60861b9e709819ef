"""Rules of settings: ranges, contradictions, settings of parts that a run does not have; errors of one line."""

from __future__ import annotations

import math
from typing import Any

import pytest

from helpers.settings import one_line, train_config
from limelight.errors import ConfigError
from limelight.settings.io import all_settings, get_setting
from limelight.settings.rules import validate
from limelight.settings.schema import TrainConfig
from limelight.settings.values import describe_type

RANGES = {name: setting.range for name, setting in all_settings().items() if setting.range is not None}


def is_whole(name: str) -> bool:
    return "a number" not in describe_type(all_settings()[name].annotation)


def edges(name: str) -> tuple[list[float], list[float]]:
    """Values just inside and just outside of a setting's range."""
    bounds, step = RANGES[name], 1 if is_whole(name) else 1e-6
    closed, open_ends = [(bounds.ge, step), (bounds.le, -step)], [(bounds.gt, step), (bounds.lt, -step)]
    inside = [bound for bound, _ in closed if bound is not None]
    inside += [bound + inward for bound, inward in open_ends if bound is not None]
    outside = [bound - inward * max(1, abs(bound)) for bound, inward in closed if bound is not None]
    outside += [bound for bound, _ in open_ends if bound is not None]
    return inside, outside


BY_VTRACE = {"runner": "ray", "asynchronous": True, "worker_output": "rollouts"}
CASES_IN = [(name, value) for name in RANGES for value in edges(name)[0]]
CASES_OUT = [(name, value) for name in RANGES for value in edges(name)[1]]
STREAMING: dict[str, Any] = {
    "optimizer": "obgd", "num_envs": 1, "num_steps": 1, "critic": "separate", "max_grad_norm": None, "vf_coef": 1.0,
}  # fmt: skip
# Other settings without which the run does not use this one.
COMPANIONS: dict[str, dict[str, Any]] = {
    "tau": {"critic": "target"},
    "target_update_every": {"critic": "target"},
    "critic_learning_rate": {"critic": "separate"},
    "core_size": {"core": "lstm"},
    "num_minibatches": {"num_steps": 65_536},
    "return_steps": {"returns": "n_step", "num_steps": 65_536},
    "huber_delta": {"value_loss": "huber"},
    "adam_beta1": {"optimizer": "adam"},
    "adam_beta2": {"optimizer": "adam"},
    "clip_ratio": {"num_epochs": 2},
    "value_clip": {"num_epochs": 2},
    "target_kl": {"num_minibatches": 2},
    "num_workers": {"asynchronous": True},
    "max_worker_restarts": {"asynchronous": True},
    "max_policy_lag": {"asynchronous": True, "runner": "ray"},
    "prefetch": {"asynchronous": True, "runner": "ray"},
    "worker_cpus": {"runner": "ray"},
    "worker_gpus": {"runner": "ray"},
    "sparse_init": {"orthogonal_init": False},
    "actor_kappa": STREAMING,
    "critic_kappa": STREAMING,
}


@pytest.mark.parametrize(("name", "value"), CASES_IN)
def test_the_edge_of_every_range_is_allowed(name: str, value: float) -> None:
    checked = validate(train_config(**{name: value}, **COMPANIONS.get(name, {})))
    assert get_setting(checked, name) == value


@pytest.mark.parametrize(("name", "value"), CASES_OUT)
def test_beyond_every_range_is_refused_with_field_value_and_range(name: str, value: float) -> None:
    with pytest.raises(ConfigError) as error:
        validate(train_config(**{name: value}, **COMPANIONS.get(name, {})))
    text = one_line(error)
    assert text.startswith(f"{name} = {int(value) if is_whole(name) else float(value)}: must be ")
    bounds = RANGES[name]
    for bound in (bounds.ge, bounds.gt, bounds.le, bounds.lt):
        assert bound is None or f"{bound:.12g}" in text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [name for name in RANGES if not is_whole(name)])
def test_no_number_may_be_nan_or_infinite(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} = {value}: must be "):
        validate(train_config(**{name: value}, **COMPANIONS.get(name, {})))


def test_every_number_has_a_range() -> None:
    numbers = {n for n, setting in all_settings().items() if "number" in describe_type(setting.annotation)}
    assert numbers - {"hidden_sizes", "env_kwargs"} == set(RANGES)  # those two hold numbers but are none


def test_the_defaults_are_valid_and_validate_returns_its_argument() -> None:
    config = TrainConfig()
    assert validate(config) is config


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"hidden_sizes": []}, ["hidden_sizes = []", "one or more"]),
        ({"hidden_sizes": [1] * 101}, ["hidden_sizes = [1, 1, 1", "at most 100"]),
        ({"hidden_sizes": [64, 0]}, ["hidden_sizes = [64, 0]", "at least 1"]),
        (
            {"normalize_advantages": "batch", "num_envs": 1, "num_steps": 1},
            ["normalize_advantages = batch", "num_envs × num_steps ≥ 2", "running"],
        ),
        ({"stop_at_return": 475.0, "eval_every": 0}, ["stop_at_return", "eval_every = 0", "set eval_every"]),
        ({"critic_learning_rate": 1e-3}, ["critic_learning_rate", "critic = shared", "separate or target"]),
        ({"core_size": 32}, ["core_size = 32", "core = feedforward", "set core to lstm or gru"]),
        ({"tau": 0.5}, ["tau = 0.5", "critic = shared", "set critic target"]),
        ({"tau": 0.5, "critic": "separate"}, ["tau", "critic = separate", "set critic target"]),
        ({"target_update_every": 4}, ["target_update_every", "set critic target"]),
        ({"target_update_at": "episode_end"}, ["target_update_at", "set critic target"]),
        ({"num_workers": 4}, ["num_workers = 4: a2c trains in one process", "use algo a3c", "asynchronous"]),
        ({"num_workers": 2, "algo": "ac"}, ["num_workers = 2: ac trains in one process", "use algo a3c"]),
        ({"update_order": "locked"}, ["update_order = locked: a2c trains in one process"]),
        ({"optimizer_statistics": "per_worker"}, ["optimizer_statistics = per_worker: a2c trains in one process"]),
        ({"on_worker_error": "raise"}, ["on_worker_error = raise: a2c trains in one process"]),
        ({"max_worker_restarts": 3}, ["max_worker_restarts = 3: a2c trains in one process"]),
        (
            {"asynchronous": True, "backend": "async"},
            ["backend = async", "already", "use backend sync, vector, envpool or auto"],
        ),
        ({"runner": "ray", "backend": "async"}, ["backend = async", "already"]),
        ({"worker_output": "rollouts"}, ["worker_output = rollouts: only Ray uses it; set runner to ray"]),
        ({"asynchronous": True, "max_policy_lag": 2}, ["max_policy_lag = 2: only Ray uses it; set runner to ray"]),
        ({"runner": "ray", "update_order": "locked"}, ["update_order = locked", "one process", "leave it out"]),
        ({"runner": "ray", "max_policy_lag": 2}, ["max_policy_lag = 2", "newest parameters", "use algo a3c"]),
        ({"runner": "ray", "ray_address": "auto"}, ["num_workers: is required with ray_address", "--num-workers 8"]),
        ({"clip_ratio": 0.2}, ["clip_ratio = 0.2", "one update per rollout", "num_epochs or num_minibatches above 1"]),
        ({"value_clip": 0.2}, ["value_clip = 0.2", "one update per rollout"]),
        ({"target_kl": 0.2, "asynchronous": True}, ["target_kl = 0.2", "one update per rollout"]),
        ({"num_minibatches": 65}, ["num_minibatches = 65", "num_envs × num_steps = 64"]),
        (
            {"num_minibatches": 9, "core": "gru"},
            ["num_minibatches = 9", "core gru", "num_envs = 8", "set num_minibatches to at most 8"],
        ),
        (
            {"num_minibatches": 33, "normalize_advantages": "batch"},
            ["normalize_advantages = batch", "≥ 66", "got 64", "running"],
        ),
        ({"num_epochs": 2, "runner": "ray"}, ["num_epochs = 2", "on Ray", "set worker_output to rollouts"]),
        (
            {"num_minibatches": 2, "runner": "ray", "asynchronous": True},
            ["num_minibatches = 2", "on Ray", "set worker_output to rollouts"],
        ),
        (
            {"num_epochs": 2, "runner": "ray", "asynchronous": True, "worker_output": "rollouts"},
            ["num_epochs = 2", "V-trace", "set clip_ratio"],
        ),
        (
            {"runner": "ray", "asynchronous": True, "worker_output": "rollouts", "policy_weight": "q"},
            ["policy_weight = q", "V-trace", "set policy_weight to advantage, or worker_output to gradients"],
        ),
        ({"q_bootstrap": "sarsa"}, ["q_bootstrap = sarsa", "set critic_output to q"]),
        ({"policy_weight": "td_error"}, ["policy_weight = td_error", "set that, or policy_weight to advantage"]),
        ({**BY_VTRACE, "critic_output": "q"}, ["critic_output = q", "V-trace", "worker_output to gradients"]),
        ({**BY_VTRACE, "returns": "mc"}, ["returns = mc", "V-trace", "worker_output to gradients"]),
        ({**BY_VTRACE, "normalize_returns": True}, ["normalize_returns = true", "V-trace", "leave it out"]),
        ({"returns": "td0", "gae_lambda": 0.0}, ["gae_lambda = 0", "only returns gae", "returns = td0", "leave one"]),
        ({"return_steps": 3}, ["return_steps = 3", "returns = gae", "set returns to n_step"]),
        ({"returns": "mc", "return_steps": 3}, ["return_steps = 3", "returns = mc", "set returns to n_step"]),
        (
            {"returns": "n_step", "return_steps": 9},
            ["return_steps = 9", "≤ num_steps = 8", "set num_steps higher"],
        ),
        (
            {"normalize_returns": True, "num_envs": 1, "num_steps": 1},
            ["normalize_returns = true", "num_envs × num_steps to at least 2"],
        ),
        ({"sparse_init": 0.9}, ["sparse_init = 0.9", "set orthogonal_init to false"]),
        ({"actor_kappa": 4.0}, ["actor_kappa = 4", "optimizer = rmsprop", "use algo stream-ac"]),
        ({**STREAMING, "num_envs": 4}, ["num_envs = 4", "one environment", "set it to 1"]),
        ({**STREAMING, "num_steps": 5}, ["num_steps = 5", "every single step", "set it to 1"]),
        ({**STREAMING, "num_epochs": 2}, ["num_epochs = 2", "set it to 1"]),
        ({**STREAMING, "returns": "td0"}, ["returns = td0", "set it to gae"]),
        ({**STREAMING, "critic_output": "q"}, ["critic_output = q", "set it to v"]),
        ({**STREAMING, "critic": "shared"}, ["critic = shared", "set it to separate"]),
        ({**STREAMING, "critic": "target"}, ["critic = target", "set it to separate"]),
        ({**STREAMING, "core": "lstm"}, ["core = lstm", "recurrent", "set it to feedforward"]),
        ({**STREAMING, "policy_weight": "q"}, ["policy_weight = q", "TD error", "set it to advantage"]),
        ({**STREAMING, "normalize_advantages": "running"}, ["normalize_advantages = running", "set it to none"]),
        ({**STREAMING, "value_loss": "huber"}, ["value_loss = huber", "set it to mse"]),
        ({**STREAMING, "vf_coef": 0.5}, ["vf_coef = 0.5", "critic_kappa", "set it to 1"]),
        ({**STREAMING, "max_grad_norm": 0.5}, ["max_grad_norm = 0.5", "set it to none"]),
        ({**STREAMING, "asynchronous": True}, ["optimizer = obgd", "one process", "set asynchronous to false"]),
        ({**STREAMING, "runner": "ray"}, ["optimizer = obgd", "runner to local"]),
    ],
)
def test_contradictions_are_refused_with_a_hint(values: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        validate(train_config(**values))
    text = one_line(error)
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    "values",
    [
        {"num_workers": 1},  # one process
        {"asynchronous": True, "num_workers": 4, "update_order": "locked", "on_worker_error": "raise"},
        {"asynchronous": True, "optimizer_statistics": "per_worker", "backend": "vector", "max_worker_restarts": 0},
        {
            "runner": "ray",
            "num_workers": 4,
            "worker_output": "rollouts",
            "on_worker_error": "raise",
            "ray_address": "auto",
        },
        {"runner": "ray", "asynchronous": True, "worker_output": "rollouts", "max_policy_lag": 3, "worker_cpus": 0.5},
    ],
)
def test_workers_go_with_everything_else(values: dict[str, Any]) -> None:
    config = train_config(**values)
    assert validate(config) is config


@pytest.mark.parametrize(
    ("used", "unused"),
    [
        ({"asynchronous": True}, "ray"),
        ({"runner": "ray", "asynchronous": True}, "shared_memory"),
        ({}, "ray"),
        ({}, "shared_memory"),
    ],
)
def test_every_setting_of_a_section_that_the_run_does_not_have_is_refused(used: dict[str, Any], unused: str) -> None:
    """No setting of a section can be forgotten: a value other than the default of each is tried."""
    others: dict[type, Any] = {str: "elsewhere", int: 1, float: 0.5}
    for setting in all_settings().values():
        if setting.section == f"workers.{unused}":
            choices = getattr(setting.annotation, "__args__", (setting.annotation,))
            values = [c for c in choices if isinstance(c, str)] or [others[c] for c in choices if c in others]
            value = next(v for v in values if v != setting.default)
            validate(train_config(**used, **{setting.name: setting.default}))
            with pytest.raises(ConfigError, match=f"{setting.name} = {value}: "):
                validate(train_config(**used, **{setting.name: value}))


def test_a_clipped_ratio_on_ray_makes_other_returns_than_vtrace() -> None:
    config = train_config(**BY_VTRACE, clip_ratio=0.2, critic_output="q", returns="n_step", num_epochs=2)
    assert validate(config) is config


def test_a_clip_acts_on_one_update_where_an_older_policy_acted() -> None:
    ray = {"runner": "ray", "asynchronous": True, "worker_output": "rollouts"}
    assert validate(train_config(clip_ratio=0.2, **ray)).algorithm.clip_ratio == 0.2


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("",), "info_keys = '': must be KEY or sum:KEY"),
        (("sum:",), "info_keys = 'sum:': must be KEY or sum:KEY"),
        (("max:cost",), "info_keys = max:cost: must be cost (at the end of an episode) or sum:cost (over it)"),
        (("a", "a"), "info_keys = a: is given twice; leave one out"),
    ],
)
def test_wrong_keys_of_infos_are_refused(keys: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        validate(train_config(info_keys=keys))
    assert message in one_line(error)


def test_keys_of_infos_may_hold_any_other_character() -> None:
    keys = ("reward/forward", "agent:x", "sum:a b")
    assert validate(train_config(info_keys=keys)).env.info_keys == keys
