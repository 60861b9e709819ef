"""Evaluation and agents: equal shares, fixed seeds, raw returns, endless episodes, recurrent states."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import limelight
from helpers.toys import Corridor, Scripted
from limelight.envs.make import num_cores
from limelight.envs.toy import Ring
from limelight.errors import CheckpointError, ConfigError
from limelight.nn.model import make_model
from limelight.runs.evaluation import Evaluation, Limits, play
from limelight.settings.io import with_settings
from limelight.settings.schema import TrainConfig
from limelight.training.run import RunResult


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
    """A policy that always takes action 0."""

    recurrent_state = None

    def act(self, obs: Any, episode_start: Any) -> Any:
        return np.zeros(len(obs), np.int64)

    def to_env(self, actions: Any) -> Any:
        return actions


def same(obs: Any) -> Any:
    return obs


def test_statistics_are_those_of_the_returns() -> None:
    evaluation = Evaluation([1.0, 2.0, 3.0, 10.0, 4.0, 0.0, 5.0, 6.0], [1] * 8)
    assert evaluation.iqm_return == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert evaluation.to_json() == {
        "mean_return": pytest.approx(31 / 8),
        "std_return": pytest.approx(np.std(evaluation.returns)),
        "median_return": 3.5,
        "iqm_return": 3.5,
        "episodes": 8,
        "mean_length": 1.0,
        "cut_episodes": 0,
        "returns": evaluation.returns,
        "lengths": [1] * 8,
    }


def test_every_environment_runs_an_equal_share() -> None:
    """With the first episodes that finish, short ones would count three times as often."""
    envs = limelight.make_envs(Lengths, num_envs=3, backend="sync")
    result = play(envs, Zeros(), same, 6, seed=0)
    assert sorted(result.returns) == [3.0, 3.0, 3.0, 50.0, 50.0, 50.0]
    assert sorted(result.lengths) == [3, 3, 3, 50, 50, 50]
    uneven = play(limelight.make_envs(Lengths, num_envs=3, backend="sync"), Zeros(), same, 4, seed=0)
    assert sorted(uneven.returns) == [3.0, 3.0, 3.0, 50.0]


def test_an_endless_episode_is_cut_and_counted() -> None:
    envs = limelight.make_envs(Ring, num_envs=2, backend="sync", env_kwargs={"max_steps": 10**6})
    result = play(envs, Zeros(), same, 6, seed=0, limits=Limits(40, lambda: False))
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


def test_a_saved_agent_loads_and_a_missing_one_is_named(agent: limelight.Agent, tmp_path: Path) -> None:
    agent.save(tmp_path / "kept")
    loaded = limelight.load(tmp_path / "kept")
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    np.testing.assert_array_equal(agent.predict(obs)[0], loaded.predict(obs)[0])
    assert loaded.config == agent.config
    assert loaded.observation_space == agent.observation_space
    for path, message in ((tmp_path / "no", "no such folder"), (tmp_path, "holds no agent")):
        with pytest.raises(CheckpointError, match=message):
            limelight.load(path)
    with pytest.raises(ConfigError, match=r"best \| last"):
        limelight.load(tmp_path / "kept", which="first")


def test_an_environment_with_other_spaces_and_no_episodes_are_refused(agent: limelight.Agent) -> None:
    with pytest.raises(ConfigError, match="its observation_space is"):
        limelight.evaluate(agent, "Acrobot-v1", episodes=1)
    with pytest.raises(ConfigError, match="episodes = 0"):
        limelight.evaluate(agent, episodes=0)


def test_an_agent_is_evaluated_in_environments_by_id_callable_and_settings(agent: limelight.Agent) -> None:
    by_id = limelight.evaluate(agent, "CartPole-v1", episodes=3, seed=1)
    by_callable = limelight.evaluate(agent, lambda: gym.make("CartPole-v1"), episodes=3, seed=1)
    by_config = limelight.evaluate(agent, limelight.settings.schema.EnvConfig(env_id="CartPole-v0"), episodes=3)
    assert by_id.episodes == by_callable.episodes == by_config.episodes == 3
    assert max(by_config.lengths) <= 200


def test_training_survives_a_greedy_policy_that_gets_stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["limelight.runs.evaluation"], "MAX_EPISODE_STEPS", 60)
    result = limelight.train(
        Corridor, run_dir=str(tmp_path / "r"), total_timesteps=400, quiet=True, tensorboard=False, eval_every=200,
        eval_episodes=2, final_episodes=2, learning_rate=1e-6,
    )  # fmt: skip
    assert result.status == "completed"


# --------------------------------------------------------------------------- recurrent states

OBS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


@pytest.fixture(params=[("lstm", "shared"), ("gru", "separate")], ids=str)
def recurrent_agent(request: pytest.FixtureRequest) -> limelight.Agent:
    """Return an untrained agent whose actions depend on earlier observations."""
    core, critic = request.param
    settings = {"core": core, "critic": critic, "core_size": 12, "policy_init_gain": 20.0}
    config = with_settings(TrainConfig(), settings)
    spaces = gym.spaces.Box(-np.inf, np.inf, (4,)), gym.spaces.Discrete(9)
    return limelight.Agent(make_model(*spaces, config.model, 0), None, config, *spaces)


def predict_each(agent: limelight.Agent, rows: Any, state: Any = None) -> tuple[list[int], Any]:
    """Return the actions for single observations, one after the other, and the last state."""
    actions = []
    for row in rows:
        action, state = agent.predict(row, state)
        actions.append(int(action))
    return actions, state


def test_predict_carries_the_state_it_is_given(recurrent_agent: limelight.Agent) -> None:
    actions, state = predict_each(recurrent_agent, OBS)
    output = recurrent_agent.model(torch.from_numpy(OBS)[:, None])
    assert actions == output.params.argmax(-1)[:, 0].tolist()
    assert state.shape == (1, recurrent_agent.model.state_size)
    np.testing.assert_allclose(state, output.recurrent_state.detach(), rtol=0.0, atol=1e-6)
    one, other = recurrent_agent.predict(OBS[0])[1], recurrent_agent.predict(OBS[0])[1]
    np.testing.assert_array_equal(one, other)  # None is the initial state, every time
    kept = state.copy()
    recurrent_agent.predict(OBS[0], state)
    np.testing.assert_array_equal(state, kept)


def test_episode_start_resets_rows(recurrent_agent: limelight.Agent) -> None:
    _, state = recurrent_agent.predict(OBS[:3])
    _, both = recurrent_agent.predict(OBS[3:], state, episode_start=[False, True, False])
    _, anew = recurrent_agent.predict(OBS[3:])
    _, on = recurrent_agent.predict(OBS[3:], state)
    np.testing.assert_array_equal(both[1], anew[1])
    np.testing.assert_array_equal(both[[0, 2]], on[[0, 2]])
    assert not np.array_equal(both[0], anew[0])
    _, everything = recurrent_agent.predict(OBS, state, episode_start=np.ones(6, bool))  # of another batch, but reset
    np.testing.assert_array_equal(everything, recurrent_agent.predict(OBS)[1])


def test_after_reset_the_agent_keeps_its_own_state(recurrent_agent: limelight.Agent) -> None:
    expected, _ = predict_each(recurrent_agent, OBS)
    for _ in range(2):
        recurrent_agent.reset()
        seen = []
        for row in OBS:
            seen.append(int(recurrent_agent.predict(row)[0]))
            given = np.zeros((1, recurrent_agent.model.state_size))
            predict_each(recurrent_agent, OBS[:2], given)  # which does not change the agent's own state
        assert seen == expected
    assert len(set(expected)) > 1
    with pytest.raises(ValueError, match=r"must be \[6, \d+\]; reset\(\)"):
        recurrent_agent.predict(OBS)
    recurrent_agent.predict(OBS, episode_start=np.ones(6))  # from here on, the state is of six episodes
    _, state = recurrent_agent.predict(OBS)
    np.testing.assert_array_equal(
        state, recurrent_agent.predict(OBS, recurrent_agent.predict(OBS, np.zeros(state.shape))[1])[1]
    )


def test_greedy_and_sampled_actions_share_the_state_of_the_agent(recurrent_agent: limelight.Agent) -> None:
    expected = predict_each(recurrent_agent, OBS[:3])[1]
    recurrent_agent.reset()
    for row, deterministic in zip(OBS, (True, False, True), strict=False):
        _, state = recurrent_agent.predict(row, deterministic=deterministic)
    np.testing.assert_array_equal(state, expected)


def test_predict_refuses_states_that_do_not_fit(recurrent_agent: limelight.Agent) -> None:
    width = recurrent_agent.model.state_size
    with pytest.raises(ValueError, match=rf"state of shape \(2, {width}\): must be \[6, {width}\]"):
        recurrent_agent.predict(OBS, np.zeros((2, width), np.float32))
    with pytest.raises(ValueError, match=r"episode_start of shape \(2,\): must be \[6\]"):
        recurrent_agent.predict(OBS, None, np.ones(2))


def test_without_a_recurrent_core_the_state_comes_back_as_given(agent: limelight.Agent) -> None:
    agent.reset()
    marker: Any = object()
    assert agent.predict(OBS, state=marker)[1] is marker
    assert agent.predict(OBS)[1] is None


def test_a_recurrent_agent_is_saved_with_its_core(recurrent_agent: limelight.Agent, tmp_path: Path) -> None:
    recurrent_agent.save(tmp_path / "kept")
    assert predict_each(limelight.load(tmp_path / "kept"), OBS)[0] == predict_each(recurrent_agent, OBS)[0]


def test_stable_baselines3_can_evaluate_it(recurrent_agent: limelight.Agent) -> None:
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    envs = vec_env.DummyVecEnv([lambda: gym.make("CartPole-v1", max_episode_steps=30)] * 2)
    config = with_settings(TrainConfig(), {"core": "lstm", "core_size": 8})
    spaces = envs.observation_space, gym.spaces.Discrete(2)
    agent = limelight.Agent(make_model(*spaces, config.model, 0), None, config, *spaces)
    returns, lengths = evaluation.evaluate_policy(agent, envs, 6, return_episode_rewards=True, warn=False)
    assert len(returns) == 6
    assert max(lengths) <= 30


class CountingPolicy:
    """A policy whose state is the number of observations of the episode, checked against the observations."""

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


def test_evaluation_resets_the_state_at_the_start_of_every_episode() -> None:
    script = [
        [(10.0 * i + row, 1.0, row == end, False) for row in range(end + 1)] for i, end in enumerate((2, 4, 1, 3))
    ]
    envs = limelight.make_envs(lambda: Scripted(script), num_envs=3, backend="sync")
    policy = CountingPolicy()
    result = play(envs, policy, same, 9, seed=0)
    assert sorted(set(result.lengths)) == [1, 2, 3, 4]
    assert {2.0, 14.0, 21.0} <= set(policy.seen)  # final observations belong to their own episodes too


def test_evaluation_does_not_change_the_state_of_the_training_policy(tmp_path: Path) -> None:
    """Nor anything else of the run: it ends with the same parameters."""
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


# --------------------------------------------------------------------------- termination

SLOW = """
import time
import gymnasium as gym
import numpy as np

