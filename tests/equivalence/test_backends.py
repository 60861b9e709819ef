"""The same scripted episodes must be the same transitions through every backend and autoreset mode."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from helpers.toys import Scripted, ScriptRow
from limelight.algo.collector import RolloutCollector
from limelight.algo.episodes import Episode
from limelight.envs.base import EnvBackend, Step
from limelight.envs.gymnasium_backend import MODES, SyncBackend, VectorBackend, make_async
from limelight.envs.make import make_envs
from limelight.envs.toy import Ring
from limelight.errors import ConfigError, EnvError

# Terminations, truncations, both at once, and lengths 1 to 4; the first row is the reset.
EPISODES: list[list[ScriptRow]] = [
    [(10, 0, False, False), (11, 1.5, False, False), (12, -2, False, False), (13, 4, True, False)],
    [(20, 0, False, False), (21, 8, True, False)],
    [(30, 0, False, False), (31, 0.25, False, False), (32, 16, False, True)],
    [(40, 0, False, False), (41, 32, False, True)],
    [
        (50, 0, False, False), (51, 1, False, False), (52, 1, False, False), (53, 1, False, False),
        (54, 64, True, True),
    ],
]  # fmt: skip
ACTION_REWARD = 0.125
NUM_ENVS, NUM_STEPS = 3, 24
SCRIPTED = partial(Scripted, EPISODES, ACTION_REWARD)


class Transition(NamedTuple):
    obs: float
    action: int
    reward: float
    next_obs: float
    terminated: bool
    truncated: bool


class ScriptedVector(VectorEnv[Any, Any, Any]):
    """The scripts as an environment's own vectorised class, in any autoreset mode; one buffer for all obs.

    With ``messy``, the step that only resets returns a reward and flags, against Gymnasium's rules.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012  (the shape Gymnasium asks for)

    def __init__(self, num_envs: int = 1, mode: AutoresetMode = AutoresetMode.NEXT_STEP, messy: bool = False) -> None:
        self.num_envs, self.mode, self.messy = num_envs, mode, messy
        self.metadata = {"autoreset_mode": mode}
        self.single_observation_space = Box(-np.inf, np.inf, (1,))
        self.single_action_space = Discrete(4)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.envs = [SCRIPTED() for _ in range(num_envs)]
        self.buffer = np.zeros((num_envs, 1), np.float32)
        self.done = np.zeros(num_envs, np.bool_)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        for i in np.flatnonzero(mask):
            self.buffer[i], _ = self.envs[i].reset(seed=None if seed is None else seed + int(i))
        self.done[mask] = False
        return self.buffer, {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        rewards = np.zeros(self.num_envs, np.float64)
        terminated, truncated = np.zeros((2, self.num_envs), np.bool_)
        final: dict[str, Any] = {"final_obs": np.full(self.num_envs, None, object)}
        for i, env in enumerate(self.envs):
            if self.done[i]:
                assert self.mode is AutoresetMode.NEXT_STEP
                self.buffer[i], _ = env.reset()
                rewards[i], terminated[i], truncated[i] = (99.0, False, True) if self.messy else (0, False, False)
                self.done[i] = False
                continue
            self.buffer[i], rewards[i], terminated[i], truncated[i], _ = env.step(actions[i])
            self.done[i] = terminated[i] or truncated[i]
            if self.done[i] and self.mode is AutoresetMode.SAME_STEP:
                final["final_obs"][i] = self.buffer[i].copy()
                self.buffer[i], _ = env.reset()
                self.done[i] = False
        return self.buffer, rewards, terminated, truncated, final if final["final_obs"].any() else {}


def expected_stream(first_episode: int) -> list[Transition]:
    """Return the stream of the scripts with action 0, straight from the lists, longer than any test plays."""
    numbers = range(first_episode, first_episode + NUM_STEPS)
    return [
        Transition(before[0], 0, after[1], after[0], after[2], after[3])
        for number in numbers
        for before, after in pairwise(EPISODES[number % len(EPISODES)])
    ]


def action_table() -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(4, size=(NUM_STEPS, NUM_ENVS))


def played_streams(envs: EnvBackend, seed: int, actions: NDArray[np.int64]) -> list[list[Transition]]:
    """Return the transitions of each environment, read off the steps by the rules of base.py."""
    streams: list[list[Transition]] = [[] for _ in range(envs.num_envs)]
    obs = np.array(envs.reset(seed))
    for row in actions:
        step = envs.step(row)
        check_contract(step, envs.num_envs)
        for b in np.flatnonzero(step.valid):
            done = step.terminated[b] or step.truncated[b]
            after = step.final_obs if done and step.final_obs is not None else step.obs
            streams[b].append(
                Transition(
                    float(obs[b, 0]), int(row[b]), float(step.rewards[b]), float(after[b, 0]),
                    bool(step.terminated[b]), bool(step.truncated[b]),
                )
            )  # fmt: skip
        obs = np.array(step.obs)
    return streams


def check_contract(step: Step, num_envs: int) -> None:
    assert step.rewards.dtype == np.float64
    assert step.terminated.dtype == step.truncated.dtype == step.valid.dtype == np.bool_
    for array in (step.rewards, step.terminated, step.truncated, step.valid):
        assert array.shape == (num_envs,)
    assert not step.rewards[~step.valid].any()
    assert not (step.terminated | step.truncated)[~step.valid].any()


def with_actions(stream: list[Transition], seen: list[Transition]) -> list[Transition]:
    """Return the first transitions of the script, with the actions sent and the rewards they add."""
    return [
        t._replace(action=s.action, reward=t.reward + ACTION_REWARD * s.action)
        for t, s in zip(stream, seen, strict=False)
    ]


def sync_vector(mode: str) -> EnvBackend:
    return VectorBackend(SyncVectorEnv([SCRIPTED] * NUM_ENVS, copy=False, autoreset_mode=MODES[mode]))  # type: ignore[index]


# label → what makes the backend; the label's first word is the name the backend must give itself
BACKENDS: dict[str, Callable[[], EnvBackend]] = {
    **{f"sync-{mode}": partial(make_envs, SCRIPTED, NUM_ENVS, backend="sync", autoreset_mode=mode) for mode in MODES},
    **{f"sync-gymnasium-{mode}": partial(sync_vector, mode) for mode in MODES},
    **{f"async-{mode}": partial(make_async, SCRIPTED, NUM_ENVS, mode) for mode in MODES},
    **{
        f"vector-{name}": lambda mode=mode: VectorBackend(ScriptedVector(NUM_ENVS, mode))
        for name, mode in MODES.items()
    },
    "vector-messy": lambda: VectorBackend(ScriptedVector(NUM_ENVS, messy=True)),
}


@pytest.fixture(params=list(BACKENDS))
def envs(request: pytest.FixtureRequest) -> Iterator[EnvBackend]:
    backend = BACKENDS[request.param]()
    assert backend.name == request.param.split("-")[0]
    yield backend
    backend.close()
    backend.close()  # a second time is no error


def test_every_backend_and_mode_yields_the_scripted_stream(envs: EnvBackend) -> None:
    actions = action_table()
    for seed in (0, 3):  # the second reset happens in the middle of episodes, while some rows are due for a reset
        seen = played_streams(envs, seed, actions)
        assert min(map(len, seen)) > NUM_STEPS // 2
        for b, stream in enumerate(seen):
            assert stream == with_actions(expected_stream(seed + b), stream)
    check_collector(envs)


class FirstAction:
    """A policy that always takes the first action."""

    def begin_rollout(self) -> None:
        pass

    def act(self, obs: NDArray[Any], episode_start: object) -> NDArray[np.int64]:
        return np.zeros(len(obs), np.int64)

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        return actions


def check_collector(envs: EnvBackend) -> None:
    """Episode statistics and final observations of the collector, over two rollouts, equal the script's."""
    collector = RolloutCollector(envs, NUM_STEPS // 2, None, "Scripted")
    collector.reset(1)
    taken = np.zeros(NUM_ENVS, int)
    final: list[tuple[int, float]] = []
    for _ in range(2):
        rollout = collector.collect(FirstAction())
        assert rollout.num_valid == rollout.valid.sum()
        taken += rollout.valid.sum(0).astype(int)
        if rollout.final_obs is None:
            for t, b in np.argwhere(rollout.truncated):
                final.append((int(b), float(rollout.obs[t + 1, b, 0])))
        else:
            for t, b, obs in zip(*rollout.final_obs[:3], strict=True):
                assert rollout.truncated[t, b]
                final.append((int(b), float(obs[0])))
    episodes: list[Episode] = []
    cut: list[tuple[int, float]] = []
    for b in range(NUM_ENVS):
        total, length = 0.0, 0
        for step in expected_stream(1 + b)[: taken[b]]:
            total, length = total + step.reward, length + 1
            if step.truncated:
                cut.append((b, step.next_obs))
            if step.terminated or step.truncated:
                episodes.append(Episode(b, total, length, step.terminated))
                total, length = 0.0, 0
    assert sorted(collector.pop_episodes()) == sorted(episodes)
    assert len({episode.length for episode in episodes}) >= 3
    assert sorted(final) == sorted(cut)
    assert cut


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Taxi-v4"])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_sync_is_gymnasiums_sync_vector_env(env_id: str, num_envs: int) -> None:
    make = partial(gym.make, env_id, max_episode_steps=13)
    reference = SyncVectorEnv([make] * num_envs)
    envs = make_envs(env_id, num_envs, backend="sync", max_episode_steps=13, action_masks="off")
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(envs.reset(7), reference.reset(seed=7)[0])
    done = np.zeros(num_envs, np.bool_)
    for _ in range(60):
        actions = rng.integers(envs.single_action_space.n, size=num_envs)  # type: ignore[attr-defined]
        step, (obs, rewards, terminated, truncated, _) = envs.step(actions), reference.step(actions)
        np.testing.assert_array_equal(step.obs, obs)
        assert step.obs.dtype == obs.dtype
        np.testing.assert_array_equal(step.rewards, rewards)
        np.testing.assert_array_equal(step.terminated, terminated)
        np.testing.assert_array_equal(step.truncated, truncated)
        np.testing.assert_array_equal(step.valid, ~done)
        done = terminated | truncated
    reference.close()
    envs.close()


def test_built_in_vectorised_env_flags_its_time_limit_as_truncation() -> None:
    envs = make_envs("CartPole-v1", 8, seed=0, backend="vector", max_episode_steps=5)
    assert isinstance(envs, VectorBackend)
    for t in range(1, 13):
        step = envs.step(np.zeros(8, np.int64) + t % 2)
        assert step.truncated.all() == (t in (5, 11))
        assert not step.terminated.any()
        np.testing.assert_array_equal(step.valid, t not in (6, 12))
        np.testing.assert_array_equal(step.rewards, float(t not in (6, 12)))
    envs.close()


def test_a_reset_cancels_the_resets_that_were_due() -> None:
    for envs in (make_envs(SCRIPTED, 1, backend="sync"), VectorBackend(ScriptedVector(1))):
        envs.reset(3)
        assert envs.step(np.zeros(1, np.int64)).truncated.all()
        envs.reset(0)
        step = envs.step(np.zeros(1, np.int64))
        assert step.valid.all()
        assert step.obs[0, 0] == 11


def test_shared_masks_cannot_be_written_to() -> None:
    step = make_envs(Ring, 2, seed=0, backend="sync").step(np.zeros(2, np.int64))
    for mask in (step.valid, step.terminated, step.truncated):
        with pytest.raises(ValueError, match="read-only"):
            mask[0] = True


@pytest.mark.skipif(os.name == "nt", reason="signals are sent the POSIX way")
def test_async_workers_leave_ctrl_c_to_the_parent_and_closing_works_without_one_of_them() -> None:
    envs = make_async(Ring, 2)
    processes = envs.envs.unwrapped.processes  # type: ignore[attr-defined]
    envs.reset(0)
    for process in processes:
        os.kill(process.pid, signal.SIGINT)
    assert envs.step(np.zeros(2, np.int64)).rewards.tolist() == [1.0, 1.0]
    processes[0].kill()
    processes[0].join()
    envs.close()
    assert not any(process.is_alive() for process in processes)


def test_async_refuses_a_factory_that_cannot_be_sent() -> None:
    def factory() -> Ring:
        return Ring(size=2 + lock.locked())

    lock = threading.Lock()
    with pytest.raises(ConfigError, match=r"backend = async: .*; use backend sync"):
        make_async(factory, 2)


def test_environments_must_be_distinct_and_have_the_same_spaces() -> None:
    with pytest.raises(EnvError, match=r"differ in observation_space, Discrete\(3\) and Discrete\(4\)"):
        SyncBackend([Ring(3), Ring(4)])
    one = Ring()
    with pytest.raises(EnvError, match="env_id = x: the callable returned one environment twice"):
        SyncBackend([one, one], env_id="x")


class WrongShape(Ring):
    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**kwargs)
        return np.zeros(2, np.int64), {}


def test_an_observation_that_does_not_fit_its_space_is_named() -> None:
    with pytest.raises(EnvError, match=r"observation has shape \(2,\): must be Discrete\(3\)"):
        make_envs(WrongShape, 1, seed=0, backend="sync")


def test_a_vector_env_must_state_its_autoreset_mode() -> None:
    envs = ScriptedVector(1)
    envs.metadata = {}
    with pytest.raises(EnvError, match="env_id = x: its vectorised class states no autoreset_mode"):
        VectorBackend(envs, "x")


class WrongVector(ScriptedVector):
    """Returns a part of its steps in another form."""

    def __init__(self, **wrong: Any) -> None:
        super().__init__(2, AutoresetMode.SAME_STEP)
        self.wrong = wrong

    def step(self, actions: Any) -> Any:
        names = ("obs", "rewards", "terminated", "truncated", "infos")
        return tuple({**dict(zip(names, super().step(actions), strict=True)), **self.wrong}.values())


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"rewards": 1.0}, r"rewards of shape \(\) and dtype float64: must be an array \[2\] of real numbers"),
        ({"rewards": np.array([1j, 2])}, "rewards of shape .* and dtype complex128"),
        ({"rewards": np.ones((2, 1))}, r"rewards of shape \(2, 1\)"),
        ({"terminated": np.array(["no", "no"])}, r"terminated of shape .* must be an array \[2\] of truth values"),
        ({"truncated": np.array([0.5, 0.0])}, "truncated of shape .* and dtype float64"),
        ({"extra": 1}, "step\\(\\) of its vectorised class returned 6 values"),
        ({"obs": np.zeros((2, 3), np.float32)}, r"observation has shape \(3,\)"),
        ({"truncated": np.ones(2, np.bool_), "infos": {}}, "have no final_obs for environment 0"),
        (
            {"truncated": np.ones(2, np.bool_), "infos": {"final_obs": [np.zeros(3), np.zeros(3)]}},
            r"final_obs, environment 0: observation has shape \(3,\)",
        ),
    ],
)  # fmt: skip
def test_what_a_vectorised_class_returns_is_refused_and_not_cast(wrong: dict[str, Any], expected: str) -> None:
    envs = VectorBackend(WrongVector(**wrong), "x")
    envs.reset(0)
    with pytest.raises(EnvError, match=expected):
        envs.step(np.zeros(2, np.int64))
