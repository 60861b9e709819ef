"""Evaluation in full: greedy and sampled on the same seeds, raw rewards and those that were learnt from."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import limelight
from limelight.errors import ConfigError
from limelight.runs.full_evaluation import as_trained, describe_rewards, evaluate_in_full, trace

SHORT = {"quiet": True, "tensorboard": False, "eval_every": 0, "final_episodes": 0, "backend": "sync"}


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> limelight.Agent:
    """An agent of Pendulum that learnt from clipped, normalized and scaled rewards."""
    folder = tmp_path_factory.mktemp("full") / "run"
    shaped = {"reward_clip": 5.0, "normalize_rewards": True, "reward_scale": 2.0}
    limelight.train("Pendulum-v1", algo="a2c", total_timesteps=600, run_dir=str(folder), **SHORT, **shaped)
    return limelight.load(folder, "last")


def test_both_evaluations_are_those_of_evaluate(agent: limelight.Agent) -> None:
    full = evaluate_in_full(agent, episodes=4, seed=3)
    greedy = limelight.evaluate(agent, episodes=4, seed=3)
    sampled = limelight.evaluate(agent, episodes=4, seed=3, deterministic=False)
    assert full.greedy.evaluation == greedy
    assert full.sampled.evaluation == sampled
    gap, low, high = full.difference
    assert gap == pytest.approx(greedy.mean_return - sampled.mean_return)
    assert low <= gap <= high


def test_returns_as_trained_are_those_of_the_learner(agent: limelight.Agent) -> None:
    traced = trace(agent, episodes=2, seed=1)
    assert agent.reward_statistics is not None
    deviation = math.sqrt(float(agent.reward_statistics.moments.var))
    assert traced.trained_returns is not None
    for episode, learnt in zip(traced.traces, traced.trained_returns, strict=True):
        written = 2.0 * np.clip(np.clip(episode.rewards, -5.0, 5.0) / deviation, -10.0, 10.0)
        assert learnt == pytest.approx(written.sum(), rel=1e-5)
    assert describe_rewards(agent) == f"clipped to ±5, divided by {deviation:.3g}, times 2"


def test_the_worst_and_the_median_episode_are_those_by_return(agent: limelight.Agent) -> None:
    traced = trace(agent, episodes=5)
    in_order = sorted(traced.evaluation.returns)
    assert traced.worst.total == pytest.approx(in_order[0])
    assert traced.median.total == pytest.approx(in_order[2])


def test_an_agent_that_was_saved_without_statistics_says_so(agent: limelight.Agent) -> None:
    state = agent.get_state()
    del state["reward_variance"]
    older = limelight.Agent.from_state(state)
    assert trace(older, "Pendulum-v1", episodes=1).trained_returns is None
    assert "statistics that this file lacks" in describe_rewards(older)
    with pytest.raises(ConfigError, match="saved without the statistics of its rewards"):
        as_trained(older, [1.0])


def test_rewards_that_were_learnt_from_as_they_are_are_not_repeated(tmp_path: Path) -> None:
    limelight.train("Acrobot-v1", preset="plain", total_timesteps=200, run_dir=str(tmp_path / "r"), **SHORT)
    agent = limelight.load(tmp_path / "r", "last")
    full = evaluate_in_full(agent, episodes=1)
    assert full.rewards == ""
    assert full.greedy.trained_returns is None
    assert full.to_json()["rewards_as_trained"] is None


@pytest.mark.parametrize("algo", ["a2c", "a3c"])
def test_the_statistics_of_rewards_are_saved_with_the_agent_of_every_runner(algo: str, tmp_path: Path) -> None:
    settings = {"algo": algo, "normalize_rewards": True, "total_timesteps": 800, "num_envs": 2}
    settings |= {"num_workers": 1} if algo == "a3c" else {}
    result = limelight.train("Pendulum-v1", run_dir=str(tmp_path / "r"), **{**SHORT, **settings})
    saved = limelight.load(tmp_path / "r", "last").reward_statistics
    assert saved is not None
    assert result.agent.reward_statistics is not None
    assert float(saved.moments.var) == float(result.agent.reward_statistics.moments.var) != 1.0


@pytest.mark.parametrize(("argument", "message"), [({"episodes": 0}, "episodes = 0"), ({"seed": -1}, "seed = -1")])
def test_wrong_arguments_are_refused(agent: limelight.Agent, argument: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate_in_full(agent, **argument)
    with pytest.raises(ConfigError, match="agent: is a int"):
        evaluate_in_full(3)  # type: ignore[arg-type]
