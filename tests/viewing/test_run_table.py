"""The table of runs: its columns, and that it fits the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from limelight.runs.listing import RunEntry
from limelight.viewing.run_table import duration, run_table, shortened

ENTRIES = [
    RunEntry(
        Path("runs/Acrobot-v1/a2c-0-20260101-101500"), "Acrobot-v1", "a2c", 1_250_000, "running", -84.25, None, 42
    ),
    RunEntry(Path("runs/x"), "LunarLanderContinuous-v3", "ppo", 980, "reached_return", -1234.5678, 212.4, 400_000),
    RunEntry(Path("runs/y"), "", "", 0, "damaged", None, None, 7_300),
]


def test_the_table_fits_80_columns_and_keeps_the_end_of_a_long_path() -> None:
    lines = run_table(ENTRIES, 80)
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["env", "algo", "steps", "status", "last", "best", "age", "run"]
    assert lines[1].split()[:-1] == ["Acrobot-v1", "a2c", "1.2M", "running", "-84.25", "–", "42s"]
    assert lines[1].endswith("-101500")
    assert lines[2].split() == [
        "LunarLanderContin…",
        "ppo",
        "980",
        "reached",
        "return",
        "-1235",
        "212.4",
        "4d",
        "runs/x",
    ]
    assert lines[3].split() == ["0", "damaged", "–", "–", "2h", "runs/y"]


def test_a_run_is_one_line_whatever_its_files_say() -> None:
    entry = RunEntry(Path("runs/a\nb"), "Cart\nPole\x1b", "a2c", 0, "finished", None, None, 7_300)
    header, line = "\n".join(run_table([entry], 140)).split("\n")
    assert header.startswith("env")
    assert line.startswith(r"Cart Pole\u001b  a2c")
    assert line.endswith("runs/a b")


def test_a_wide_table_has_whole_paths() -> None:
    assert run_table(ENTRIES, 140)[1].endswith("runs/Acrobot-v1/a2c-0-20260101-101500")


def test_a_path_loses_its_first_folders() -> None:
    path = Path("runs/Acrobot-v1/first")
    assert shortened(path, 40) == "runs/Acrobot-v1/first"
    assert shortened(path, 18) == "…/Acrobot-v1/first"
    assert shortened(path, 10) == "…/first"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (59, "59s"), (61, "1m"), (7_300, "2h"), (400_000, "4d")])
def test_ages_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
