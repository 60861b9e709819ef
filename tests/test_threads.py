"""One thread, and no denormal numbers, as long as it lasts."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import torch

from limelight.threads import one_torch_thread, single_threaded


def smallest_halved() -> float:
    """Half of the smallest normal number of float32, in NumPy and in torch."""
    numbers = np.full(64, np.finfo(np.float32).tiny, np.float32)
    ours, theirs = numbers * np.float32(0.5), torch.from_numpy(numbers) * 0.5
    assert ours.tolist() == theirs.tolist()
    return float(ours[0])


def test_one_thread_without_denormals_as_long_as_it_lasts() -> None:
    threads = torch.get_num_threads()
    assert smallest_halved() > 0.0
    with single_threaded():
        assert torch.get_num_threads() == 1
        assert smallest_halved() == 0.0
    assert smallest_halved() > 0.0
    assert torch.get_num_threads() == threads


def test_a_context_within_another_leaves_it_as_it_was() -> None:
    with single_threaded():
        with single_threaded():
            pass
        assert smallest_halved() == 0.0
        assert torch.get_num_threads() == 1
    assert smallest_halved() > 0.0


def test_contexts_may_end_in_any_order() -> None:
    first, second = ExitStack(), ExitStack()
    first.enter_context(single_threaded())
    second.enter_context(single_threaded())
    first.close()
    assert smallest_halved() == 0.0
    second.close()
    assert smallest_halved() > 0.0


def test_one_thread_of_torch_for_a_single_call() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_torch_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
