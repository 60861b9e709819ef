"""The comparison of arrays by their bytes: not-a-number equals itself, and zeros of two signs differ."""

from __future__ import annotations

import numpy as np

from limelight.spaces.same_bytes import same_bytes


def test_arrays_are_compared_by_their_bytes() -> None:
    nan = np.array([1.0, np.nan])
    assert same_bytes(nan, nan)
    assert same_bytes(nan, nan.copy())
    assert not same_bytes(np.array([0.0]), np.array([-0.0]))
    assert same_bytes(np.zeros((0, 3)), np.zeros((0, 3)))


def test_a_difference_beyond_the_first_part_is_found() -> None:
    array = np.zeros((3, 1 << 19), np.float32)
    other = array.copy()
    other[-1, -1] = 1.0
    assert not same_bytes(array, other)
