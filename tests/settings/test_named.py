"""Objects by name: only literals are evaluated, and every mistake is one line."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.settings import one_line
from limelight.errors import ConfigError
from limelight.settings.named import load_named

KNOWN = {"Fraction": "fractions:Fraction"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("fractions:Fraction(3, 4)", 0.75),
        ("Fraction(1, denominator=2)", 0.5),
        ("Fraction", 0),
        ("Fraction()", 0),
    ],
)
def test_a_name_makes_an_object(text: str, value: float) -> None:
    assert load_named("callback", text, KNOWN) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Fractoin", "must be Fraction | package.module:Class; did you mean Fraction?"),
        ("fractions:Fractoin", "fractions has no class Fractoin; did you mean Fraction?"),
        ("fraction_s:A", "cannot import fraction_s (No module named 'fraction_s')"),
        ("fractions:", "must be package.module:Class"),
        ("a b:C", "must be package.module:Class"),
        ("Fraction(1", "arguments must be literals"),
        ("Fraction(__import__('os').getpid())", "arguments must be literals"),
        ("Fraction(*[1])", "arguments must be literals"),
        ("Fraction(**{'numerator': 1})", "arguments must be literals"),
        ("Fraction(1)(2)", "arguments must be literals"),
        ("Fraction(1).real", "arguments must be literals"),
        ("Fraction(1, 0)", "Fraction(…) raised ZeroDivisionError"),
        ("Fraction(1, patience=3)", "Fraction(…) raised TypeError"),
        ("", "must be Fraction"),
    ],
)
def test_every_mistake_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_named("callback", text, KNOWN)
    assert one_line(error).startswith(f"callback = {text}: ".rstrip() if not text else f"callback = {text}: ")
    assert message in one_line(error)


def test_literals_of_every_kind_arrive() -> None:
    made: Any = load_named("x", "helpers.callbacks:Levels({'a': [1, -2.5, None, True]})", {})
    assert made.level == {"a": [1, -2.5, None, True]}
