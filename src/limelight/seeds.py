"""Independent random streams from one seed: every random part of a run has a stream of its own."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """The random streams of a run."""

    ENV = 0
    POLICY = 1
    MODEL = 2
    EVALUATION = 3
    CONFIRMATION = 4
    FINAL = 5
    WORKER = 6
    VIDEO = 7
    MINIBATCHES = 8
    NEXT_ACTIONS = 9


def derive_seed(seed: int, stream: Stream, index: int = 0) -> int:
    """Return a 31-bit seed for the ``index``-th use of ``stream``; it differs for every (seed, stream, index)."""
    sequence = np.random.SeedSequence(seed, spawn_key=(int(stream), index))
    return int(sequence.generate_state(1)[0] >> 1)


def worker_seed(seed: int, worker: int, restarts: int = 0) -> int:
    """Return the seed of a worker's own streams.

    A restarted worker gets fresh seeds, so that it does not meet the same failure again. The first worker has the run's
    own seed, so that a run of one worker is the run without workers, bit for bit.
    """
    if worker == restarts == 0:
        return seed
    return derive_seed(seed, Stream.WORKER, worker + (restarts << 16))
