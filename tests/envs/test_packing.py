"""Composite spaces of environments: every backend, faults, actions, and a user's observations in predict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Text
from gymnasium.utils.env_checker import check_env

import limelight
from helpers.composite_envs import ROOM, Gripper, Room
from helpers.manual_workers import draw_no_report
from limelight.envs.make import make_envs
from limelight.envs.minigrid import VOCABULARY
from limelight.envs.packing import PackActions, PackObservations, pack_env, to_batch
from limelight.envs.source import resolve_env
from limelight.envs.toy import Ring
from limelight.errors import ConfigError, EnvError
from limelight.nn.model import make_model
from limelight.settings.schema import EnvConfig, ModelConfig
from limelight.spaces.packed import Packed


def test_a_plain_environment_gets_no_wrapper() -> None:
    for source in (resolve_env(EnvConfig("limelight.envs.toy:Ring")), resolve_env(EnvConfig(), Ring)):
        env = source.make()
        assert type(env) is Ring
        assert not source.is_packed()
    cart_pole = resolve_env(EnvConfig("CartPole-v1")).make()
    assert not isinstance(cart_pole, PackObservations | PackActions)


@pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])
def test_composite_observations_in_the_stream(mode: Any) -> None:
    packed = Packed(ROOM)
    envs = make_envs(Room, 1, backend="sync", autoreset_mode=mode)
    assert envs.single_observation_space == packed
    ROOM.seed(5)
    expected = [packed.pack(ROOM.sample()) for _ in range(8)]
    np.testing.assert_array_equal(envs.reset(5)[0], expected[0])
    for t in range(1, 8):
        step = envs.step(np.ones(1, np.int64))
        if mode != "next_step" and t == 5:
            assert step.final_obs is not None
            np.testing.assert_array_equal(step.final_obs[0], expected[5])
            np.testing.assert_array_equal(step.obs[0], expected[6])
            return
        np.testing.assert_array_equal(step.obs[0], expected[t])
        assert step.truncated[0] == (t == 5)


def test_composite_observations_in_processes_of_their_own() -> None:
    envs = make_envs("helpers.composite_envs:Room", 2, backend="async")
    try:
        assert envs.single_observation_space == Packed(ROOM)
        assert envs.reset(0).shape == (2, *Packed(ROOM).shape)
        assert envs.step(np.ones(2, np.int64)).rewards.tolist() == [1.0, 1.0]
    finally:
        envs.close()


@pytest.mark.parametrize("space", [ROOM["inside"], ROOM])
def test_environments_with_composite_spaces_have_no_vectorised_class(space: Any) -> None:
    with pytest.raises(ConfigError, match="backend = vector: Blackjack-v1 has no vectorised class"):
        make_envs("Blackjack-v1", 9, backend="vector")
    assert make_envs("Blackjack-v1", 9).name == "sync"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("missing", "observation: no ['speed']: the value has 'camera'"),
        ("shape", "observation['speed'] has shape (3,): must be Box(2,) float64"),
        ("value", "observation['inside'][0] = 7: must be Discrete(3, start=-1), whole numbers -1 … 1"),
    ],
)
def test_observations_that_do_not_fit_name_environment_step_and_part(fault: str, words: str) -> None:
    envs = make_envs("helpers.composite_envs:Room", 1, backend="sync", env_kwargs={"fault": fault})
    envs.reset(0)
    for _ in range(2):
        envs.step(np.zeros(1, np.int64))
    with pytest.raises(EnvError) as error:
        envs.step(np.zeros(1, np.int64))
    assert str(error.value).startswith(f"helpers.composite_envs:Room: step 3 of an episode, environment 0: {words}")


def test_composite_actions_arrive_nested() -> None:
    gripper = Gripper()
    env = pack_env(gripper, "Gripper")
    assert isinstance(env, PackActions)
    env.reset(seed=0)
    vector = env.action_space.pack({"dials": [2, 1], "grip": 1})  # type: ignore[attr-defined]
    env.step(vector.astype(np.float32))
    taken = gripper.taken[0]
    assert taken in gripper.action_space
    assert taken["grip"] == 1
    assert taken["dials"].tolist() == [2, 1]


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (Dict({"a": Dict({"b": Text(3)})}), "observation space Text at ['a']['b'] is not supported"),
        (Text(3), "observation space Text is not supported"),
        (Dict({}), "observation space Dict() is empty"),
        (Dict({"a": Box(0, 1, (0,))}), "observation space Box(0,) float32 at ['a'] is not supported"),
    ],
)
def test_spaces_that_cannot_be_packed_are_named_with_their_place(space: Any, words: str) -> None:
    class Odd(Ring):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = space

    with pytest.raises(EnvError) as error:
        make_envs(Odd, 1)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::UserWarning")  # the checker's advice on spaces and wrappers
@pytest.mark.parametrize(
    "env_id",
    [
        "Blackjack-v1",
        "Taxi-v4",
        "MiniGrid-Empty-5x5-v0",
        "helpers.composite_envs:Room",
        "helpers.composite_envs:Gripper",
    ],
)
def test_gymnasiums_checker_accepts_packed_environments(env_id: str) -> None:
    """It makes a second one from the spec, with all wrappers."""
    if env_id.startswith("MiniGrid"):
        pytest.importorskip("minigrid")
    env = resolve_env(EnvConfig(env_id)).make()
    assert isinstance(env, PackObservations | PackActions)
    check_env(env)
    if env.spec is not None:
        again = env.spec.make()
        assert type(again) is type(env)
        assert again.observation_space == env.observation_space
        again.close()
    env.close()


def test_exact_resume_of_a_packed_environment() -> None:
    envs = make_envs("Blackjack-v1", 2, seed=3, backend="sync")
    state = envs.get_state()
    assert state is not None
    actions = np.zeros(2, np.int64)
    expected = [envs.step(actions).obs.copy() for _ in range(5)]
    again = make_envs("Blackjack-v1", 2, backend="sync")
    again.set_state(state)
    for obs in expected:
        np.testing.assert_array_equal(again.step(actions).obs, obs)


def test_a_step_that_does_not_fit_is_explained() -> None:
    class Grows(Ring):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = Box(0, 9, (2,))  # type: ignore[assignment]

        def reset(self, **kwargs: Any) -> Any:
            super().reset(**kwargs)
            return np.zeros(2, np.float32), {}

        def step(self, action: Any) -> Any:
            if action == 2:
                raise ValueError("the simulator's own")
            result = super().step(action)
            return (np.zeros(3), *result[1:]) if action == 0 else result[:3]

    for mode in ("next_step", "same_step"):
        envs = make_envs(Grows, 2, backend="sync", max_episode_steps=9, autoreset_mode=mode)
        envs.reset(0)
        with pytest.raises(EnvError) as error:
            envs.step(np.zeros(2, np.int64))
        text = str(error.value)
        assert "step 1 of an episode, environment 0: observation has shape (3,): must be Box(2,) float32" in text
        with pytest.raises(EnvError, match="raised ValueError: the simulator's own"):
            envs.step(np.full(2, 2))
    bare = make_envs(Grows, 1, backend="sync")
    bare.reset(0)
    with pytest.raises(EnvError, match=r"step 1 of an episode returned values in environment 0 .*unpack"):
        bare.step(np.ones(1, np.int64))


# --------------------------------------------------------------------------- a user's observations


def test_observations_may_be_single_batched_or_packed() -> None:
    packed = Packed(ROOM)
    value = ROOM.sample()
    vector = packed.pack(value)
    for obs in (value, vector):
        batch, single = to_batch(packed, obs)
        assert single
        np.testing.assert_array_equal(batch, vector[None])
    rows = np.stack([packed.sample() for _ in range(4)])
    for obs in (packed.unpack(rows), rows):
        batch, single = to_batch(packed, obs)
        assert not single
        np.testing.assert_array_equal(batch, rows)
    with pytest.raises(ValueError, match="must be"):
        to_batch(packed, rows[:, 1:])
    with pytest.raises(ValueError, match=r"no \['camera'\]"):
        to_batch(packed, {"lamp": 1})
    with pytest.raises(ValueError, match="action_masks: this agent takes none"):
        to_batch(packed, value, action_masks=[1, 0])


def test_a_users_masks_replace_those_of_observations() -> None:
    packed = Packed(Dict([("observation", Discrete(7)), ("action_mask", MultiBinary(3))]), "info")
    batch, single = to_batch(packed, 4)
    assert single
    assert batch.tolist() == [[4, 1, 1, 1]]
    assert to_batch(packed, np.int64(4), [0, 1, 0])[0].tolist() == [[4, 0, 1, 0]]
    batch, single = to_batch(packed, np.array([4, 5]), np.array([[0, 1, 0], [1, 0, 0]]))
    assert not single
    assert batch.tolist() == [[4, 0, 1, 0], [5, 1, 0, 0]]
    assert to_batch(packed, np.array([4, 5]), [False, True, True])[0].tolist() == [[4, 0, 1, 1], [5, 0, 1, 1]]
    assert to_batch(packed, np.arange(4))[0].shape == (4, 4)  # as many rows as a packed observation has numbers
    with pytest.raises(ValueError, match=r"action_masks of shape \(1, 2\): must be \[3\] or \[1, 3\]"):
        to_batch(packed, 4, [1, 0])
    own = Packed(Dict({"action_mask": MultiBinary(3), "x": Discrete(2)}), "observation")
    obs = {"x": 1, "action_mask": np.array([1, 1, 0])}
    assert to_batch(own, obs)[0].tolist() == [[1, 1, 0, 1]]
    assert to_batch(own, obs, [0, 1, 1])[0].tolist() == [[0, 1, 1, 1]]


def test_missions_may_be_words() -> None:
    packed = Packed(Dict({"mission": MultiBinary(len(VOCABULARY) + 1), "x": Discrete(2)}))
    alone = to_batch(packed, {"mission": "open the door", "x": 0})[0]
    assert alone.sum() == 3
    both = to_batch(packed, {"mission": ["open the door", "sing"], "x": [0, 1]})[0]
    np.testing.assert_array_equal(both[0], alone[0])
    assert both[1, -2:].tolist() == [1, 1]  # another word; x
    assert both[1].sum() == 2


# --------------------------------------------------------------------------- whole runs


@pytest.fixture
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)


def quick(env: str, tmp_path: Any, **settings: Any) -> limelight.Agent:
    result = limelight.train(
        env, run_dir=str(tmp_path / "run"), total_timesteps=300, seed=2, quiet=True, tensorboard=False, preset="plain",
        eval_every=0, final_episodes=2, num_envs=2, num_steps=5, hidden_sizes=(16,), **settings,
    )  # fmt: skip
    return limelight.load(result.run_dir)


@pytest.mark.usefixtures("_no_report")
@pytest.mark.parametrize("settings", [{}, {"normalize_obs": True}, {"core": "gru"}, {"critic": "target"}])
def test_a_run_with_nested_observations(tmp_path: Any, settings: dict[str, Any]) -> None:
    agent = quick("helpers.composite_envs:Room", tmp_path, **settings)
    assert agent.observation_space == Packed(ROOM)
    value = ROOM.sample()
    action, _ = agent.predict(value)
    assert action.shape == ()
    rows = np.stack([Packed(ROOM).pack(value)] * 3)
    actions, _ = agent.predict(Packed(ROOM).unpack(rows))
    assert actions.tolist() == [action] * 3
    assert limelight.evaluate(agent, episodes=2).mean_length == 5
    agent.save(tmp_path / "saved")
    again = limelight.load(tmp_path / "saved")
    assert again.observation_space == agent.observation_space
    np.testing.assert_array_equal(again.predict(value)[0], action)


@pytest.mark.slow
@pytest.mark.usefixtures("_no_report")
def test_asynchronous_workers_share_the_statistics_of_some_entries(tmp_path: Any) -> None:
    agent = quick("helpers.composite_envs:Room", tmp_path, algo="a3c", num_workers=2, normalize_obs=True)
    assert agent.normalizer is not None
    assert agent.normalizer.statistics.moments.mean.shape == (3,)  # speed and height
    assert agent.normalizer.statistics.moments.size >= 300


def test_nested_actions_come_out_of_predict() -> None:
    envs = make_envs(Gripper, 1, backend="sync")
    space, actions = envs.single_observation_space, envs.single_action_space
    assert isinstance(actions, Packed)
    config = limelight.TrainConfig(model=ModelConfig(hidden_sizes=(8,)))
    agent = limelight.Agent(make_model(space, actions, config.model, 0), None, config, space, actions)
    for deterministic in (True, False):
        action, _ = agent.predict(np.zeros(2, np.float32), deterministic=deterministic)
        assert action in Gripper().action_space
        batch, _ = agent.predict(np.zeros((3, 2), np.float32), deterministic=deterministic)
        assert batch["grip"].shape == (3,)
        assert batch["dials"].shape == (3, 2)
    assert limelight.Agent.from_state(agent.get_state()).action_space == actions


@pytest.mark.parametrize(
    ("space", "obs", "words"),
    [
        (Discrete(16), -1, "observation = -1: must be Discrete(16)"),
        (Discrete(16), 3.7, "observation = 3.7: must be Discrete(16)"),
        (Discrete(16), float("nan"), "observation = nan: must be Discrete(16)"),
        (Discrete(16), [3, 16], "observation = 16: must be Discrete(16)"),
        (Box(-1, 1, (2,)), [0.0, float("nan")], "observation[1] = nan: must be a finite number"),
        (Box(-1, 1, (2,)), [0.0, float("inf")], "observation[1] = inf: must be a finite number"),
        (Box(0, 255, (2,), np.uint8), [0, 256], "observation[1] = 256: must be Box(2,) uint8"),
        (Box(0, 255, (2,), np.uint8), [0.5, 1], "observation[0] = 0.5: must be Box(2,) uint8"),
        (
            Packed(Dict(a=Box(-1, 1, ()), stock=Discrete(3))),
            {"a": 0.0, "stock": 3},
            "['stock'] = 3: must be Discrete(3)",
        ),
        (Packed(Dict(a=Box(-1, 1, (2,)))), {"a": [0.0, np.nan]}, "observation['a'][1] = nan: must be a finite number"),
        (Packed(Dict(a=Box(-1, 1, ()), stock=Discrete(3))), np.float32([0, 5]), "['stock'] = 5.0: must be Discrete(3)"),
    ],
)
def test_observations_that_are_not_in_the_space_are_refused_in_predict(space: Any, obs: Any, words: str) -> None:
    with pytest.raises(ValueError, match=r"^") as error:
        to_batch(space, obs)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
