"""Compare return estimators, and what normalised returns cost: a2c on CartPole-v1 with longer rollouts.

python benchmarks/returns.py --seeds 5
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import variants

_A2C = {"algo": "a2c"}
VARIANTS: dict[str, dict[str, Any]] = {
    "gae, λ = .95": _A2C,
    "td0": {**_A2C, "returns": "td0"},
    "n_step, n = 5": {**_A2C, "returns": "n_step", "return_steps": 5},
    "mc": {**_A2C, "returns": "mc"},
    "gae, normalize_returns": {**_A2C, "normalize_returns": True},
    "mc, normalize_returns": {**_A2C, "returns": "mc", "normalize_returns": True},
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    return variants.parse("returns", __doc__, argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the variants."""
    return variants.main("returns", parse(argv), VARIANTS)


if __name__ == "__main__":
    raise SystemExit(main())
