"""Retired words do not come back: the vocabulary of CONTRIBUTING.md, read off every text of the project."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    [
        *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *(ROOT / "src").rglob("*.py"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "docs").glob("*.py"),
        *(ROOT / "examples").glob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
        *(ROOT / "benchmarks").glob("*.md"),
        *(ROOT / "agents").glob("*.py"),
        *(ROOT / "agents").glob("*.md"),
    ]
)
RETIRED_WORDS = (
    "whoever", "somebody", "somebody else", "nobody", "nobody else", "for ever", "mend", "mends", "mended",
    "incarnation", "bury", "buried", "welcome", "welcomed", "the dead", "crew",
)  # fmt: skip
# Old names of code; whole words, case-sensitive.
RETIRED_NAMES = (
    "Acted", "Crew", "FOREIGN", "Judge", "KeptEncoder", "MOST_CODES", "Master", "PATIENCE", "RunningMoments",
    "SMALLEST", "Seat", "TELEVISION", "ask_ahead", "filters_off", "gain_of_bfloat16", "is_ales",
    "is_coded", "judge_best", "known_rows", "learner_of", "max_lag", "name_of", "next_rows", "no_envpool_because",
    "no_workers_because", "own_encoder", "own_master", "ship", "threshold_of", "want_metrics", "_bury", "_complaint",
    "_film", "_forget", "_hear", "_is_somebody_elses", "_no_vector_because", "_respell", "_told_at", "_welcome",
    "_written_out_gradients",
)  # fmt: skip
WORDS = re.compile(r"\b(?:" + "|".join(word.replace(" ", r"\s+") for word in RETIRED_WORDS) + r")\b", re.IGNORECASE)
NAMES = re.compile(r"(?<![\w])(?:" + "|".join(RETIRED_NAMES) + r")(?![\w])")


def retired(text: str) -> list[str]:
    """Return the retired words and names in ``text``, each with the number of its line."""
    found = [*WORDS.finditer(text), *NAMES.finditer(text)]
    return [f"line {text.count(chr(10), 0, match.start()) + 1}: {match[0]}" for match in found]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_retired_word_is_left(file: Path) -> None:
    assert retired(file.read_text(encoding="utf-8")) == []


def test_retired_words_are_found() -> None:
    """Guards the guard: case, line breaks and word boundaries."""
    assert retired("Whoever\ncomes for\never, mends it") == ["line 1: Whoever", "line 2: for\never", "line 3: mends"]
    assert retired("a recommended name_of, and max_lag_steps") == ["line 1: name_of"]
    assert retired("whatever, mending, the deadline, shipped, membership") == []
