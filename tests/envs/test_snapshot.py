"""An environment restored into a new one must continue bit for bit, or be reported as not restorable."""

from __future__ import annotations

import math
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import DelayObservation, FrameStackObservation, TimeLimit, TransformReward
from numpy.typing import NDArray

from helpers.toys import Bandit, TwoState
from limelight.envs.base import EnvBackend
from limelight.envs.gymnasium_backend import SyncBackend, VectorBackend, make_async
from limelight.envs.make import make_envs
from limelight.envs.snapshot import get_env_state, set_env_state
from limelight.envs.toy import Ring
from limelight.errors import CheckpointError
from limelight.runs.checkpoint import read_state, write_state

STEPS = 120


def random_actions(envs: EnvBackend, seed: int) -> list[NDArray[Any]]:
    space, rng = envs.single_action_space, np.random.default_rng(seed)
    if isinstance(space, Discrete):
        return list(rng.integers(space.n, size=(STEPS, envs.num_envs)))
    assert isinstance(space, Box)
    return list(rng.uniform(-1, 1, (STEPS, envs.num_envs, *space.shape)).astype(np.float32))


def play(envs: EnvBackend, seed: int) -> list[bytes]:
    """Return everything that the steps returned, as bytes: equal means equal to the last bit."""
    seen = []
    for actions in random_actions(envs, seed):
        step = envs.step(actions)
        seen.append(b"".join(np.ascontiguousarray(part).tobytes() for part in step if part is not None))
    return seen


def pendulum(num_envs: int) -> EnvBackend:
    return SyncBackend([gym.make("Pendulum-v1", max_episode_steps=30) for _ in range(num_envs)])


def stacked() -> Any:
    env = gym.make("CartPole-v1", max_episode_steps=20)
    env = TransformReward(FrameStackObservation(env, 3), lambda reward: 2 * float(reward))
    return DelayObservation(env, 2)


MAKERS: dict[str, partial[EnvBackend]] = {
    "cartpole-vector": partial(make_envs, "CartPole-v1", 8, backend="vector", max_episode_steps=30),
    "cartpole-sync": partial(make_envs, "CartPole-v1", 3, backend="sync", max_episode_steps=30),
    "cartpole-same-step": partial(
        make_envs, "CartPole-v1", 3, backend="sync", autoreset_mode="same_step", max_episode_steps=30
    ),
    "cartpole-disabled": partial(
        make_envs, "CartPole-v1", 3, backend="sync", autoreset_mode="disabled", max_episode_steps=30
    ),
    "acrobot": partial(make_envs, "Acrobot-v1", 2, backend="sync", max_episode_steps=30),
    "mountain-car": partial(make_envs, "MountainCar-v0", 2, backend="sync", max_episode_steps=30),
    "pendulum": partial(pendulum, 2),
    "frozen-lake": partial(make_envs, "FrozenLake-v1", 2, backend="sync"),
    "cliff": partial(make_envs, "CliffWalking-v1", 2, backend="sync", max_episode_steps=30),
    "taxi": partial(make_envs, "Taxi-v4", 2, backend="sync", max_episode_steps=30),
    "two-state": partial(make_envs, TwoState, 2, backend="sync"),
    "stacked": partial(make_envs, stacked, 2, backend="sync"),
    "checked": partial(make_envs, partial(gym.make, "CartPole-v1", max_episode_steps=9), 1, backend="sync"),
}


@pytest.mark.parametrize("name", list(MAKERS))
@pytest.mark.parametrize("through_a_file", [False, True], ids=["memory", "file"])
def test_a_restored_environment_continues_bit_for_bit(name: str, through_a_file: bool, tmp_path: Path) -> None:
    envs = MAKERS[name]()
    envs.reset(5)
    play(envs, seed=1)
    state = envs.get_state()
    assert state is not None
    assert_plain(state)
    if through_a_file:
        write_state(tmp_path / "state", state)
        state = read_state(tmp_path / "state")
    expected = play(envs, seed=2)
    fresh = MAKERS[name]()
    fresh.set_state(state)
    assert play(fresh, seed=2) == expected
    fresh.reset(6)
    assert play(fresh, seed=2) != expected  # there was something to restore
    envs.close()
    fresh.close()


