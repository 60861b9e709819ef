"""The comparison of a file with its agent finds what differs, and tells ties from faults."""

from __future__ import annotations

import math

import numpy as np
import pytest

import limelight
from helpers.export_agents import KINDS, eager, make_agent
from limelight.runs.export.parity import Parity, compare
from limelight.runs.export.ports import Arrays, ports_of
from limelight.runs.export.recording import random_recording


@pytest.fixture
def agent() -> limelight.Agent:
    return make_agent(KINDS["layer-norm"])


def compared(agent: limelight.Agent, change: Arrays) -> Parity:
    """Compare a file whose outputs are replaced by those of ``change``, all of one value."""
    ports = ports_of(agent, deterministic=True)
    right = eager(agent, ports)

    def run(inputs: Arrays) -> Arrays:
        outputs = right(inputs)
        return {**outputs, **{name: np.full_like(outputs[name], value) for name, value in change.items()}}

    return compare(agent, run, ports, random_recording(agent, 5, 0, ""), seed=0)


def test_a_right_file_has_no_difference(agent: limelight.Agent) -> None:
    found = compared(agent, {})
    assert found.difference < 1e-6
    assert found.observations == 20


def test_a_number_that_is_not_finite_is_an_infinite_difference(agent: limelight.Agent) -> None:
    assert compared(agent, {"params": np.array(np.nan)}) == Parity(math.inf, "params", 20, 0)


def test_a_wrong_action_is_no_tie(agent: limelight.Agent) -> None:
    found = compared(agent, {"action": np.array(7)})
    assert found.difference >= 1.0
    assert found.output == "action"
    assert found.ties == 0


def test_an_action_of_equal_probability_is_a_tie(agent: limelight.Agent) -> None:
    for parameter in agent.model.policy_head.parameters():
        parameter.data.zero_()
    ports = ports_of(agent, deterministic=True)

    def run(inputs: Arrays) -> Arrays:
        params = np.zeros((len(inputs["obs"]), 4), np.float32)
        params[:, 2] = 1e-7
        return {"action": np.full(len(params), 2), "params": params}

    found = compare(agent, run, ports, random_recording(agent, 5, 0, ""), seed=0)
    assert found.ties == 20
    assert found.difference == pytest.approx(1e-7)


def test_the_agent_is_left_as_it_was(agent: limelight.Agent) -> None:
    agent.reset()
    before = agent._sampling.get_state()
    compared(agent, {})
    assert agent._sampling.get_state() == before
