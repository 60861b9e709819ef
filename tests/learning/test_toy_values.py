"""Learning on MDPs with known values: the critic finds V, through time limits too, and the policy what is best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray

from helpers.toys import Bandit, Corridor, TwoState
from limelight.envs.base import EnvBackend
from limelight.envs.gymnasium_backend import MODES, SyncBackend, VectorBackend
from limelight.envs.toy import Ring
from limelight.runners.sync import SyncRunner

RunnerOf = Callable[..., SyncRunner]
GAMMA = 0.9


def side_by_side(
    make: Callable[[], gym.Env[Any, Any]], num_envs: int, mode: str = "next_step", gymnasiums: bool = False
) -> EnvBackend:
    if gymnasiums:
        return VectorBackend(SyncVectorEnv([make] * num_envs, autoreset_mode=MODES[mode]))  # type: ignore[index]
    return SyncBackend([make() for _ in range(num_envs)], mode)  # type: ignore[arg-type]


def trained(make_runner: RunnerOf, envs: EnvBackend, updates: int, **settings: Any) -> SyncRunner:
    num_steps = settings.pop("num_steps", 8)
    budget = updates * num_steps * envs.num_envs
    settings = {
        "optimizer": "adam", "learning_rate": 0.02, "vf_coef": 1.0, "hidden_sizes": (16,), "gamma": GAMMA,
        "policy_init_gain": 0.01, "optim_eps": 1e-8, "max_grad_norm": None, **settings,
    }  # fmt: skip
    runner = make_runner(envs, num_steps, total_timesteps=budget, **settings)
    runner.advance(budget, seconds=600.0)
    assert runner.num_steps >= budget
    return runner


def values_of(runner: SyncRunner, places: int) -> NDArray[np.float32]:
    """V of the first ``places`` observations of a Discrete space."""
    with torch.no_grad():
        return runner.actor_learner.learner.model(torch.arange(places)[None]).values[0].numpy()


def probabilities(runner: SyncRunner, obs: torch.Tensor) -> NDArray[np.float32]:
    with torch.no_grad():
        return runner.actor_learner.learner.model(obs[None]).params[0].softmax(-1).numpy()


@pytest.mark.parametrize(
    ("mode", "gymnasiums", "settings"),
    [
        ("next_step", False, {"critic": "shared"}),
        ("next_step", True, {"critic": "target", "tau": 0.2, "gae_lambda": 0.5}),
        ("next_step", False, {"critic": "separate", "engine": False}),
        ("same_step", False, {"critic": "separate", "gae_lambda": 1.0}),
        ("same_step", True, {"critic": "shared", "engine": False}),
        ("disabled", False, {"critic": "target", "tau": 0.2}),
        ("disabled", True, {"critic": "separate", "gae_lambda": 0.5}),
    ],
)
def test_time_limits_do_not_lower_the_value_of_the_ring(
    make_runner: RunnerOf, mode: str, gymnasiums: bool, settings: dict[str, Any]
) -> None:
    """Reward 1 for ever, cut every 5 steps: V = 1 / (1 − γ) = 10. Taking the cut for an end would give about 3."""
    envs = side_by_side(lambda: Ring(max_steps=5), 4, mode, gymnasiums)
    runner = trained(make_runner, envs, 250, **settings)
    np.testing.assert_allclose(values_of(runner, 3), Ring().value(GAMMA), rtol=0.02)


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
@pytest.mark.parametrize("critic", ["shared", "target"])
def test_values_of_a_chain_that_may_end(make_runner: RunnerOf, mode: str, critic: str) -> None:
    """Ends with probability ½ in one of its two states; what follows an end must be worth nothing."""
    settings = {"tau": 0.2} if critic == "target" else {}
    runner = trained(make_runner, side_by_side(TwoState, 16, mode), 200, critic=critic, **settings)
    np.testing.assert_allclose(values_of(runner, 2), TwoState().value(GAMMA), rtol=0.04)


@pytest.mark.parametrize("settings", [{}, {"critic": "target", "tau": 0.2}, {"normalize_advantages": "batch"}])
def test_the_way_through_the_corridor(make_runner: RunnerOf, settings: dict[str, Any]) -> None:
    runner = trained(make_runner, side_by_side(Corridor, 8), 200, ent_coef=1e-3, **settings)
    to_the_right = probabilities(runner, torch.arange(5))[:, 1]
    assert to_the_right.min() > 0.95
    np.testing.assert_allclose(values_of(runner, 5), Corridor().value(GAMMA), atol=0.06)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"critic": "separate", "normalize_advantages": "running"},
        {"policy_weight": "q", "gae_lambda": 0.0},
        {"policy_weight": "q", "normalize_advantages": "batch"},
        {"critic_output": "q"},
        {"critic_output": "q", "policy_weight": "q", "normalize_advantages": "batch", "returns": "td0"},
    ],
)
@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_the_best_arm_of_a_bandit(make_runner: RunnerOf, mode: str, settings: dict[str, Any]) -> None:
    """The arms' differences drown in noise; the best one is found by all weights of the policy gradient."""
    envs = side_by_side(lambda: Bandit(means=(0.0, 1.0, 0.3), noise=1.0), 8, mode)
    runner = trained(make_runner, envs, 120, ent_coef=0.0, **settings)
    assert probabilities(runner, torch.ones(1, 1))[0, 1] > 0.9


