"""The whole of a tuning: search, ranking, preset and page; with processes, and after a kill, in slow tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from helpers.commands import refusal
from helpers.tuning import FIXED, without_training
from limelight.cli import main as cli
from limelight.cli.flags import dashed
from limelight.runners.processes.portable import only_holder
from limelight.settings.io import load_yaml
from limelight.settings.values import to_text
from limelight.training.preset_file import read_preset
from limelight.training.presets import resolve_config

FLAGS = [word for name, value in FIXED.items() for word in (dashed(name), *to_text(value).split())]
TINY = ["CartPole-v1", "--preset", "plain", "--algo", "a2c", "--total-timesteps", "1200", "--parallel", "2", *FLAGS]


def test_a_search_ends_with_a_ranking_a_preset_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_training(monkeypatch)
    folder = tmp_path / "tune"
    argv = ["tune", *TINY, "--trials", "8", "--best", "2", "--run-dir", str(folder), "--gae-lambda", "0.7"]
    assert cli.main(argv) == 0
    captured = capsys.readouterr()
    assert "trial 0 (the defaults): score" in captured.err
    assert "8 of 8" in captured.err
    table = [line for line in captured.out.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 3
    last = captured.out.splitlines()[-1]
    assert last.endswith(f"preset: {folder / 'preset.yaml'} · report: {folder / 'tune.html'}")
    # The preset
    preset = read_preset(str(folder / "preset.yaml"))
    assert (preset.env_id, preset.algo, preset.base) == ("CartPole-v1", "a2c", "plain")
    assert preset.settings["gae_lambda"] == 0.7  # it was given
    assert [row["name"] for row in preset.found["ranking"]].count("defaults") == 1
    first = preset.found["ranking"][0]
    config = resolve_config("CartPole-v1", "auto", str(folder / "preset.yaml"), {})
    trial = folder / "ranking" / first["name"] / "seed-100000" / "config.yaml"
    assert config.algorithm == load_yaml(trial).algorithm
    assert config.optim == load_yaml(trial).optim
    # The seeds of the ranking are no trial's
    seeds = {path.name for path in (folder / "ranking" / "defaults").glob("seed-*") if path.is_dir()}
    assert seeds == {f"seed-{100_000 + n}" for n in range(5)}
    html = (folder / "tune.html").read_text(encoding="utf-8")
    assert "Ranking on fresh seeds" in html
    assert "http" not in html.replace("http-equiv", "")  # self-contained

    # More trials later; what is finished is not trained again
    assert cli.main(["tune", "--resume", str(folder), "--trials", "9", "--quiet"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 1
    assert len(list((folder / "trials").glob("trial-*.yaml"))) == 9
    assert json.loads((folder / "tune.json").read_text())["options"]["trials"] == 9


def test_two_processes_do_not_search_in_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_training(monkeypatch)
    folder = tmp_path / "tune"
    assert cli.main(["tune", *TINY, "--trials", "1", "--run-dir", str(folder), "--quiet"]) == 0
    capsys.readouterr()
    with only_holder(folder / "lock") as is_free:
        assert is_free
        line = refusal(capsys, "tune", "--resume", str(folder), "--quiet")
    assert line == f"resume = {folder}: another process searches there; wait for it or end it"


def test_a_search_of_which_every_trial_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    processes = without_training(monkeypatch)
    processes.fails = staticmethod(lambda config: "reward is NaN")
    argv = ["tune", *TINY, "--trials", "2", "--run-dir", str(tmp_path / "tune"), "--quiet"]
    assert refusal(capsys, *argv) == "tune: no trial came to its end; the first failed: reward is NaN"


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_and_its_processes_end(tmp_path: Path) -> None:
    folder = tmp_path / "tune"
    steps = ["--total-timesteps", "2000", "--eval-episodes", "1", "--max-episode-steps", "50"]
    argv = ["CartPole-v1", "--preset", "plain", "--algo", "a2c", *steps, "--trials", "4", "--parallel", "2"]
    argv += ["--fresh-seeds", "1", "--best", "1", "--run-dir", str(folder)]
    command = [sys.executable, "-m", "limelight", "tune"]
    process = subprocess.Popen([*command, *argv], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("trial "):
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    time.sleep(3)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(folder) not in running
    done = subprocess.run([*command, "--resume", str(folder)], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "4 of 4" in done.stderr
    assert (folder / "preset.yaml").is_file()
    trained = [sys.executable, "-m", "limelight", "train", "CartPole-v1", "--preset", str(folder / "preset.yaml")]
    again = subprocess.run([*trained, "--run-dir", str(tmp_path / "run"), "--quiet"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
