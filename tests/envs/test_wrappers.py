"""Wrappers that hide a part of the state."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import limelight
from helpers.toys import Bandit
from limelight.envs.snapshot import get_env_state, set_env_state
from limelight.envs.toy import Ring
from limelight.envs.wrappers import POSITIONS, HideVelocities, masked_cartpole
from limelight.errors import ConfigError

KNOWN = [env_id for env_id in POSITIONS if not env_id.startswith("LunarLander") and env_id != "CartPole-v0"]


@pytest.mark.parametrize("env_id", KNOWN)
def test_known_environments_keep_their_positions(env_id: str) -> None:
    plain, masked = gym.make(env_id), HideVelocities(gym.make(env_id))
    keep = list(POSITIONS[env_id])
    np.testing.assert_array_equal(masked.observation_space.low, plain.observation_space.low[keep])  # type: ignore[attr-defined]
    np.testing.assert_array_equal(masked.observation_space.high, plain.observation_space.high[keep])  # type: ignore[attr-defined]
    assert masked.observation_space.dtype == np.float32
    whole, part = plain.reset(seed=3)[0], masked.reset(seed=3)[0]
    np.testing.assert_array_equal(part, whole[keep])
    plain.action_space.seed(0)
    action = plain.action_space.sample()
    np.testing.assert_array_equal(masked.step(action)[0], plain.step(action)[0][keep])


def test_any_indices_can_be_kept() -> None:
    masked = HideVelocities(gym.make("CartPole-v1"), keep=(3, 0))
    whole, part = gym.make("CartPole-v1").reset(seed=1)[0], masked.reset(seed=1)[0]
    np.testing.assert_array_equal(part, whole[[3, 0]])
    assert HideVelocities(Bandit(), keep=[0]).reset()[0].tolist() == [1.0]


@pytest.mark.parametrize(
    ("make", "keep", "words"),
    [
        (Bandit, None, "keep: the positions .* not of Bandit; give their indices, e.g. keep="),
        (lambda: gym.make("CartPole-v1"), [4], r"keep = \[4\]: must be .* from 0 to 3"),
        (lambda: gym.make("CartPole-v1"), [-1], "from 0 to 3"),
        (lambda: gym.make("CartPole-v1"), [0, 0], "different indices"),
        (lambda: gym.make("CartPole-v1"), [], "one or more"),
        (Ring, [0], "a flat Box would work"),
    ],
)
def test_indices_that_cannot_be_kept_are_refused(make: Any, keep: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        HideVelocities(make(), keep)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::UserWarning")  # the checker's advice on spaces and render modes
def test_masked_cartpole() -> None:
    env = pickle.loads(pickle.dumps(masked_cartpole))()
    check_env(env, skip_render_check=True)
    assert env.observation_space.shape == (2,)
    assert env.spec is not None
    assert env.spec.max_episode_steps == 500
    rebuilt = gym.make(env.spec)
    assert rebuilt.observation_space == env.observation_space


def test_its_state_can_be_restored() -> None:
    first, second = masked_cartpole(), masked_cartpole()
    first.reset(seed=0)
    first.step(np.int64(1))
    state = get_env_state(first)
    assert state is not None
    second.reset(seed=5)
    set_env_state(second, state)
    for action in (0, 1, 1, 0):
        np.testing.assert_array_equal(first.step(np.int64(action))[0], second.step(np.int64(action))[0])


@pytest.mark.parametrize("core", ["lstm", "gru"])
def test_it_trains_by_name_with_memory(core: str, tmp_path: Path) -> None:
    result = limelight.train(
        "limelight.envs.wrappers:masked_cartpole", core=core, run_dir=str(tmp_path / "r"), total_timesteps=400,
        quiet=True, tensorboard=False, eval_every=200, eval_episodes=2, final_episodes=2,
    )  # fmt: skip
    assert result.status == "completed"
    assert result.agent.observation_space.shape == (2,)
    assert result.agent.model.state_size == (128 if core == "lstm" else 64)
