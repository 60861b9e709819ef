"""Asynchronous training starts from guarded scripts, standard input and ``-c``; elsewhere an error says why not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAD = """
import gymnasium, sys
from importlib import import_module
import limelight
import_module("limelight.training.run").draw_report = lambda run_dir: None

def make():
    return gymnasium.make("CartPole-v1")

def train(env, folder):
    result = limelight.train(
        env, algo="a3c", num_workers=1, num_envs=2, total_timesteps=200, eval_every=0, final_episodes=0,
        tensorboard=False, backend="sync", quiet=True, run_dir=folder,
    )
    print(result.status)
"""
GUARDED = (
    HEAD
    + """
print("read")
if __name__ == "__main__":
    train(make, "one")
    train(lambda: gymnasium.make("CartPole-v1"), "two")
"""
)


def python(folder: Path, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *args]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=folder, timeout=90)


@pytest.mark.slow
def test_a_guarded_script_with_its_own_callables_trains_twice(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(GUARDED)
    done = python(tmp_path, "script.py")
    assert done.returncode == 0, done.stderr
    # Each worker imports the script once more; the order of the lines depends on buffers.
    assert sorted(done.stdout.split()) == ["completed", "completed", "read", "read", "read"]


def test_a_script_without_a_guard_gets_an_error_and_starts_no_worker(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(HEAD + 'train(make, "one")\n')
    done = python(tmp_path, "script.py")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("limelight.errors.ConfigError: algo = a3c: ")
    assert "script.py has no if __name__ == '__main__': guard, which worker processes need; add it" in line
    assert "use algo a2c" in line
    assert not (tmp_path / "one").exists()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["-c", "stdin"])
def test_a_main_module_without_a_file_trains(way: str, tmp_path: Path) -> None:
    code = HEAD + 'train(make, "one")\n'
    done = python(tmp_path, "-c", code) if way == "-c" else python(tmp_path, "-", stdin=code)
    assert (done.returncode, done.stdout) == (0, "completed\n"), done.stderr
    assert done.stderr == ""
