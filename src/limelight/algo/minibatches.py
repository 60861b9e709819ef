"""Minibatches of a rollout: smaller rollouts that the network takes as it takes the whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from limelight.algo.last_update import Targets
from limelight.algo.rollout import Rollout
from limelight.typing import FloatArray


class Batch(NamedTuple):
    """The rows that an update learns from, and the constants of its loss, [T, B]."""

    rollout: Rollout
    targets: Targets
    values: FloatArray
    """V(sₜ) before the first update from the rollout."""
    log_probs: FloatArray | None
    """log π_old(aₜ|sₜ); None where the loss has no ratio."""


def row_minibatches(whole: Batch, count: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Cut the valid rows of [T, B], shuffled, into ``count`` minibatches of n = ⌈T B / count⌉ rows, [n, 1] each.

    Their numbers of valid rows differ by one at most; invalid rows fill them up, so that all have one shape. A
    minibatch without valid rows is left out. The last observation, [n + 1], belongs to no transition.
    """
    rollout, size = whole.rollout, whole.rollout.valid.size
    n = -(-size // count)
    for chosen in np.array_split(rng.permutation(np.flatnonzero(rollout.valid)), count):
        if not len(chosen):
            continue
        rows = np.zeros(n + 1, np.intp)
        rows[: len(chosen)] = chosen
        valid = np.zeros((n, 1), np.float32)
        valid[: len(chosen)] = 1.0
        yield _rows_of(whole, rows, valid, len(chosen))


def _rows_of(whole: Batch, rows: NDArray[np.intp], valid: NDArray[np.float32], num_valid: int) -> Batch:
    """Return these rows of [T, B] as time steps of one environment, which have no order for a network without memory.

    ``rows``: [n + 1], of which the last is an observation alone.
    """

    def take(array: NDArray[Any], rows: NDArray[np.intp] = rows[:-1]) -> NDArray[Any]:
        return array.reshape(-1, *array.shape[2:]).take(rows, 0)[:, None]

    r, targets = whole.rollout, whole.targets
    part = Rollout(
        take(r.obs, rows), take(r.actions), take(r.rewards), take(r.terminated), take(r.truncated), valid,
        take(r.episode_start, rows), num_valid,
    )  # fmt: skip
    log_probs = None if whole.log_probs is None else take(whole.log_probs)
    return Batch(part, Targets(take(targets.returns), take(targets.advantages)), take(whole.values), log_probs)


def sequence_minibatches(whole: Batch, count: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Cut B environments, shuffled, into ``count`` minibatches [T, ⌈B / count⌉] or one environment fewer.

    Each environment keeps its T steps and its initial recurrent state. A minibatch without valid rows is left out.
    """
    for envs in np.array_split(rng.permutation(whole.rollout.valid.shape[1]), count):
        part = _sequences_of(whole, envs)
        if part.rollout.num_valid:
            yield part


def _sequences_of(whole: Batch, envs: NDArray[np.intp]) -> Batch:
    """Return the sequences of these environments."""

    def take(array: NDArray[Any]) -> NDArray[Any]:
        return array.take(envs, 1)

    r, targets = whole.rollout, whole.targets
    valid = take(r.valid)
    part = dataclasses.replace(
        r, obs=take(r.obs), actions=take(r.actions), rewards=take(r.rewards), terminated=take(r.terminated),
        truncated=take(r.truncated), valid=valid, episode_start=take(r.episode_start),
        num_valid=int(np.count_nonzero(valid)), final_obs=None,
        recurrent_state=None if r.recurrent_state is None else r.recurrent_state.take(envs, 0),
        log_probs=None, learning_rewards=None,
    )  # fmt: skip
    log_probs = None if whole.log_probs is None else take(whole.log_probs)
    return Batch(part, Targets(take(targets.returns), take(targets.advantages)), take(whole.values), log_probs)


def whole_rollout(whole: Batch, count: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Return the rollout itself, in its own order: the one minibatch where ``count`` is 1."""
    yield whole
