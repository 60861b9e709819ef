"""The record of the last call of an environment, as another process reads it after the end of this one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Space

from limelight.envs.guards import record_calls
from limelight.envs.last_call import COLUMNS, CallRecord, describe_call
from limelight.envs.make import make_envs


@pytest.mark.parametrize(
    ("space", "actions", "shown"),
    [
        (Discrete(3), [0, np.int64(1), np.int64(2)], "0, 1, 2"),
        (Box(-1, 1, (2,), np.float32), [np.float32([0.5, -1])] * 2, "[0.5, -1], [0.5, -1]"),
        (Box(-1, 1, (9,), np.float32), [np.ones(9)], "[1, 1, 1, 1, 1, 1, 1, 1, …]"),
        (Box(-1, 1, (1,), np.float32), [np.float32([0.25])], "0.25"),
        (MultiDiscrete([2, 3]), [np.array([1, 2])], "[1, 2]"),
        (Discrete(9), list(range(9)), "4, 5, 6, 7, 8"),
        (Dict(a=Discrete(2)), [{"a": 1}], None),
    ],
)
def test_a_step_has_seed_number_and_last_actions(space: Space[Any], actions: list[Any], shown: str | None) -> None:
    calls = np.zeros((3, COLUMNS))
    record = CallRecord(calls, 1, space, None, 0)
    record.reset(7)
    assert describe_call(calls) == "reset() of environment 1 (seed 7)"
    for step, action in enumerate(actions, 1):
        record.step(step, action)
    last = "" if shown is None else f", last actions [{shown}]"
    assert describe_call(calls) == f"step() of environment 1 (seed 7, step {len(actions)}{last})"
    record.end()
    assert describe_call(calls) == ""


def test_a_record_that_was_overwritten_is_not_read() -> None:
    calls = np.zeros((2, COLUMNS))
    calls[0, 0] = 7
    assert describe_call(calls) == ""


@pytest.mark.parametrize("settings", [{"on_env_error": "restart"}, {"step_timeout": 5.0}, {}])
def test_guards_record_their_calls_and_others_none(settings: dict[str, Any]) -> None:
    envs = make_envs("CartPole-v1", 2, seed=3, backend="sync", **settings)
    calls = np.zeros((3, COLUMNS))
    record_calls(envs, calls)
    envs.step(np.array([0, 1]))
    assert calls[0, 0] == 0  # the call has returned
    calls[0, 0] = 2
    assert ("step 1, last actions [1])" in describe_call(calls)) == bool(settings)
    assert ("seed 4" in describe_call(calls)) == bool(settings)
    envs.close()
