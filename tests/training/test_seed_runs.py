"""Runs of several seeds: what is started, continued and left alone; the processes themselves in a slow test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from helpers.commands import refusal
from limelight.cli import main as cli
from limelight.runners.commands import Command
from limelight.settings.io import load_yaml, save_yaml, with_settings
from limelight.settings.schema import TrainConfig
from limelight.training import run, seed_runs
from limelight.training.evaluator import Evaluator
from limelight.training.loop import InterruptedRun
from limelight.training.seed_runs import SeedRuns, new_seed_runs

TINY = ["--total-timesteps", "100", "--eval-every", "50", "--eval-episodes", "1", "--final-episodes", "1",
        "--max-episode-steps", "20"]  # fmt: skip


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Runs the commands of the seeds in this process; returns what came after ``limelight train``."""
    words: list[list[str]] = []

    def run_here(
        commands: Sequence[Command], parallel: int, env: Mapping[str, str], poll: Callable[[int], bool]
    ) -> list[int | None]:
        statuses: list[int | None] = []
        for command in commands:
            assert command.words[1:4] == ["-m", "limelight", "train"]
            words.append(list(command.words[4:]))
            statuses.append(cli.main(command.words[3:]))
            poll(1)
        return statuses

    monkeypatch.setattr(seed_runs, "run_commands", run_here)
    monkeypatch.setattr(seed_runs, "_draw", lambda runs: runs.folder / "report.html")
    monkeypatch.setattr(run, "draw_report", lambda run_dir: None)
    return words


