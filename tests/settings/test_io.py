"""The settings: ranges, contradictions, types, round trips, and errors of one line that name the mend."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from limelight.errors import ConfigError, did_you_mean
from limelight.settings import schema as module
from limelight.settings.io import (
    expected,
    field_sections,
    for_resume,
    from_dict,
    get_setting,
    load_yaml,
    save_yaml,
    to_dict,
    with_settings,
)
from limelight.settings.rules import RANGES, validate
from limelight.settings.schema import TrainConfig

RANGES = RANGES


def annotation_of(name: str) -> Any:
    section = field_sections()[name]
    owner = type(getattr(TrainConfig(), section)) if section else TrainConfig
    return typing.get_type_hints(owner)[name]


def is_whole(name: str) -> bool:
    return "a number" not in expected(annotation_of(name))


def settings(**values: Any) -> TrainConfig:
    return with_settings(TrainConfig(), values)


def one_line(error: pytest.ExceptionInfo[ConfigError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def edges(name: str) -> tuple[list[float], list[float]]:
    """Values just inside and just outside of a setting's range."""
    low, high, low_in, high_in = RANGES[name]
    step = 1 if is_whole(name) else 1e-6
    inside, outside = [], []
    for bound, is_in, inward in ((low, low_in, step), (high, high_in, -step)):
        if math.isfinite(bound):
            inside.append(bound if is_in else bound + inward)
            outside.append(bound - inward if is_in else bound)
    return inside, outside


CASES_IN = [(name, value) for name in RANGES for value in edges(name)[0]]
CASES_OUT = [(name, value) for name in RANGES for value in edges(name)[1]]
# What else must be set for a value of this setting to make sense at all.
COMPANIONS: dict[str, dict[str, Any]] = {
    "tau": {"critic": "target"},
    "target_update_every": {"critic": "target"},
    "critic_learning_rate": {"critic": "separate"},
    "core_size": {"core": "lstm"},
    "num_workers": {"asynchronous": True},
    "max_worker_restarts": {"asynchronous": True},
    "max_policy_lag": {"asynchronous": True, "runner": "ray"},
    "prefetch": {"asynchronous": True, "runner": "ray"},
    "worker_cpus": {"runner": "ray"},
    "worker_gpus": {"runner": "ray"},
}


@pytest.mark.parametrize(("name", "value"), CASES_IN)
def test_the_edge_of_every_range_is_allowed(name: str, value: float) -> None:
    checked = validate(settings(**{name: value}, **COMPANIONS.get(name, {})))
    assert get_setting(checked, name) == value


@pytest.mark.parametrize(("name", "value"), CASES_OUT)
def test_beyond_every_range_is_refused_with_field_value_and_range(name: str, value: float) -> None:
    with pytest.raises(ConfigError) as error:
        validate(settings(**{name: value}, **COMPANIONS.get(name, {})))
    text = one_line(error)
    assert text.startswith(f"{name} = {int(value) if is_whole(name) else float(value)}: must be ")
    low, high, *_ = RANGES[name]
    for bound in (low, high):
        assert not math.isfinite(bound) or f"{bound:.12g}" in text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [name for name in RANGES if not is_whole(name)])
def test_no_number_may_be_nan_or_infinite(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} = {value}: must be "):
        validate(settings(**{name: value}, **COMPANIONS.get(name, {})))


def test_every_number_has_a_range() -> None:
    numbers = {n for n in field_sections() if re.search("number", expected(annotation_of(n)))}
    assert numbers - {"hidden_sizes", "env_kwargs"} == set(RANGES)  # those two hold numbers but are none


