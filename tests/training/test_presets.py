"""Presets: every row can work, ids and spaces choose the right one, and a run says why."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, Space

import limelight
from helpers.settings import one_line
from limelight.envs.source import EnvSource, resolve_env
from limelight.errors import ConfigError
from limelight.settings.io import all_settings, get_setting, with_settings
from limelight.settings.rules import validate
from limelight.settings.schema import AlgorithmConfig, TrainConfig
from limelight.training.algorithms import ALGORITHMS
from limelight.training.presets import OF_EVALUATIONS, PRESETS, choose_preset, explain_preset, resolve_config

REAL = Box(-np.inf, np.inf, (3,), np.float64)
FORCE = Box(-1.0, 1.0, (2,))


class Spaces(gym.Env[Any, Any]):
    """An environment with these spaces and nothing else; counts how many were made."""

    made = 0

    def __init__(self, observations: Space[Any] = REAL, actions: Space[Any] = FORCE, may_choose: bool = False) -> None:
        Spaces.made += 1
        self.observation_space, self.action_space = observations, Discrete(2) if may_choose else actions


def source_of(config: TrainConfig) -> EnvSource:
    return resolve_env(config.env, Spaces)


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_row_gives_settings_that_can_work(preset: str, algo: str) -> None:
    config = validate(resolve_config("CartPole-v1", algo, preset, {}))
    rows = PRESETS[preset].settings
    assert set(rows) <= {"*", *ALGORITHMS}
    own = ALGORITHMS[algo].settings if ALGORITHMS[algo].universal else {}
    is_target = ALGORITHMS[algo].settings.get("critic") == "target"
    for name, value in {**rows.get("*", {}), **rows.get(ALGORITHMS[algo].presets, {})}.items():
        if own and name not in OF_EVALUATIONS:
            value = own.get(name, all_settings()[name].default)
        if is_target and name == "critic":
            value = "target"
        assert get_setting(config, name) == value
    assert (config.preset, config.algorithm.algo) == (preset, algo)


@pytest.mark.parametrize(
    ("env_id", "preset"),
    [
        ("CartPole-v1", "classic"),
        ("Acrobot-v1", "acrobot"),
        ("MountainCar-v0", "mountaincar"),
        ("MountainCarContinuous-v0", "mountaincar-continuous"),
        ("LunarLander-v3", "lunarlander"),
        ("LunarLanderContinuous-v3", "lunarlander-continuous"),
        ("BipedalWalkerHardcore-v3", "bipedalwalker"),
        ("Swimmer-v5", "swimmer"),
        ("MiniGrid-Empty-5x5-v0", "minigrid"),
        ("BabyAI-GoToObj-v0", "minigrid"),
        ("Pendulum-v1", "pendulum"),
        ("HalfCheetah-v5", "mujoco"),
        ("HumanoidStandup-v5", "mujoco"),
        ("InvertedDoublePendulum-v4", "mujoco"),
        ("Walker2d-v5", "mujoco"),
        ("Hopper-v4", "hopper"),
        ("ALE/Pong-v5", "pong"),
        ("PongNoFrameskip-v4", "pong"),
        ("pong", "pong"),
        ("ALE/Breakout-v5", "breakout"),
        ("BreakoutNoFrameskip-v4", "breakout"),
        ("space_invaders", "atari"),
    ],
)
def test_an_id_that_a_row_matches_decides_without_making_the_environment(env_id: str, preset: str) -> None:
    assert choose_preset(env_id, "auto") == preset
    config = with_settings(TrainConfig(), {"env_id": env_id, "preset": preset})
    made = Spaces.made
    assert explain_preset(config, source_of(config)) == [f"preset {preset} (for {env_id}): {PRESETS[preset].summary}"]
    assert Spaces.made == made


def test_a_game_takes_the_recurrent_row_with_a_recurrent_core() -> None:
    assert resolve_config("ALE/Pong-v5", "a3c", "auto", {"core": "lstm"}).env.atari.frame_size == 42
    assert resolve_config("ALE/Pong-v5", "a3c", "auto", {"core": "gru"}).preset == "atari-lstm"
    assert resolve_config("ALE/Breakout-v5", "a3c", "auto", {"core": "gru"}).preset == "atari-lstm"
    assert [row.name for row in PRESETS.values() if row.recurrent] == ["atari-lstm"]
    assert resolve_config("CartPole-v1", "a3c", "auto", {"core": "lstm"}).preset == "classic"


def test_no_id_matches_two_rows() -> None:
    prefixes = [prefix for row in PRESETS.values() for prefix in row.env_prefixes]
    assert len(prefixes) == len(set(prefixes))
    for prefix, core in itertools.product(prefixes, ("feedforward", "lstm")):
        assert [row.name for row in PRESETS.values() if row.matches(f"{prefix}v9", core)] == [
            row.name for row in PRESETS.values() if prefix in row.env_prefixes
        ]


def test_an_unknown_environment_takes_the_rules_over_its_structure() -> None:
    config = resolve_config("my:Env", "a2c", "auto", {}, Spaces)
    assert (config.preset, config.env.normalize_obs, config.algorithm.normalize_rewards) == ("none", True, True)
    assert choose_preset("my:Env", "auto") == "none"


def test_the_environment_is_made_with_what_is_set_for_it() -> None:
    for may_choose, bonus in ((False, False), (True, True)):
        settings = {"env_kwargs": {"may_choose": may_choose}}
        assert (resolve_config(f"{__name__}:Spaces", "a2c", "auto", settings).algorithm.ent_coef > 0) == bonus
    with pytest.raises(ConfigError, match="no such argument"):
        resolve_config(f"{__name__}:Spaces", "a2c", "auto", {"env_kwargs": {"my_choose": True}})


@pytest.mark.parametrize("preset", ["plain", "mujoco"])
def test_a_preset_that_is_asked_for_needs_no_environment(preset: str) -> None:
    before = Spaces.made
    assert resolve_config(f"{__name__}:Spaces", "a2c", preset, {}).preset == preset
    assert Spaces.made == before


def test_plain_leaves_the_algorithms_own_settings() -> None:
    config = resolve_config("HalfCheetah-v5", "a2c", "plain", {})
    own = with_settings(TrainConfig(), ALGORITHMS["a2c"].settings)
    assert (config.algorithm, config.model, config.optim) == (own.algorithm, own.model, own.optim)
    assert explain_preset(config, source_of(config)) == ["preset plain: the algorithm's own settings"]


def test_none_takes_the_rules_where_a_preset_is_tuned() -> None:
    config = resolve_config("CartPole-v1", "a2c", "none", {})
    assert (config.preset, config.model.critic, config.algorithm.reward_scale) == ("none", "separate", 1.0)


def test_given_settings_win_over_the_preset_and_the_preset_over_the_algorithm() -> None:
    config = resolve_config("Pendulum-v1", "a2c", "auto", {"gamma": 0.5})
    row = {**PRESETS["pendulum"].settings["*"], **PRESETS["pendulum"].settings["a2c"]}
    assert config.algorithm.gamma == 0.5 != row["gamma"]
    assert config.algorithm.gae_lambda == row["gae_lambda"] != ALGORITHMS["a2c"].settings["gae_lambda"]


def test_other_returns_leave_out_the_lambda_of_the_preset() -> None:
    for returns in ("n_step", "mc", "td0"):
        config = validate(resolve_config("Pendulum-v1", "a2c", "auto", {"returns": returns}))
        assert (config.algorithm.returns, config.algorithm.gae_lambda) == (returns, AlgorithmConfig().gae_lambda)
    with pytest.raises(ConfigError) as error:  # 0.95 is the default, but asked for
        resolve_config("CartPole-v1", "a2c", "auto", {"returns": "mc", "gae_lambda": 0.95})
    assert one_line(error) == "gae_lambda = 0.95: only returns gae has λ, but returns = mc; leave one out"


@pytest.mark.parametrize(
    ("env_id", "preset", "core", "reason"),
    [
        ("my:Env", "mujoco", "feedforward", "asked for"),
        ("ALE/Breakout-v5", "atari-lstm", "lstm", "for ALE/Breakout-v5 with a recurrent core"),
        ("ALE/Breakout-v5", "atari-lstm", "feedforward", "asked for"),
        ("ALE/Breakout-v5", "breakout", "lstm", "asked for"),
        ("CartPole-v1", "atari-lstm", "lstm", "asked for"),
        ("CartPole-v1", "classic", "lstm", "for CartPole-v1"),
    ],
)
def test_a_run_says_why_it_has_its_preset(env_id: str, preset: str, core: str, reason: str) -> None:
    config = with_settings(TrainConfig(), {"env_id": env_id, "preset": preset, "core": core})
    [line] = explain_preset(config, source_of(config))
    assert line.startswith(f"preset {preset} ({reason}): ")


def test_every_algorithm_names_the_one_whose_settings_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a new algorithm is as well tuned as the one it resembles, and not only by the settings for all."""
    assert {row.presets for row in ALGORITHMS.values()} <= set(ALGORITHMS)
    others = {row.name: row.presets for row in ALGORITHMS.values() if row.presets != row.name}
    assert others == {"qac": "ac"}  # which differs from ac in its critic alone
    new = dataclasses.replace(ALGORITHMS["a2c"], name="new")
    monkeypatch.setitem(ALGORITHMS, "new", new)
    config, resembled = (resolve_config("CartPole-v1", algo, "auto", {}) for algo in ("new", "a2c"))
    assert (config.env, config.algorithm.num_steps) == (resembled.env, resembled.algorithm.num_steps)
    assert config.optim == resembled.optim