def corridor_q(to_the_right: NDArray[Any], gamma: float) -> NDArray[Any]:
    """Q^π [places, 2] of the corridor, by solving Bellman's equation V = Σ π (r + γ V(next))."""
    n = len(to_the_right)
    after = np.stack([np.maximum(np.arange(n) - 1, 0), np.arange(n) + 1], -1)  # place n is the end, of value 0
    policy = np.stack([1 - to_the_right, to_the_right], -1)
    moves = np.zeros((n, n + 1))
    np.add.at(moves, (np.arange(n)[:, None], after), policy)
    rewards = (after == n).astype(float)
    v = np.linalg.solve(np.eye(n) - gamma * moves[:, :n], (policy * rewards).sum(-1))
    return rewards + gamma * np.append(v, 0.0)[after]


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("next_step", {"q_bootstrap": "sarsa", "returns": "td0", "critic": "target", "tau": 0.2}),
        *(
            pytest.param(mode, {"critic": "separate", **settings}, marks=pytest.mark.slow)
            for mode, settings in (
                ("same_step", {"q_bootstrap": "sarsa", "gae_lambda": 0.9}),
                ("next_step", {"q_bootstrap": "expected_sarsa", "returns": "n_step", "return_steps": 3}),
                ("disabled", {"q_bootstrap": "expected_sarsa", "returns": "mc", "engine": "autograd"}),
            )
        ),
    ],
)
def test_action_values_of_a_fixed_policy_in_the_corridor(
    make_runner: RunnerOf, mode: str, settings: dict[str, Any]
) -> None:
    """The policy hardly learns; q is that of its own probabilities, through ends and time limits of 7 steps."""

    def make() -> gym.Env[Any, Any]:
        return gym.wrappers.TimeLimit(Corridor(4), 7)

    runner = trained(
        make_runner, side_by_side(make, 16, mode), 300, critic_output="q", learning_rate=1e-9,
        critic_learning_rate=0.02, policy_init_gain=1.0, **settings,
    )  # fmt: skip
    with torch.no_grad():
        output = runner.actor_learner.learner.model(torch.arange(3)[None])
    right = output.params[0].softmax(-1)[:, 1].numpy().astype(float)
    assert output.action_values is not None
    np.testing.assert_allclose(output.action_values[0].numpy(), corridor_q(right, GAMMA), atol=0.05)


def test_entropy_bonus_keeps_a_policy_open(make_runner: RunnerOf) -> None:
    """With reward r and bonus β the best policy of a bandit is softmax(r / β)."""
    means, bonus = (0.0, 1.0, 0.3), 0.5
    runner = trained(make_runner, side_by_side(lambda: Bandit(means), 8), 200, ent_coef=bonus)
    expected = torch.softmax(torch.tensor(means) / bonus, -1)
    np.testing.assert_allclose(probabilities(runner, torch.ones(1, 1))[0], expected, atol=0.05)
