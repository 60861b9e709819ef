"""Tasks that need memory: an LSTM and a GRU learn them, a network without memory stays at chance."""

from __future__ import annotations

from pathlib import Path

import pytest

import limelight
from limelight.envs.toy import Match, Recall

CUES = 3


def recall() -> Recall:
    return Recall(num_cues=CUES, delay=3)


def score(tmp_path: Path, **settings: str | int) -> float:
    """Mean return of 300 episodes: the share of right answers."""
    result = limelight.train(
        recall, preset="plain", seed=100, run_dir=str(tmp_path / "r"), quiet=True, tensorboard=False, eval_every=0,
        final_episodes=300, total_timesteps=40_000, num_envs=16, num_steps=16, hidden_sizes=(32,), gamma=0.95,
        optimizer="adam", learning_rate=5e-3, lr_schedule="constant", **settings,
    )  # fmt: skip
    return float(result.summary["final_eval_return"])


@pytest.mark.slow
def test_an_lstm_says_whether_two_cues_are_the_same(tmp_path: Path) -> None:
    """With a forget gate of bias 0 at the start it does not in so few steps: 0 of 4 seeds, with 1 4 of 4."""
    result = limelight.train(
        Match, preset="plain", seed=100, run_dir=str(tmp_path / "r"), quiet=True, tensorboard=False, eval_every=0,
        final_episodes=300, total_timesteps=80_000, num_envs=16, num_steps=16, optimizer="adam", learning_rate=3e-3,
        core="lstm",
    )  # fmt: skip
    assert result.summary["final_eval_return"] >= 0.95


@pytest.mark.parametrize(
    ("core", "critic"),
    [
        pytest.param("lstm", "shared", marks=pytest.mark.slow),
        ("gru", "shared"),
        pytest.param("gru", "target", marks=pytest.mark.slow),
    ],
)
def test_memory_answers_the_query(core: str, critic: str, tmp_path: Path) -> None:
    assert score(tmp_path, core=core, core_size=32, critic=critic) >= 0.95


def test_without_memory_it_is_chance(tmp_path: Path) -> None:
    assert score(tmp_path) <= 1 / CUES + 0.15
