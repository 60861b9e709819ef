"""Command lines run in this process."""

from __future__ import annotations

import pytest

from limelight.cli import main as cli


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line on stderr of a command line that must end with status 2."""
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("limelight: error: ")
    return lines[0].removeprefix("limelight: error: ")
