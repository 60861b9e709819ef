"""Settings by plain name, their sections, ``config.yaml``, and the settings that may change on resume."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from helpers.settings import one_line, train_config
from limelight import __version__
from limelight.errors import CheckpointError, ConfigError, LimelightError, did_you_mean
from limelight.settings import schema as module
from limelight.settings.io import (
    all_settings,
    for_resume,
    from_dict,
    load_yaml,
    save_yaml,
    sections_of,
    to_dict,
    with_settings,
)
from limelight.settings.rules import load_valid
from limelight.settings.schema import AtariConfig, EnvConfig, TrainConfig
from limelight.settings.values import Choices, Range, Search


def test_settings_touch_nothing_else_and_leave_the_original_alone() -> None:
    before = TrainConfig()
    after = with_settings(before, {"gamma": 0.5, "seed": 3})
    assert before == TrainConfig()
    assert dataclasses.replace(after, algorithm=before.algorithm, seed=0) == before


def test_names_are_unique_over_all_sections_and_documented() -> None:
    kinds = sections_of(TrainConfig).values()
    fields = [f for kind in kinds for f in dataclasses.fields(kind) if "Config" not in str(f.type)]
    assert len(all_settings()) == len(fields)
    source = Path(module.__file__).read_text(encoding="utf-8")
    for name in all_settings():
        assert re.search(rf'^    {name}: .*(?:\n        .*)*(?:\n    \].*)?\n    """.+', source, re.MULTILINE), (
            f"{name} has no docstring"
        )


def test_a_setting_has_its_search_space_beside_its_range() -> None:
    settings = all_settings()
    assert settings["learning_rate"].range == Range(gt=0, le=10)
    assert all(isinstance(mark, Search) and mark.log for mark in settings["learning_rate"].search)
    assert settings["gamma"].search == (Choices((0.9, 0.95, 0.98, 0.99, 0.995, 0.999)),)
    assert (settings["seed"].search, settings["preset"].search) == ((), ())


def test_settings_of_a_section_in_a_section_are_set_by_plain_name() -> None:
    config = train_config(frame_size=42, update_order="locked", prefetch=2, num_envs=3)
    assert config.env == EnvConfig(num_envs=3, atari=AtariConfig(frame_size=42))
    assert (config.workers.shared_memory.update_order, config.workers.ray.prefetch) == ("locked", 2)


def test_a_setting_is_under_its_section_and_those_around_it() -> None:
    frame_size = all_settings()["frame_size"]
    assert frame_size.section == "env.atari"
    assert all(frame_size.is_under(section) for section in ("", "env", "atari", "env.atari"))
    assert not any(frame_size.is_under(section) for section in ("workers", "ray", "env.ray", "env.atari.ray"))


def test_did_you_mean_names_at_most_three() -> None:
    assert did_you_mean("num_env", ["num_envs", "seed"]) == "; did you mean num_envs?"
    assert did_you_mean("qqq", ["num_envs"]) == ""
    assert did_you_mean("A3C", ["ac", "a3c"]) == "; did you mean a3c?"
    assert did_you_mean("aab", ["aaa", "aac", "aad", "aae"]).count(" or ") == 2


# --------------------------------------------------------------------------- config.yaml


def strategy(name: str) -> st.SearchStrategy[Any]:
    annotation = all_settings()[name].annotation
    options = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return st.sampled_from(options)
    if name == "hidden_sizes":
        return st.lists(st.integers(1, 9), min_size=1, max_size=3)
    if name in ("info_keys", "callback", "logger"):
        return st.lists(st.text(), max_size=3)
    if name == "env_kwargs":
        values = st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
        return st.dictionaries(st.text(), values, max_size=3)
    scalars = {float: st.floats(allow_nan=False), int: st.integers(), bool: st.booleans(), str: st.text()}
    kinds = [kind for kind in scalars if kind in (options or (annotation,))]
    return scalars[kinds[0]] | st.none() if options else scalars[kinds[0]]


ANY_SETTINGS = st.fixed_dictionaries({}, optional={name: strategy(name) for name in all_settings()})


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(ANY_SETTINGS)
def test_any_settings_survive_yaml_with_their_types(tmp_path_factory: Any, values: dict[str, Any]) -> None:
    config = train_config(**values)
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
    assert load_yaml(write(tmp_path, "seed: 4\nalgorithm: {gamma: 0.5}\n")) == train_config(seed=4, gamma=0.5)


@pytest.mark.parametrize(
    "text",
    [
        "env: {num_envs: 3, atari: {frame_size: 42}}",
        "env: {num_envs: 3, frame_size: 42}",
        "num_envs: 3\natari: {frame_size: 42}",
        "num_envs: 3\nframe_size: 42",
    ],
)
def test_a_yaml_may_write_a_setting_under_its_section_or_one_around_it(tmp_path: Path, text: str) -> None:
    assert load_yaml(write(tmp_path, text)) == train_config(num_envs=3, frame_size=42)


