"""The collector: the rows of a rollout, episode statistics, normalisation, and values that are not finite."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray

from helpers.toys import Scripted
from limelight.algo.collector import Policy, RolloutCollector
from limelight.algo.episodes import Episode
from limelight.algo.normalization import ObservationNormalizer
from limelight.algo.rollout import Rollout
from limelight.envs.base import EnvBackend
from limelight.envs.gymnasium_backend import MODES, SyncBackend, VectorBackend
from limelight.envs.packing import pack_env
from limelight.envs.toy import Ring
from limelight.errors import NonFiniteError
from limelight.nn.model import make_model
from limelight.nn.network import make_network
from limelight.nn.policy import ModelPolicy
from limelight.settings.schema import ModelConfig

Script = Sequence[Sequence[tuple[float, float, bool, bool]]]

# (obs, reward, terminated, truncated): one episode is terminated, one truncated, one both.
EPISODES: Script = [
    [(0, 0, False, False), (1, 1, False, False), (2, 2, True, False)],
    [(10, 0, False, False), (11, 3, False, False), (12, 4, False, False), (13, 5, False, True)],
    [(20, 0, False, False), (21, 6, True, True)],
]
RETURNS = [3.0, 12.0, 6.0]
LENGTHS = [2, 3, 1]

every_mode = pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])


class Counting:
    """Takes actions 0, 1, 2, 3, 0, … in every environment, and records the observations."""

    recurrent_state: NDArray[np.float32] | None = None

    def __init__(self) -> None:
        self.seen: list[NDArray[Any]] = []

    def begin_rollout(self) -> None:
        pass

    def act(self, obs: NDArray[Any], episode_start: NDArray[np.float32]) -> NDArray[Any]:
        self.seen.append(obs.copy())
        return np.full(len(obs), (len(self.seen) - 1) % 4)

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        return actions


class Summing:
    """Always takes action 0; its recurrent state is the sum of the episode's observations."""

    recurrent_state: NDArray[np.float32] | None = None

    def begin_rollout(self) -> None:
        pass

    def act(self, obs: NDArray[Any], episode_start: NDArray[np.float32]) -> NDArray[Any]:
        assert episode_start.dtype == np.float32
        before = np.zeros((len(obs), 1), np.float32) if self.recurrent_state is None else self.recurrent_state
        self.recurrent_state = (1 - episode_start[:, None]) * before + obs
        return np.zeros(len(obs), np.int64)

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        return actions


def backend(makers: Sequence[Callable[[], gym.Env[Any, Any]]], mode: str, kind: str = "ours") -> EnvBackend:
    if kind == "gymnasium":
        return VectorBackend(SyncVectorEnv(makers, autoreset_mode=MODES[mode]))  # type: ignore[index]
    return SyncBackend([make() for make in makers], mode)  # type: ignore[arg-type]


def make_collector(
    script: Script, num_steps: int, mode: str = "next_step", num_envs: int = 1, kind: str = "ours", **settings: Any
) -> RolloutCollector:
    """A collector of scripted episodes; environment i starts with episode i."""
    envs = backend([lambda: Scripted(script)] * num_envs, mode, kind)
    collector = RolloutCollector(envs, num_steps, settings.get("normalizer"), "Scripted-v0")
    collector.reset(0)
    return collector


def column(x: NDArray[Any]) -> list[float]:
    return x.reshape(len(x), -1)[:, 0].tolist()


def test_a_next_step_stream_has_invalid_rows() -> None:
    collector, policy = make_collector(EPISODES, 7), Counting()
    rollout = collector.collect(policy)
    assert column(rollout.obs) == [0, 1, 2, 10, 11, 12, 13, 20]
    assert column(rollout.actions) == [0, 1, 2, 3, 0, 1, 2]
    assert column(rollout.rewards) == [1, 2, 0, 3, 4, 5, 0]
    assert column(rollout.terminated) == [0, 1, 0, 0, 0, 0, 0]
    assert column(rollout.truncated) == [0, 0, 0, 0, 0, 1, 0]
    assert column(rollout.valid) == [1, 1, 0, 1, 1, 1, 0]
    assert rollout.num_valid == 5
    assert type(rollout.num_valid) is int
    assert rollout.final_obs is None
    assert [float(obs[0, 0]) for obs in policy.seen] == [0, 1, 2, 10, 11, 12, 13]


