"""The lines of ``limelight replay``: the first number that is not finite, its place, and the actions before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from limelight.envs.recorded import RecordedRow
from limelight.errors import FirstNonFiniteError
from limelight.viewing.numbers import compact

_MOST_NUMBERS = 6
"""Components of an action that are shown."""


def replay_lines(
    found: FirstNonFiniteError | None, step: int, update: int, num_envs: int, env: int, actions: Sequence[RecordedRow]
) -> list[str]:
    """Return the lines on a replay that has found a number, or has ended at ``step`` without one.

    Args:
        found: the number; None without one.
        step: environment steps of the run before the number.
        update: updates before it.
        num_envs: environments of the run.
        env: the environment of the actions.
        actions: the last steps before it.
    """
    if found is None:
        return [f"every number is finite up to step {step:,} (update {update:,}), where the run has ended"]
    place = found.place.rstrip(",")
    where = f"{found.env} (of {num_envs}, counted from 0)" if found.env is not None else "none: it is of all of them"
    lines = [
        f"first number that is not finite: {found.value}",
        f"  place        {place}",
        f"  environment  {where}",
        f"  step         {step:,}, after {update:,} updates",
        f"last {len(actions)} actions of environment {env}, oldest first:" if actions else "no action before it",
    ]
    lines += [
        f"  {action_text(row.actions[env])}  reward {compact(float(row.rewards[env]))}"
        f"{'  end of episode' if row.ended[env] else ''}"
        for row in actions
    ]
    return [*lines, f"to try: {advice(place)}"]


def action_text(action: Any) -> str:
    """Return an action in a few characters."""
    numbers = np.asarray(action).reshape(-1)
    if numbers.dtype.kind != "f":
        shown = [str(number) for number in numbers[:_MOST_NUMBERS].tolist()]
    else:
        shown = [f"{number:.4g}" for number in numbers[:_MOST_NUMBERS].tolist()]
    more = " …" if len(numbers) > _MOST_NUMBERS else ""
    return f"{' '.join(shown)}{more}"


def advice(place: str) -> str:
    """Return what helps against a number of this place."""
    if place.endswith("of the environment") and place.startswith("action"):
        return "a smaller learning_rate or max_grad_norm: the policy has diverged"
    if "of the environment" in place or "that the network reads" in place:
        return "correct the environment: limelight check finds most of such numbers"
    if place.startswith(("parameter", "the optimizer's")):
        return "a smaller learning_rate; max_grad_norm 0.5 where there is none"
    if place.startswith("layer"):
        return "normalize_obs true, or observations of a smaller scale; a smaller learning_rate if parameters are large"
    if "return to learn from" in place or "advantage" in place or place.startswith("V("):
        return "a smaller reward_scale, or normalize_rewards true"
    return "max_grad_norm 0.5, a smaller learning_rate or reward_scale"
