"""The files of a run folder: valid JSON, and whole lines."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from limelight.errors import CheckpointError
from limelight.runs.folder import open_lines, read_json, read_lines, write_json


def test_json_is_valid_whatever_the_numbers(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}, "e": "γ", "f": None})
    strict = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))
    assert strict == {"a": None, "b": [None, 1.5], "c": {"d": None}, "e": "γ", "f": None} == read_json(path)
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff{}"])
def test_a_file_that_is_no_json_object_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"summary\.json: damaged"):
        read_json(tmp_path / "summary.json")


def test_only_whole_lines_are_read_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lines.txt"
    assert read_lines(path) == []
    with open_lines(path, None) as file:
        file.write("one\ntwo\nthree\nfo")
    assert read_lines(path) == ["one\n", "two\n", "three\n"]
    with open_lines(path, lambda line: line != "two\n") as file:
        file.write("five\n")
    assert read_lines(path) == ["one\n", "three\n", "five\n"]


def test_bytes_that_are_no_text_do_not_stop_the_reader(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes(b"one\n\xff\xfe\n")
    assert read_lines(tmp_path / "lines.txt")[0] == "one\n"
