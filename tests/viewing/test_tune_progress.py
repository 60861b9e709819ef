"""The progress of a search on the terminal."""

from __future__ import annotations

import sys

import pytest

from limelight.viewing import tune_progress
from limelight.viewing.tune_progress import TuneProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(tune_progress.time, "monotonic", lambda: now[0])
    return now


def test_each_trial_has_a_line_with_the_best_and_the_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = TuneProgress(10, 2, (1, 3.0), quiet=False)
    clock[0] = 10.0
    progress.trial(2, "complete", 5.0, None)
    progress.trial(3, "failed", None, "gamma = 2")
    progress.trial(4, "pruned", None, None)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == ("trial 2: score 5, the best so far · 3 of 10 · best 5 (trial 2) · 1:10 left")
    assert lines[1].startswith("trial 3: failed: gamma = 2 · 4 of 10 · best 5 (trial 2)")
    assert lines[2].startswith("trial 4: pruned · 5 of 10")
    progress.begin_ranking(2, 3, 0)
    clock[0] = 20.0
    progress.ranking(1)
    progress.ranking(1)
    assert capsys.readouterr().err.splitlines()[1:] == ["ranking: 1 of 6 · 0:50 left"]


def test_a_terminal_shows_the_running_trials(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = TuneProgress(4, 0, None, quiet=False)
    clock[0] = 10.0
    progress.tick({0: 0.5})
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress.tick({0: 0.5, 1: 0.5})
    assert capsys.readouterr().err == "\rtrial 0 50%, trial 1 50% · 0 of 4 · 0:30 left\x1b[K"
    progress.message("a line")
    assert capsys.readouterr().err == "\r\x1b[Ka line\n"
    progress.close()
    assert capsys.readouterr().err == ""


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = TuneProgress(4, 0, None, quiet=True)
    progress.trial(0, "complete", 1.0, None)
    progress.close()
    assert capsys.readouterr().err == ""
