"""The closed forms of the toy environments agree with returns of played episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.utils.env_checker import check_env

from helpers.toys import Bandit, Corridor, Scripted, TwoState
from limelight.envs.toy import Aim, Catch, Match, Recall, Ring

SCRIPT = [[(0.0, 0.0, False, False), (1.0, 2.0, False, False), (2.0, 3.0, True, False)]]


def discounted(env: gym.Env[Any, Any], action: int, gamma: float, bootstrap: float = 0.0) -> float:
    """Return the discounted return of one episode of the same action, from the environment's present state."""
    total, discount = 0.0, 1.0
    while True:
        _, reward, terminated, truncated, _ = env.step(np.int64(action))
        total += discount * float(reward)
        discount *= gamma
        if terminated or truncated:
            return total + discount * bootstrap * (not terminated)


@pytest.mark.parametrize(
    "env",
    [Ring(), Corridor(), Bandit(noise=0.1), Aim(), TwoState(), Recall(), Match(), Catch(), Scripted(SCRIPT)],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # the checker's advice on spaces and render modes
def test_gymnasiums_checker_accepts_it(env: gym.Env[Any, Any]) -> None:
    check_env(env, skip_render_check=True)


def test_the_value_of_ring_is_one_over_one_minus_gamma_with_bootstrapping_at_truncation() -> None:
    env = Ring(size=4, max_steps=7)
    env.reset(seed=0)
    value = env.value(0.9)
    np.testing.assert_allclose(value, 10.0)
    assert value.shape == (4,)
    assert discounted(env, 1, 0.9, bootstrap=float(value[0])) == pytest.approx(10.0)


def test_the_value_of_corridor_is_gamma_to_the_steps_left() -> None:
    env = Corridor(length=5)
    assert env.value(0.9) == pytest.approx([0.9**3, 0.9**2, 0.9, 1.0])
    for place, value in enumerate(env.value(0.9)):
        env.reset()
        env.place = place
        assert discounted(env, 1, 0.9) == pytest.approx(value)
    env.reset()
    assert env.step(np.int64(0))[0] == 0  # not beyond the wall


def test_the_value_of_bandit_is_its_best_arm() -> None:
    env = Bandit(means=(0.5, 2.0, -1.0))
    returns = []
    for arm in range(3):
        env.reset()
        returns.append(discounted(env, arm, 0.9))
    assert returns == [0.5, 2.0, -1.0]
    assert env.value(0.9) == max(returns)
    noisy = Bandit(means=(1.0,), noise=0.5)
    noisy.reset(seed=0)
    rewards = [noisy.step(np.int64(0))[1] for _ in range(2000)]
    assert np.mean(rewards) == pytest.approx(1.0, abs=0.05)
    assert np.std(rewards) == pytest.approx(0.5, abs=0.05)


def test_aim_costs_the_error_of_the_action() -> None:
    env = Aim(Box(-1.0, 1.0, (2,)), target=np.float32([0.5, -0.5]))
    env.reset(seed=0)
    assert env.step(np.float32([0.5, 0.0]))[1:4] == (-0.25, True, False)
    assert env.step(env.target)[1] == env.value(0.9)[0] == 0.0
    nested = Dict(a=Discrete(3), b=Tuple([Box(0.0, 1.0, ()), MultiBinary(2)]), c=MultiDiscrete([2, 2]))
    target = {"a": 1, "b": (0.25, np.array([1, 0])), "c": np.array([1, 1])}
    env = Aim(nested, target)
    assert env.step(target)[1] == 0.0
    missed = {"a": 2, "b": (0.75, np.array([0, 0])), "c": np.array([0, 0])}
    assert env.step(missed)[1] == -(1 + 0.25 + 1 + 2)
    assert nested.contains(Aim(nested).target)


def test_the_value_of_two_state_is_its_closed_form() -> None:
    env, gamma = TwoState(p_end=0.25), 0.9
    first, second = env.value(gamma)
    assert first == pytest.approx(1 + gamma * 0.75 * second)  # the Bellman equations
    assert second == pytest.approx(gamma * first)
    returns = []
    for episode in range(3000):
        env.reset(seed=0 if episode == 0 else None)
        returns.append(discounted(env, 0, gamma))
    assert np.mean(returns) == pytest.approx(first, abs=0.1)


@pytest.mark.parametrize(("num_cues", "delay"), [(2, 0), (3, 2), (5, 4)])
def test_the_value_of_recall_is_gamma_to_the_steps_left_with_memory(num_cues: int, delay: int) -> None:
    env, gamma, cues = Recall(num_cues, delay), 0.9, []
    blank, query = num_cues, num_cues + 1
    value = env.value(gamma)
    assert value[0] == pytest.approx(gamma ** (delay + 1))
    assert value[-1] == 1.0
    for episode in range(40):
        obs, _ = env.reset(seed=0 if episode == 0 else None)
        cues.append(int(obs))
        shown, rewards, over = [], [], False
        while not over:
            obs, reward, over, truncated, _ = env.step(np.int64(cues[-1]))
            shown.append(int(obs))
            rewards.append(reward)
            assert not truncated
        assert shown == [*[blank] * delay, query, blank]
        returns = [sum(gamma**k * r for k, r in enumerate(rewards[t:])) for t in range(len(rewards))]
        assert returns == pytest.approx(value)
    assert set(cues) == set(range(num_cues))


def test_recall_pays_nothing_for_a_wrong_or_early_answer() -> None:
    env = Recall(num_cues=2, delay=1)
    cue = int(env.reset(seed=0)[0])
    rewards = [env.step(np.int64(action))[1] for action in (cue, cue, 1 - cue)]
    assert rewards == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("delay", [0, 3])
def test_match_pays_only_for_the_right_answer_and_neither_cue_tells_it(delay: int) -> None:
    env, gamma = Match(delay), 0.9
    seen: dict[tuple[int, int], int] = {}
    for episode in range(80):
        first = int(env.reset(seed=0 if episode == 0 else None)[0])
        answer, shown, rewards, over = episode % 2, [], [], False
        while not over:
            obs, reward, over, truncated, _ = env.step(np.int64(answer))
            shown.append(int(obs))
            rewards.append(reward)
            assert not truncated
        second = shown[delay] - 3
        assert shown == [*[2] * delay, 3 + second, 2]
        right = answer == (first == second)
        assert rewards == [0.0] * (delay + 1) + [float(right)]
        if right:
            returns = [sum(gamma**k * r for k, r in enumerate(rewards[t:])) for t in range(len(rewards))]
            assert returns == pytest.approx(env.value(gamma))
        seen[first, second] = seen.get((first, second), 0) + 1
    assert min(seen.get((a, b), 0) for a in (0, 1) for b in (0, 1)) >= 10


def test_scripted_refuses_bad_scripts_and_steps_after_the_end() -> None:
    with pytest.raises(ValueError, match="a last row that is terminated or truncated"):
        Scripted([[(0.0, 0.0, False, False), (1.0, 0.0, False, False)]])
    env = Scripted(SCRIPT)
    env.reset()
    assert discounted(env, 1, 1.0) == 5.0
    with pytest.raises(RuntimeError, match="after the end"):
        env.step(np.int64(0))


def played(env: Catch, seed: int, policy: Callable[[Catch], int]) -> tuple[list[np.ndarray], list[float]]:
    """Return the images and rewards of one episode."""
    obs, _ = env.reset(seed=seed)
    images, rewards, over = [obs], [], False
    while not over:
        obs, reward, over, truncated, _ = env.step(np.int64(policy(env)))
        images.append(obs)
        rewards.append(reward)
        assert not truncated
    return images, rewards


def test_the_value_of_catch_is_gamma_to_the_steps_left_if_the_ball_is_followed() -> None:
    env, gamma, columns = Catch(cells=5, scale=8), 0.9, set()
    for seed in range(30):
        images, rewards = played(env, seed, lambda e: int(np.sign(e.ball - e.paddle)) + 1)
        returns = [sum(gamma**k * r for k, r in enumerate(rewards[t:])) for t in range(len(rewards))]
        assert returns == pytest.approx(env.value(gamma))
        columns.add(env.ball)
        assert len(images) == len(rewards) + 1 == 5
    assert columns == set(range(5))
    assert sum(played(env, 0, lambda e: 0 if e.ball else 2)[1]) == -1.0  # it went away from the ball


def test_catch_shows_where_ball_and_paddle_are() -> None:
    env = Catch(cells=6, scale=7)
    images, _ = played(env, 3, lambda e: 2)
    for row, image in enumerate(images):
        assert env.observation_space.contains(image)
        ball, paddle = (np.argwhere(image == brightness) for brightness in (255, 128))
        assert set(ball[:, 0] // 7) == {row}
        assert set(ball[:, 1] // 7) == {env.ball}
        assert len(ball) == 49
        if row < 5:
            assert set(paddle[:, 0] // 7) == {5}
            assert set(paddle[:, 1] // 7) == {min(3 + row, 5)}