@pytest.mark.parametrize("mode", ["same_step", "disabled"])
def test_a_same_step_stream_has_final_observations(mode: str) -> None:
    rollout = make_collector(EPISODES, 7, mode).collect(Counting())
    assert column(rollout.obs) == [0, 1, 10, 11, 12, 20, 0, 1]
    assert column(rollout.rewards) == [1, 2, 3, 4, 5, 6, 1]
    assert column(rollout.terminated) == [0, 1, 0, 0, 0, 1, 0]
    assert column(rollout.truncated) == [0, 0, 0, 0, 1, 1, 0]
    assert column(rollout.valid) == [1] * 7
    assert rollout.num_valid == 7
    assert rollout.final_obs is not None
    assert rollout.final_obs.t.tolist() == [4, 5]  # only truncated rows: the values of others are not needed
    assert rollout.final_obs.b.tolist() == [0, 0]
    assert rollout.final_obs.obs.tolist() == [[13.0], [21.0]]


def test_episode_starts_and_memory_of_the_next_step_stream() -> None:
    """The final observations (2, 13) belong to the episode; the next begins after the invalid row."""
    collector, policy = make_collector(EPISODES, 7), Summing()
    first = copied(collector.collect(policy))
    assert column(first.obs) == [0, 1, 2, 10, 11, 12, 13, 20]
    assert column(first.episode_start) == [1, 0, 0, 1, 0, 0, 0, 1]
    assert first.recurrent_state is not None
    assert first.recurrent_state.tolist() == [[0.0]]
    second = collector.collect(policy)
    assert column(second.obs) == [20, 21, 0, 1, 2, 10, 11, 12]
    assert column(second.episode_start) == [1, 0, 1, 0, 0, 1, 0, 0]
    assert second.recurrent_state is not None
    assert second.recurrent_state.tolist() == [[10 + 11 + 12 + 13]]  # not yet zeroed by episode_start
    assert collector.collect(policy).recurrent_state.tolist() == [[21.0]]  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["same_step", "disabled"])
@pytest.mark.parametrize("kind", ["ours", "gymnasium"])
def test_episode_starts_and_memory_of_the_same_step_stream(mode: str, kind: str) -> None:
    """Final observations have the recurrent state before them."""
    collector = make_collector(EPISODES, 7, mode, kind=kind)
    rollout = collector.collect(Summing())
    assert column(rollout.obs) == [0, 1, 10, 11, 12, 20, 0, 1]
    assert column(rollout.episode_start) == [1, 0, 1, 0, 0, 1, 1, 0]
    assert rollout.final_obs is not None
    assert rollout.final_obs.obs.tolist() == [[13.0], [21.0]]
    assert rollout.final_obs.recurrent_state is not None
    assert rollout.final_obs.recurrent_state.tolist() == [[10 + 11 + 12], [20]]


