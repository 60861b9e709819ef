"""Copies in processes keep the contract of the backend sync."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.rude_envs import OddInfos, OddRewards, StartsProcess
from limelight.envs.make import make_envs


def stream(kind: Any, backend: str, mode: str) -> list[list[Any]]:
    """Rewards and ends of 45 steps."""
    envs = make_envs(kind, num_envs=2, backend=backend, autoreset_mode=mode)
    try:
        envs.reset(3)
        steps = [envs.step(np.ones(2, np.int64)) for _ in range(45)]
    finally:
        envs.close()
    return [[s.rewards.tolist(), s.terminated.tolist(), s.truncated.tolist(), s.valid.tolist()] for s in steps]


@pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])
@pytest.mark.parametrize("kind", [OddInfos, OddRewards])
def test_rewards_of_any_scalar_form_and_any_infos_are_the_same_stream_as_sync(kind: Any, mode: str) -> None:
    assert stream(kind, "async", mode) == stream(kind, "sync", mode)


def test_an_environment_may_start_processes_of_its_own() -> None:
    assert stream(StartsProcess, "async", "next_step") == stream(StartsProcess, "sync", "next_step")
