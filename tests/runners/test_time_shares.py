"""Shares of the time: of one actor-learner, of the wall-clock time, and in the rows of real runs of every runner."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import limelight
from helpers.manual_workers import draw_no_report
from limelight.runners import time_shares
from limelight.runners.time_shares import (
    ACTING,
    ENVIRONMENT,
    EVALUATION,
    KINDS,
    LEARNING,
    WAITING,
    RowClock,
    ShareMeter,
)
from limelight.runs.reader import read_run
from limelight.viewing.time_spent import shares, spent


class Spent:
    """Stands for an actor-learner."""

    seconds = (0.0, 0.0)

    def spent(self) -> tuple[float, float]:
        return self.seconds


def test_what_is_neither_collecting_nor_waiting_is_learning() -> None:
    actor_learner = Spent()
    meter = ShareMeter(actor_learner)  # type: ignore[arg-type]
    actor_learner.seconds = (3.0, 5.0)
    assert meter.metrics(10.0, 1.0) == pytest.approx({ENVIRONMENT: 0.3, ACTING: 0.2, LEARNING: 0.4, WAITING: 0.1})
    assert meter.metrics(10.0, 1.0) == {}  # no time has passed
    actor_learner.seconds = (4.0, 6.0)
    assert meter.metrics(12.0, 1.0) == pytest.approx({ENVIRONMENT: 0.5, ACTING: 0.0, LEARNING: 0.5, WAITING: 0.0})


def test_estimates_above_the_time_that_passed_still_sum_to_one() -> None:
    actor_learner = Spent()
    meter = ShareMeter(actor_learner)  # type: ignore[arg-type]
    actor_learner.seconds = (9.0, 6.0)
    found = meter.metrics(4.0)
    assert sum(found.values()) == pytest.approx(1.0)
    assert found[ENVIRONMENT] == pytest.approx(1.0)


def test_a_meter_measures_from_its_start() -> None:
    actor_learner = Spent()
    actor_learner.seconds = (50.0, 60.0)
    meter = ShareMeter(actor_learner)  # type: ignore[arg-type]
    meter.start(100.0)
    actor_learner.seconds = (51.0, 62.0)
    found = meter.metrics(104.0)
    assert found == pytest.approx({ENVIRONMENT: 0.25, ACTING: 0.25, LEARNING: 0.5, WAITING: 0.0})


TRAINING = {ENVIRONMENT: 0.5, ACTING: 0.25, LEARNING: 0.25, WAITING: 0.0}


def test_evaluations_that_stop_the_training_are_a_share_of_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(time_shares, "time", SimpleNamespace(monotonic=lambda: clock.now))
    row_clock = RowClock()
    clock.now += 10.0
    row_clock.evaluation = 5.0
    row = row_clock.row(2_000, 4.0, TRAINING)  # one second went elsewhere
    assert row["time/fps"] == pytest.approx(500.0)
    assert row["time/wall"] == pytest.approx(10.0)
    expected = {ENVIRONMENT: 0.2, ACTING: 0.1, LEARNING: 0.1, WAITING: 0.1, EVALUATION: 0.5}
    assert {name: row[name] for name in KINDS} == pytest.approx(expected)
    clock.now += 2.0
    again = row_clock.row(3_000, 6.0, TRAINING)
    assert again[EVALUATION] == 0.0
    assert again[ENVIRONMENT] == pytest.approx(0.5)


def test_evaluations_beside_workers_take_nothing_from_them(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(time_shares, "time", SimpleNamespace(monotonic=lambda: clock.now))
    row_clock = RowClock(evaluates_beside=True)
    clock.now = 10.0
    row_clock.evaluation = 5.0
    row = row_clock.row(2_000, 10.0, TRAINING)
    assert {name: row[name] for name in KINDS} == pytest.approx({**TRAINING, EVALUATION: 0.5})


def test_a_row_without_an_update_has_its_speed_alone() -> None:
    assert set(RowClock().row(10, 1.0, {})) == {"time/fps"}


SHORT: dict[str, Any] = {
    "quiet": True, "tensorboard": False, "final_episodes": 0, "total_timesteps": 600, "log_every": 200,
    "eval_every": 300, "eval_episodes": 2, "preset": "none",
}  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"algo": "a2c", "num_envs": 1, "num_steps": 1},
        {"algo": "a2c", "num_envs": 4, "num_steps": 5, "backend": "async"},
        {"algo": "ppo", "num_steps": 20, "num_envs": 2, "core": "lstm"},
        {"algo": "a3c", "num_workers": 2, "update_order": "locked"},
    ],
    ids=["one environment", "processes", "ppo", "workers"],
)
def test_rows_of_every_runner_have_shares_that_sum_to_one(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_no_report(monkeypatch)
    limelight.train("CartPole-v1", run_dir=str(tmp_path / "r"), **{**SHORT, **settings})
    run = read_run(tmp_path / "r")
    rows = [row for row in run.metrics if LEARNING in row]
    assert rows
    beside = settings["algo"] == "a3c"
    for row in rows:
        own = {name: row[name] for name in KINDS if not (beside and name == EVALUATION)}
        assert all(value >= 0.0 for value in own.values()), row
        assert sum(own.values()) == pytest.approx(1.0, abs=1e-6), row
    found = shares(spent(run.metrics))
    assert sum(found.values()) == pytest.approx(1.0)
    assert found[EVALUATION] > 0.0


class Slow:
    """CartPole whose steps sleep."""

    def __new__(cls) -> Any:
        import gymnasium as gym

        env = gym.make("CartPole-v1")
        step = env.unwrapped.step

        def slow_step(action: Any) -> Any:
            time.sleep(0.002)
            return step(action)

        env.unwrapped.step = slow_step  # type: ignore[method-assign]
        return env


@pytest.mark.slow
def test_a_slow_environment_has_most_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)
    limelight.train(Slow, run_dir=str(tmp_path / "r"), **{**SHORT, "algo": "a2c", "num_envs": 2, "eval_every": 0})
    assert shares(spent(read_run(tmp_path / "r").metrics))[ENVIRONMENT] > 0.6
