"""Minibatches: every valid row once, fixed shapes, whole sequences, and nothing that is not of the row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

from limelight.algo.last_update import Targets
from limelight.algo.minibatches import Batch, row_minibatches, sequence_minibatches
from limelight.algo.rollout import Rollout

BOX = Box(-1.0, 1.0, (2, 3))


def batch_of(rollout: Rollout) -> Batch:
    """A batch in which every array but the observations holds the number of its row."""
    numbers = np.arange(rollout.valid.size, dtype=np.float32).reshape(rollout.valid.shape)
    rollout = dataclasses.replace(rollout, rewards=numbers, actions=numbers.astype(np.int64))
    return Batch(rollout, Targets(numbers, numbers), numbers, numbers)


def columns(batch: Batch) -> list[Any]:
    r, targets = batch.rollout, batch.targets
    return [r.rewards, r.actions, targets.returns, targets.advantages, batch.values, batch.log_probs]


@pytest.mark.parametrize("count", [1, 2, 4, 5, 21])
def test_every_valid_row_is_in_one_minibatch_of_a_fixed_shape(
    make_rollout: Callable[..., Rollout], rng: np.random.Generator, count: int
) -> None:
    rollout = make_rollout(BOX)
    whole, seen, sizes = batch_of(rollout), [], []
    flat = rollout.obs[:-1].reshape(-1, 2, 3)
    for part in row_minibatches(whole, count, rng):
        n = -(-rollout.valid.size // count)
        assert part.rollout.valid.shape == (n, 1)
        assert part.rollout.obs.shape == (n + 1, 1, 2, 3)
        assert part.rollout.num_valid == part.rollout.valid.sum()
        valid = part.rollout.valid > 0
        rows = part.rollout.rewards[valid].astype(int)
        for column in columns(part):
            assert column.shape == (n, 1)
            np.testing.assert_array_equal(column[valid], rows)
        np.testing.assert_array_equal(part.rollout.obs[:-1][valid], flat[rows])
        seen += rows.tolist()
        sizes.append(len(rows))
    assert sorted(seen) == np.flatnonzero(rollout.valid).tolist()
    assert seen != sorted(seen)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("count", [2, 3, 5])
def test_sequences_stay_whole(make_rollout: Callable[..., Rollout], rng: np.random.Generator, count: int) -> None:
    rollout = make_rollout(BOX, T=4, B=5)
    state = np.arange(10, dtype=np.float32).reshape(5, 2)
    whole, seen = batch_of(dataclasses.replace(rollout, recurrent_state=state)), []
    for part in sequence_minibatches(whole, count, rng):
        envs = part.rollout.rewards[0].astype(int)
        assert len(envs) in (5 // count, -(-5 // count))
        for column in columns(part):
            np.testing.assert_array_equal(column, np.arange(20).reshape(4, 5)[:, envs])
        for name in ("obs", "valid", "terminated", "truncated", "episode_start"):
            np.testing.assert_array_equal(getattr(part.rollout, name), getattr(rollout, name)[:, envs])
        np.testing.assert_array_equal(part.rollout.recurrent_state, state[envs])
        assert part.rollout.num_valid == part.rollout.valid.sum()
        seen += envs.tolist()
    assert sorted(seen) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("cut", [row_minibatches, sequence_minibatches])
def test_minibatches_without_valid_rows_are_left_out(
    make_rollout: Callable[..., Rollout], rng: np.random.Generator, cut: Any
) -> None:
    rollout = make_rollout(BOX, T=3, B=4)
    valid = np.zeros((3, 4), np.float32)
    valid[1, 2] = 1.0
    (part,) = cut(batch_of(dataclasses.replace(rollout, valid=valid, num_valid=1)), 4, rng)
    assert part.rollout.num_valid == 1
    assert part.values[part.rollout.valid > 0].tolist() == [6.0]
