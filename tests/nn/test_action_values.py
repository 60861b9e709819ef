"""Action values: what is read from q(s, ·), by hand; masks; and the action spaces that have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space

from helpers.settings import one_line
from limelight.algo.learner import Learner
from limelight.algo.rollout import Rollout
from limelight.errors import ConfigError
from limelight.nn.action_values import ActionValues, expectation
from limelight.nn.model import ILLEGAL, ActorCritic
from limelight.nn.network import Engine
from limelight.spaces.packed import Packed

BOX = Box(-1.0, 1.0, (2,))
MASKED = Packed(Dict(action_mask=MultiBinary(3), see=Box(-1.0, 1.0, (2,))), "observation")


def logits(*p: float) -> list[float]:
    return np.log(p).tolist()


def test_values_of_a_rollout_by_hand(
    make_actor_critic: Callable[..., ActorCritic], make_rollout: Callable[..., Rollout]
) -> None:
    """Two steps of one environment; the actions are called 5 and 6."""
    rollout = make_rollout(BOX, T=2, B=1, actions=Discrete(2, start=5))
    rollout.actions[:] = [[6], [5]]
    reader = ActionValues(make_actor_critic(BOX, actions=Discrete(2, start=5), critic_output="q"), None)
    params = np.array([[logits(0.5, 0.5)], [logits(0.25, 0.75)], [logits(0.9, 0.1)]], np.float32)
    q, next_q = np.array([[[1.0, 2.0]], [[3.0, 4.0]]]), np.array([[[3.0, 5.0]], [[10.0, 20.0]]])
    values, expected = reader.read(params, q, next_q, rollout, None)
    assert values.tolist() == [[2.0], [3.0]]
    np.testing.assert_allclose(expected, [[4.5], [11.0]], rtol=1e-6)  # .25·3 + .75·5, .9·10 + .1·20
    np.testing.assert_allclose(reader.expected(), [[1.5], [3.75]], rtol=1e-6)  # of sₜ: .5·1 + .5·2, .25·3 + .75·4
    for noise, drawn in (((0.2, 0.89), (3.0, 10.0)), ((0.3, 0.91), (5.0, 20.0))):
        sampled = reader.read(params, q, next_q, rollout, np.array(noise, np.float32)[:, None])[1]
        assert sampled[:, 0].tolist() == list(drawn)
    assert reader.spread(np.array([[7.0], [8.0]])).tolist() == [[[0.0, 7.0]], [[8.0, 0.0]]]


@pytest.mark.parametrize("engine", ["numpy", "autograd"])
@pytest.mark.parametrize("critic", ["shared", "target"])
@pytest.mark.parametrize("stream", ["next_step", "same_step"])
def test_illegal_actions_have_no_share_in_bootstrap_values(
    make_learner: Callable[..., Learner], make_rollout: Callable[..., Rollout], engine: Engine, critic: str, stream: str
) -> None:
    """The critic values the third action at 10⁶; it is illegal everywhere, so nothing of it may be seen."""
    learner = make_learner(MASKED, engine, critic_output="q", critic=critic, q_bootstrap="sarsa")
    assert MASKED.mask is not None
    rollout = make_rollout(MASKED, seed=3, stream=stream)
    rollout.actions[rollout.actions == 2] = 0
    final = () if rollout.final_obs is None else (rollout.final_obs.obs,)
    for obs in (rollout.obs, *final):
        obs[..., MASKED.mask.part] = [1, 1, 0]
    target = learner.network.target_critic
    with torch.no_grad():
        for head in (learner.model.critic, target):
            if head is not None:
                getattr(head, "value_head", head).linear.bias[2] = 1e6
    for values in (learner.values(rollout), learner.network.values(rollout)):
        assert np.abs(values).max() < 100.0
    assert np.abs(learner.network.expected_values()).max() < 100.0
    learner.gradients(rollout)
    assert torch.isfinite(learner.flat.grads).all()


def test_the_mean_over_sampled_next_actions_is_the_expectation(
    make_learner: Callable[..., Learner], make_rollout: Callable[..., Rollout]
) -> None:
    learner, rollout = make_learner(BOX, critic_output="q", q_bootstrap="sarsa"), make_rollout(BOX)
    expected = learner.network.values(rollout)[1]
    drawn = np.stack([learner.values(rollout)[1] for _ in range(2000)])
    error = drawn.std(0) / np.sqrt(len(drawn))
    assert error.max() > 0.0
    assert (np.abs(drawn.mean(0) - expected) < 4.5 * error + 1e-6).all()


def test_the_expectation_is_finite_for_any_logits() -> None:
    q = np.array([1.0, 2.0, 4.0], np.float32)
    assert expectation(np.array([1000.0, 1000.0, ILLEGAL], np.float32), q) == pytest.approx(1.5)
    assert expectation(np.full(3, ILLEGAL, np.float32), q) == pytest.approx(
        7 / 3
    )  # a terminal state may have no action


def test_the_model_values_a_state_by_the_expectation(make_actor_critic: Callable[..., ActorCritic]) -> None:
    model = make_actor_critic(BOX, critic_output="q", policy_init_gain=1.0)
    output = model(torch.ones(1, 4, 2))
    assert output.action_values is not None
    assert output.action_values.shape == (1, 4, 3)
    torch.testing.assert_close(output.values, (output.params.softmax(-1) * output.action_values).sum(-1))
    assert make_actor_critic(BOX, critic_output="v")(torch.ones(1, 4, 2)).action_values is None
    assert make_actor_critic(BOX, critic_output="q", actions=Discrete(1))(torch.ones(1, 4, 2)).values.shape == (1, 4)


@pytest.mark.parametrize(
    "actions", [Box(-1.0, 1.0, (2,)), MultiDiscrete([2, 3]), MultiBinary(2), Packed(Dict(a=Discrete(2)))], ids=str
)
def test_other_actions_than_discrete_ones_are_refused(
    make_actor_critic: Callable[..., ActorCritic], actions: Space[Any]
) -> None:
    with pytest.raises(ConfigError) as error:
        make_actor_critic(BOX, actions=actions, critic_output="q")
    text = one_line(error)
    assert text.startswith("critic_output = q: needs Discrete actions")
    assert text.endswith("set critic_output to v, or algo to one with V(s)")