def test_the_saved_yaml_has_the_sections(tmp_path: Path) -> None:
    save_yaml(train_config(frame_size=42), tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert "\n  atari:\n    frame_size: 42\n" in text
    assert "\n  ray:\n    ray_address: null\n" in text
    assert "\n  shared_memory:\n    update_order: lock_free\n" in text


@pytest.mark.parametrize(
    "text", ["algorithm: {from_the_future: 0.2}", "algorithm: {value_loss: quantile}", "ppo: {a: 1}"]
)
def test_a_yaml_of_a_newer_version_is_named_as_such(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_yaml(write(tmp_path, text))
    said = one_line(error)
    assert said.startswith(f"{tmp_path / 'config.yaml'}: ")
    assert said.endswith(f"; perhaps a newer version of limelight saved it (this is {__version__})")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gamma: abc", "gamma = 'abc': must be a number"),
        ("algorithm: {gamma: [1]}", "gamma = [1]: must be a number"),
        ("num_envs: 2.5", "num_envs = 2.5: must be a whole number"),
        ("hidden_sizes: 64", "hidden_sizes = 64: must be a list, each a whole number"),
        ("value_loss: 3", "value_loss = 3: must be mse | huber"),
        ("env: 3", "env = 3: must be a mapping of settings"),
    ],
)
def test_a_value_of_a_wrong_type_is_no_matter_of_versions(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_yaml(write(tmp_path, text))
    assert one_line(error) == f"{tmp_path / 'config.yaml'}: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("env: {atari: 3}", "env.atari = 3: must be a mapping of settings"),
        ("env: {atari: {gamma: 1}}", "env.atari.gamma: no such setting; did you mean gamma?"),
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
    with pytest.raises(LimelightError) as error:
        load_yaml(write(tmp_path, text))
    assert message in one_line(error)


def test_a_yaml_that_is_not_there_or_is_no_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.yaml there, so it is not a run folder"):
        load_yaml(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_yaml(tmp_path / "config.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(CheckpointError, match="not readable as YAML"):
        load_yaml(tmp_path / "bytes.yaml")


# --------------------------------------------------------------------------- resuming


def test_on_resume_the_budget_and_the_reporting_can_change() -> None:
    changes = {"total_timesteps": 9, "eval_episodes": 7, "keep_last": 1, "log_every": 5, "gamma": 0.99}
    assert for_resume(TrainConfig(), changes) == train_config(**changes)


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 0.5},
        {"num_envs": 3},
        {"seed": 1},
        {"run_dir": "x"},
        {"lr_schedule": "constant"},
        {"asynchronous": True},
    ],
)
def test_on_resume_nothing_else_can(change: dict[str, Any]) -> None:
    name, value = next(iter(change.items()))
    with pytest.raises(ConfigError, match=f"{name} = {value}: cannot change on resume, the run has "):
        for_resume(TrainConfig(), change)


def test_numbers_of_numpy_paths_lists_and_none_are_taken() -> None:
    given = {
        "num_envs": np.int64(4), "gamma": np.float32(0.5), "run_dir": Path("a"),
        "env_kwargs": {"desc": ["SF", "FG"], "map_name": None, "g": np.float64(9.5), "size": np.array([1, 2])},
    }  # fmt: skip
    config = with_settings(TrainConfig(), given)
    assert (config.env.num_envs, config.algorithm.gamma, config.run_dir) == (4, 0.5, "a")
    assert config.env.env_kwargs == {"desc": ["SF", "FG"], "map_name": None, "g": 9.5, "size": [1, 2]}
    assert with_settings(TrainConfig(), {"lr": 0.1}).optim.learning_rate == 0.1


def test_yaml_keeps_text_and_numbers_apart_and_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    config = with_settings(TrainConfig(), {"env_kwargs": {"text": "1e4", "none": None}})
    save_yaml(config, path)
    assert load_yaml(path).env.env_kwargs == {"text": "1e4", "none": None}
    path.write_text("total_timesteps: 1e4\n")
    assert load_yaml(path).total_timesteps == 10_000
    path.write_text("algorithm: {gamma: 7}\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: gamma = 7"):
        load_valid(path)


@pytest.mark.parametrize("text", ["\x85", "a\u2028b", "\u2029"])
def test_line_breaks_of_unicode_survive_yaml(text: str, tmp_path: Path) -> None:
    config = with_settings(TrainConfig(), {"run_dir": text})
    save_yaml(config, tmp_path / "config.yaml")
    assert load_yaml(tmp_path / "config.yaml") == config
