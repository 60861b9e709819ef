"""How a process computes: on one thread, without denormal numbers. For the main process (train.py) and every worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread for PyTorch and BLAS, and numbers below 1e-38 are 0, in NumPy as well.

    The networks are small, and more threads only get in each other's way. Moments of weights whose gradient has become
    0 decay to such numbers and stay there (0.9 times the smallest is the smallest), and they are slow: a fifth of
    Adam's, after 13,000 updates of an Atari network, made one pass over the vector take seven times as long.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)