def test_an_unknown_preset_is_refused_with_near_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"preset = 'mujocco': must be auto \| none \| plain \| .*did you mean mujoco\?"
    ):
        choose_preset("CartPole-v1", "mujocco")


def test_an_id_registered_by_env_module_is_not_taken_for_an_atari_game(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although ALE registers a game under that id."""
    code = "import gymnasium as gym\ngym.register('Pong-v4', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    (tmp_path / "my_pong.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(gym.registry, "Pong-v4", raising=False)  # and again after the test
    with pytest.raises(ConfigError, match="Pong-v4"):
        resolve_config("Pong-v4", "a2c", "auto", {})
    try:
        config = resolve_config("Pong-v4", "a2c", "auto", {"env_module": "my_pong"})
    finally:
        gym.registry.pop("Pong-v4", None)
    assert config.preset not in ("pong", "breakout", "atari")
    assert config.env.env_module == "my_pong"


@pytest.mark.parametrize(
    ("env_id", "expected"), [("Pendulum-Discrete-v0", "none"), ("Pendulum-v1", "pendulum"), ("Hopper-Grid-v0", "none")]
)
def test_an_id_that_only_begins_alike_takes_a_preset_where_it_suits_the_spaces(env_id: str, expected: str) -> None:
    box, discrete = Box(-1, 1, (3,), np.float32), Discrete(5)
    assert choose_preset(env_id, "auto", get_spaces=lambda: (box, discrete)) == expected
    assert choose_preset("Pendulum-Slow-v0", "auto", get_spaces=lambda: (box, box)) == "pendulum"


@pytest.mark.parametrize("preset", ["none", "auto"])
def test_ppo_on_ray_takes_whole_rollouts_from_its_workers(preset: str) -> None:
    ray = {"runner": "ray", "num_workers": 1}
    assert validate(resolve_config("CartPole-v1", "ppo", preset, ray)).workers.ray.worker_output == "rollouts"
    assert validate(resolve_config("CartPole-v1", "a2c", preset, ray)).workers.ray.worker_output == "gradients"
    with pytest.raises(ConfigError, match="set worker_output to rollouts"):
        validate(resolve_config("CartPole-v1", "ppo", preset, {**ray, "worker_output": "gradients"}))


def test_the_classic_preset_is_the_classic_script() -> None:
    config = validate(resolve_config("PongDeterministic-v4", "auto", "classic-a3c", {"num_workers": 4}))
    settings = {
        "algo": "a3c", "frame_size": 42, "frame_stack": 1, "encoder": "universe", "core": "lstm", "core_size": 256,
        "normalize_obs": True, "image_statistics": "frame", "optimizer": "adam", "learning_rate": 1e-4,
        "lr_schedule": "constant", "num_steps": 20, "gae_lambda": 1.0, "max_grad_norm": 50.0, "num_envs": 1,
        "ent_coef": 0.01, "vf_coef": 0.5, "optimizer_statistics": "shared", "update_order": "lock_free",
        "reward_clip": 1.0,
    }  # fmt: skip
    assert {name: get_setting(config, name) for name in settings} == settings


@pytest.mark.slow
def test_the_classic_preset_trains(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    result = limelight.train(
        "PongDeterministic-v4", preset="classic-a3c", num_workers=2, total_timesteps=400, eval_every=0,
        final_episodes=0, run_dir=str(tmp_path / "r"), quiet=True, no_shared=True, seed=1,
    )  # fmt: skip
    assert result.status == "completed"
    agent = limelight.load(tmp_path / "r")
    assert agent.observation_space.shape == (1, 42, 42)
    assert agent.model.state_size == 512
    assert np.ptp(agent.normalizer.image_scale().mean) == 0.0  # type: ignore[union-attr]


def test_names_of_other_libraries_replace_a_value_of_the_preset() -> None:
    config = resolve_config("CartPole-v1", "A2C", "auto", {"lr": 0.01, "n_steps": 7})
    assert (get_setting(config, "learning_rate"), config.algorithm.algo) == (0.01, "a2c")
