"""Signals at several moments of a command that trains on Ray: a checkpoint, the status of the signal, no process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.ray_commands import RayCommands, ray_commands, wait_for_training
from limelight.runs.agent import load
from limelight.runs.checkpoint import latest_checkpoint, read_state

pytest.importorskip("ray")
pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]
LONG = ["CartPole-v1", "--algo", "a3c", "--num-workers", "2", "--total-timesteps", "100000000", "--log-every", "2000"]


def has_process(name: str) -> Callable[[RayCommands, Path], bool]:
    return lambda commands, _: any(name in line.split(" ")[0] for line in commands.processes().values())


def is_training(_: RayCommands, folder: Path) -> bool:
    metrics = folder / "metrics.jsonl"
    return metrics.exists() and metrics.stat().st_size > 0


MOMENTS: dict[str, Callable[[RayCommands, Path], bool]] = {
    "while its modules are imported": lambda commands, _: bool(commands.processes()),
    "while the head of Ray starts": has_process("gcs_server"),
    "while the raylet starts": has_process("raylet/raylet"),
    "while workers start": has_process("ray::"),
    "while it trains": is_training,
}


def wait_for(moment: str, process: subprocess.Popen[str], commands: RayCommands, folder: Path) -> None:
    deadline = time.monotonic() + 180
    while not MOMENTS[moment](commands, folder):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def send(process: subprocess.Popen[str], number: signal.Signals) -> None:
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_any_moment_ends_the_run_in_order(moment: str, number: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with ray_commands() as commands:
        process = commands.train(folder, *LONG)
        wait_for(moment, process, commands, folder)
        send(process, number)
        _, errors = process.communicate(timeout=120)
        commands.wait_until_none_is_left()
    # Before Python runs the command there is nobody to catch the signal. While Ray connects, its C++ code catches it
    # first, for a moment: there is no folder yet, and it writes its own lines
    by_ray = not folder.exists() and f"{signal.Signals(number).name} received at time=" in errors
    if not (by_ray and process.returncode < 0):
        assert process.returncode == 128 + number or (moment == next(iter(MOMENTS)) and process.returncode < 0), errors
    assert "Traceback" not in errors or moment == next(iter(MOMENTS))
    if folder.exists():
        newest = latest_checkpoint(folder)
        assert newest is not None, errors
        load(folder, "last")
        assert read_state(newest)["training"]["runner"]["num_steps"] >= 0
    assert folder.exists() or moment != "while it trains"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_a_second_signal_ends_the_run_at_once_and_ray_follows(
    seconds: float, number: signal.Signals, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    with ray_commands() as commands:
        process = commands.train(folder, *LONG, "--checkpoint-every", "1000")
        wait_for_training(process, folder)
        send(process, number)
        time.sleep(seconds)
        if process.poll() is None:
            send(process, number)
        _, errors = process.communicate(timeout=60)
        commands.wait_until_none_is_left(180.0)  # agents of Ray first try to tell the head, which is gone as well
    assert process.returncode in (128 + number, -number), errors  # both are 128 + number for a shell
    assert "Traceback" not in errors
    assert latest_checkpoint(folder) is not None
    load(folder, "last")
