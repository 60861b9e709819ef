"""Episodes of evaluations as Minari datasets, read by Minari itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

import limelight
from helpers.commands import refusal
from limelight.cli import main as cli
from limelight.errors import ConfigError
from limelight.runs.datasets import read_dataset, record_dataset

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
SETTINGS = {
    "algo": "a2c", "num_envs": 2, "num_steps": 4, "total_timesteps": 40, "eval_every": 0, "final_episodes": 1,
    "tensorboard": False, "quiet": True,
}  # fmt: skip


class Parts(gym.Env[Any, Any]):
    """Dict observations whose parts count the steps; continuous actions; episodes of 3 steps, cut by a limit of 2."""

    def __init__(self, limit: int = 3) -> None:
        self.observation_space = Dict({"n": Discrete(9, start=1), "image": Box(0, 255, (2, 2, 1), np.uint8)})
        self.action_space = Box(-2.0, 2.0, (1,), np.float32)
        self.limit = limit
        self.n = 0

    def _obs(self) -> dict[str, Any]:
        return {"n": np.int64(self.n + 1), "image": np.full((2, 2, 1), 50 * self.n, np.uint8)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.n = 0
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.n += 1
        return self._obs(), float(self.n), self.n == 3, self.n == self.limit, {}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Path]:
    def run(env: Any = "CartPole-v1", **settings: Any) -> Path:
        return limelight.train(env, run_dir=str(tmp_path / "run"), **{**SETTINGS, **settings}).run_dir

    return run


def test_minari_reads_the_episodes_of_an_evaluation(
    train: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(normalize_obs=True)
    assert cli.main(["evaluate", str(run), "--episodes", "4", "--seed", "3", "--record-dataset", "cartpole/my-v0"]) == 0
    assert "dataset: cartpole/my-v0 (4 episodes," in capsys.readouterr().out
    dataset = minari.load_dataset("cartpole/my-v0")
    expected = limelight.evaluate(limelight.load(run), episodes=4, seed=3)
    episodes = list(dataset.iterate_episodes())
    assert [float(e.rewards.sum()) for e in episodes] == expected.returns
    assert [len(e.actions) for e in episodes] == expected.lengths
    assert dataset.observation_space == gym.make("CartPole-v1").observation_space
    assert dataset.recover_environment().spec.id == "CartPole-v1"
    env = gym.make("CartPole-v1")  # the recorded actions lead to the recorded, raw observations
    for number, episode in enumerate(episodes):
        state = episode.observations[0]
        env.reset(seed=0)
        env.unwrapped.state = state.astype(np.float64)  # type: ignore[attr-defined]
        for action, following in zip(episode.actions, episode.observations[1:], strict=True):
            obs, _, terminated, _, _ = env.step(action)
            np.testing.assert_allclose(obs, following, rtol=1e-3, atol=1e-4, err_msg=str(number))
        assert episode.terminations[-1] == terminated
        assert not episode.terminations[:-1].any()
        assert (episode.terminations | episode.truncations).sum() == 1


@pytest.mark.parametrize("limit", [3, 2])
def test_composite_spaces_ends_and_images_are_kept(train: Callable[..., Path], limit: int) -> None:
    def make() -> Parts:
        return Parts(limit)

    agent = limelight.load(train(make))
    limelight.record_dataset(agent, "parts/my-v0", make, episodes=3, deterministic=False)
    dataset = minari.load_dataset("parts/my-v0")
    for episode in dataset.iterate_episodes():
        assert episode.observations["n"].tolist() == list(range(1, limit + 2))
        assert episode.observations["image"][:, 0, 0, 0].tolist() == [50 * n for n in range(limit + 1)]
        assert episode.rewards.tolist() == [float(n) for n in range(1, limit + 1)]
        assert episode.terminations.tolist() == [n == 3 for n in range(1, limit + 1)]
        assert episode.actions.shape == (limit, 1)
        assert np.abs(episode.actions).max() <= 2.0
    assert dataset.env_spec is None
    read = read_dataset("parts/my-v0", agent)
    assert [len(e.obs) for e in read] == [limit + 1] * 3
    assert [e.terminated for e in read] == [limit == 3] * 3


def test_a_dataset_names_no_environment_that_its_id_alone_does_not_make(train: Callable[..., Path]) -> None:
    gym.register("Sized-v0", Parts)
    try:
        agent = limelight.load(train("Sized-v0", env_kwargs={"limit": 2}))
        record_dataset(agent, "sized/two-v0", episodes=1)
        assert minari.load_dataset("sized/two-v0").spec.env_spec is None
    finally:
        del gym.registry["Sized-v0"]


def test_what_cannot_be_recorded_is_one_line(train: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = str(train())
    assert "must be a name like cartpole/expert-v0" in refusal(capsys, "evaluate", run, "--record-dataset", "a b!")
    assert "must be a name like cartpole/expert-v0" in refusal(capsys, "evaluate", run, "--record-dataset", "plain")
    assert cli.main(["evaluate", run, "--episodes", "1", "--record-dataset", "demo/some-v0"]) == 0
    capsys.readouterr()
    assert "demo/some-v0: exists already" in refusal(capsys, "evaluate", run, "--record-dataset", "demo/some-v0")
    assert "does not go with --full" in refusal(capsys, "evaluate", run, "--full", "--record-dataset", "demo/other-v0")


def test_a_missing_package_names_the_extra(train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    agent = limelight.load(train())
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"pip install 'limelight-rl\[minari\]'"):
        limelight.record_dataset(agent, "demo/some-v0")
