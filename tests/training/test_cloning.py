"""Behaviour cloning: a policy imitates a dataset before the first step of a run."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

import limelight
from helpers.commands import refusal
from limelight.algo.losses import mask_weights
from limelight.runs.agent import Agent
from limelight.settings.io import with_settings
from limelight.settings.schema import TrainConfig
from limelight.training import cloning
from limelight.training.cloning import Dataset, Sequences, clone, fit, likelihood, make_learner, make_sequences
from limelight.training.prepare import prepare
from limelight.training.run import build

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
STILL = {"learning_rate": 1e-12, "eval_every": 0, "final_episodes": 20, "tensorboard": False, "quiet": True}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))


def balance(obs: np.ndarray) -> int:
    """A rule that balances CartPole."""
    return int(obs[2] + 0.3 * obs[3] + 0.02 * obs[0] + 0.05 * obs[1] > 0)


def swing(obs: np.ndarray) -> np.ndarray:
    """A smooth rule for Pendulum."""
    return np.array([np.clip(-2.0 * obs[1] - 0.5 * obs[2], -1.9, 1.9)], np.float32)


def write(name: str, env_id: str, rule: Callable[[np.ndarray], Any], episodes: int, steps: int) -> None:
    """Record the episodes of a rule with Minari's own tools, as another program would."""
    from minari.data_collector import EpisodeBuffer

    env = gym.make(env_id)
    buffers = []
    for number in range(episodes):
        obs, actions, rewards = [env.reset(seed=number)[0]], [], []
        for _ in range(steps):
            actions.append(rule(obs[-1]))
            next_obs, reward, terminated, truncated, _ = env.step(actions[-1])
            obs.append(next_obs)
            rewards.append(float(reward))
            if terminated or truncated:
                break
        T = len(rewards)
        ends = [[False] * (T - 1) + [True], [False] * T]
        truncations, terminations = (ends[1], ends[0]) if terminated else (ends[0], ends[1])
        buffers.append(
            EpisodeBuffer(
                id=number, observations=np.stack(obs), actions=np.stack(actions), rewards=rewards,
                terminations=terminations, truncations=truncations, infos={},
            )
        )  # fmt: skip
    minari.create_dataset_from_buffers(name, buffers, env=env_id)


def fresh_agent(env_id: str, **settings: Any) -> Agent:
    config = with_settings(TrainConfig(), {"env_id": env_id, "algo": "a2c", "num_envs": 2, **settings})
    runner, agent = build(prepare(config, None), None)
    runner.close()
    return agent


@pytest.mark.parametrize("core", ["feedforward", pytest.param("lstm", marks=pytest.mark.slow)])
def test_cartpole_is_cloned(core: str, tmp_path: Path) -> None:
    write("cartpole/rule-v0", "CartPole-v1", balance, 4, 500)
    result = limelight.train(
        "CartPole-v1", algo="a2c", core=core, init_from_dataset="cartpole/rule-v0", total_timesteps=100,
        run_dir=str(tmp_path / "run"), **STILL,
    )  # fmt: skip
    untrained = limelight.train("CartPole-v1", algo="a2c", total_timesteps=100, run_dir=str(tmp_path / "new"), **STILL)
    assert untrained.summary["final_eval_return"] < 200
    assert result.summary["final_eval_return"] > 450


@pytest.mark.parametrize("bounds", ["clip", "rescale", "squash"])
def test_pendulum_is_cloned(bounds: str) -> None:
    write("pendulum/rule-v0", "Pendulum-v1", swing, 6, 200)
    agent = fresh_agent("Pendulum-v1", action_bounds=bounds, normalize_obs=True, hidden_sizes=(32, 32))
    lines: list[str] = []
    cloned = clone(agent, Dataset("pendulum/rule-v0"), lines.append).agent
    env = gym.make("Pendulum-v1")
    errors = []
    obs, _ = env.reset(seed=99)
    for _ in range(200):
        action, _ = cloned.predict(obs)
        errors.append(abs(float(action[0]) - float(swing(obs)[0])))
        obs, *_ = env.step(swing(obs))
    assert np.mean(errors) < 0.15
    assert "cloned pendulum/rule-v0: 6 episodes, 1,200 steps" in lines[0]
    for (name, before), after in zip(agent.model.named_parameters(), cloned.model.parameters(), strict=True):
        if name.endswith("log_std") or "value" in name:
            assert torch.equal(before, after), name


