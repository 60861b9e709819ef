"""The numerical environment of a process: one thread, no denormal numbers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

_CONTEXTS = threading.local()
"""How many contexts of :func:`single_threaded` each thread is in, and whether it flushed denormal numbers before."""


@contextmanager
def single_threaded() -> Iterator[None]:
    """Let PyTorch and BLAS use one thread, and flush denormal numbers (below 1e-38) to 0, inside this context.

    The networks are small, and more threads would only wait for each other. Optimizer statistics of weights whose
    gradient has become 0 decay to denormal numbers and stay denormal (0.9 times the smallest rounds to the smallest),
    and arithmetic with these is several times slower. NumPy follows PyTorch's setting.
    """
    depth = getattr(_CONTEXTS, "depth", 0)
    if depth == 0:
        _CONTEXTS.flushed = _flushes_denormal()
    _CONTEXTS.depth = depth + 1
    torch.set_flush_denormal(True)
    try:
        with one_torch_thread(), threadpool_limits(1):
            yield
    finally:
        _CONTEXTS.depth -= 1
        if _CONTEXTS.depth == 0:  # in whatever order they end
            torch.set_flush_denormal(_CONTEXTS.flushed)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let PyTorch use one thread inside this context; it costs microseconds, so that a single call can have it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _flushes_denormal() -> bool:
    """Return whether this thread flushes denormal numbers to 0, which PyTorch does not tell."""
    return torch.tensor(1e-39).mul(1.0).item() == 0.0
