"""Where the time went, over the rows of a run, and the line of advice."""

from __future__ import annotations

from typing import Any

import pytest

from limelight.runners.time_shares import ACTING, ENVIRONMENT, EVALUATION, KINDS, LEARNING, WAITING
from limelight.settings.io import with_settings
from limelight.settings.schema import TrainConfig
from limelight.viewing.time_spent import advice, in_words, shares, spent


def row(wall: float, *values: float) -> dict[str, float]:
    return {"time/wall": wall, **dict(zip(KINDS, values, strict=True))}


def test_rows_count_by_their_length_and_evaluations_by_their_seconds() -> None:
    rows: list[dict[str, Any]] = [
        row(10.0, 0.5, 0.25, 0.25, 0.0, 0.0),
        {"eval/mean_reward": 1.0, "time/eval_seconds": 10.0},
        row(30.0, 0.0, 0.0, 0.5, 0.3, 0.2),
        {"train/entropy": None},
    ]
    seconds = spent(rows)
    assert seconds == pytest.approx({ENVIRONMENT: 5.0, ACTING: 2.5, LEARNING: 17.5, EVALUATION: 10.0, WAITING: 6.0})
    assert sum(shares(seconds).values()) == pytest.approx(1.0)
    assert in_words(shares(seconds)) == "environment 12%  acting 6%  learning 43%  evaluation 24%  waiting 15%"


def test_rows_of_an_older_run_have_no_shares() -> None:
    assert spent([{"time/env_seconds": 3.0}, {"time/eval_seconds": 3.0}]) == {}
    assert shares({}) == {}
    assert in_words({}) == ""
    assert advice({}, TrainConfig()) is None


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (ENVIRONMENT, {"backend": "sync"}, "try --backend async"),
        (ENVIRONMENT, {"backend": "vector"}, "try limelight check CartPole-v1 --throughput"),
        (ENVIRONMENT, {"asynchronous": True}, "try more --num-workers"),
        (ACTING, {"num_envs": 8}, "try --num-envs 16"),
        (LEARNING, {"num_envs": 4}, "try --num-envs 8"),
        (EVALUATION, {"eval_every": 10_000}, "try --eval-every 40000"),
        (WAITING, {"asynchronous": True}, "try fewer --num-workers"),
        (WAITING, {}, "try rarer checkpoints"),
    ],
)
def test_advice_is_about_the_largest_share(kind: str, settings: dict[str, Any], words: str) -> None:
    found = dict.fromkeys(KINDS, 0.1) | {kind: 0.6}
    text = advice(found, with_settings(TrainConfig(), settings))
    assert text is not None
    assert text.startswith(f"{kind.removeprefix('time/')} takes 60% of the time; ")
    assert words in text
    assert "\n" not in text


def test_without_a_large_share_there_is_no_advice() -> None:
    assert advice(dict.fromkeys(KINDS, 0.2), TrainConfig()) is None
