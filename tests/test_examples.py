"""Every example runs from its first line to its last, on a tiny budget."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
STEPS = "600"
THE_LOOP = "00_the_loop"
"""Writes no run folder and starts no processes, so that it needs no guard."""
MOST_LINES = 60
# A part of the last line that each example prints.
LAST_LINES = {
    "00_the_loop": "steps: mean return of the last 50 episodes",
    "01_train_and_evaluate": "one more episode, by hand: ",
    "02_own_environment": "over 20 episodes",
    "03_own_network": "parameters, ",
    "04_read_a_run": "training episodes, the best ",
    "05_sb3_evaluate": "limelight.evaluate:",
}


def run(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Run ``python script STEPS`` in an empty folder and return its output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), STEPS])
    runpy.run_path(str(script), run_name="__main__")
    return capsys.readouterr().out


def test_every_example_has_a_last_line_to_check() -> None:
    assert [script.stem for script in SCRIPTS] == sorted(LAST_LINES)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_an_example_runs_to_its_last_line(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if script.stem == "05_sb3_evaluate":
        pytest.importorskip("stable_baselines3")
    out = run(script, tmp_path, monkeypatch, capsys)
    assert LAST_LINES[script.stem] in out.splitlines()[-1]
    if script.stem == THE_LOOP:
        return
    (run_dir,) = (tmp_path / "runs").glob("*/*")
    assert (run_dir / "summary.json").is_file()


def test_the_sb3_example_says_how_to_install_sb3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.evaluation", None)
    with pytest.raises(SystemExit, match="pip install"):
        run(EXAMPLES / "05_sb3_evaluate.py", tmp_path, monkeypatch, capsys)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_an_example_is_short_and_guarded(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    if script.stem == THE_LOOP:
        assert len(text.splitlines()) <= 30
        return
    guarded = ast.parse(text).body[-1]
    assert isinstance(guarded, ast.If)
    assert ast.unparse(guarded.test) == "__name__ == '__main__'"
