"""Branches among the runs that are compared: their parents, and evaluations of another environment."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.settings import train_config
from limelight.runs.reader import RunData, Series
from limelight.viewing.groups import Group, common_score, differing_settings, steps_to


def run(parent: dict[str, Any] | None) -> RunData:
    """Evaluations of 9 at step 100 and of 5 at step 300."""
    rows = tuple({"step": step, "seconds": 1.0, "eval/mean_reward": mean} for step, mean in ((100, 9.0), (300, 5.0)))
    none = Series(np.empty(0), np.empty(0), np.empty(0))
    return RunData(Path("r"), train_config(), {}, {}, "", none, rows, (), parent)


@pytest.mark.parametrize(
    ("changed", "best", "steps"), [({"gamma": [1, 2]}, 9.0, 100), ({"env_kwargs": [{}, {"a": 1}]}, 5.0, 300)]
)
def test_evaluations_of_a_parent_in_another_environment_are_no_scores(
    changed: dict[str, Any], best: float, steps: int
) -> None:
    branch = run({"from": "p", "step": 200, "changed": changed})
    group = Group("g", (branch,))
    assert common_score([group]).scores(group) == [best]
    assert steps_to(branch, 4.0) == steps
    assert run(None).parent is None
    assert steps_to(dataclasses.replace(branch, parent=None), 4.0) == 100


def test_parents_are_a_row_of_the_settings_that_differ() -> None:
    groups = [Group("a", (run(None),)), Group("b", (run({"from": "p:best", "step": 1_200, "changed": {}}),))]
    assert differing_settings(groups) == [("branched from", [[None], ["p:best, step 1,200"]])]
    assert differing_settings(groups[:1]) == []
