"""The numerical environment of a process: one thread, no denormal numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def single_threaded() -> Iterator[None]:
    """Let PyTorch and BLAS use one thread, and flush denormal numbers (below 1e-38) to 0, inside this context.

    The networks are small, and more threads would only wait for each other. Optimizer statistics of weights whose
    gradient has become 0 decay to denormal numbers and stay denormal (0.9 times the smallest rounds to the smallest),
    and arithmetic with these is several times slower. NumPy follows PyTorch's setting.
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
