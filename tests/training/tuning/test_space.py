"""Which settings are searched for which kind of run."""

from __future__ import annotations

from typing import Any

import pytest

from limelight.envs.source import resolve_env
from limelight.settings.io import all_settings, get_setting, with_settings
from limelight.settings.rules import validate
from limelight.settings.schema import EnvConfig, TrainConfig
from limelight.settings.values import Choices, Search, coerce
from limelight.training.presets import resolve_config
from limelight.training.tuning.space import as_label, from_json, from_label, kinds_of, search_space, to_json

SOURCES = {
    name: resolve_env(EnvConfig(env_id=name)) for name in ("CartPole-v1", "Pendulum-v1", "limelight.envs.toy:Catch")
}


def space_of(env_id: str, algo: str, **given: Any) -> dict[str, Search | Choices]:
    config = resolve_config(env_id, algo, "plain", given, SOURCES[env_id])
    return search_space(config, *SOURCES[env_id].spaces(), given)


def test_what_is_searched_depends_on_algorithm_actions_images_and_memory() -> None:
    discrete, continuous = space_of("CartPole-v1", "a2c"), space_of("Pendulum-v1", "a2c")
    assert {"learning_rate", "gamma", "num_steps", "ent_coef", "hidden_sizes", "critic"} <= discrete.keys()
    assert continuous.keys() - discrete.keys() == {"log_std_init", "noise_correlation"}
    epochs = space_of("CartPole-v1", "ppo")
    assert epochs.keys() - discrete.keys() == {"num_epochs", "num_minibatches", "clip_ratio"}
    assert max(epochs["num_steps"].values) > max(discrete["num_steps"].values)  # type: ignore[union-attr]
    single = space_of("CartPole-v1", "ac")
    assert not single.keys() & {"num_steps", "num_envs", "gae_lambda", "critic"}  # they make it this algorithm
    traces = space_of("CartPole-v1", "stream-ac")
    assert traces.keys() == {"gamma", "gae_lambda", "ent_coef", "hidden_sizes", "actor_kappa", "critic_kappa"}
    assert "tau" in space_of("CartPole-v1", "qac")
    memory = space_of("CartPole-v1", "ppo", core="lstm")
    assert "core_size" in memory
    assert "critic" not in memory
    assert memory["num_minibatches"].values == (1, 2, 4)  # type: ignore[union-attr]
    images = space_of("limelight.envs.toy:Catch", "a2c")
    assert not images.keys() & {"hidden_sizes", "activation", "normalize_obs"}


def test_given_settings_are_not_searched() -> None:
    space = space_of("CartPole-v1", "a2c", gamma=0.9, learning_rate=1e-3)
    assert not space.keys() & {"gamma", "learning_rate"}


@pytest.mark.parametrize("algo", ["a2c", "ppo", "ac", "stream-ac"])
def test_the_defaults_lie_in_the_space_and_all_its_values_in_the_ranges(algo: str) -> None:
    config = resolve_config("Pendulum-v1", algo, "auto", {}, SOURCES["Pendulum-v1"])
    space = search_space(config, *SOURCES["Pendulum-v1"].spaces(), {})
    for name, mark in space.items():
        value, setting = get_setting(config, name), all_settings()[name]
        values = [mark.low, mark.high] if isinstance(mark, Search) else mark.values
        assert mark.low <= value <= mark.high if isinstance(mark, Search) else value in values
        for each in values:
            assert coerce(name, each, setting.annotation) == each
            assert setting.range is None or each in setting.range
            assert from_label(mark, as_label(each)) == each
    assert from_json(to_json(space)) == space


def test_a_default_outside_widens_the_space() -> None:
    config = with_settings(TrainConfig(), {"learning_rate": 0.5, "num_steps": 5, "max_grad_norm": None})
    space = search_space(validate(config), *SOURCES["CartPole-v1"].spaces(), {})
    assert space["learning_rate"].high == 0.5  # type: ignore[union-attr]
    assert space["num_steps"].values == (4, 5, 8, 16, 32, 64)  # type: ignore[union-attr]
    assert space["max_grad_norm"].values[-1] is None  # type: ignore[union-attr]


def test_a_true_is_no_one() -> None:
    assert from_label(Choices((1, True)), True) is True


def test_marks_name_kinds_that_there_are() -> None:
    known = {"single_steps", "discrete", "images", "one_update"}
    for algo, core in (("ppo", "lstm"), ("stream-ac", "feedforward"), ("a2c", "feedforward")):
        config = with_settings(resolve_config("Pendulum-v1", algo, "plain", {}, SOURCES["Pendulum-v1"]), {"core": core})
        known |= kinds_of(config, *SOURCES["Pendulum-v1"].spaces())
    used = {word for setting in all_settings().values() for mark in setting.search for word in mark.only.split()}
    assert used <= known