def test_the_defaults_are_valid_and_validate_returns_its_argument() -> None:
    config = TrainConfig()
    assert validate(config) is config


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"hidden_sizes": []}, ["hidden_sizes = []", "one or more"]),
        ({"hidden_sizes": [64, 0]}, ["hidden_sizes = [64, 0]", "at least 1"]),
        (
            {"normalize_advantages": "batch", "num_envs": 1, "num_steps": 1},
            ["normalize_advantages = batch", "num_envs × num_steps ≥ 2", "running"],
        ),
        ({"stop_at_return": 475.0, "eval_every": 0}, ["stop_at_return", "eval_every = 0", "set eval_every"]),
        ({"critic_learning_rate": 1e-3}, ["critic_learning_rate", "critic = shared", "separate or target"]),
        ({"core_size": 32}, ["core_size", "core = feedforward", "set core to lstm or gru"]),
        ({"tau": 0.5}, ["tau", "critic = shared", "set critic target"]),
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
        ({"runner": "ray", "ray_address": "auto"}, ["num_workers", "cluster", "--num-workers 8"]),
        (
            {"runner": "ray", "asynchronous": True, "worker_output": "rollouts", "policy_weight": "q"},
            ["policy_weight = q", "V-trace", "set policy_weight to advantage, or worker_output to gradients"],
        ),
    ],
)
def test_contradictions_raise_and_name_the_mend(values: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        validate(settings(**values))
    text = one_line(error)
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    "values",
    [
        {"num_workers": 1},  # which is what one process is
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
    config = settings(**values)
    assert validate(config) is config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gama": 0.9}, "gama: no such setting; did you mean gamma?"),
        ({"zzzzzz": 0.9}, "zzzzzz: no such setting"),
        ({"gamma": "high"}, "gamma = 'high': must be a number"),
        ({"gamma": True}, "gamma = True: must be a number"),
        ({"gamma": None}, "gamma = None: must be a number"),
        ({"num_envs": 1.5}, "num_envs = 1.5: must be a whole number"),
        ({"num_envs": True}, "num_envs = True: must be a whole number"),
        ({"num_envs": math.inf}, "num_envs = inf: must be a whole number"),
        ({"num_envs": math.nan}, "num_envs = nan: must be a whole number"),
        ({"critic": "twin"}, "critic = 'twin': must be shared | separate | target"),
        ({"critic": ["shared"]}, "critic = ['shared']: must be shared | separate | target"),
        ({"normalize_obs": 1}, "normalize_obs = 1: must be true or false"),
        ({"preset": 3}, "preset = 3: must be text"),
        ({"hidden_sizes": 64}, "hidden_sizes = 64: must be a list, each a whole number"),
        ({"hidden_sizes": ["64"]}, "hidden_sizes = '64': must be a whole number"),
        ({"env_kwargs": "x"}, "env_kwargs = 'x': must be a mapping"),
        (
            {"env_kwargs": {"a": [1]}},
            "env_kwargs.a = [1]: must be a whole number or a number or true or false or text",
        ),
        ({"reward_clip": "off"}, "reward_clip = 'off': must be a number or none"),
        ({"run_dir": 7}, "run_dir = 7: must be text or none"),
    ],
)
def test_wrong_names_and_types_are_refused_in_words(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings(**values)
    assert one_line(error) == message


def test_what_bends_to_its_type_and_what_stays() -> None:
    config = settings(gamma=1, num_envs=8.0, hidden_sizes=[32.0, 16], reward_clip=2, run_dir=None)
    assert (config.algorithm.gamma, type(config.algorithm.gamma)) == (1.0, float)
    assert (config.env.num_envs, type(config.env.num_envs)) == (8, int)
    assert config.model.hidden_sizes == (32, 16)
    assert type(config.algorithm.reward_clip) is float
    kwargs = settings(env_kwargs={"f": 10.0, "i": 1, "b": True, "s": "1"}).env.env_kwargs
    assert [type(value) for value in kwargs.values()] == [float, int, bool, str]


def test_settings_touch_nothing_else_and_leave_the_original_alone() -> None:
    before = TrainConfig()
    after = with_settings(before, {"gamma": 0.5, "seed": 3})
    assert before == TrainConfig()
    assert dataclasses.replace(after, algorithm=before.algorithm, seed=0) == before


def test_names_are_unique_over_all_sections_and_documented() -> None:
    sections = field_sections()
    hints = typing.get_type_hints(TrainConfig)
    parts = [t for t in hints.values() if dataclasses.is_dataclass(t)]
    assert len(sections) == len(hints) - len(parts) + sum(len(dataclasses.fields(t)) for t in parts)
    source = Path(module.__file__).read_text(encoding="utf-8")
    for name in sections:
        assert re.search(rf'^    {name}: .*(?:\n        .*)*\n    """.+', source, re.MULTILINE), (
            f"{name} has no docstring"
        )


def test_did_you_mean_names_at_most_three() -> None:
    assert did_you_mean("num_env", ["num_envs", "seed"]) == "; did you mean num_envs?"
    assert did_you_mean("qqq", ["num_envs"]) == ""
    assert did_you_mean("aab", ["aaa", "aac", "aad", "aae"]).count(" or ") == 2


# --------------------------------------------------------------------------- config.yaml


def strategy(name: str) -> st.SearchStrategy[Any]:
    annotation, options = annotation_of(name), typing.get_args(annotation_of(name))
    if typing.get_origin(annotation) is typing.Literal:
        return st.sampled_from(options)
    if name == "hidden_sizes":
        return st.lists(st.integers(1, 9), min_size=1, max_size=3)
    if name == "env_kwargs":
        values = st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
        return st.dictionaries(st.text(), values, max_size=3)
    scalars = {float: st.floats(allow_nan=False), int: st.integers(), bool: st.booleans(), str: st.text()}
    kinds = [kind for kind in scalars if kind in (options or (annotation,))]
    return scalars[kinds[0]] | st.none() if options else scalars[kinds[0]]


ANY_SETTINGS = st.fixed_dictionaries({}, optional={name: strategy(name) for name in field_sections()})


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(ANY_SETTINGS)
def test_any_settings_survive_yaml_with_their_types(tmp_path_factory: Any, values: dict[str, Any]) -> None:
    config = settings(**values)
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    save_yaml(config, path)
    again = load_yaml(path)
    assert again == config
    assert repr(again) == repr(config)  # == alone lets 1 pass for 1.0 and True
    assert from_dict(to_dict(config)) == config


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_partial_yaml_takes_the_defaults_for_the_rest(tmp_path: Path) -> None:
    assert load_yaml(write(tmp_path, "seed: 4\nalgorithm: {gamma: 0.5}\n")) == settings(seed=4, gamma=0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("algorithm: {gama: 1}", "algorithm.gama: no such setting; did you mean gamma?"),
        ("env: {gamma: 1}", "env.gamma: no such setting; did you mean gamma?"),
        ("env: 3", "env = 3: must be a mapping of settings"),
        ("1: 2", "1: no such setting"),
        ("env: {1: 2}", "env.1: no such setting"),
        ("num_workers_: 2", "num_workers_: no such setting"),
        ("[1, 2]", "must be a mapping of settings"),
        ("", "must be a mapping of settings"),
        ("a: [", "not readable as YAML"),
        ("algorithm: {gamma: high}", "gamma = 'high': must be a number"),
    ],
)
def test_a_broken_yaml_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_yaml(write(tmp_path, text))
    assert message in one_line(error)


def test_a_yaml_that_is_not_there_or_is_no_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.yaml there, so it is not a run folder"):
        load_yaml(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(tmp_path / "config.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match="not readable as YAML"):
        load_yaml(tmp_path / "bytes.yaml")


# --------------------------------------------------------------------------- resuming


def test_on_resume_the_budget_and_the_watching_can_change() -> None:
    changes = {"total_timesteps": 9, "eval_episodes": 7, "keep_last": 1, "log_every": 5, "gamma": 0.99}
    assert for_resume(TrainConfig(), changes) == settings(**changes)


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 0.5},
        {"num_envs": 3},
        {"seed": 1},
        {"run_dir": "x"},
        {"lr_schedule": "constant"},
        {"num_workers": 4},
        {"asynchronous": True},
    ],
)
def test_on_resume_nothing_else_can(change: dict[str, Any]) -> None:
    name, value = next(iter(change.items()))
    with pytest.raises(ConfigError, match=f"{name} = {value}: cannot change on resume, the run has "):
        for_resume(TrainConfig(), change)