@pytest.mark.parametrize("name", ["cartpole-sync", "cartpole-vector"])
def test_every_step_around_an_episode_end_can_be_restored(name: str) -> None:
    envs = MAKERS[name]()
    envs.reset(0)
    actions = random_actions(envs, 3)[:70]
    states, seen = [], []
    for row in actions:
        states.append(envs.get_state())
        step = envs.step(row)
        seen.append([part.copy() for part in step if part is not None])
    assert not np.all([parts[4].all() for parts in seen])  # episodes ended
    for t in range(0, 60, 3):
        fresh = MAKERS[name]()
        state = states[t]
        assert state is not None
        fresh.set_state(state)
        for row, parts in zip(actions[t : t + 4], seen[t : t + 4], strict=True):
            for ours, theirs in zip(fresh.step(row), parts, strict=False):
                np.testing.assert_array_equal(ours, theirs)
        fresh.close()
    envs.close()


def test_a_state_does_not_change_with_the_environment() -> None:
    envs = MAKERS["cartpole-vector"]()
    envs.reset(0)
    state = envs.get_state()
    before = repr(state)
    play(envs, 0)
    assert repr(state) == before
    fresh = MAKERS["cartpole-vector"]()
    assert state is not None
    fresh.set_state(state)
    play(fresh, 0)
    assert repr(state) == before


def assert_plain(value: Any) -> None:
    if isinstance(value, dict):
        assert all(type(key) is str for key in value)
        for item in value.values():
            assert_plain(item)
    elif type(value) is list:
        for item in value:
            assert_plain(item)
    elif type(value) is np.ndarray:
        assert value.dtype.kind in "biuf"
    else:
        assert value is None or type(value) in (bool, int, float, str)


class World:
    """Stands in for a physics engine."""


class Holder(gym.Env[Any, Any]):
    """Holds the attributes that a test sets; steps do nothing."""

    def __init__(self, **attributes: Any) -> None:
        self.observation_space, self.action_space = Discrete(2), Discrete(2)
        self.__dict__.update(attributes)

    def draw(self) -> int:
        return int(self.np_random.integers(10))


VIEWED = np.zeros(4)


