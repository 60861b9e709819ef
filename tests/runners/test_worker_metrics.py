"""Metrics of many workers in one row."""

from __future__ import annotations

from limelight.runners.worker_metrics import combined_metrics


def test_metrics_are_means_over_workers_and_the_largest_reward_is_the_largest_of_all() -> None:
    rows = [
        {"train/entropy": 1.0, "train/reward_max": 9.0},
        {"train/entropy": 3.0, "train/reward_max": 1.0, "train/kl": 0.5},
    ]
    assert combined_metrics(rows) == {"train/entropy": 2.0, "train/reward_max": 9.0, "train/kl": 0.5}


def test_a_metric_is_over_the_workers_that_have_it() -> None:
    rows = [{"train/entropy": 1.0}, {"train/reward_max": 2.0, "train/entropy": 2.0}]
    assert combined_metrics(rows) == {"train/reward_max": 2.0, "train/entropy": 1.5}
    assert combined_metrics([]) == {}
