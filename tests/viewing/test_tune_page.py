"""The page of a search."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limelight.settings.values import Choices, Search
from limelight.viewing.tune_page import Dot, Row, TunePage, ranking_table, write_page

SPACE = {"learning_rate": Search(1e-4, 1e-2, log=True), "activation": Choices(("tanh", "<relu>"))}


def dot(number: int, rate: float, score: float | None, state: str = "complete") -> Dot:
    settings: Mapping[str, Any] = {"learning_rate": rate, "activation": "tanh"}
    return Dot(number, settings, state, score, "it's <NaN>" if state == "failed" else None, number == 0)


TRIALS = [dot(0, 1e-4, 5.0), dot(1, 1e-3, 9.0), dot(2, 1e-2, None, "pruned"), dot(3, 1e-2, None, "failed")]
ROWS = [
    Row("trial-1", TRIALS[1].settings, [8.0, 9.0], 8.5, (8.0, 9.0), 9.0, 0.5),
    Row("defaults", TRIALS[0].settings, [], None, None, 5.0, None),
]


def page(path: Path, rows: list[Row], trials: list[Dot], importances: Mapping[str, float]) -> str:
    shown = TunePage(
        "Env-v0", "a2c", "limelight tune Env-v0", "mean", "better", "use", rows, trials, SPACE, importances
    )
    return write_page(path / "tune.html", shown).read_text(encoding="utf-8")


def test_the_page_shows_ranking_history_importance_and_slices(tmp_path: Path) -> None:
    html = page(tmp_path, ROWS, TRIALS, {"activation": 0.7, "learning_rate": 0.3})
    for text in ("Ranking on fresh seeds", "Importance", "70%", "8 to 9", "it&#x27;s &lt;NaN&gt;", "&lt;relu&gt;"):
        assert text in html
    assert "<NaN>" not in html
    assert html.index('<figcaption class="name">activation') < html.index('<figcaption class="name">learning_rate')
    assert "<script" not in html
    # A logarithmic axis: the middle value is in the middle
    figure = html[html.index('<figcaption class="name">learning_rate') :]
    xs = sorted({float(x) for x in re.findall(r'cx="([\d.]+)"', figure[: figure.index("</figure>")])})
    left, right = 46 + 18, 340 - 12 - 18
    assert xs == [left, (left + right) / 2]


def test_a_search_without_scores_has_a_page_too(tmp_path: Path) -> None:
    html = page(tmp_path, [], [dot(0, 1e-4, None, "lost")], {})
    assert "no score yet" in html
    assert "Too few finished trials" in html
    assert "Ranking" not in html
    assert "no score yet" in page(tmp_path, [], [], {})


def test_the_table_has_the_drop() -> None:
    header, lines = ranking_table(ROWS)
    assert header[-1] == "drop"
    assert lines == [
        ["trial-1", "8.5", "8 to 9", "8 to 9", "2", "9", "0.5"],
        ["defaults", "–", "–", "–", "0", "5", "–"],
    ]