@pytest.mark.parametrize(
    "attributes",
    [
        {"world": World()},
        {"model": {"inside": [World()]}},
        {"engine": gym.make("CartPole-v1")},
        {"sample": np.random.default_rng(0).random},
        {"drawn": Bandit().step},
        {"counter": iter([1, 2])},
        {"closure": (lambda world: lambda: world)(World())},
        {"whole": VIEWED, "part": VIEWED[1:]},
        {"strided": np.zeros((4, 4))[::2, ::2]},
        {"objects": np.array([World()], object)},
        {"masked": np.ma.masked_array([1.0], [True])},
        {"date": np.datetime64("2020-01-01")},
        {"legacy": np.random.RandomState(0)},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_other_objects_than_plain_data_cannot_be_restored(attributes: dict[str, Any]) -> None:
    assert get_env_state(TimeLimit(Holder(**attributes), 5)) is None
    assert SyncBackend([Holder(), Holder(**attributes)]).get_state() is None


def test_plain_data_comes_back_with_its_types_and_its_shared_objects() -> None:
    shared, rng = [1, 2], np.random.default_rng(3)
    loop: list[Any] = []
    loop.append(loop)
    attributes: dict[str, Any] = {
        "numbers": (True, 1, 2**200, -0.0, math.inf, None, "text"),
        "scalars": [np.float32(0.1), np.int64(3), np.bool_(True), np.str_("a"), np.float64(0.1)],
        "arrays": {
            "image": np.arange(6, dtype=np.uint8).reshape(2, 3),
            "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            "text": np.array([[b"S", b"F"]]),
            "unicode": np.array(["é", "ab"]),
            "complex": np.array([1 + 2j]),
            "big-endian": np.array([1.5], ">f8"),
            "empty": np.zeros((0, 3)),
            "scalar": np.array(7),
        },
        "keys": {0: "a", (1, 2): {"b": [None]}},
        "frames": deque([np.ones(2), np.zeros(2)], maxlen=2),
        "first": shared,
        "second": {"same": shared},
        "rng": rng,
        "same_rng": np.random.Generator(rng.bit_generator),
        "loop": loop,
        "mersenne": np.random.Generator(np.random.MT19937(1)),
        "function": math.sin,
        "ufunc": np.sin,
        "kind": Ring,
        "scale": (lambda factor: lambda x: factor * x)(2.0),
    }
    env = Holder(**attributes)
    env.__dict__["method"] = env.draw
    state = get_env_state(env)
    assert state is not None
    assert_plain(state)
    fresh = Holder(left_over=1)
    set_env_state(fresh, state)
    back = vars(fresh)
    assert "left_over" not in back
    for name in ("numbers", "scalars", "keys", "first", "second"):
        assert repr(back[name]) == repr(attributes[name])
    for name, array in attributes["arrays"].items():
        copy = back["arrays"][name]
        assert copy.dtype == array.dtype
        assert copy.flags.f_contiguous == array.flags.f_contiguous
        np.testing.assert_array_equal(copy, array)
    assert back["frames"].maxlen == 2
    np.testing.assert_array_equal(back["frames"], attributes["frames"])
    assert back["first"] is back["second"]["same"]
    assert back["first"] is not shared
    assert back["rng"] is back["same_rng"]
    assert back["loop"][0] is back["loop"]
    assert back["rng"].random(3).tolist() == rng.random(3).tolist()
    assert back["mersenne"].random() == attributes["mersenne"].random()


def test_environments_that_share_a_generator_still_share_it() -> None:
    def pair(rng: np.random.Generator) -> list[Holder]:
        return [Holder(rng=rng), Holder(rng=rng)]

    rng = np.random.default_rng(0)
    state = SyncBackend(pair(rng)).get_state()
    assert state is not None
    fresh: Any = pair(np.random.default_rng(1))
    SyncBackend(fresh).set_state(state)
    assert fresh[0].rng is fresh[1].rng
    assert fresh[0].rng.random() == rng.random()


def test_spaces_an_environment_samples_from_are_restored() -> None:
    env = Holder()
    env.observation_space.seed(3)
    env.observation_space.sample()
    state = get_env_state(env)
    assert state is not None
    fresh = Holder()
    set_env_state(fresh, state)
    assert [fresh.observation_space.sample() for _ in range(9)] == [env.observation_space.sample() for _ in range(9)]


def test_vector_envs_without_plain_data_cannot_be_restored() -> None:
    assert VectorBackend(gym.make_vec("CartPole-v1", 2, "sync")).get_state() is None
    envs = make_async(Ring, 1)
    assert envs.get_state() is None
    envs.close()


def test_a_state_of_other_environments_is_refused() -> None:
    state = SyncBackend([Ring(), Ring()]).get_state()
    assert state is not None
    with pytest.raises(CheckpointError, match=r"checkpoint holds 2 × Ring, but the run has 1 × Ring"):
        SyncBackend([Ring()]).set_state(state)
    with pytest.raises(CheckpointError, match=r"holds 2 × Ring, but the run has 2 × TimeLimit<Ring; resume with"):
        SyncBackend([TimeLimit(Ring(), 3), TimeLimit(Ring(), 3)]).set_state(state)


def test_only_numpys_own_bit_generators_are_restored() -> None:
    env = Holder(rng=np.random.default_rng(0))
    state: Any = get_env_state(env)
    state["layers"][0]["attributes"][0][1][1]["bit_generator"] = "seed"
    with pytest.raises(CheckpointError, match="bit_generator = 'seed': must be one of NumPy's own"):
        set_env_state(Holder(), state)
