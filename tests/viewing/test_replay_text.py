"""The lines on the first number that is not finite."""

from __future__ import annotations

import numpy as np
import pytest

from limelight.envs.recorded import RecordedRow
from limelight.errors import FirstNonFiniteError
from limelight.viewing.replay_text import action_text, advice, replay_lines


def test_a_number_has_its_place_environment_step_and_actions() -> None:
    row = RecordedRow(7, np.array([1, 2]), np.array([0.5, -1.0]), np.array([True] * 2), np.array([False, True]))
    found = FirstNonFiniteError("layer encoder.layers.0 (Linear)", np.inf, 3, 1)
    assert replay_lines(found, 1_234, 56, 2, 1, [row]) == [
        "first number that is not finite: inf",
        "  place        layer encoder.layers.0 (Linear)",
        "  environment  1 (of 2, counted from 0)",
        "  step         1,234, after 56 updates",
        "last 1 actions of environment 1, oldest first:",
        "  2  reward -1  end of episode",
        f"to try: {advice(found.place)}",
    ]


def test_a_number_of_no_environment_and_a_run_without_one_say_so() -> None:
    lines = replay_lines(FirstNonFiniteError("parameter a", np.nan), 10, 1, 4, 0, [])
    assert "  environment  none: it is of all of them" in lines
    assert "every number is finite up to step 10" in replay_lines(None, 10, 1, 4, 0, [])[0]


def test_actions_are_short() -> None:
    assert action_text(np.int64(3)) == "3"
    assert action_text(np.linspace(0, 1, 8, dtype=np.float32)) == "0 0.1429 0.2857 0.4286 0.5714 0.7143 …"


@pytest.mark.parametrize(
    ("place", "word"),
    [
        ("action of the environment", "diverged"),
        ("reward of the environment", "limelight check"),
        ("parameter a.weight[0]", "learning_rate"),
        ("layer encoder (MLP)", "normalize_obs"),
        ("the loss: ∂L/∂V(s), from the return to learn from", "reward_scale"),
        ("the norm of the gradient", "max_grad_norm"),
    ],
)
def test_advice_is_a_setting_or_a_command(place: str, word: str) -> None:
    assert word in advice(place)
