"""The main process of an asynchronous run is interrupted, terminated or killed: no process and no file remains."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from limelight.runs.checkpoint import latest_checkpoint, read_state

TESTS = Path(__file__).parents[1]


def children(pid: int) -> list[int]:
    """Return the children of ``pid``: its workers and multiprocessing's resource tracker."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def running(pids: list[int]) -> list[int]:
    """Return those of ``pids`` whose processes still run."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                found.append(pid)
    return found


def until(condition: Callable[[], object], seconds: float) -> bool:
    """Wait for ``condition``; return False if that takes longer than ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def training(folder: Path, *more: str, env: str = "CartPole-v1") -> Iterator[subprocess.Popen[str]]:
    """Run ``limelight train`` for practically unlimited steps, with its own process group and temporary folder."""
    (folder / "tmp").mkdir()
    paths = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    command = [
        sys.executable, "-m", "limelight", "train", env, "--algo", "a3c", "--total-timesteps", "50000000",
        "--run-dir", str(folder / "r"), "--eval-every", "0", "--final-episodes", "0", "--no-tensorboard", "--num-envs",
        "2", "--backend", "sync", *more,
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(folder / "tmp")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_training(process: subprocess.Popen[str], folder: Path) -> list[int]:
    """Wait for the first row of metrics; return the pids of all children."""
    metrics = folder / "r" / "metrics.jsonl"
    assert until(lambda: process.poll() is not None or (metrics.exists() and metrics.stat().st_size), 90)
    assert process.poll() is None, process.communicate()
    return children(process.pid)


@pytest.mark.slow
def test_nothing_remains_when_the_main_process_is_killed(tmp_path: Path) -> None:
    shared_memory = set(os.listdir("/dev/shm"))
    with training(tmp_path, "--num-workers", "2") as process:
        pids = wait_for_training(process, tmp_path)
        assert len(pids) >= 2
        process.kill()
        process.wait()
        assert until(lambda: not running(pids), 2.0), f"{running(pids)} of {pids} still run"
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not {
        name for name in set(os.listdir("/dev/shm")) - shared_memory if name.startswith(("pym", "sem", "torch"))
    }


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_the_run_with_a_checkpoint(number: signal.Signals, tmp_path: Path) -> None:
    with training(tmp_path, "--num-workers", "2") as process:
        pids = wait_for_training(process, tmp_path)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 128 + number, err
        assert "Traceback" not in err
        assert "interrupted" in out
        assert "--resume" in out
        assert until(lambda: not running(pids), 2.0)  # the resource tracker exits after the main process
    newest = latest_checkpoint(tmp_path / "r")
    assert newest is not None
    saved = read_state(newest)
    state = saved["training"]["runner"]
    # All workers had finished their rollouts and paused while it was written, so its parts agree.
    assert len(state["workers"]) == 2
    assert sum(worker["learner"]["num_updates"] for worker in state["workers"]) == state["counters"][1] > 0
    np.testing.assert_array_equal(saved["params"], state["train_states"][0]["params"])
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["total_timesteps"] == state["num_steps"]


@pytest.mark.slow
def test_ctrl_c_while_the_workers_start_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    with training(tmp_path, "--num-workers", "1") as process:
        # The run's folder is made before the workers are started, whose imports take seconds.
        assert until(lambda: (tmp_path / "r" / "monitor.csv").exists() and len(children(process.pid)) >= 2, 60)
        pids = children(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130, err
        assert "Traceback" not in err
        assert until(lambda: not running(pids), 2.0)  # the resource tracker exits after the main process
    newest = latest_checkpoint(tmp_path / "r")
    assert newest is not None
    assert read_state(newest)["training"]["runner"]["num_steps"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_stops_hard(number: signal.Signals, tmp_path: Path) -> None:
    stuck = tmp_path / "stuck"
    settings = ["--num-workers", "1", "--env-kwargs", "file", str(stuck)]
    with training(tmp_path, *settings, env="helpers.faulty_envs:Stuck") as process:
        assert until(lambda: stuck.exists() or process.poll() is not None, 60)
        assert process.poll() is None, process.communicate()
        pids = children(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(1.0)
        assert process.poll() is None  # it waits for a step that does not return
        process.send_signal(number)
        _, err = process.communicate(timeout=10)
        assert process.returncode == 128 + number, err
        assert until(lambda: not running(pids), 2.0)
