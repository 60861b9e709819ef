"""Judging: equal shares, fixed seeds, raw returns, episodes that never end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import limelight
from helpers.toys import Corridor, Scripted
from limelight.envs.toy import Ring
from limelight.errors import ConfigError
from limelight.nn.model import make_model
from limelight.runs.evaluation import Evaluation, play
from limelight.settings.io import with_settings
from limelight.settings.schema import TrainConfig


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


class Zeros:
    """Always action 0."""

    recurrent_state = None

    def act(self, obs: Any, episode_start: Any) -> Any:
        return np.zeros(len(obs), np.int64)

    def to_env(self, actions: Any) -> Any:
        return actions


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
    result = play(envs, Zeros(), same, 6, seed=0)
    assert sorted(result.returns) == [3.0, 3.0, 3.0, 50.0, 50.0, 50.0]
    assert sorted(result.lengths) == [3, 3, 3, 50, 50, 50]
    uneven = play(limelight.make_envs(Lengths, num_envs=3, backend="sync"), Zeros(), same, 4, seed=0)
    assert sorted(uneven.returns) == [3.0, 3.0, 3.0, 50.0]


def test_an_episode_that_never_ends_is_cut_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["limelight.runs.evaluation"], "MAX_EPISODE_STEPS", 40)
    envs = limelight.make_envs(Ring, num_envs=2, backend="sync", env_kwargs={"max_steps": 10**6})
    result = play(envs, Zeros(), same, 6, seed=0)
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
    by_config = limelight.evaluate(agent, limelight.settings.schema.EnvConfig(env_id="CartPole-v0"), episodes=3)
    assert by_id.episodes == by_callable.episodes == by_config.episodes == 3
    assert max(by_config.lengths) <= 200


def test_training_survives_a_greedy_policy_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["limelight.runs.evaluation"], "MAX_EPISODE_STEPS", 60)
    result = limelight.train(
        Corridor, run_dir=str(tmp_path / "r"), total_timesteps=400, quiet=True, tensorboard=False, eval_every=200,
        eval_episodes=2, final_episodes=2, learning_rate=1e-6,
    )  # fmt: skip
    assert result.status == "completed"


# --------------------------------------------------------------------------- memory

OBS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


@pytest.fixture(params=[("lstm", "shared"), ("gru", "separate")], ids=str)
def remembering(request: pytest.FixtureRequest) -> limelight.Agent:
    """An untrained agent whose actions depend on what it saw before."""
    core, critic = request.param
    settings = {"core": core, "critic": critic, "core_size": 12, "policy_init_gain": 20.0}
    config = with_settings(TrainConfig(), settings)
    spaces = gym.spaces.Box(-np.inf, np.inf, (4,)), gym.spaces.Discrete(9)
    return limelight.Agent(make_model(*spaces, config.model, 0), None, config, *spaces)


def by_hand(agent: limelight.Agent, rows: Any, state: Any = None) -> tuple[list[int], Any]:
    """Actions of single observations, one after the other, and the last state."""
    actions = []
    for row in rows:
        action, state = agent.predict(row, state)
        actions.append(int(action))
    return actions, state


def test_predict_carries_the_state_it_is_given(remembering: limelight.Agent) -> None:
    actions, state = by_hand(remembering, OBS)
    output = remembering.model(torch.from_numpy(OBS)[:, None])
    assert actions == output.params.argmax(-1)[:, 0].tolist()
    assert state.shape == (1, remembering.model.state_size)
    np.testing.assert_allclose(state, output.recurrent_state.detach(), rtol=0.0, atol=1e-6)
    one, other = remembering.predict(OBS[0])[1], remembering.predict(OBS[0])[1]
    np.testing.assert_array_equal(one, other)  # None is nothing, every time
    kept = state.copy()
    remembering.predict(OBS[0], state)
    np.testing.assert_array_equal(state, kept)


def test_episode_start_forgets_rows(remembering: limelight.Agent) -> None:
    _, state = remembering.predict(OBS[:3])
    _, both = remembering.predict(OBS[3:], state, episode_start=[False, True, False])
    _, anew = remembering.predict(OBS[3:])
    _, on = remembering.predict(OBS[3:], state)
    np.testing.assert_array_equal(both[1], anew[1])
    np.testing.assert_array_equal(both[[0, 2]], on[[0, 2]])
    assert not np.array_equal(both[0], anew[0])
    _, everything = remembering.predict(OBS, state, episode_start=np.ones(6, bool))  # of another batch, but forgotten
    np.testing.assert_array_equal(everything, remembering.predict(OBS)[1])


def test_reset_lets_the_agent_remember_itself(remembering: limelight.Agent) -> None:
    expected, _ = by_hand(remembering, OBS)
    for _ in range(2):
        remembering.reset()
        seen = []
        for row in OBS:
            seen.append(int(remembering.predict(row)[0]))
            by_hand(remembering, OBS[:2], np.zeros((1, remembering.model.state_size)))  # a state leaves its own alone
        assert seen == expected
    assert len(set(expected)) > 1
    with pytest.raises(ValueError, match=r"must be \[6, \d+\]; reset\(\)"):
        remembering.predict(OBS)
    remembering.predict(OBS, episode_start=np.ones(6))  # from here on, of six episodes
    _, state = remembering.predict(OBS)
    np.testing.assert_array_equal(
        state, remembering.predict(OBS, remembering.predict(OBS, np.zeros(state.shape))[1])[1]
    )


def test_greedy_and_sampled_actions_share_the_agents_memory(remembering: limelight.Agent) -> None:
    expected = by_hand(remembering, OBS[:3])[1]
    remembering.reset()
    for row, deterministic in zip(OBS, (True, False, True), strict=False):
        _, state = remembering.predict(row, deterministic=deterministic)
    np.testing.assert_array_equal(state, expected)


def test_predict_refuses_states_that_do_not_fit(remembering: limelight.Agent) -> None:
    width = remembering.model.state_size
    with pytest.raises(ValueError, match=rf"state of shape \(2, {width}\): must be \[6, {width}\]"):
        remembering.predict(OBS, np.zeros((2, width), np.float32))
    with pytest.raises(ValueError, match=r"episode_start of shape \(2,\): must be \[6\]"):
        remembering.predict(OBS, None, np.ones(2))


def test_without_memory_the_state_comes_back_as_given(agent: limelight.Agent) -> None:
    agent.reset()
    marker: Any = object()
    assert agent.predict(OBS, state=marker)[1] is marker
    assert agent.predict(OBS)[1] is None


def test_it_is_saved_with_its_core(remembering: limelight.Agent, tmp_path: Path) -> None:
    remembering.save(tmp_path / "kept")
    assert by_hand(limelight.load(tmp_path / "kept"), OBS)[0] == by_hand(remembering, OBS)[0]


def test_stable_baselines3_can_evaluate_it(remembering: limelight.Agent) -> None:
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    envs = vec_env.DummyVecEnv([lambda: gym.make("CartPole-v1", max_episode_steps=30)] * 2)
    config = with_settings(TrainConfig(), {"core": "lstm", "core_size": 8})
    spaces = envs.observation_space, gym.spaces.Discrete(2)
    agent = limelight.Agent(make_model(*spaces, config.model, 0), None, config, *spaces)
    returns, lengths = evaluation.evaluate_policy(agent, envs, 6, return_episode_rewards=True, warn=False)
    assert len(returns) == 6
    assert max(lengths) <= 30


class Lives:
    """Remembers how many observations of the episode it has seen; checks it against the observations themselves."""

    def __init__(self) -> None:
        self.recurrent_state: Any = None
        self.seen: list[float] = []

    def act(self, obs: Any, episode_start: Any) -> Any:
        before = np.zeros((len(obs), 1), np.float32) if self.recurrent_state is None else self.recurrent_state
        self.recurrent_state = (1 - episode_start[:, None]) * before + 1
        np.testing.assert_array_equal(self.recurrent_state[:, 0], obs[:, 0] % 10 + 1)
        self.seen += obs[:, 0].tolist()
        return np.zeros(len(obs), np.int64)

    def to_env(self, actions: Any) -> Any:
        return actions


def test_evaluation_forgets_at_the_start_of_every_episode() -> None:
    script = [
        [(10.0 * i + row, 1.0, row == end, False) for row in range(end + 1)] for i, end in enumerate((2, 4, 1, 3))
    ]
    envs = limelight.make_envs(lambda: Scripted(script), num_envs=3, backend="sync")
    policy = Lives()
    result = play(envs, policy, same, 9, seed=0)
    assert sorted(set(result.lengths)) == [1, 2, 3, 4]
    assert {2.0, 14.0, 21.0} <= set(policy.seen)  # final observations, too, were of their own episodes


def test_evaluation_leaves_the_training_policys_memory_alone(tmp_path: Path) -> None:
    """And nothing else of the run either: it ends with the same parameters."""
    ends = []
    for i, every in enumerate((0, 100)):
        result = limelight.train(
            "CartPole-v1", core="gru", run_dir=str(tmp_path / str(i)), total_timesteps=400, quiet=True, seed=3,
            tensorboard=False, eval_every=every, eval_episodes=2, final_episodes=0, num_envs=4,
        )  # fmt: skip
        ends.append(limelight.load(result.run_dir, which="last").get_state()["params"])
    assert torch.equal(*ends)


def test_the_public_names_stay_functions() -> None:
    """No module of the package has the name of a public function."""
    import limelight.runs.evaluation
    import limelight.training.run

    assert callable(limelight.train)
    assert callable(limelight.evaluate)
