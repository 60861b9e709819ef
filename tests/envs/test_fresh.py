"""The public make_envs hands out arrays of its own."""

from __future__ import annotations

import numpy as np
import pytest

import limelight


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
        if step.final_obs is not None:
            seen.append(step.final_obs)
            kept.append(step.final_obs.copy())
    envs.close()
    for a, b in zip(seen, kept, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(seen[0], seen[1])