def test_each_seed_has_a_run_and_the_whole_is_resumed(
    tmp_path: Path, started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "many"
    argv = ["train", "CartPole-v1", *TINY, "--seeds", "2", "--seed", "5", "--gamma", "0.9", "--run-dir", str(folder)]
    assert cli.main(argv) == 0
    assert "CartPole-v1 · a2c · 2 seeds: final evaluation of the best agent, IQM" in capsys.readouterr().out
    configs = [load_yaml(folder / f"seed-{seed}" / "config.yaml") for seed in (5, 6)]
    assert [(config.seed, config.algorithm.gamma) for config in configs] == [(5, 0.9), (6, 0.9)]
    assert (folder / "command.txt").read_text().startswith("limelight train CartPole-v1")

    started.clear()
    assert cli.main(["train", "--resume", str(folder), "--quiet"]) == 0
    assert started == []  # all are finished
    # A larger budget, and one seed more
    assert cli.main(["train", "--resume", str(folder), "--total-timesteps", "900", "--seeds", "3", "--quiet"]) == 0
    assert [words[:2] for words in started] == [["--quiet", "--resume"]] * 2 + [["--quiet", "--config"]]
    summaries = [json.loads((folder / f"seed-{seed}" / "summary.json").read_text()) for seed in (5, 6, 7)]
    assert all(summary["total_timesteps"] > 800 for summary in summaries)

    # A run that was killed before its first checkpoint is put aside and begun again
    started.clear()
    seventh = folder / "seed-7"
    (seventh / "summary.json").unlink()
    (seventh / "checkpoints").rename(seventh / "gone")
    assert cli.main(["train", "--resume", str(folder), "--quiet"]) == 0
    assert [words[1] for words in started] == ["--config"]
    assert (folder / "without-checkpoint" / "seed-7-1" / "gone").is_dir()
    assert (seventh / "summary.json").exists()
    capsys.readouterr()
    assert refusal(capsys, "train", "--resume", str(folder), "--seeds", "2").startswith("seeds = 2: the folder has 3")
    assert "cannot change on resume" in refusal(capsys, "train", "--resume", str(folder), "--gamma", "0.5")


def test_a_seed_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "many"
    (folder / "seed-0").parent.mkdir()
    new = new_seed_runs(with_settings(TrainConfig(), {"run_dir": str(folder), "total_timesteps": 100}), 2, 1, "")
    (folder / "seed-0").write_text("in the way")
    assert [str(seed) for seed in new.seeds()] == ["0", "1"]
    assert cli.main(["train", "--resume", str(folder), "--eval-every", "0", "--final-episodes", "1", "--quiet"]) == 1
    captured = capsys.readouterr()
    assert "seed 0 failed" in captured.err
    assert "continue with: limelight train --resume" in captured.out
    assert (folder / "seed-1" / "summary.json").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_signal_while_the_report_of_finished_seeds_is_drawn_leaves_the_last_line(
    tmp_path: Path, started: list[list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def signalled(runs: SeedRuns) -> Path:
        os.kill(os.getpid(), signal.SIGTERM)
        return runs.folder / "report.html"

    monkeypatch.setattr(seed_runs, "_draw", signalled)
    folder = tmp_path / "many"
    assert cli.main(["train", "CartPole-v1", *TINY, "--seeds", "2", "--quiet", "--run-dir", str(folder)]) == 143
    out = capsys.readouterr().out.rstrip()
    assert out.endswith(f" · report: {folder / 'report.html'}")
    assert "continue with" not in out


def test_seeds_whose_final_evaluation_was_cut_are_named(
    tmp_path: Path, started: list[list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(self: Evaluator, agent: object) -> None:
        raise InterruptedRun

    monkeypatch.setattr(Evaluator, "final", cut)
    folder = tmp_path / "many"
    assert cli.main(["train", "CartPole-v1", *TINY, "--seeds", "2", "--quiet", "--run-dir", str(folder)]) == 0
    told = f"the final evaluation of seeds 0, 1 was cut (evaluate with: limelight evaluate {folder / 'seed-0'})"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--callback", "helpers.callbacks:Misspelt"], "on_rollouts is never called"),
        (["--callback", "StopAfter(-1)"], "seconds = -1"),
        (["--logger", "tensorbord"], "tensorbord"),
    ],
)
def test_what_no_seed_could_begin_with_is_refused_before_there_is_a_folder(
    words: list[str], message: str, tmp_path: Path, started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "many"
    argv = ["train", "CartPole-v1", *TINY, "--seeds", "2", "--run-dir", str(folder)]
    assert message in refusal(capsys, *argv, *words)
    assert not folder.exists()
    assert started == []
    assert cli.main([*argv, "--quiet"]) == 0
    capsys.readouterr()
    assert message in refusal(capsys, "train", "--resume", str(folder), *words)


def test_the_cores_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seed_runs, "num_cores", lambda: 8)

    def runs(name: str, parallel: int | None = None, **settings: object) -> tuple[int, int | None]:
        config = with_settings(TrainConfig(), {"run_dir": str(tmp_path / name), **settings})
        made = new_seed_runs(config, 3, parallel, "")
        return made.parallel, load_yaml(made.folder / "settings.yaml").workers.num_workers

    assert runs("sync") == (8, None)
    assert runs("all", asynchronous=True) == (1, 8)
    assert runs("shared", 4, asynchronous=True) == (4, 2)
    assert runs("two", asynchronous=True, num_workers=2) == (4, 2)


def test_a_run_can_start_from_the_settings_of_another(tmp_path: Path, started: list[list[str]]) -> None:
    """``--config`` alone, without seeds: flags win, and the folder is a new one."""
    save_yaml(with_settings(TrainConfig(), {"gamma": 0.5, "run_dir": "elsewhere", "seed": 3}), tmp_path / "c.yaml")
    argv = ["train", "--config", str(tmp_path / "c.yaml"), *TINY, "--seed", "4", "--run-dir", str(tmp_path / "r")]
    assert cli.main([*argv, "--quiet"]) == 0
    config = load_yaml(tmp_path / "r" / "config.yaml")
    assert (config.seed, config.algorithm.gamma, config.run_dir) == (4, 0.5, str(tmp_path / "r"))


@pytest.mark.slow
def test_seeds_in_processes_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    argv = [sys.executable, "-m", "limelight", "train", "CartPole-v1", *TINY, "--seeds", "2", "--parallel", "2"]
    done = subprocess.run([*argv, "--run-dir", str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert "2 of 2 finished" in done.stderr
    assert (folder / "report.html").exists()
    assert "Over seeds" in (folder / "report.html").read_text()
