"""Every example runs from its first line to its last, on a tiny budget."""

from __future__ import annotations

import ast
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import limelight

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
ONNX_AGENT = "06_onnx_agent"
"""Plays a file, and is tested by itself."""


def run(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Run ``python script STEPS`` in an empty folder and return its output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), STEPS])
    runpy.run_path(str(script), run_name="__main__")
    return capsys.readouterr().out


def test_every_example_has_a_last_line_to_check() -> None:
    assert [script.stem for script in SCRIPTS] == [*sorted(LAST_LINES), ONNX_AGENT]


@pytest.mark.parametrize("script", SCRIPTS[:-1], ids=lambda script: script.stem)
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


def test_the_onnx_example_plays_the_agent_of_the_browser_page_without_limelight_and_torch() -> None:
    pytest.importorskip("onnxruntime")
    script, model = EXAMPLES / f"{ONNX_AGENT}.py", EXAMPLES.parent / "docs" / "export" / "cartpole.onnx"
    code = (
        "import runpy, sys\n"
        "sys.modules['limelight'] = sys.modules['torch'] = None\n"
        f"sys.argv = ['', {str(model)!r}, '2']\n"
        f"runpy.run_path({str(script)!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["CartPole-v1, a2c, seed 1, greedy", "2 episodes: mean return 500.0"], (
        done.stderr
    )


@pytest.mark.slow
def test_the_onnx_example_plays_an_agent_with_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    result = limelight.train(
        "CartPole-v1", core="gru", total_timesteps=40, eval_every=0, final_episodes=0, quiet=True, tensorboard=False,
        run_dir=str(tmp_path / "run"), algo="a2c",
    )  # fmt: skip
    result.agent.export(tmp_path / "agent.onnx")
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "agent.onnx"), "1"])
    runpy.run_path(str(EXAMPLES / f"{ONNX_AGENT}.py"), run_name="__main__")
    assert "1 episodes: mean return " in capsys.readouterr().out
