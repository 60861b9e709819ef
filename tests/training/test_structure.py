"""Rules over the structure of an environment: each is tried where it applies and where it does not."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Space, Tuple

from limelight.envs.probe import Probe, real_parts
from limelight.envs.toy import Aim
from limelight.settings.rules import validate
from limelight.spaces.packed import Packed
from limelight.training.algorithms import ALGORITHMS, choose_algorithm
from limelight.training.presets import explain_preset, resolve_config
from limelight.training.structure import Facts, choose_settings, has_images

NUMBERS = Box(-np.inf, np.inf, (3,))
FORCE = Box(-1.0, 1.0, (2,))
REALS_AND_CHOICE = Tuple([FORCE, Discrete(2)])
CHOICES = Tuple([Discrete(300), Discrete(2)])
PLAY = Probe(2_000, 1e-5, (20,) * 100, 0.0, 1.0, 0.5, 0.5, 300.0)


def chosen(
    observations: Space[Any] = NUMBERS, actions: Space[Any] = FORCE, play: Probe | None = PLAY, **facts: Any
) -> dict[str, Any]:
    defaults: dict[str, Any] = {"rollout": ALGORITHMS["a2c"].untuned, "recurrent": False, "total_timesteps": 200_000}
    choices = choose_settings(Facts(observations, actions, play, **{**defaults, **facts}))
    names = [name for choice in choices for name in choice.settings]
    assert len(names) == len(set(names)), "two rules choose one setting"
    return {name: value for choice in choices for name, value in choice.settings.items()}


@pytest.mark.parametrize(
    ("observations", "standardised"),
    [
        (NUMBERS, True),
        (Packed(Dict(x=NUMBERS, code=Discrete(3))), True),
        (Discrete(5), False),
        (Packed(Dict(a=Discrete(300), b=Discrete(3))), False),
        (Box(0, 255, (64, 64, 3), np.uint8), True),
        (Box(0, 10, (7, 7, 3), np.uint8), False),  # categories
    ],
)
def test_numbers_and_pixels_are_standardised_and_codes_are_not(observations: Space[Any], standardised: bool) -> None:
    assert chosen(observations).get("normalize_obs", False) == standardised


def test_rewards_are_scaled_unless_the_user_does() -> None:
    assert chosen()["normalize_rewards"] is True
    for setting in ("reward_scale", "reward_clip"):
        assert "normalize_rewards" not in chosen(given={setting: 2.0})


@pytest.mark.parametrize(("length", "num_steps"), [(2, ALGORITHMS["a2c"].untuned["num_steps"]), (40, 40), (300, 64)])
def test_a_rollout_spans_the_episode_where_only_its_end_is_rewarded(length: int, num_steps: int) -> None:
    late = dataclasses.replace(PLAY, episode_lengths=(length,) * 9, rewarded_ends=0.9, end_share=1.0)
    choice = chosen(play=late)
    assert choice["num_steps"] == num_steps
    assert ("gae_lambda" in choice) == (length > 4)
    rarely = dataclasses.replace(late, rewarded_ends=0.1)  # as in FrozenLake: no reward says that it failed
    assert "gae_lambda" not in chosen(play=rarely)
    assert "gae_lambda" not in chosen(play=late, rollout=ALGORITHMS["ppo"].untuned)


def test_images_get_the_cheapest_network_that_learns_from_them() -> None:
    assert chosen(Box(0, 255, (64, 64, 3), np.uint8))["encoder"] == "a3c"
    assert chosen(Packed(Dict(eye=Box(0, 255, (64, 64, 3), np.uint8), speed=NUMBERS)))["encoder"] == "a3c"
    small = Box(0, 255, (16, 16, 3), np.uint8)
    assert chosen(small)["encoder"] == "universe"
    assert chosen(Packed(Dict(eye=Box(0, 255, (64, 64, 3), np.uint8), map=small)))["encoder"] == "universe"
    for space in (NUMBERS, Box(0, 10, (64, 64, 3), np.uint8)):  # categories have a network of their own
        assert "encoder" not in chosen(space)


def test_small_images_are_learned_from_in_larger_steps_and_ppo_passes_over_images_less_often() -> None:
    small, large = Box(0, 255, (16, 16, 3), np.uint8), Box(0, 255, (64, 64, 3), np.uint8)
    assert chosen(small)["learning_rate"] > chosen(large)["learning_rate"]
    assert chosen(small, rollout=ALGORITHMS["ppo"].untuned)["num_epochs"] < ALGORITHMS["ppo"].untuned["num_epochs"]
    assert "num_epochs" not in chosen(small)


@pytest.mark.parametrize(
    ("observations", "actions", "algo"),
    [
        (NUMBERS, Discrete(3), "a2c"),
        (Discrete(5), FORCE, "ppo"),
        (NUMBERS, FORCE, "ppo"),
        (Box(0, 255, (16, 16, 3), np.uint8), Discrete(3), "ppo"),
        (Box(0, 1, (10, 10, 4), bool), Discrete(3), "ppo"),
        (Packed(Dict(map=Box(0, 10, (7, 7, 3), np.uint8), speed=NUMBERS)), Discrete(3), "ppo"),
    ],
)
def test_the_algorithm_follows_from_the_spaces(observations: Any, actions: Any, algo: str) -> None:
    assert choose_algorithm(any(real_parts(actions)), has_images(observations), False)[0] == algo
    assert choose_algorithm(any(real_parts(actions)), has_images(observations), True)[0] == "ppo"


def test_auto_takes_ppo_where_episodes_of_real_numbers_may_be_long() -> None:
    for env_id, algo in [("CartPole-v1", "ppo"), ("CartPole-v0", "a2c"), ("FrozenLake-v1", "a2c")]:
        assert resolve_config(env_id, "auto", "none", {}).algorithm.algo == algo
    long = {"max_episode_steps": 500}
    assert resolve_config("CartPole-v0", "auto", "none", long).algorithm.algo == "ppo"
    assert resolve_config("FrozenLake-v1", "auto", "none", long).algorithm.algo == "a2c"


def test_large_images_and_memories_share_one_network() -> None:
    assert chosen()["critic"] == "separate"
    assert chosen(Box(0, 255, (64, 64, 3), np.uint8))["critic"] == "shared"
    assert chosen(Box(0, 255, (16, 16, 3), np.uint8))["critic"] == "separate"
    assert chosen(recurrent=True)["critic"] == "shared"


def test_a_choice_has_a_bonus_and_a_force_has_a_smaller_sigma() -> None:
    assert (chosen()["ent_coef"], chosen()["log_std_init"]) == (0.0, -0.5)
    assert chosen(actions=Discrete(2))["ent_coef"] > 0
    assert "log_std_init" not in chosen(actions=Discrete(2))


def test_long_episodes_get_a_farther_horizon_and_fewer_evaluations() -> None:
    long = dataclasses.replace(PLAY, episode_lengths=(1_000, 1_000))
    unfinished = dataclasses.replace(PLAY, episode_lengths=())
    assert not chosen(play=unfinished).keys() & {"gamma", "eval_every"}
    assert chosen(play=unfinished, time_limit=1_000)["gamma"] > 0.99
    assert not chosen().keys() & {"gamma", "eval_every"}
    settings = chosen(play=long)
    assert settings["gamma"] > 0.99
    assert settings["eval_episodes"] * 1_000 <= 0.25 * settings["eval_every"]


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("actions", [FORCE, Discrete(3)])
def test_every_algorithm_gets_settings_that_can_work(algo: str, actions: Space[Any]) -> None:
    config = validate(resolve_config("my:Env", algo, "auto", {}, lambda: Aim(actions)))
    assert config.preset == "none"


def test_images_and_memories_have_larger_rollouts_and_smaller_steps() -> None:
    plain, image, memory = chosen(), chosen(Box(0, 255, (64, 64, 3), np.uint8)), chosen(recurrent=True)
    for other in (image, memory):
        assert other["num_envs"] * other["num_steps"] > plain["num_envs"] * plain["num_steps"]
        assert other["learning_rate"] < plain["learning_rate"]


@pytest.mark.parametrize("recurrent", [False, True])
def test_one_step_actor_critic_keeps_its_rollouts(recurrent: bool) -> None:
    settings = chosen(rollout=ALGORITHMS["ac"].untuned, recurrent=recurrent)
    assert (settings["num_envs"], settings["num_steps"]) == (1, 1)


@pytest.mark.parametrize(
    ("actions", "algo"), [(FORCE, "ppo"), (Discrete(3), "a2c"), (REALS_AND_CHOICE, "ppo"), (CHOICES, "a2c")]
)
def test_auto_takes_ppo_for_continuous_actions_where_nothing_is_tuned(actions: Space[Any], algo: str) -> None:
    assert resolve_config("my:Env", "auto", "auto", {}, lambda: Aim(actions)).algorithm.algo == algo
    assert resolve_config("Pendulum-v1", "auto", "auto", {}).algorithm.algo == "a2c"
    assert resolve_config("Swimmer-v5", "auto", "auto", {}).algorithm.algo == "ppo"
    assert resolve_config("my:Env", "auto", "plain", {}, lambda: Aim(actions)).algorithm.algo == "a2c"
    assert resolve_config("my:Env", "auto", "mujoco", {}, lambda: Aim(actions)).algorithm.algo == "a2c"


@pytest.mark.parametrize(
    "given",
    [{"num_envs": 1, "num_steps": 4}, {"num_envs": 1, "core": "lstm"}, {"num_envs": 3, "core": "gru"}, {"num_envs": 2}],
)
def test_rules_fit_what_is_given(given: dict[str, Any]) -> None:
    settings = {"total_timesteps": 1_000, **given}
    config = validate(resolve_config("my:Env", "ppo", "auto", settings, Aim))
    assert config.env.num_envs == given["num_envs"]


def test_a_small_budget_has_shorter_rollouts() -> None:
    ppo = ALGORITHMS["ppo"].untuned
    assert chosen(rollout=ppo)["num_steps"] == ppo["num_steps"]
    assert chosen(rollout=ppo, total_timesteps=3_000)["num_steps"] == 16


def test_given_settings_win_and_are_not_explained() -> None:
    from limelight.envs.source import resolve_env
    from limelight.settings.schema import EnvConfig

    source = resolve_env(EnvConfig(), Aim)
    config = resolve_config("my:Env", "a2c", "auto", {"normalize_rewards": False, "num_steps": 3}, source)
    assert (config.algorithm.normalize_rewards, config.algorithm.num_steps) == (False, 3)
    text = "\n".join(explain_preset(config, source))
    assert "critic separate: " in text
    for name in ("normalize_rewards", "num_steps"):
        assert name not in text
