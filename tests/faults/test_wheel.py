"""The wheel, installed in a new environment: it has all files it needs, and trains."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def run(*words: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, env={**environment, **variables}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_in_a_new_environment_trains_evaluates_and_reports(tmp_path: Path) -> None:
    """The packages it depends on are those of this environment, which a path lends to the new one."""
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("*.whl")
    names = {Path(name).as_posix() for name in zipfile.ZipFile(wheel).namelist()}
    source = ROOT / "src"
    data = {path.relative_to(source).as_posix() for path in (source / "limelight").rglob("*") if path.is_file()}
    assert {name for name in data if "__pycache__" not in name} <= names
    venv.create(tmp_path / "new", with_pip=True)
    python = str(tmp_path / "new" / ("Scripts" if os.name == "nt" else "bin") / "python")
    run(python, "-m", "pip", "install", "-q", "--no-deps", str(wheel))
    lent = {"PYTHONPATH": sysconfig.get_paths()["purelib"], "OMP_NUM_THREADS": "1"}
    place = run(python, "-c", "import limelight; print(limelight.__file__)", **lent)
    assert str(tmp_path) in place
    folder = str(tmp_path / "run")
    for algo in ("a2c", "a3c"):
        words = ["train", "CartPole-v1", "--algo", algo, "--total-timesteps", "600", "--final-episodes", "2"]
        run(python, "-m", "limelight", *words, "--run-dir", folder + algo, **lent)
    assert "CartPole-v1" in run(python, "-m", "limelight", "evaluate", folder + "a2c", "--episodes", "2", **lent)
    assert run(python, "-m", "limelight", "report", folder + "a2c", **lent).strip().endswith("report.html")
