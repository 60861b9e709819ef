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
MOST_LINES = 60
# A piece of what each says at its end: the part before it has then worked.
SAYS = {
    "01_train_and_evaluate": "one more episode, by hand: ",
    "02_own_environment": "over 20 episodes",
    "03_own_network": "parameters, ",
    "04_read_a_run": "training episodes, the best ",
    "05_sb3_evaluate": "limelight.evaluate:",
}


def run(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``python script STEPS`` prints, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), STEPS])
    runpy.run_path(str(script), run_name="__main__")
    return capsys.readouterr().out


def test_there_is_a_check_for_each_example() -> None:
    assert [script.stem for script in SCRIPTS] == sorted(SAYS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_runs(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if script.stem == "05_sb3_evaluate":
        pytest.importorskip("stable_baselines3")
    out = run(script, tmp_path, monkeypatch, capsys)
    assert SAYS[script.stem] in out.splitlines()[-1]
    (run_dir,) = (tmp_path / "runs").glob("*/*")
    assert (run_dir / "summary.json").is_file()


def test_the_last_one_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.evaluation", None)
    with pytest.raises(SystemExit, match="pip install"):
        run(EXAMPLES / "05_sb3_evaluate.py", tmp_path, monkeypatch, capsys)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_is_short_and_guarded(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    guarded = ast.parse(text).body[-1]
    assert isinstance(guarded, ast.If)
    assert ast.unparse(guarded.test) == "__name__ == '__main__'"
