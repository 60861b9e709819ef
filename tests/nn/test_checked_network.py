"""The network that stops at the first number that is not finite: layers, gradients, parameters, on both engines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from limelight.algo.rollout import Rollout
from limelight.algo.train_state import FlatParameters
from limelight.errors import FirstNonFiniteError
from limelight.nn.checked_network import CheckedNetwork
from limelight.nn.model import make_model
from limelight.nn.network import Engine, make_network
from limelight.settings.schema import ModelConfig

T, B = 3, 2


def checked(engine: Engine, **model: Any) -> CheckedNetwork:
    network = make_model(Box(-9, 9, (4,)), Discrete(3), ModelConfig(hidden_sizes=(8,), **model), 0)
    grads = FlatParameters(network).grads
    return CheckedNetwork(make_network(network, T, grads, engine=engine), grads)


def rollout(network: CheckedNetwork, obs: Any = None) -> Rollout:
    obs = np.random.default_rng(0).normal(size=(T + 1, B, 4)).astype(np.float32) if obs is None else obs
    network.begin_rollout()
    for row in obs[:-1]:
        network.act(row, None, np.zeros(B, np.float32), None)
    zeros = np.zeros((T, B), np.float32)
    return Rollout(
        obs, np.zeros((T, B), np.int64), zeros, zeros, zeros, zeros + 1, np.zeros((T + 1, B), np.float32), T * B
    )


@pytest.fixture(params=["numpy", "autograd"])
def network(request: pytest.FixtureRequest) -> CheckedNetwork:
    return checked(request.param)


def test_finite_numbers_pass_and_are_those_of_the_inner_network(network: CheckedNetwork) -> None:
    data = rollout(network)
    np.testing.assert_array_equal(network.values(data)[0], network.inner.values(data)[0])
    ones = np.ones((T, B), np.float32)
    network.backward(ones, ones, ones)
    assert torch.isfinite(network._grads).all()


def test_a_parameter_is_named_with_its_index(network: CheckedNetwork) -> None:
    with torch.no_grad():
        network.model.policy_head.linear.weight[2, 5] = torch.inf
    with pytest.raises(FirstNonFiniteError) as error:
        network.begin_rollout()
    assert (error.value.place, error.value.value) == ("parameter policy_head.linear.weight[2, 5]", np.inf)
    assert (error.value.row, error.value.env) == (None, None)


@pytest.mark.filterwarnings("ignore:.*encountered in matmul:RuntimeWarning")
@pytest.mark.parametrize("where", [(0, 1), (2, 0), (3, 1)])
def test_a_layer_is_named_with_its_row_and_environment(network: CheckedNetwork, where: tuple[int, int]) -> None:
    obs = np.zeros((T + 1, B, 4), np.float32)
    obs[where] = 3e38
    with pytest.raises(FirstNonFiniteError) as error:
        network.values(rollout(network, obs))
    assert error.value.place == "layer encoder.layers.0 (Linear)"
    assert (error.value.row, error.value.env) == where


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_a_layer_before_a_recurrent_core_is_named_with_its_row_and_environment() -> None:
    network = checked("autograd", core="gru", core_size=4)
    obs = np.zeros((T + 1, B, 4), np.float32)
    obs[2, 1] = 3e38
    with pytest.raises(FirstNonFiniteError) as error:
        network.values(rollout(network, obs))
    assert error.value.place == "layer encoder.layers.0 (Linear)"
    assert (error.value.row, error.value.env) == (2, 1)


def test_the_row_whose_gradient_is_not_finite_is_found(network: CheckedNetwork) -> None:
    data = rollout(network)
    network.values(data)
    d_values = np.ones((T, B), np.float32)
    with torch.no_grad():
        network.model.critic.linear.weight.fill_(1e5)  # type: ignore[union-attr,operator]
    network.parameters_changed()
    network.values(data)
    d_values[1, 0] = 3e38
    zeros = np.zeros((T, B), np.float32)
    with np.errstate(all="ignore"), pytest.raises(FirstNonFiniteError) as error:
        network.backward(zeros, zeros, d_values)
    assert error.value.place.startswith("the gradient of parameter encoder.layers.0.")
    assert (error.value.row, error.value.env) == (1, 0)


def test_a_loss_is_named_with_its_latest_row(network: CheckedNetwork) -> None:
    network.values(rollout(network))
    zeros, d_values = np.zeros((T, B), np.float32), np.zeros((T, B), np.float32)
    d_values[:2, 1] = np.nan  # a return that is not finite makes those before it so
    with pytest.raises(FirstNonFiniteError) as error:
        network.backward(zeros, zeros, d_values)
    assert error.value.place.startswith("the loss: ∂L/∂V(s)")
    assert (error.value.row, error.value.env) == (1, 1)
