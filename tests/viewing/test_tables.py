"""Tables as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv

from limelight.viewing.tables import csv_table, latex_table, markdown_table


def test_latex_escapes_what_it_would_take_for_commands() -> None:
    lines = latex_table(["a_b", "95 %"], [["x & y", "1 – 2"], ["c\\d", "−3"]]).splitlines()
    assert lines[0] == r"\begin{tabular}{lr}"
    assert lines[2] == r"a\_b & 95 \% \\"
    assert lines[4:6] == [r"x \& y & 1 -- 2 \\", r"c\textbackslash{}d & $-$3 \\"]
    assert lines[-1] == r"\end{tabular}"


def test_csv_is_read_back_as_it_was_written() -> None:
    rows = [["a, b", 'say "c"'], ["", "d\ne"]]
    assert list(csv.reader(csv_table(["x", "y"], rows).splitlines(keepends=True))) == [["x", "y"], *rows]
    assert csv_table(["x"], [[None]]) == 'x\n""\n'


def test_markdown_columns_are_aligned() -> None:
    assert markdown_table(["job", "n"], [["a2c", "10"]]).splitlines() == [
        "| job | n  |",
        "| --- | -- |",
        "| a2c | 10 |",
    ]