class Slow(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1.0, 1.0, (4,)), gym.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(4, np.float32), {}
    def step(self, action):
        time.sleep(0.01)
        open("stepped", "w").close()
        return np.zeros(4, np.float32), 0.0, False, False, {}
"""


@pytest.mark.skipif(num_cores() < 2 or sys.platform != "linux", reason="needs environments in processes of their own")
def test_terminating_an_evaluation_closes_its_environments_in_silence(tmp_path: Path) -> None:
    (tmp_path / "slow_env.py").write_text(SLOW)
    config = with_settings(TrainConfig(), {"env_id": "slow_env:Slow"})
    spaces = gym.spaces.Box(-1.0, 1.0, (4,)), gym.spaces.Discrete(2)
    limelight.Agent(make_model(*spaces, config.model, 0), None, config, *spaces).save(tmp_path / "agent")
    process = subprocess.Popen(
        [sys.executable, "-m", "limelight", "evaluate", "agent", "--episodes", "2"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    # Environments that are processes: two of them, and the resource tracker
    while len(workers.read_text().split()) < 3 or not (tmp_path / "stepped").exists():
        assert time.monotonic() < deadline, "the evaluation did not start"
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    (tmp_path / "stepped").unlink()
    while not (tmp_path / "stepped").exists():
        time.sleep(0.01)
    pids = workers.read_text().split()
    process.terminate()
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 128 + signal.SIGTERM
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process of an environment still runs"
        time.sleep(0.05)


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# --------------------------------------------------------------------------- arguments of the wrong kind


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("runs/a", "agent = 'runs/a': is a path; pass the agent that is saved there"),
        (Path("runs/a"), "agent = 'runs/a': is a path"),
        (None, "agent: is a NoneType; pass an agent"),
        (RunResult(Path("a"), "completed", {}, None), "agent: is a RunResult; pass its agent, result.agent"),
    ],
)
def test_evaluate_says_what_to_pass_instead(wrong: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        limelight.evaluate(wrong)
    assert str(error.value).startswith(expected)


def test_load_and_resume_say_what_to_pass_instead() -> None:
    result = RunResult(Path("a"), "completed", {}, None)
    for function in (limelight.load, limelight.resume):
        with pytest.raises(ConfigError, match=r"run_dir: is a RunResult; pass its folder, result\.run_dir"):
            function(result)  # type: ignore[operator]
        with pytest.raises(ConfigError, match="run_dir: is a int; pass the path of a run's folder"):
            function(3)  # type: ignore[operator]


def test_evaluate_refuses_an_environment_instance(agent: limelight.Agent) -> None:
    env = gym.make("CartPole-v1")
    with pytest.raises(
        ConfigError, match=r"env = TimeLimit: is one environment, .* or lambda: gym\.make\('CartPole-v1'\)"
    ):
        limelight.evaluate(agent, env)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ((np.zeros(4), {}), r"obs: is all that reset\(\) returned; pass its first part"),
        ((np.zeros(4), 1.0, False, False, {}), r"obs: is all that step\(\) returned"),
        ({"obs": np.zeros(4)}, r"obs: is a dict, but the agent was trained on Box\(4,\)"),
        (None, "obs: is None"),
        ([[1.0, 2.0], [3.0]], "observation: is no array"),
        (np.array([1.0, None, 3.0, 4.0], object), "observation is of NoneType"),
        ([0.0, np.nan, 0.0, 0.0], r"observation\[1\] = nan"),
    ],
)
def test_predict_says_what_to_pass_instead(agent: limelight.Agent, wrong: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        agent.predict(wrong)


def test_predict_names_arguments_that_are_no_numbers(recurrent_agent: limelight.Agent) -> None:
    obs = np.zeros(recurrent_agent.observation_space.shape or ())
    for arguments, expected in (
        ({"state": "x"}, "state = 'x'"),
        ({"episode_start": ["x"]}, r"episode_start = \['x'\]"),
    ):
        with pytest.raises(ConfigError, match=expected):
            recurrent_agent.predict(obs, **arguments)  # type: ignore[arg-type]


def test_a_single_discrete_action_is_a_key_and_an_index(agent: limelight.Agent) -> None:
    action, _ = agent.predict(np.zeros(4))
    assert {0: "left", 1: "right"}[action] in ("left", "right")
    assert ["left", "right"][action] in ("left", "right")
    batch, _ = agent.predict(np.zeros((3, 4)))
    assert batch.shape == (3,)


def test_an_agent_can_be_pickled(agent: limelight.Agent) -> None:
    obs = np.random.default_rng(0).normal(size=(16, 4))
    again = pickle.loads(pickle.dumps(agent))
    np.testing.assert_array_equal(again.predict(obs)[0], agent.predict(obs)[0])
