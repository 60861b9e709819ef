"""What the progress display says of a run as a whole."""

from __future__ import annotations

import math

from limelight.viewing.history import History


def test_a_terminal_without_blocks_shows_the_best_evaluation_alone() -> None:
    history = History()
    for value in (1.0, math.nan, 2.0):
        history.add({"rollout/ep_rew_mean": value})
    assert history.returns_line(80, "ascii").plain == ""
    history.add({"eval/mean_reward": 3.0})
    history.add({"eval/mean_reward": 1.0})
    assert history.returns_line(80, "ascii").plain == "best eval 3.0"
    assert history.returns_line(80, "utf-8").plain == "curve  ▁█  best eval 3.0"


def test_the_curve_leaves_room_for_the_best_evaluation() -> None:
    history = History()
    for i in range(500):
        history.add({"rollout/ep_rew_mean": float(i)})
    history.add({"eval/mean_reward": -12_345.6})
    for width in (40, 80, 140):
        assert len(history.returns_line(width, "utf-8")) <= width
    assert history.time_line() == ""
    assert history.seconds() == 0.0
