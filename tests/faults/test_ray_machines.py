"""Machines of a Ray cluster without memory, store or disk, and one that is added: the run goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from limelight.runs.checkpoint import latest_checkpoint

pytest.importorskip("ray")
pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]
HERE = Path(__file__).parent


def end_of(script: str, *arguments: str) -> dict[str, Any]:
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        capture_output=True, text=True, timeout=300, check=False, env=env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    end: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return end


@pytest.mark.parametrize("algo", ["a2c", "a3c"])
def test_a_worker_that_takes_too_much_memory_is_named_and_replaced(algo: str, tmp_path: Path) -> None:
    end = end_of("ray_memory.py", str(tmp_path), algo)
    message = end["messages"][0]
    assert "exited: its machine ran out of memory, and Ray ended it (1 worker(s) were killed" in message
    assert message.endswith("restarted in 0.1 s with fresh seeds (restart 1 of 10)")
    assert end["went_on"] or "ran out of memory" in end["error"]


@pytest.mark.parametrize("algo", ["a2c", "a3c"])
def test_a_run_goes_on_while_a_full_object_store_spills(algo: str, tmp_path: Path) -> None:
    end = end_of("ray_store.py", str(tmp_path / "r"), algo, "spill")
    assert end["filled"] == 30
    assert (end["status"], end["error"]) == ("stopped", "")
    assert latest_checkpoint(tmp_path / "r") is not None


@pytest.mark.parametrize("algo", ["a2c", "a3c"])
def test_a_full_object_store_on_a_full_disk_stops_no_run_without_a_line(algo: str, tmp_path: Path) -> None:
    end = end_of("ray_store.py", str(tmp_path / "r"), algo, "full")
    assert end["status"] == "stopped" or "Local disk is full" in end["error"]
    assert latest_checkpoint(tmp_path / "r") is not None


@pytest.mark.parametrize("algo", ["a2c", "a3c"])
def test_a_node_that_is_added_gets_the_worker_that_waits(algo: str) -> None:
    end = end_of("ray_node_added.py", algo)
    assert end["messages"] == [
        "1 of 2 workers have started, and the cluster has room for 1 (each: 1 CPUs, 0 GPUs); "
        "the others join when they can"
    ]
    assert sorted(end["alone"])[0] == 0
    assert min(end["together"]) > 0
