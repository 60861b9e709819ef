"""Environments that record their last steps and stop at a number that is not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.settings import env_config
from limelight.envs.make import make_envs
from limelight.envs.recorded import RecordedEnvs
from limelight.errors import FirstNonFiniteError


def recorded(length: int = 3, **kwargs: Any) -> RecordedEnvs:
    config = env_config("helpers.overflowing_envs:Overflows", num_envs=2, backend="sync", env_kwargs=kwargs)
    envs = RecordedEnvs(make_envs(config), length)
    envs.reset(0)
    return envs


def test_the_last_steps_are_kept() -> None:
    envs = recorded()
    for action in range(5):
        envs.step(np.array([action % 3, 0]))
    assert [(row.number, int(row.actions[0])) for row in envs.rows] == [(2, 2), (3, 0), (4, 1)]
    assert envs.get_state() is not None
    envs.close()


@pytest.mark.parametrize(("what", "place"), [("nan", "observation[1]"), ("reward", "reward"), ("nothing", None)])
def test_the_first_number_that_is_not_finite_is_named(what: str, place: str | None) -> None:
    envs = recorded(what=what, after=2)
    envs.step(np.zeros(2, np.int64))
    if place is None:
        envs.step(np.zeros(2, np.int64))
    else:
        with pytest.raises(FirstNonFiniteError) as error:
            envs.step(np.zeros(2, np.int64))
        assert error.value.place == f"{place} of the environment"
        assert (error.value.row, error.value.env) == (1, 0)
    envs.close()


def test_an_action_is_checked_before_the_step() -> None:
    envs = recorded(reals=True)
    with pytest.raises(FirstNonFiniteError, match=r"action\[1\] of the environment = nan"):
        envs.step(np.array([[0.0, 0.0], [0.0, np.nan]], np.float32))
    assert len(envs.rows) == 0
    envs.close()
