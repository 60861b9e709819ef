"""The steps of episodes of an evaluation: each is kept whole, by its environment, with its value."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import limelight
from limelight.runs.full_evaluation import trace


class Counting(gym.Env[Any, Any]):
    """Episodes of 2, 3, 4 … steps; the reward counts all steps of the environment; the last one terminates."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.total = self.episode = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.total, self.episode = (0, 0) if seed is not None else (self.total, self.episode + 1)
        self.left = 2 + self.episode
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.total += 1
        self.left -= 1
        return np.full(1, self.left / 10.0, np.float32), float(self.total), self.left == 0, False, {}


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> limelight.Agent:
    folder = str(tmp_path_factory.mktemp("traces") / "run")
    settings = {"core": "gru", "num_envs": 1, "quiet": True, "tensorboard": False, "eval_every": 0, "final_episodes": 0}
    return limelight.train(Counting, total_timesteps=100, backend="sync", run_dir=folder, **settings).agent


def test_every_step_of_every_episode_is_kept(agent: limelight.Agent) -> None:
    traced = trace(agent, episodes=4, num_envs=2, seed=5)
    found = sorted((episode.seed, episode.number, tuple(episode.rewards)) for episode in traced.traces)
    assert found == [(s, n, r) for s in (5, 6) for n, r in ((0, (1.0, 2.0)), (1, (3.0, 4.0, 5.0)))]
    assert [episode.total for episode in traced.traces] == traced.evaluation.returns
    assert [len(episode.actions) for episode in traced.traces] == traced.evaluation.lengths
    assert {episode.end for episode in traced.traces} == {"terminated"}
    assert traced.traces[0].values == []


def test_values_are_those_of_the_agent_with_its_recurrent_state(agent: limelight.Agent) -> None:
    traced = trace(agent, episodes=2, num_envs=1, with_values=True)
    second = traced.traces[1]
    state, values, obs = None, [], [0.0, 0.2, 0.1]
    for t, number in enumerate(obs):
        one = np.array([[number]], np.float32)
        values.append(float(agent.value(one, state, [t == 0])[0]))
        _, state = agent.predict(one, state, [t == 0])
    assert second.values == pytest.approx(values, abs=1e-5)


def test_rows_have_a_line_for_each_step_with_the_return_so_far_and_the_end(agent: limelight.Agent) -> None:
    (episode,) = trace(agent, episodes=1, with_values=True).traces
    header, rows = episode.rows(learnt=[0.5, 1.0])
    assert header == ["step", "action", "reward", "reward_as_trained", "return", "value", "end"]
    assert [row[0] for row in rows] == [1, 2]
    assert [row[4] for row in rows] == [1.0, 3.0]
    assert [row[-1] for row in rows] == ["", "terminated"]


def test_an_episode_of_endless_length_is_marked_as_cut(agent: limelight.Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limelight.runs.evaluation.MAX_EPISODE_STEPS", 1)
    (episode,) = trace(agent, episodes=1).traces
    assert (episode.end, episode.rewards) == ("cut", [1.0])
