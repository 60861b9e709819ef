"""Texts of files on a terminal."""

from __future__ import annotations

import json

from limelight.printable import one_line, printable


def test_control_characters_are_written_out_and_all_else_stays() -> None:
    assert printable("a\x1b[2J\x07\r\x7f\x9b") == "a\\u001b[2J\\u0007\\u000d\\u007f\\u009b"
    assert printable("left\u202eright\u2066") == "left\\u202eright\\u2066"
    text = "γ → 中文\t👩\u200d🔬\nnext"
    assert printable(text) == text


def test_json_stays_json() -> None:
    value = {"env": "a\x9b\x1b\u202e\udcff"}
    assert json.loads(printable(json.dumps(value, ensure_ascii=False))) == value


def test_one_line_has_no_breaks() -> None:
    assert one_line("a\r\nb\x1b\u2028c  d") == "a b\\u001b c d"
