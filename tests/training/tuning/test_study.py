"""The study: what is tried, recorded, and continued."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from limelight.errors import CheckpointError
from limelight.settings.values import Choices, Search
from limelight.training.tuning.study import Study

SPACE = {"learning_rate": Search(1e-4, 1e-2, log=True), "hidden_sizes": Choices(((32, 32), (64, 64)))}
DEFAULTS = {"learning_rate": 1e-3, "hidden_sizes": (64, 64)}


def test_a_study_begins_with_what_was_asked_for_and_goes_on(tmp_path: Path) -> None:
    with closing(Study(tmp_path, SPACE, "median", 0)) as study:
        study.enqueue(DEFAULTS)
        study.enqueue(DEFAULTS)  # once is enough
        assert study.ask() == (0, DEFAULTS)
        study.complete(0, 5.0)
        number, settings = study.ask()
        assert settings["hidden_sizes"] in ((32, 32), (64, 64))
        study.fail(number, "gamma = 2: must be ≤ 1")
        lost, again = study.ask()
    with closing(Study(tmp_path, SPACE, "median", 0)) as study:
        assert study.lose_running() == 1
        assert [(r.number, r.state) for r in study.records()] == [(0, "complete"), (1, "failed"), (lost, "lost")]
        assert study.records()[0].settings == DEFAULTS
        assert study.records()[0].score == 5.0
        assert study.records()[1].error == "gamma = 2: must be ≤ 1"
        assert study.ask() == (3, again)


def test_a_trial_below_the_median_is_pruned_once_there_are_some(tmp_path: Path) -> None:
    with closing(Study(tmp_path, SPACE, "median", 0)) as study:
        for value in (3.0, 4.0, 5.0, 6.0, 7.0, 8.0):
            number, _ = study.ask()
            assert not study.report(number, 4, value)
            study.complete(number, value)
        good, _ = study.ask()
        bad, _ = study.ask()
        assert not study.report(good, 4, 7.5)
        assert study.report(bad, 4, 1.0)
        study.prune(bad)
        assert study.records()[-1].state == "pruned"
        assert study.records()[-1].score is None


def test_halving_ends_trials_at_its_rungs(tmp_path: Path) -> None:
    with closing(Study(tmp_path, SPACE, "halving", 0)) as study:
        pruned = []
        for value in (9.0, 8.0, 7.0, 6.0, 1.0):
            number, _ = study.ask()
            pruned.append(study.report(number, 1, value) or study.report(number, 2, value))
        assert pruned[0] is False
        assert pruned[-1] is True


def test_importance_names_the_setting_that_matters(tmp_path: Path) -> None:
    with closing(Study(tmp_path, SPACE, "none", 0)) as study:
        assert study.importances() == {}
        for _ in range(14):
            number, settings = study.ask()
            study.complete(number, 10.0 if settings["hidden_sizes"] == (64, 64) else 0.0)
        assert next(iter(study.importances())) == "hidden_sizes"


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("no database")
    with pytest.raises(CheckpointError, match=r"study\.db: cannot be used"):
        Study(tmp_path, SPACE, "median", 0)
