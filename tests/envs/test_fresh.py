"""The public make_envs hands out arrays of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import limelight
from limelight.errors import ConfigError


@pytest.mark.parametrize("backend", ["sync", "vector"])
@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_collected_observations_stay_as_they_were(backend: str, mode: str) -> None:
    if (backend, mode) == ("vector", "same_step"):
        pytest.skip("CartPole's vectorised class has next_step alone")
    envs = limelight.make_envs("CartPole-v1", num_envs=4, seed=0, backend=backend, autoreset_mode=mode)
    seen = [envs.reset(0)]
    kept = [seen[0].copy()]
    for _ in range(30):
        step = envs.step(np.zeros(4, np.int64))
        seen.append(step.obs)
        kept.append(step.obs.copy())
        for flags in (step.rewards, step.terminated, step.truncated, step.valid):
            flags[:] = True  # the reader's own
        if step.final_obs is not None:
            seen.append(step.final_obs)
            kept.append(step.final_obs.copy())
    again = envs.step(np.zeros(4, np.int64))
    assert not (again.terminated | again.truncated).all()
    envs.close()
    for a, b in zip(seen, kept, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(seen[0], seen[1])


@pytest.mark.parametrize("seed", [-1, 1.5, "1", True, float("nan")])
def test_a_wrong_seed_is_named(seed: Any) -> None:
    with pytest.raises(ConfigError, match=r"^seed = "):
        limelight.make_envs("CartPole-v1", seed=seed, backend="sync")
    envs = limelight.make_envs("CartPole-v1", seed=np.int64(1), num_envs=1, backend="sync")
    with pytest.raises(ConfigError, match=r"^seed = "):
        envs.reset(seed)
    envs.close()


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        (0, r"^actions of shape \(\): must be \[2\], one of each environment"),
        ([0, 1, 0], r"^actions of shape \(3,\): must be \[2\]"),
        ([0, 2], r"^actions = 2: must be Discrete\(2\)"),
        ([0, 0.5], r"^actions = 0.5: must be Discrete\(2\)"),
        (["0", "1"], "^actions is of <U1: must be Discrete"),
    ],
)
def test_wrong_actions_are_named_and_lists_are_taken(actions: Any, expected: str) -> None:
    envs = limelight.make_envs("CartPole-v1", num_envs=2, seed=0, backend="sync")
    with pytest.raises(ConfigError, match=expected):
        envs.step(actions)
    assert envs.step([0, 1]).valid.all()  # type: ignore[arg-type]
    envs.close()
