"""Workers that raise, are killed or crash are reported and replaced; where they are not, a checkpoint is written."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import limelight
from helpers.faulty_envs import FaultyEnvs
from helpers.manual_workers import draw_no_report, quick_config
from limelight.algo.episodes import Episode
from limelight.cli import main as cli
from limelight.errors import LimelightError, NonFiniteError
from limelight.runs.checkpoint import latest_checkpoint, read_state
from limelight.training.run import run

ENV = "helpers.faulty_envs:FaultyEnvs"


@dataclass
class Recorder:
    """A logger that records messages, with their times, and rows."""

    messages: list[tuple[float, str]] = field(default_factory=list)
    rows: list[dict[str, float]] = field(default_factory=list)

    def log(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        self.rows.append(dict(metrics))

    def episodes(self, step: int, seconds: float, episodes: Sequence[Episode]) -> None:
        pass

    def message(self, text: str) -> None:
        self.messages.append((time.time(), text))

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)


@pytest.mark.slow
def test_workers_that_all_exit_at_once_are_replaced(tmp_path: Path) -> None:
    faults = ("raise_error", "kill_in_push", "segfault")  # kill_in_push: while it holds the lock
    factory = FaultyEnvs(tmp_path, faults, only_once=True, wait_for_all=True)
    recorder = Recorder()
    config = quick_config(
        env_id=ENV, num_workers=3, update_order="locked", optimizer_statistics="per_worker", total_timesteps=3_000,
        log_every=100, run_dir=str(tmp_path / "r"),
    )  # fmt: skip
    result = run(config, factory=factory, quiet=True, loggers=[recorder])
    assert result.status == "completed"
    assert 3_000 <= result.summary["total_timesteps"] < 3_000 + 3 * 10
    assert recorder.rows[-1]["async/worker_restarts"] == 3

    reasons = ["it raised\nTraceback", "killed by SIGKILL", "killed by SIGSEGV"]
    preset, *exits = recorder.messages
    assert preset[1].startswith("preset plain")
    assert len(exits) == 3
    for worker, reason in enumerate(reasons):
        named = f"worker {worker} ({ENV}, 2 environments) exited: {reason}"
        ((noticed, message),) = [(t, m) for t, m in exits if m.startswith(named)]
        assert noticed - float((tmp_path / f"{worker}.failed").read_text()) < 10.0
        assert "restarted in 0.1 s with fresh seeds (restart " in message.splitlines()[-1]
        assert message.splitlines()[-1].endswith(" of 10)")
        assert ("RuntimeError: the simulator broke" in message) == (worker == 0)

        # The worker that replaced it has other episodes and acts differently in them.
        one, two = (log.read_text().split() for log in tmp_path.glob(f"{worker}-*.log"))
        inspected = {"seed=0"}  # of the environment that is made to look for action masks
        seeds = [{word for word in log if word.startswith("seed=")} - inspected for log in (one, two)]
        actions = [[word for word in log if word in "01"] for log in (one, two)]
        assert len(seeds[0]) == len(seeds[1]) == 2
        assert not seeds[0] & seeds[1]
        assert len(actions[0]) == len(actions[1]) == 40
        assert actions[0] != actions[1]


@pytest.mark.slow
def test_when_restarts_are_used_up_the_run_ends_with_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "r"
    status = cli.main([
        "train", "helpers.faulty_envs:AlwaysRaises", "--algo", "a3c", "--num-workers", "1",
        "--max-worker-restarts", "1",
        "--total-timesteps", "100000", "--num-envs", "2", "--num-steps", "5", "--backend", "sync", "--quiet",
        "--run-dir", str(folder), "--no-tensorboard", "--eval-every", "0", "--final-episodes", "0",
    ])  # fmt: skip
    assert status == 1
    err = capsys.readouterr().err
    assert "worker 0 (helpers.faulty_envs:AlwaysRaises, 2 environments) exited: it raised" in err
    assert "RuntimeError: the simulator broke" in err
    assert "restarted in 0.1 s with fresh seeds (restart 1 of 1)" in err
    assert "max_worker_restarts = 1 are used up" in err
    assert "supervisor.py" not in err
    newest = latest_checkpoint(folder)
    assert newest is not None
    assert (
        100 <= read_state(newest)["training"]["runner"]["num_steps"] <= 160
    )  # of both workers: 40 steps in 2 environments
    assert limelight.load(folder).predict(np.zeros(4, np.float32))[0] in (0, 1)


def error_of_run(folder: Path, fault: str, **settings: Any) -> str:
    """Return the message of the error that ends a run whose one worker fails."""
    config = quick_config(env_id=ENV, total_timesteps=100_000, run_dir=str(folder / "r"), **settings)
    with pytest.raises(LimelightError) as info:
        run(config, factory=FaultyEnvs(folder, (fault,)), quiet=True)
    assert latest_checkpoint(folder / "r") is not None
    assert isinstance(info.value, NonFiniteError) == (fault == "give_nan")
    return str(info.value)


def test_with_on_worker_error_raise_the_first_exit_ends_the_run(tmp_path: Path) -> None:
    message = error_of_run(tmp_path, "lose_a_pipe", on_worker_error="raise")
    assert message.startswith(f"worker 0 ({ENV}, 2 environments) exited: it raised\nTraceback")
    assert "BrokenPipeError: the simulator's pipe\n" in message  # not mistaken for one of the channel
    assert message.endswith("on_worker_error = raise, so the run ends")


def test_a_nan_observation_ends_the_run_with_one_line(tmp_path: Path) -> None:
    message = error_of_run(tmp_path, "give_nan")
    assert re.match(rf"{ENV}: observation\[1\] = nan in environment \d, step \d+ of its episode; fix the env", message)
    assert "\n" not in message


def test_a_worker_that_fails_while_starting_is_not_restarted(tmp_path: Path) -> None:
    message = error_of_run(tmp_path, "constructor")
    assert "RuntimeError: no license for the simulator" in message
    assert message.endswith("it failed while starting, so it is not restarted")
