"""Tasks with known values in any space: observations that fit and differ, errors of actions, values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

from limelight.envs.probe_toys import ProbeToy, Task, error, known_value, observation

SPACES: tuple[Space[Any], ...] = (
    Box(-np.inf, np.inf, (4,), np.float32),
    Box(-3.4e38, 2.0, (2,), np.float32),
    Box(0, 255, (4, 84, 84), np.uint8),
    Box(0, 255, (48, 40, 3), np.uint8),
    Discrete(3, start=-1),
    MultiDiscrete([3, 4]),
    Dict({"camera": Box(0, 255, (36, 36), np.uint8), "pose": Tuple((Box(5.0, 7.0, (1,)), Discrete(5)))}),
)


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_observations_are_in_their_space_and_differ(space: Space[Any]) -> None:
    seen = [observation(space, which) for which in (0, 1, 2)]
    assert all(space.contains(obs) for obs in seen)
    assert len({repr(obs) + str(np.sum(obs)) if isinstance(obs, np.ndarray) else repr(obs) for obs in seen}) > 1


def test_a_mask_allows_every_action() -> None:
    space = Dict({"action_mask": Box(0, 1, (3,), np.int8), "x": Box(-1.0, 1.0, (1,))})
    assert observation(space, 1)["action_mask"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("space", "right", "wrong", "cost"),
    [
        (Discrete(4), 0, 2, 1.0),
        (Box(0.0, 10.0, (2,)), np.array([8.0, 8.0]), np.array([5.0, 5.0]), 0.36),
        (Box(-np.inf, np.inf, (1,)), np.array([0.6]), np.array([0.0]), 0.36),
        (MultiDiscrete([2, 2]), np.array([0, 0]), np.array([0, 1]), 0.5),
        (MultiBinary(2), np.array([1, 1]), np.array([1, 0]), 0.5),
    ],
    ids=repr,
)
def test_the_right_action_costs_nothing(space: Space[Any], right: Any, wrong: Any, cost: float) -> None:
    assert error(space, right, 0) == pytest.approx(0.0, abs=1e-9)
    assert error(space, wrong, 0) == pytest.approx(cost)
    assert error(space, right, 1) > 0.3


@pytest.mark.parametrize("task", ["constant", "observation", "delay", "action", "both", "memory"])
def test_the_known_value_is_the_mean_return_of_the_best_policy(task: Task) -> None:
    env = ProbeToy(task, Box(-1.0, 1.0, (2,)), Discrete(2))
    gamma, returns = 0.9, []
    for seed in range(2000):
        env.reset(seed=seed, options={"which": 0})
        right = 0  # of the first observation
        total, discount, over = 0.0, 1.0, False
        while not over:
            _, reward, over, _, _ = env.step(right)
            total, discount = total + discount * reward, discount * gamma
        returns.append(total)
    known = known_value(task, gamma) * (gamma if task == "memory" else 1.0)  # a return is not discounted
    assert np.mean(returns) == pytest.approx(known, abs=0.05)
    if task in ("both", "memory"):
        env.reset(seed=0, options={"which": 1})
        rewards = [env.step(0)[1] for _ in range(2 if task == "memory" else 1)]
        assert sum(rewards) == 0.0
