"""The search: parallel trials, pruning, failures, interruption."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna")

from helpers.tuning import FIXED, objective, without_training
from limelight.envs.source import resolve_env
from limelight.settings.schema import EnvConfig
from limelight.training.loop import Interrupt
from limelight.training.tuning.plan import Options, Plan, new_plan
from limelight.training.tuning.search import counted, search
from limelight.training.tuning.study import Study, TrialRecord
from limelight.viewing.tune_progress import TuneProgress

SOURCE = resolve_env(EnvConfig(env_id="CartPole-v1"))
GIVEN = {**FIXED, "preset": "plain", "algo": "a2c", "total_timesteps": 1200}


def plan_in(folder: Path, given: dict[str, Any] | None = None, **options: Any) -> Plan:
    settings = {**GIVEN, **(given or {}), "run_dir": str(folder / "tune")}
    return new_plan(
        "CartPole-v1", settings, Options(**{"parallel": 2, **options}), SOURCE, "limelight tune CartPole-v1"
    )


def run(plan: Plan, interrupt: Interrupt | None = None) -> list[TrialRecord]:
    with closing(Study(plan.folder, plan.space, plan.options.pruner, 0)) as study:
        study.enqueue(plan.defaults)
        search(plan, study, TuneProgress(plan.options.trials, 0, None, quiet=True), interrupt or Interrupt())
        return study.records()


def test_trials_run_in_parallel_begin_with_the_defaults_and_are_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = without_training(monkeypatch)
    plan = plan_in(tmp_path, trials=14)
    records = run(plan)
    assert processes.most == 2
    assert records[0].settings == plan.defaults
    assert [record.number for record in records] == [*range(14)]
    states = [record.state for record in records]
    assert set(states) == {"complete", "pruned"}
    assert "pruned" not in states[:6]
    for record in records:
        if record.score is not None:  # of three and four times the value, both late
            value = objective(plan.trial_config(record.settings, record.number))
            assert record.score == pytest.approx(3.5 * value, abs=0.6 * abs(value))
    assert max(record.score or 0.0 for record in records) > (records[0].score or 0.0) + 10.0


def test_a_trial_that_fails_is_recorded_with_its_line_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = without_training(monkeypatch)
    processes.fails = staticmethod(lambda config: "the loss is NaN" if config.seed == 2 else None)
    records = run(plan_in(tmp_path, trials=4, pruner="none"))
    assert [record.state for record in records] == ["complete", "complete", "failed", "complete"]
    assert records[2].error == "the loss is NaN"


def test_settings_that_cannot_work_together_fail_without_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = without_training(monkeypatch)
    started: list[int] = []
    processes.on_start = staticmethod(started.append)
    given = {"algo": "ppo", "num_envs": 1, "core": "lstm", "num_steps": 64, "num_minibatches": 1}
    plan = plan_in(tmp_path, given, trials=2, parallel=1)
    with closing(Study(plan.folder, plan.space, "none", 0)) as study:
        study.enqueue({**plan.defaults, "gamma": 0.9})
        monkeypatch.setitem(plan.given, "num_minibatches", 2)  # of one environment
        search(plan, study, TuneProgress(2, 0, None, quiet=True), Interrupt())
        records = study.records()
    assert [record.state for record in records] == ["failed", "failed"]
    assert "num_minibatches = 2: with core lstm" in (records[0].error or "")
    assert started == []


def test_a_signal_loses_the_running_trials_alone_and_they_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = without_training(monkeypatch)
    plan, interrupt = plan_in(tmp_path, trials=6, pruner="none"), Interrupt()

    def arrive(number: int) -> None:
        interrupt.signal_number = 15 if number == 3 else None

    processes.on_start = staticmethod(arrive)
    records = run(plan, interrupt)
    assert [record.state for record in records] == ["complete", "complete", "lost", "lost"]
    assert counted(records) == 2
    processes.on_start = staticmethod(lambda number: None)
    again = run(plan)
    assert [record.state for record in again] == ["complete"] * 2 + ["lost"] * 2 + ["complete"] * 4
    assert [record.settings for record in again[4:6]] == [record.settings for record in again[2:4]]
