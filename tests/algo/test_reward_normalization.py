"""Normalisation of rewards compared with returns computed episode by episode."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray

from helpers.toys import Scripted
from limelight.algo.collector import RolloutCollector
from limelight.algo.normalization import RewardNormalizer
from limelight.algo.rollout import Rollout
from limelight.envs.gymnasium_backend import MODES, SyncBackend, VectorBackend

GAMMA = 0.8
# (obs, reward, terminated, truncated): one is terminated, one truncated, one both, one is long.
EPISODES = [
    [(0, 0, False, False), (1, 1, False, False), (2, 2, True, False)],
    [(0, 0, False, False), (1, 3, False, False), (2, -4, False, False), (3, 5, False, True)],
    [(0, 0, False, False), (1, 6, True, True)],
    [(0, 0, False, False), *((i, 0.5 * i, False, False) for i in range(1, 9)), (9, -1, False, True)],
]


class First:
    """Always action 0."""

    recurrent_state = None

    def begin_rollout(self) -> None:
        pass

    def act(self, obs: Any, episode_start: Any) -> Any:
        return np.zeros(len(obs), np.int64)

    def to_env(self, actions: Any) -> Any:
        return actions


def make_collector(mode: str, num_steps: int, gymnasiums: bool = False) -> RolloutCollector:
    makers = [lambda: Scripted(EPISODES)] * 3
    envs = (
        VectorBackend(SyncVectorEnv(makers, autoreset_mode=MODES[mode]))  # type: ignore[index]
        if gymnasiums
        else SyncBackend([make() for make in makers], mode)  # type: ignore[arg-type]
    )
    collector = RolloutCollector(envs, num_steps, None, "Scripted")
    collector.reset(0)
    return collector


def discounted_returns(b: int) -> list[float]:
    """The running return after every step of environment b; its i-th episode is number b + i."""
    returns = []
    for i in range(60):
        total = 0.0
        for _, reward, _, _ in EPISODES[(b + i) % len(EPISODES)][1:]:
            total = reward + GAMMA * total
            returns.append(total)
    return returns


@pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])
@pytest.mark.parametrize("gymnasiums", [False, True])
@pytest.mark.parametrize("num_steps", [1, 4, 9])
def test_rewards_are_divided_by_the_deviation_of_returns(mode: str, gymnasiums: bool, num_steps: int) -> None:
    """This holds across rollouts; invalid rows are not counted."""
    collector, normalizer = make_collector(mode, num_steps, gymnasiums), RewardNormalizer(GAMMA)
    every = [discounted_returns(b) for b in range(3)]
    taken = [0, 0, 0]
    for _ in range(36 // num_steps):
        rollout = collector.collect(First())
        raw = rollout.rewards.copy()
        normalized = normalizer(rollout, rollout.rewards)
        np.testing.assert_array_equal(rollout.rewards, raw)
        taken = [n + int(rollout.valid[:, b].sum()) for b, n in enumerate(taken)]
        seen = np.concatenate([returns[:n] for returns, n in zip(every, taken, strict=True)])
        expected = np.clip(raw / math.sqrt(seen.var() + 1e-8), -10.0, 10.0)
        assert normalized.dtype == np.float32
        np.testing.assert_allclose(normalized, expected, rtol=1e-4)
        assert normalizer.statistics.moments.size == len(seen)
    assert min(taken) > 20


def test_normalised_rewards_are_clipped() -> None:
    """The deviation of equal returns is 0."""
    rollout = make_collector("next_step", 1).collect(First())
    normalizer, same = RewardNormalizer(GAMMA), np.full_like(rollout.rewards, -2.0)
    np.testing.assert_array_equal(normalizer(rollout, same), [[-10.0, -10.0, -10.0]])


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_a_reward_normalizer_continues_from_its_state(mode: str) -> None:
    collector, normalizer = make_collector(mode, 4), RewardNormalizer(GAMMA)
    for _ in range(3):
        normalizer(rollout := collector.collect(First()), rollout.rewards)
    other = RewardNormalizer(GAMMA)
    other.set_state(normalizer.get_state())
    for _ in range(4):
        rollout = collector.collect(First())
        a, b = normalized(normalizer, rollout), normalized(other, rollout)
        np.testing.assert_array_equal(a, b)


def normalized(normalizer: RewardNormalizer, rollout: Rollout) -> NDArray[np.float32]:
    return normalizer(rollout, rollout.rewards)
