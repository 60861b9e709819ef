"""Learning to hit a target in every kind of action space: the optimum is known, and a few seconds suffice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

from limelight.envs.gymnasium_backend import SyncBackend
from limelight.envs.packing import pack_env
from limelight.envs.toy import Aim
from limelight.nn.network import make_network
from limelight.nn.policy import ModelPolicy
from limelight.runners.sync import SyncRunner

RunnerOf = Callable[..., SyncRunner]
WIDE = Box(np.float32([-2.0, 0.0]), np.float32([2.0, 4.0]))
NESTED = Dict(a=Discrete(3, start=1), b=Tuple([Box(-1.0, 1.0, (2,)), MultiBinary(2)]), c=MultiDiscrete([2, 3]))
CASES: list[tuple[Space[Any], Any, dict[str, Any]]] = [
    (WIDE, np.float32([-0.7, 3.0]), {"action_bounds": "clip", "action_std": "parameter"}),
    (WIDE, np.float32([-0.7, 3.0]), {"action_bounds": "rescale", "action_std": "softplus"}),
    (WIDE, np.float32([-0.7, 3.0]), {"action_bounds": "squash", "action_std": "exp"}),
    (MultiDiscrete([3, 4]), None, {}),
    (MultiBinary(4), None, {}),
    (NESTED, None, {"log_std_init": -0.5}),
    (Dict(a=Discrete(3), b=WIDE), None, {"action_bounds": "squash", "engine": False}),
]


@pytest.mark.parametrize(
    ("space", "target", "settings"),
    CASES,
    ids=lambda x: "-".join(map(str, x.values())) if isinstance(x, dict) else type(x).__name__,
)
def test_the_target_is_hit(make_runner: RunnerOf, space: Space[Any], target: Any, settings: dict[str, Any]) -> None:
    """From what a random policy loses, more than 1, to next to nothing."""
    envs = SyncBackend([pack_env(Aim(space, target, seed=3), "Aim") for _ in range(16)], "same_step")
    updates = 400
    settings = {
        "optimizer": "adam", "learning_rate": 0.02, "hidden_sizes": (8,), "normalize_advantages": "batch",
        "policy_init_gain": 0.01, "max_grad_norm": None, "optim_eps": 1e-8, "ent_coef": 0.0, **settings,
    }  # fmt: skip
    runner = make_runner(envs, 4, total_timesteps=updates * 64, **settings)
    first = mean_return(runner)
    runner.advance(updates * 64, seconds=60.0)
    last = mean_return(runner)
    assert first < -1.0
    assert last > -0.05
    policy = ModelPolicy(make_network(runner.actor_learner.learner.model), None)
    ones = np.ones((16, 1), np.float32)
    greedy = envs.step(policy.to_env(policy.act(ones, ones[:, 0]))).rewards
    assert (greedy > -0.01).all()


def mean_return(runner: SyncRunner) -> float:
    """Of sampled actions."""
    runner.pop_episodes()
    runner.advance(runner.num_steps + 1, seconds=60.0)
    return float(np.mean([episode.episode_return for episode in runner.pop_episodes()]))
