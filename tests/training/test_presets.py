"""Presets: every row can work, ids and spaces choose the right one, and a run can say why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Space, Tuple

from limelight.errors import ConfigError
from limelight.settings.io import get_setting
from limelight.settings.rules import validate
from limelight.training.algorithms import ALGORITHMS
from limelight.training.presets import PRESETS, choose_preset, explain_preset, resolve

REAL = Box(-np.inf, np.inf, (3,), np.float64)
FORCE = Box(-1.0, 1.0, (2,))


class Spaces(gym.Env[Any, Any]):
    """Has these spaces and nothing else; counts how many were made."""

    made = 0

    def __init__(self, observations: Space[Any] = REAL, actions: Space[Any] = FORCE, may_choose: bool = False) -> None:
        Spaces.made += 1
        self.observation_space, self.action_space = observations, Discrete(2) if may_choose else actions


def never() -> Any:
    pytest.fail("the environment was made although its id says enough")


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_row_gives_settings_that_can_work(preset: str, algo: str) -> None:
    config = validate(resolve("CartPole-v1", algo, preset, {}))
    rows = PRESETS[preset].settings
    assert set(rows) <= {"*", *ALGORITHMS}
    for name, value in {**rows.get("*", {}), **rows.get(algo, {})}.items():
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
def test_an_id_that_a_row_knows_decides_without_making_the_environment(env_id: str, preset: str) -> None:
    assert choose_preset(env_id, "auto", never) == preset
    assert explain_preset(env_id, preset) == f"preset {preset} (knows {env_id}): {PRESETS[preset].summary}"


def test_a_game_takes_the_row_with_a_memory_where_one_is_asked_for() -> None:
    assert resolve("ALE/Pong-v5", "a3c", "auto", {"core": "lstm"}).env.atari.frame_size == 42
    assert resolve("ALE/Pong-v5", "a3c", "auto", {"core": "gru"}).preset == "atari-lstm"
    assert resolve("ALE/Breakout-v5", "a3c", "auto", {"core": "gru"}).preset == "atari-lstm"
    assert explain_preset("ALE/Breakout-v5", "atari-lstm").startswith("preset atari-lstm (for a memory): ")
    assert resolve("CartPole-v1", "a3c", "auto", {"core": "lstm"}).preset == "classic"


def test_no_id_is_known_to_two_rows() -> None:
    prefixes = [prefix for row in PRESETS.values() for prefix in row.env_prefixes]
    assert len(prefixes) == len(set(prefixes))
    for prefix in prefixes:
        assert [row.name for row in PRESETS.values() if row.matches(f"{prefix}v9")] == [
            row.name for row in PRESETS.values() if prefix in row.env_prefixes
        ]


@pytest.mark.parametrize(
    ("observations", "actions", "preset"),
    [
        (REAL, FORCE, "continuous"),
        (Box(-1.0, 1.0, (4, 4)), FORCE, "continuous"),
        (REAL, Discrete(2), "none"),
        (Discrete(3), FORCE, "none"),
        (Box(0, 255, (64, 64, 3), np.uint8), FORCE, "none"),
        (REAL, Box(-3, 3, (2,), np.int64), "none"),
        (Dict(x=REAL, y=Discrete(2)), Tuple([FORCE, Discrete(2)]), "continuous"),
        (Dict(x=REAL), Tuple([Discrete(2), Discrete(3)]), "none"),
        (Tuple([Discrete(300), Discrete(2)]), FORCE, "none"),
    ],
)
def test_an_unknown_environment_takes_the_row_that_fits_its_spaces(
    observations: Space[Any], actions: Space[Any], preset: str
) -> None:
    config = resolve("my:Env", "a2c", "auto", {}, lambda: Spaces(observations, actions))
    assert config.preset == preset
    assert config.env.normalize_obs == (preset == "continuous")


def test_the_environment_is_made_with_what_is_set_for_it() -> None:
    for may_choose, preset in ((False, "continuous"), (True, "none")):
        settings = {"env_kwargs": {"may_choose": may_choose}}
        assert resolve(f"{__name__}:Spaces", "a2c", "auto", settings).preset == preset
    with pytest.raises(ConfigError, match="no such argument"):
        resolve(f"{__name__}:Spaces", "a2c", "auto", {"env_kwargs": {"my_choose": True}})


def test_without_a_look_an_unknown_id_has_no_preset() -> None:
    assert choose_preset("my:Env", "auto") == "none"


@pytest.mark.parametrize("preset", ["none", "mujoco"])
def test_a_preset_that_is_asked_for_needs_no_look(preset: str) -> None:
    before = Spaces.made
    assert resolve(f"{__name__}:Spaces", "a2c", preset, {}).preset == preset
    assert Spaces.made == before


def test_none_leaves_the_algorithms_own_settings() -> None:
    config = resolve("HalfCheetah-v5", "a2c", "none", {})
    own = resolve("my:Env", "a2c", "none", {})
    assert (config.algorithm, config.model, config.optim) == (own.algorithm, own.model, own.optim)
    assert explain_preset("HalfCheetah-v5", "none").startswith("preset none: ")


def test_what_is_set_wins_over_the_preset_and_that_over_the_algorithm() -> None:
    config = resolve("Pendulum-v1", "a2c", "auto", {"gamma": 0.5})
    row = {**PRESETS["pendulum"].settings["*"], **PRESETS["pendulum"].settings["a2c"]}
    assert config.algorithm.gamma == 0.5 != row["gamma"]
    assert config.algorithm.gae_lambda == row["gae_lambda"] != ALGORITHMS["a2c"].settings["gae_lambda"]


def test_why_a_preset_was_taken() -> None:
    assert explain_preset("my:Env", "continuous").startswith("preset continuous (fits the spaces): ")
    assert explain_preset("my:Env", "mujoco").startswith("preset mujoco (asked for): ")


def test_an_unknown_preset_is_refused_with_near_ones() -> None:
    with pytest.raises(ConfigError, match=r"preset = 'mujocco': must be auto \| none \| .*did you mean mujoco\?"):
        choose_preset("CartPole-v1", "mujocco")


def test_an_id_registered_by_env_module_is_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it looks like a game of ALE's that cannot be played by that id."""
    code = "import gymnasium as gym\ngym.register('Pong-v4', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    (tmp_path / "my_pong.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(gym.registry, "Pong-v4", raising=False)  # and again after the test
    with pytest.raises(ConfigError, match="Pong-v4"):
        resolve("Pong-v4", "a2c", "auto", {})
    try:
        config = resolve("Pong-v4", "a2c", "auto", {"env_module": "my_pong"})
    finally:
        gym.registry.pop("Pong-v4", None)
    assert config.preset not in ("pong", "breakout", "atari")
    assert config.env.env_module == "my_pong"
