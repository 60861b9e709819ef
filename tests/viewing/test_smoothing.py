"""Averages of curves by their definitions, and thinning."""

from __future__ import annotations

import numpy as np

from limelight.viewing.smoothing import exponential_smoothing, moving_average, thinned


def test_moving_average_is_the_mean_of_a_window() -> None:
    values = np.random.default_rng(0).normal(size=57)
    expected = [values[max(0, i - 9) : i + 1].mean() for i in range(57)]
    np.testing.assert_allclose(moving_average(values, 10), expected, atol=1e-12)


def test_exponential_smoothing_is_a_weighted_mean() -> None:
    values = np.random.default_rng(0).normal(size=30)
    weights = 0.9 ** np.arange(30)
    expected = [weights[: i + 1][::-1] @ values[: i + 1] / weights[: i + 1].sum() for i in range(30)]
    np.testing.assert_allclose(exponential_smoothing(values, 0.9), expected, atol=1e-12)


def test_thinning_keeps_both_ends() -> None:
    assert thinned(3, 5).tolist() == [0, 1, 2]
    places = thinned(1_000, 7)
    assert (len(places), places[0], places[-1]) == (7, 0, 999)
