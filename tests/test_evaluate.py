"""Judging: equal shares, fixed seeds, raw returns, episodes that never end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import limelight
from limelight.config import ConfigError
from limelight.envs.toy import Corridor, Ring
from limelight.evaluate import Evaluation, play


class Lengths(gym.Env[Any, Any]):
    """Episodes of fixed lengths in turn, a reward of 1 per step: 3 steps, then 50, then 3 …"""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
        self.action_space = gym.spaces.Discrete(2)
        self.episode = self.left = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.left = 3 if self.episode % 2 == 0 else 50
        self.episode += 1
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.left -= 1
        return np.zeros(1, np.float32), 1.0, self.left == 0, False, {}


def zeros(obs: Any) -> Any:
    return np.zeros(len(obs), np.int64)


def same(obs: Any) -> Any:
    return obs


def test_statistics() -> None:
    evaluation = Evaluation([1.0, 2.0, 3.0, 10.0, 4.0, 0.0, 5.0, 6.0], [1] * 8)
    assert evaluation.iqm_return == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert evaluation.to_json() == {
        "mean_return": pytest.approx(31 / 8),
        "std_return": pytest.approx(np.std(evaluation.returns)),
        "median_return": 3.5,
        "iqm_return": 3.5,
        "episodes": 8,
        "mean_length": 1.0,
    }


def test_every_environment_plays_an_equal_share() -> None:
    """Taking the first ones to finish would count the short episodes three times as often."""
    envs = limelight.make_envs(Lengths, num_envs=3, backend="sync")
    result = play(envs, zeros, same, 6, seed=0)
    assert sorted(result.returns) == [3.0, 3.0, 3.0, 50.0, 50.0, 50.0]
    assert sorted(result.lengths) == [3, 3, 3, 50, 50, 50]
    uneven = play(limelight.make_envs(Lengths, num_envs=3, backend="sync"), zeros, same, 4, seed=0)
    assert sorted(uneven.returns) == [3.0, 3.0, 3.0, 50.0]


def test_an_episode_that_never_ends_is_cut_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["limelight.evaluate"], "MAX_EPISODE_STEPS", 40)
    envs = limelight.make_envs(Ring, num_envs=2, backend="sync", env_kwargs={"max_steps": 10**6})
    result = play(envs, zeros, same, 6, seed=0)
    assert result.lengths == [40, 40]
    assert result.cut == 2
    assert result.to_metrics()["eval/cut_episodes"] == 2


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> limelight.Agent:
    folder = tmp_path_factory.mktemp("agent") / "r"
    result = limelight.train(
        "CartPole-v1", run_dir=str(folder), total_timesteps=3_000, seed=2, quiet=True, tensorboard=False,
        eval_every=0, final_episodes=0,
    )  # fmt: skip
    return result.agent


def test_the_same_seed_gives_the_same_result(agent: limelight.Agent) -> None:
    for deterministic in (True, False):
        first, again, other = (
            limelight.evaluate(agent, episodes=12, seed=seed, deterministic=deterministic) for seed in (5, 5, 6)
        )
        assert first.returns == again.returns
        assert first.returns != other.returns


def test_predict_has_the_signature_of_stable_baselines3(agent: limelight.Agent) -> None:
    one, state = agent.predict(np.zeros(4, np.float32))
    assert one.shape == ()
    assert state is None
    batch, _ = agent.predict(np.zeros((5, 4), np.float32), state=None, episode_start=np.ones(5, bool))
    assert batch.shape == (5,)
    drawn = {int(agent.predict(np.zeros(4, np.float32), deterministic=False)[0]) for _ in range(100)}
    assert drawn == {0, 1}
    with pytest.raises(ValueError, match="observation of shape"):
        agent.predict(np.zeros(3, np.float32))


def test_saving_and_loading(agent: limelight.Agent, tmp_path: Path) -> None:
    agent.save(tmp_path / "kept")
    loaded = limelight.load(tmp_path / "kept")
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    np.testing.assert_array_equal(agent.predict(obs)[0], loaded.predict(obs)[0])
    assert loaded.config == agent.config
    assert loaded.observation_space == agent.observation_space
    for path, message in ((tmp_path / "no", "no such folder"), (tmp_path, "holds no agent")):
        with pytest.raises(ConfigError, match=message):
            limelight.load(path)
    with pytest.raises(ConfigError, match=r"best \| last"):
        limelight.load(tmp_path / "kept", which="first")


def test_what_cannot_be_judged(agent: limelight.Agent) -> None:
    with pytest.raises(ConfigError, match="its observation_space is"):
        limelight.evaluate(agent, "Acrobot-v1", episodes=1)
    with pytest.raises(ConfigError, match="episodes = 0"):
        limelight.evaluate(agent, episodes=0)


def test_other_environments_to_judge_in(agent: limelight.Agent) -> None:
    by_id = limelight.evaluate(agent, "CartPole-v1", episodes=3, seed=1)
    by_callable = limelight.evaluate(agent, lambda: gym.make("CartPole-v1"), episodes=3, seed=1)
    by_config = limelight.evaluate(agent, limelight.config.EnvConfig(env_id="CartPole-v0"), episodes=3)
    assert by_id.episodes == by_callable.episodes == by_config.episodes == 3
    assert max(by_config.lengths) <= 200


def test_training_survives_a_greedy_policy_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["limelight.evaluate"], "MAX_EPISODE_STEPS", 60)
    result = limelight.train(
        Corridor, run_dir=str(tmp_path / "r"), total_timesteps=400, quiet=True, tensorboard=False, eval_every=200,
        eval_episodes=2, final_episodes=2, learning_rate=1e-6,
    )  # fmt: skip
    assert result.status == "completed"


def test_the_public_names_stay_functions() -> None:
    import limelight.evaluate
    import limelight.train

    assert callable(limelight.train)
    assert callable(limelight.evaluate)
