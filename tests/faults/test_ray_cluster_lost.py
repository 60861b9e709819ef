"""Clusters whose head or raylet is killed while a command trains: one line, a checkpoint, and no process."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from helpers.ray_commands import RayCommands, ray_commands, wait_for_training
from limelight.runs.agent import load
from limelight.runs.checkpoint import latest_checkpoint, read_state

pytest.importorskip("ray")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
ENDLESS = ["CartPole-v1", "--num-workers", "2", "--total-timesteps", "100000000", "--final-episodes", "0"]


def steps_saved(folder: Path) -> int:
    newest = latest_checkpoint(folder)
    assert newest is not None
    load(folder, "last")
    return int(read_state(newest)["training"]["runner"]["num_steps"])


def lose(commands: RayCommands, folder: Path, program: str, algo: str, *arguments: str) -> tuple[list[str], float]:
    """Train, kill Ray's program; return the lines on the loss, and the seconds from the kill to the end."""
    process = commands.train(folder, "--algo", algo, *ENDLESS, *arguments)
    wait_for_training(process, folder)
    assert commands.kill(program) == 1
    start = time.monotonic()
    _, errors = process.communicate(timeout=120)
    seconds = time.monotonic() - start
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    return [line for line in errors.splitlines() if line.startswith("limelight: ")], seconds


def resume(commands: RayCommands, folder: Path, *arguments: str) -> None:
    before = steps_saved(folder)
    command = [sys.executable, "-m", "limelight", "train", "--resume", str(folder), *arguments]
    process = commands.run([*command, "--total-timesteps", str(before + 2_000)])
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    assert steps_saved(folder) >= before + 2_000


@pytest.mark.faults
def test_a_run_whose_head_is_killed_ends_with_a_line_and_a_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with ray_commands() as commands:
        lines, seconds = lose(commands, folder, "gcs_server", "a3c", "--checkpoint-every", "0", "--log-every", "2000")
        commands.wait_until_none_is_left()
    assert seconds < 60.0
    assert lines[0].startswith("limelight: error: the Ray cluster is lost: the head (gcs_server, ")
    assert lines[1:] == [f"limelight: the run is saved; continue with: limelight train --resume {folder}"]
    assert steps_saved(folder) > 0
    assert json.loads((folder / "summary.json").read_text())["status"] == "failed"


@pytest.mark.faults
@pytest.mark.parametrize("algo", ["a2c", "a3c"])
def test_a_raylet_that_is_killed_leaves_a_line_and_the_newest_checkpoint(algo: str, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with ray_commands() as commands:
        lines, seconds = lose(commands, folder, "raylet", algo, "--checkpoint-every", "1000", "--log-every", "2000")
        commands.wait_until_none_is_left()
        assert seconds < 60.0
        assert len(lines) == 2
        if (folder / "summary.json").exists():
            assert lines[0].startswith("limelight: error: the Ray cluster is lost: this machine's part of it (raylet, ")
        else:  # Ray has ended the process
            assert lines[0].startswith("limelight: error: the process of the run was ended from outside, or by Ray")
        assert lines[1].endswith(f"continue with: limelight train --resume {folder}")
        assert steps_saved(folder) > 0
        resume(commands, folder)


@pytest.mark.faults
@pytest.mark.parametrize(("program", "least"), [("gcs_server", 30.0), ("raylet", 0.0)])
def test_a_cluster_that_was_joined_and_is_lost_ends_the_run_which_goes_on_with_another(
    program: str, least: float, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    with ray_commands() as commands:
        address = commands.start_head()
        lines, seconds = lose(
            commands, folder, program, "a3c", "--ray-address", address, "--checkpoint-every", "1000"
        )  # fmt: skip
        assert least <= seconds < 60.0
        assert lines[1].endswith(f"continue with: limelight train --resume {folder}")
    with ray_commands() as commands:
        resume(commands, folder, "--ray-address", commands.start_head())


@pytest.mark.faults
@pytest.mark.parametrize("algo", ["a2c", "a3c"])
def test_a_run_whose_process_is_killed_goes_on_with_fewer_workers(algo: str, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with ray_commands() as commands:
        process = commands.train(
            folder, "--algo", algo, *ENDLESS, "--checkpoint-every", "1000", "--log-every", "2000"
        )  # fmt: skip
        wait_for_training(process, folder)
        process.kill()
        _, errors = process.communicate(timeout=60)
        commands.wait_until_none_is_left(180.0)  # agents of Ray first try to tell the head
        assert errors.endswith(f"continue with: limelight train --resume {folder}\n")
        resume(commands, folder, "--num-workers", "1")
        commands.wait_until_none_is_left()
