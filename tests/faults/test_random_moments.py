"""Runs that are killed or told to stop at random moments: what is left, and whether resuming repeats the whole run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limelight.runs.checkpoint import latest_checkpoint, read_state

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="forks, and reads /proc")
SCRIPT = Path(__file__).with_name("fork_runs.py")
MOMENTS = int(os.environ.get("LIMELIGHT_MOMENTS", "50"))
"""Random moments of each test that is marked ``faults``."""
A2C = [
    "train", "CartPole-v1", "--algo", "a2c", "--total-timesteps", "6000", "--num-envs", "4", "--num-steps", "8",
    "--checkpoint-every", "700", "--eval-every", "2000", "--eval-episodes", "4", "--final-episodes", "4",
    "--no-tensorboard", "--log-every", "500", "--normalize-obs", "--backend", "sync", "--quiet", "--preset", "plain",
]  # fmt: skip
A3C = [
    "train", "CartPole-v1", "--algo", "a3c", "--num-workers", "2", "--total-timesteps", "60000", "--num-envs", "2",
    "--checkpoint-every", "5000", "--eval-every", "20000", "--eval-episodes", "2", "--final-episodes", "2",
    "--no-tensorboard", "--backend", "sync", "--quiet", "--preset", "plain",
]  # fmt: skip
RAY = [*A2C, "--runner", "ray", "--num-workers", "2"]
EXITS = {signal.SIGTERM: (143, -signal.SIGTERM), signal.SIGINT: (130, -signal.SIGINT), signal.SIGKILL: (-9,)}


def rows(folder: Path, argv: list[str], moments: int, signals: list[int], **plan: Any) -> list[dict[str, Any]]:
    plan = {"early": False, "report": False, "resume": True, "seed": 0, **plan}
    plan |= {"argv": argv, "folder": str(folder), "moments": moments, "signals": signals}
    paths = os.pathsep.join(filter(None, [str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), json.dumps(plan)], capture_output=True, text=True, timeout=3_000, check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(found) == moments + 1
    assert found[0]["status"] == 0
    return found


def final_state(folder: str | Path) -> dict[str, Any]:
    newest = latest_checkpoint(Path(folder))
    assert newest is not None
    state = read_state(newest)
    for part in (state["training"]["runner"], state["training"]):
        part.pop("seconds", None)
    if state["training"]["evaluator"]["solved_at"]:
        state["training"]["evaluator"]["solved_at"].pop()
    state.pop("config")  # its folder
    return state


def lines(folder: str | Path) -> list[list[str]]:
    """Return the episodes of monitor.csv without their seconds."""
    table = (Path(folder) / "monitor.csv").read_text().splitlines()[1:]
    return [[cell for i, cell in enumerate(line.split(",")) if i != 2] for line in table]


def check_repeats(whole: dict[str, Any], killed: list[dict[str, Any]], may_differ: bool = False) -> int:
    """Check that every resumed run equals the one that was never killed; return how many were resumed.

    ``may_differ``: where a line says that it may not repeat exactly.
    """
    expected, episodes, resumed = final_state(whole["folder"]), lines(whole["folder"]), 0
    for row in killed:
        if "resumed" not in row:
            continue
        resumed += 1
        assert row["resumed"] == 0, row
        assert not list(Path(row["folder"]).rglob(".*.tmp"))
        if may_differ and "may not repeat exactly" in Path(f"{row['folder']}.txt.resumed").read_text():
            continue
        np.testing.assert_equal(final_state(row["folder"]), expected)
        assert lines(row["folder"]) == episodes
    return resumed


def check_ends(killed: list[dict[str, Any]]) -> None:
    for row in killed:
        assert row["status"] in (0, *EXITS[signal.Signals(row["signal"])]), row
        assert (row["left"], row["shm"]) == (0, []), row
        assert row["children_gone"] < 2.0, row
        assert "Traceback" not in row["output"], row


def check_loadable(killed: list[dict[str, Any]]) -> int:
    """Check that a run that was told to stop has a checkpoint, once training has begun; return how many have."""
    loadable = 0
    for row in killed:
        folder = Path(row["folder"])
        if (folder / "monitor.csv").exists() and row["status"] in (130, 143):
            assert latest_checkpoint(folder) is not None, row
            loadable += 1
    return loadable


@pytest.mark.parametrize(
    "moments",
    [pytest.param(4, marks=pytest.mark.slow), pytest.param(MOMENTS, marks=pytest.mark.faults)],
    ids=["few", "many"],
)
def test_a_run_killed_at_any_moment_resumes_to_the_run_that_was_never_killed(moments: int, tmp_path: Path) -> None:
    whole, *killed = rows(tmp_path, A2C, moments, [signal.SIGKILL])
    check_ends(killed)
    assert check_repeats(whole, killed) >= moments // 4


@pytest.mark.faults
def test_a_synchronous_run_on_ray_killed_at_any_moment_repeats_itself(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    whole, *killed = rows(tmp_path, RAY, max(1, MOMENTS // 10), [signal.SIGKILL])
    assert check_repeats(whole, killed) >= 1


@pytest.mark.faults
@pytest.mark.parametrize("report", [False, True])
def test_the_first_signal_at_any_moment_leaves_a_checkpoint(report: bool, tmp_path: Path) -> None:
    whole, *killed = rows(tmp_path, A2C, MOMENTS, [signal.SIGTERM, signal.SIGINT], report=report)
    check_ends(killed)
    assert check_loadable(killed) >= MOMENTS // 4
    assert check_repeats(whole, killed) >= MOMENTS // 4


@pytest.mark.faults
def test_a_second_signal_at_any_moment_leaves_a_run_that_resumes(tmp_path: Path) -> None:
    whole, *killed = rows(tmp_path, A2C, MOMENTS, [signal.SIGTERM, signal.SIGINT], twice=True, seed=1)
    check_ends(killed)
    check_repeats(whole, killed, may_differ=True)


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_are_gone_after_their_main_process_is_ended_at_any_moment(number: int, tmp_path: Path) -> None:
    _, *killed = rows(tmp_path, A3C, max(1, MOMENTS // 3), [number], seed=int(number))
    check_ends(killed)
    check_loadable(killed)
    assert all(row.get("resumed", 0) == 0 for row in killed)