@every_mode
@pytest.mark.parametrize("kind", ["ours", "gymnasium"])
@pytest.mark.parametrize("num_steps", [1, 4, 9])
def test_episode_starts_are_at_first_observations(mode: str, kind: str, num_steps: int) -> None:
    """This holds across rollouts, with episodes that end at different times."""
    collector, policy = make_collector(EPISODES, num_steps, mode, 3, kind), Summing()
    for _ in range(36 // num_steps):
        rollout = collector.collect(policy)
        np.testing.assert_array_equal(rollout.episode_start, np.isin(rollout.obs[..., 0], [0, 10, 20]))


def test_without_memory_no_recurrent_state_is_stored() -> None:
    collector = make_collector(EPISODES, 7, "same_step")
    for _ in range(2):
        rollout = collector.collect(Counting())
        assert rollout.recurrent_state is None
        assert rollout.final_obs is not None
        assert rollout.final_obs.recurrent_state is None


def test_a_reset_zeroes_the_recurrent_state() -> None:
    collector, policy = make_collector(EPISODES, 2), Summing()
    collector.collect(policy)
    collector.reset(1)
    rollout = collector.collect(policy)
    assert column(rollout.episode_start) == [1, 0, 0]
    assert rollout.recurrent_state is not None
    assert rollout.recurrent_state.tolist() == [[0.0]]
    assert policy.recurrent_state is not None
    assert policy.recurrent_state.tolist() == [[10 + 11]]


def transitions(rollouts: Sequence[Rollout], num_envs: int) -> list[list[tuple[float, ...]]]:
    """(s, a, r, s', terminated, truncated) of each environment; s' is None in terminated rows."""
    result: list[list[Any]] = [[] for _ in range(num_envs)]
    for rollout in rollouts:
        final = {}
        if rollout.final_obs is not None:
            final = {(t, b): obs for t, b, obs in zip(*rollout.final_obs[:3], strict=True)}
        for t, b in np.ndindex(*rollout.rewards.shape):
            if rollout.valid[t, b]:
                terminated, truncated = bool(rollout.terminated[t, b]), bool(rollout.truncated[t, b])
                after = None if terminated else float(final.get((t, b), rollout.obs[t + 1, b])[0])
                result[b].append(
                    (float(rollout.obs[t, b, 0]), float(rollout.rewards[t, b]), after, terminated, truncated)
                )
    return result


def copied(rollout: Rollout) -> Rollout:
    fields = {name: getattr(rollout, name) for name in Rollout.__dataclass_fields__}
    return Rollout(**{k: v.copy() if isinstance(v, np.ndarray) else v for k, v in fields.items()})


@every_mode
@pytest.mark.parametrize("kind", ["ours", "gymnasium"])
@pytest.mark.parametrize("num_steps", [1, 4, 9])
def test_every_mode_yields_the_same_transitions(mode: str, kind: str, num_steps: int) -> None:
    """This holds for every rollout length, with episodes that end at different times."""
    collector, policy = make_collector(EPISODES, num_steps, mode, 3, kind), Counting()
    seen = transitions([copied(collector.collect(policy)) for _ in range(36 // num_steps)], 3)
    for b in range(3):
        script = [EPISODES[(b + i) % 3] for i in range(20)]
        expected = [
            (before[0], after[1], None if after[2] else after[0], after[2], after[3])
            for episode in script
            for before, after in pairwise(episode)
        ]
        assert len(seen[b]) >= 24
        assert seen[b] == expected[: len(seen[b])]


@every_mode
@pytest.mark.parametrize("kind", ["ours", "gymnasium"])
@pytest.mark.parametrize("num_steps", [1, 4, 9])
def test_episodes_have_their_returns_and_lengths(mode: str, kind: str, num_steps: int) -> None:
    collector, policy = make_collector(EPISODES, num_steps, mode, 3, kind), Counting()
    for _ in range(36 // num_steps):
        collector.collect(policy)
    episodes = collector.pop_episodes()
    assert collector.pop_episodes() == []
    for b in range(3):
        own = [e for e in episodes if e.env == b]
        assert len(own) >= 10
        for i, episode in enumerate(own):
            index = (b + i) % 3
            assert episode == Episode(b, RETURNS[index], LENGTHS[index], index in (0, 2))


def test_a_reset_drops_the_running_episodes() -> None:
    collector = make_collector(EPISODES, 1)
    collector.collect(Counting())
    collector.reset(1)
    for _ in range(3):
        collector.collect(Counting())
    assert collector.pop_episodes() == [Episode(0, RETURNS[1], LENGTHS[1], False)]


def test_buffers_are_allocated_once_in_the_dtype_of_the_space() -> None:
    collector = make_collector(EPISODES, 3)
    first, second = collector.collect(Counting()), collector.collect(Counting())
    assert first.obs is second.obs
    assert first.rewards.dtype == first.valid.dtype == np.float32
    ring = RolloutCollector(backend([Ring], "next_step"), 2, None, "Ring")
    ring.reset(0)
    assert ring.collect(Counting()).obs.dtype == np.int64


class Pixels(gym.Env[Any, Any]):
    """Has observations of any dtype; its episode never ends."""

    def __init__(self, dtype: type) -> None:
        self.observation_space, self.action_space = Box(0, 200, (2, 3), dtype), Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return np.full((2, 3), 200, self.observation_space.dtype), {}

    def step(self, action: Any) -> Any:
        return np.full((2, 3), int(action), self.observation_space.dtype), 0.5, False, False, {}


@pytest.mark.parametrize(("dtype", "stored"), [(np.uint8, np.uint8), (np.float64, np.float32), (np.int32, np.int32)])
def test_observations_keep_their_dtype_except_float64(dtype: type, stored: type) -> None:
    collector = RolloutCollector(backend([lambda: Pixels(dtype)], "next_step"), 3, None, "Pixels")
    collector.reset(0)
    rollout = collector.collect(Counting())
    assert rollout.obs.dtype == stored
    assert rollout.obs.shape == (4, 1, 2, 3)
    assert rollout.obs[:, 0, 1, 2].tolist() == [200, 0, 1, 2]


class Precise(Scripted):
    """Scripted episodes with float64 observations."""

    def __init__(self, episodes: Script) -> None:
        super().__init__(episodes)
        self.observation_space = Box(-np.inf, np.inf, (1,), np.float64)


def test_final_observations_have_the_dtype_of_the_others() -> None:
    collector = RolloutCollector(backend([lambda: Precise(EPISODES)], "same_step"), 6, None, "Precise")
    collector.reset(0)
    rollout = collector.collect(Counting())
    assert rollout.final_obs is not None
    assert rollout.final_obs.obs.dtype == rollout.obs.dtype == np.float32


# --------------------------------------------------------------------------- normalization


@every_mode
def test_observations_are_standardised_and_rewards_stay_raw(mode: str) -> None:
    """The running statistics are those of all observations so far; episode statistics stay raw too."""
    normalizer = ObservationNormalizer((1,))
    collector = make_collector(EPISODES, 6, mode, normalizer=normalizer)
    plain = make_collector(EPISODES, 6, mode).collect(Counting())
    rollout = collector.collect(Counting())
    raw, valid = plain.obs[:, 0].astype(np.float64), plain.valid[:, 0] > 0
    seen = np.concatenate([raw[:1], raw[1:][valid]])
    np.testing.assert_allclose(
        [normalizer.statistics.moments.mean[0], normalizer.statistics.moments.var[0]], [seen.mean(), seen.var()]
    )
    assert normalizer.statistics.moments.size == len(seen)
    expected = (raw[-1] - seen.mean()) / np.sqrt(seen.var() + 1e-8)
    np.testing.assert_allclose(rollout.obs[-1, 0], expected, rtol=1e-5)
    np.testing.assert_array_equal(rollout.rewards, plain.rewards)
    assert collector.pop_episodes()[0] == Episode(0, RETURNS[0], LENGTHS[0], True)
    if plain.final_obs is not None:
        assert rollout.final_obs is not None
        scaled = (plain.final_obs.obs - seen.mean()) / np.sqrt(seen.var() + 1e-8)
        np.testing.assert_allclose(rollout.final_obs.obs, scaled, rtol=1e-5)


def test_a_terminated_episode_needs_no_final_observation() -> None:
    rollout = make_collector(EPISODES, 2, "same_step", normalizer=ObservationNormalizer((1,))).collect(Counting())
    assert rollout.final_obs is None or len(rollout.final_obs.obs) == 0


# --------------------------------------------------------------------------- values that are not finite


def with_bad(episode: int, row: int, obs: float | None = None, reward: float | None = None) -> Script:
    script = [list(rows) for rows in EPISODES]
    o, r, terminated, truncated = script[episode][row]
    script[episode][row] = (o if obs is None else obs, r if reward is None else reward, terminated, truncated)
    return script


def collect_often(collector: RolloutCollector, policy: Policy | None = None) -> None:
    policy = policy or Counting()
    for _ in range(12):
        collector.collect(policy)


NAN, INF = float("nan"), float("inf")


@every_mode
@pytest.mark.parametrize("num_steps", [1, 3, 12])
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (with_bad(0, 0, obs=NAN), "observation[0] = nan in environment 0, step 0"),
        (with_bad(0, 1, obs=INF), "observation[0] = inf in environment 0, step 1"),
        (with_bad(1, 2, obs=-INF), "observation[0] = -inf in environment 0, step 2"),
        (
            with_bad(1, 3, obs=NAN),
            "observation[0] = nan in environment 0, step 3",
        ),  # the final one of a truncated episode
        (with_bad(0, 2, reward=NAN), "reward = nan in environment 0, step 2"),
        (with_bad(1, 1, reward=-INF), "reward = -inf in environment 0, step 1"),
    ],
)
def test_values_that_are_not_finite_are_named(mode: str, num_steps: int, bad: Script, words: str) -> None:
    with pytest.raises(NonFiniteError) as error:
        collect_often(make_collector(bad, num_steps, mode))
    message = str(error.value)
    assert re.match(r"Scripted-v0: (final )?" + re.escape(words) + " of its episode; ", message), message
    assert "\n" not in message


def test_opposite_infinities_do_not_cancel() -> None:
    script = [[(0, 0, False, False), (INF, INF, False, False), (-INF, -INF, True, False)]]
    with pytest.raises(NonFiniteError, match="= inf in environment 0, step 1"):
        make_collector(script, 4).collect(Counting())


def test_large_but_finite_values_pass_without_a_warning() -> None:
    script = [[(3e38, 0, False, False), (3e38, 3e38, False, False), (-3e38, 3e38, True, False)]]
    collector = make_collector(script, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rollout = collector.collect(Counting())
    assert rollout.num_valid == 2


class Breaking:
    """Continuous actions of 0.5; the one in environment 1 at call ``at`` is not finite."""

    recurrent_state: NDArray[np.float32] | None = None

    def __init__(self, at: int, value: float, from_obs: bool = False) -> None:
        self.at, self.value, self.from_obs, self.calls = at, value, from_obs, 0
        self.played: list[NDArray[Any]] = []

    def begin_rollout(self) -> None:
        pass

    def act(self, obs: NDArray[Any], episode_start: NDArray[np.float32]) -> NDArray[Any]:
        actions = np.full((len(obs), 2), 0.5, np.float32)
        self.calls += 1
        if self.calls == self.at:
            actions[1, 1] = self.value
        return actions + obs if self.from_obs else actions

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        self.played.append(np.fmin(np.fmax(2.0 * actions, 0.0), 10.0))
        return self.played[-1]


class Throttle(Scripted):
    """Scripted episodes with two continuous actions, which must be finite and within bounds."""

    def __init__(self, episodes: Script = EPISODES) -> None:
        super().__init__(episodes)
        self.action_space = Box(0.0, 10.0, (2,))

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        return super().step(np.int64(0))


def throttle_collector(num_steps: int, mode: str, script: Script = EPISODES) -> RolloutCollector:
    collector = RolloutCollector(backend([lambda: Throttle(script)] * 2, mode), num_steps, None, "Throttle-v0")
    collector.reset(0)
    return collector


@every_mode
def test_actions_are_stored_as_sampled_and_converted_for_the_environments(mode: str) -> None:
    policy = Breaking(at=-1, value=0.0)
    rollout = throttle_collector(5, mode).collect(policy)
    assert rollout.actions.shape == (5, 2, 2)
    assert (rollout.actions == 0.5).all()
    assert (np.stack(policy.played) == 1.0).all()


@every_mode
@pytest.mark.parametrize("num_steps", [1, 3, 12])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_an_action_that_is_not_finite_is_reported_as_a_fault_of_the_policy(
    mode: str, num_steps: int, value: float
) -> None:
    """The environment received a finite action."""
    collector, policy = throttle_collector(num_steps, mode), Breaking(at=3, value=value)
    with pytest.raises(NonFiniteError) as error:
        collect_often(collector, policy)
    words = f"Throttle-v0: action[1] = {value} in environment 1, step 3 of its episode; the policy has diverged; "
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)


@every_mode
def test_an_action_that_is_not_finite_due_to_an_observation_is_a_fault_of_the_environment(mode: str) -> None:
    collector = throttle_collector(12, mode, with_bad(1, 2, obs=NAN))
    with pytest.raises(
        NonFiniteError, match=r"Throttle-v0: observation\[0\] = nan in environment 1, step 2 .*; fix the env"
    ):
        collector.collect(Breaking(at=-1, value=0.0, from_obs=True))


# --------------------------------------------------------------------------- saved states


@every_mode
def test_state_continues_the_running_episodes(mode: str) -> None:
    first = make_collector(EPISODES, 2, mode, 3)
    first.collect(Summing())
    first.pop_episodes()
    second = make_collector(EPISODES, 2, mode, 3)
    env_state = first.envs.get_state()
    assert env_state is not None
    second.set_state(first.get_state())
    second.envs.set_state(env_state)
    for _ in range(5):
        a, b = first.collect(Summing()), second.collect(Summing())  # new policies: the collector carries the state
        for name in (
            "obs", "actions", "rewards", "terminated", "truncated", "valid", "episode_start", "recurrent_state",
        ):  # fmt: skip
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    episodes = first.pop_episodes()
    assert episodes
    assert episodes == second.pop_episodes()


def test_state_is_a_copy() -> None:
    collector, policy = make_collector(EPISODES, 2), Summing()
    collector.collect(policy)
    state = collector.get_state()
    before = {name: np.array(value) for name, value in state.items()}
    collector.collect(policy)
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)


def test_a_nan_in_a_part_is_named_by_its_key() -> None:
    class Shop(gym.Env[Any, Any]):
        observation_space = Dict(price=Box(-1.0, 1.0, (3,)), stock=Box(-1.0, 1.0, ()))  # type: ignore[assignment]
        action_space = Discrete(2)  # type: ignore[assignment]

        def reset(self, **kwargs: Any) -> Any:
            super().reset(**kwargs)
            return {"price": np.zeros(3), "stock": 0.0}, {}

        def step(self, action: Any) -> Any:
            return {"price": np.zeros(3), "stock": float("nan")}, 0.0, False, False, {}

    collector = RolloutCollector(SyncBackend([pack_env(Shop(), "Shop")]), 2, None, "Shop")
    collector.reset(0)
    model = make_model(collector.envs.single_observation_space, Discrete(2), ModelConfig(), 0)
    with pytest.raises(NonFiniteError, match=r"Shop: observation\['stock'\] = nan in environment 0, step 1"):
        collector.collect(ModelPolicy(make_network(model), None))
