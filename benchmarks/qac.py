"""Compare action-value critics with the state-value critic: by weight of ∇log π and by bootstrap.

python benchmarks/qac.py                     # ten seeds of each, CartPole-v1
python benchmarks/qac.py --only one-step     # the one-step algorithms alone
python benchmarks/qac.py --only slow --steps 200000 --output benchmarks/results/qac-200k.json

One-step variants run sixteen environments side by side, which costs a sixteenth of the updates; the others differ from
a2c's preset in the critic alone, or, slow actor, in the networks' step sizes as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import variants

_Q = {"critic_output": "q"}
_ONE_STEP = {"algo": "ac", "num_envs": 16, "num_steps": 1}
_SARSA = {**_ONE_STEP, **_Q, "critic": "target", "q_bootstrap": "sarsa"}
VARIANTS: dict[str, dict[str, Any]] = {
    "V: a2c": {"algo": "a2c"},
    "q − Σπq, expected SARSA": {"algo": "a2c", **_Q},
    "q − Σπq, SARSA": {"algo": "a2c", **_Q, "q_bootstrap": "sarsa"},
    "q, SARSA": {"algo": "a2c", **_Q, "q_bootstrap": "sarsa", "policy_weight": "q"},
    "δ, SARSA": {"algo": "a2c", **_Q, "q_bootstrap": "sarsa", "policy_weight": "td_error"},
    "slow actor: q − Σπq, expected SARSA": {
        "algo": "a2c",
        **_Q,
        "critic": "separate",
        "learning_rate": 1e-3,
        "critic_learning_rate": 4e-3,
    },
    "one-step V: ac": _ONE_STEP,
    "one-step q, SARSA, target critic": {**_SARSA, "policy_weight": "q"},
    "one-step δ, SARSA, target critic": {**_SARSA, "policy_weight": "td_error"},
    "one-step q − Σπq, SARSA, target critic": {**_SARSA, "policy_weight": "advantage"},
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    return variants.parse("qac", __doc__, argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the variants."""
    return variants.main("qac", parse(argv), VARIANTS)


if __name__ == "__main__":
    raise SystemExit(main())
