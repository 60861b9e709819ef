"""Numbers as text: the spread decides how many decimals are shown."""

from __future__ import annotations

import math

import pytest

from limelight.viewing.numbers import clock, compact, decimal, with_spread


@pytest.mark.parametrize(
    ("mean", "spread", "text"),
    [
        (0.961, 0.012, "0.961 ± 0.012"),
        (0.961, 0.008, "0.961 ± 0.008"),
        (0.9614, 0.0, "0.9614 ± 0.0000"),
        (0.961, 1e-17, "0.961 ± 0.000"),  # the rounding error of a mean over equal returns
        (1.0, 0.0, "1.0 ± 0.0"),
        (500.0, 0.0, "500.0 ± 0.0"),
        (475.25, 3.21, "475.2 ± 3.2"),
        (20.5, 0.5, "20.5 ± 0.5"),
        (349.84, 92.91, "349.8 ± 92.9"),
        (-1234.5, 123.4, "-1,234.5 ± 123.4"),
        (4.6e31, 1.5e30, "4.6e+31 ± 1.5e+30"),
        (0.02, 0.14, "0.02 ± 0.14"),
        (0.0, 0.05, "0.00 ± 0.05"),
        (0.0, 0.0, "0.0 ± 0.0"),
        (-0.00021, 0.00012, "-0.00021 ± 0.00012"),
        (9.35, 0.0123, "9.350 ± 0.012"),
        (math.nan, math.nan, "nan ± nan"),
        (math.inf, math.nan, "inf ± nan"),
    ],
)
def test_decimals_follow_the_spread(mean: float, spread: float, text: str) -> None:
    assert with_spread(mean, spread) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(15.0, "15.0"), (0.9614, "0.9614"), (0.05, "0.05"), (-234.56, "-234.6"), (12345.6, "12,345.6"), (0.0, "0.0")],
)
def test_a_single_return_has_four_significant_digits_and_a_decimal(value: float, text: str) -> None:
    assert decimal(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(21.0, "21"), (-20.5, "-20.5"), (0.96137, "0.9614"), (1234.56, "1,234.6"), (2e5, "200,000"), (1e15, "1e+15")],
)
def test_compact_numbers_have_no_idle_zeros(value: float, text: str) -> None:
    assert compact(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(7.2, "0:07"), (750, "12:30"), (10_930, "3:02:10")])
def test_durations_read_as_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
