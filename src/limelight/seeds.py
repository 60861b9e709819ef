"""One seed in, independent streams out: every random part of a run has its own, named here."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a random stream is for."""

    ENV = 0
    POLICY = 1
    MODEL = 2
    EVALUATION = 3
    CONFIRMATION = 4
    FINAL = 5
    WORKER = 6
    VIDEO = 7


def derive_seed(seed: int, stream: Stream, index: int = 0) -> int:
    """A 31-bit seed for the ``index``-th use of ``stream``; different for every (seed, stream, index)."""
    sequence = np.random.SeedSequence(seed, spawn_key=(int(stream), index))
    return int(sequence.generate_state(1)[0] >> 1)


def worker_seed(seed: int, worker: int, restarts: int = 0) -> int:
    """The seed of a worker's own streams; a restarted worker must not repeat what killed it.

    The first worker has the run's own seed: alone, it does what the run without workers does.
    """
    if worker == restarts == 0:
        return seed
    return derive_seed(seed, Stream.WORKER, worker + (restarts << 16))
