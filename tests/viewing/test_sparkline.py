"""Curves in one line of text."""

from __future__ import annotations

import pytest

from limelight.viewing.sparkline import Curve, sparkline


@pytest.mark.parametrize(
    ("values", "width", "text"),
    [
        ([], 10, ""),
        ([1.0, 2.0], 0, ""),
        ([5.0, 5.0, 5.0], 10, "▅▅▅"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([0, 2, 1, 1, 8, 0, 7, 9], 4, "▁▁▄█"),
        ([-3.0, -1.0], 5, "▁█"),
    ],
)
def test_blocks_are_means_from_least_to_greatest(values: list[float], width: int, text: str) -> None:
    assert sparkline(values, width) == text


def test_a_curve_of_any_length_is_kept_in_bounded_memory() -> None:
    curve = Curve(most=8)
    for value in range(1_000):
        curve.add(float(value))
        assert len(curve.values) < 8
    assert curve.values == sorted(curve.values)
    assert curve.values[0] == pytest.approx(sum(range(128)) / 128)