@pytest.mark.slow
def test_a_run_of_workers_begins_with_the_clone(tmp_path: Path) -> None:
    write("cartpole/rule-v0", "CartPole-v1", balance, 2, 200)
    result = limelight.train(
        "CartPole-v1", algo="a3c", num_workers=1, num_envs=2, init_from_dataset="cartpole/rule-v0",
        total_timesteps=64, run_dir=str(tmp_path / "run"), **STILL,
    )  # fmt: skip
    assert result.summary["final_eval_return"] > 300
    resumed = limelight.resume(result.run_dir, total_timesteps=200, quiet=True)
    assert resumed.summary["final_eval_return"] > 300


def test_the_gradient_is_that_of_the_mean_log_likelihood() -> None:
    agent = fresh_agent("CartPole-v1", hidden_sizes=(8,))
    learner = make_learner(agent, 1)
    rng = np.random.default_rng(0)
    data = Sequences(
        rng.normal(size=(1, 12, 4)).astype(np.float32), rng.integers(2, size=(1, 12)), np.ones((1, 12), np.float32)
    )
    rollout = data.rollout(np.arange(12))
    learner.values(rollout)
    w = mask_weights(rollout.valid)
    learner.write_gradients(-w, np.zeros_like(w), w)
    found = learner.flat.grads.clone()
    for i in rng.choice(len(found), 20, replace=False):
        losses = []
        for change in (1e-3, -1e-3):
            learner.flat.params[i] += change
            learner.network.parameters_changed()
            losses.append(-likelihood(learner, data, np.arange(12), 12))
            learner.flat.params[i] -= change
        assert (losses[0] - losses[1]) / 2e-3 == pytest.approx(float(found[i]), abs=2e-3)


def test_a_signal_ends_cloning_before_there_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("cartpole/rule-v0", "CartPole-v1", balance, 2, 200)
    update, updates = cloning._update, list[int]()

    def interrupted(*args: Any) -> None:
        updates.append(1)
        update(*args)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(cloning, "_update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        limelight.train(
            "CartPole-v1", algo="a2c", init_from_dataset="cartpole/rule-v0", total_timesteps=100,
            run_dir=str(tmp_path / "run"), **STILL,
        )  # fmt: skip
    assert len(updates) == 1
    assert not (tmp_path / "run").exists()


def test_padding_counts_for_nothing() -> None:
    agent = fresh_agent("CartPole-v1", core="lstm", core_size=4, hidden_sizes=(8,))
    from limelight.runs.datasets import Episode

    rng = np.random.default_rng(1)
    obs = list(rng.normal(size=(41, 4)).astype(np.float32))
    data = make_sequences(agent, [Episode(None, obs, list(rng.integers(2, size=40)), [1.0] * 40, True)], "d")
    assert data.valid.sum() == 40
    assert data.valid.shape == (32, 2)
    learner = make_learner(agent, 32)
    together = likelihood(learner, data, np.arange(2), 2)
    apart = [likelihood(learner, data, np.array([n]), 1) for n in range(2)]
    assert together == pytest.approx((32 * apart[0] + 8 * apart[1]) / 40, abs=1e-5)
    before, after, epochs = fit(learner, data, np.random.default_rng(0))
    assert after >= before
    assert epochs >= 1


class Other(gym.Env[Any, Any]):
    observation_space, action_space = Box(-1.0, 1.0, (4,), np.float32), Discrete(3)


def test_what_cannot_be_cloned_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write("pendulum/rule-v0", "Pendulum-v1", lambda obs: np.array([2.5], np.float32), 2, 20)
    words = ["train", "CartPole-v1", "--run-dir", str(tmp_path / "r"), "--init-from-dataset"]
    assert "no such dataset here" in refusal(capsys, *words, "cartpole/none-v0")
    assert "its observation_space is Box" in refusal(capsys, *words, "pendulum/rule-v0")
    refused = refusal(capsys, *words, "demo/some-v0", "--init-agent", str(tmp_path))
    assert "a run begins with one policy" in refused
    refused = refusal(
        capsys, "train", "Pendulum-v1", "--run-dir", str(tmp_path / "r"), "--action-bounds", "squash",
        "--init-from-dataset", "pendulum/rule-v0",
    )  # fmt: skip
    assert "action[0] = 2.5: is out of the bounds" in refused
    assert "leave --seeds out" in refusal(capsys, *words, "demo/some-v0", "--seeds", "2")
    assert not (tmp_path / "r").exists()
