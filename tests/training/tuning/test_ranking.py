"""The ranking on fresh seeds."""

from __future__ import annotations

from typing import cast

import pytest

from limelight.training.tuning.plan import Options, Plan
from limelight.training.tuning.ranking import Candidate, Ranked, as_data, candidates, verdict
from limelight.training.tuning.study import TrialRecord


class _Plan:
    def __init__(self) -> None:
        self.defaults = {"gamma": 0.99}
        self.options = Options(best=2)


def trial(number: int, gamma: float, score: float | None) -> TrialRecord:
    state = "pruned" if score is None else "complete"
    return TrialRecord(number, {"gamma": gamma}, state, score, None)


def test_the_defaults_and_the_best_trials_that_differ_are_ranked() -> None:
    records = [trial(0, 0.99, 5.0), trial(1, 0.9, 7.0), trial(2, 0.9, 6.5), trial(3, 0.8, 6.0), trial(4, 0.7, None)]
    chosen = candidates(cast(Plan, _Plan()), records)
    assert [(c.name, c.searched) for c in chosen] == [("defaults", 5.0), ("trial-1", 7.0), ("trial-3", 6.0)]
    few = candidates(cast(Plan, _Plan()), [trial(0, 0.99, None), trial(1, 0.9, 7.0)])
    assert [(c.name, c.searched) for c in few] == [("defaults", None), ("trial-1", 7.0)]


def ranked(name: str, *scores: float) -> Ranked:
    return Ranked(Candidate(name, {}, 12.0), list(scores), {})


def test_the_verdict_says_how_sure_it_is() -> None:
    low, high = ranked("defaults", 1, 2, 3, 4, 5), ranked("trial-3", 11, 12, 13, 14, 15)
    assert verdict([high, low]) == "trial-3 is above the defaults; the 95 % intervals do not overlap"
    near = ranked("trial-3", 2, 3, 4, 5, 6)
    assert verdict([near, low]) == "trial-3 is above the defaults; the 95 % intervals overlap"
    assert verdict([low, ranked("trial-3", 0, 0, 0, 0, 0)]) == "no trial is above the defaults on fresh seeds"
    assert "fewer than 5 seeds" in verdict([ranked("trial-3", 9, 9), ranked("defaults", 1, 1)])


def test_the_drop_is_from_the_search_to_the_fresh_seeds() -> None:
    assert ranked("trial-1", 8, 9, 10, 11).drop == pytest.approx(12.0 - 9.5)
    assert ranked("trial-1").drop is None
    (row,) = as_data([ranked("trial-1", 8.0)])
    assert (row["iqm"], row["interval"], row["score_in_search"]) == (8.0, None, 12.0)
