"""Numbers as text for people: returns with their spread, short values, durations."""

from __future__ import annotations

import math

_LARGEST = 1e12
"""Numbers from here on are written with an exponent."""
_MOST_DIGITS = 4
"""Significant digits of a mean, unless its first decimal needs more."""


def with_spread(mean: float, spread: float) -> str:
    """Return ``475.2 ± 3.2`` or ``0.961 ± 0.012``: as many decimals as two significant digits of the spread need.

    At least one decimal is shown, and never more than four significant digits of the mean ask for.
    """
    if max(abs(mean), abs(spread)) >= _LARGEST:
        return f"{mean:.4g} ± {spread:.4g}"
    finest = _MOST_DIGITS - 1 - _exponent(mean if mean else spread)
    decimals = max(1, min(finest, 1 - _exponent(spread) if spread else finest))
    texts = f"{mean:,.{decimals}f}", f"{spread:,.{decimals}f}"
    while decimals > 1 and all(text.endswith("0") for text in texts):
        decimals -= 1
        texts = texts[0][:-1], texts[1][:-1]
    return " ± ".join(texts)


def decimal(value: float) -> str:
    """Return ``475.2``, ``21.0`` or ``0.9614``: four significant digits, and at least one decimal."""
    return with_spread(value, 0.0).partition(" ")[0]


def compact(value: float) -> str:
    """Return ``21``, ``0.9614`` or ``30,769.2``: four significant digits, thousands separated, no idle zeros."""
    if math.isfinite(value) and abs(value) < _LARGEST:
        if value == round(value):
            return f"{value:,.0f}"
        if abs(value) >= 100:
            return f"{value:,.1f}"
    return f"{value:.4g}"


def clock(seconds: float) -> str:
    """Return ``0:07``, ``12:30`` or ``3:02:10``."""
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"


def megabytes(size: int) -> str:
    """Return ``12.3 MB``, ``0.04 MB`` or ``0 MB`` for a number of bytes."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e6:.2g} MB"


def _exponent(value: float) -> int:
    """Return n of the leading digit's 10ⁿ; 0 for 0, infinities and NaN."""
    return math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0
