"""The shared state under simultaneous writes of several processes."""

from __future__ import annotations

import json
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limelight.runners.processes.portable import FORCED
from limelight.runners.processes.shared import SharedArrays

LOCK_FREE, LOCK_FREE_SHARED, LOCKED = "lock_free:per_worker", "lock_free:shared", "locked:shared"
Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="module", params=[1, pytest.param(10, marks=pytest.mark.slow)])
def stressed(request: pytest.FixtureRequest) -> Results:
    """Results of eight writers per kind of update order, each for that many seconds."""
    script = Path(__file__).with_name("stress.py")
    command = [sys.executable, str(script), str(request.param), LOCK_FREE, LOCK_FREE_SHARED, LOCKED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    results: Results = json.loads(done.stdout)
    for result in results.values():
        assert result["statuses"] == [0] * 8
        assert min(result["updates"]) > 0
        assert result["finite"]
    return results


def test_lock_free_writers_lose_updates_but_make_no_wrong_ones(stressed: Results) -> None:
    result = stressed[LOCK_FREE]
    assert 0.0 < result["least"] <= result["most"] <= result["wanted"]
    lost = 1.0 - result["mean"] / result["wanted"]
    print(f"{sum(result['updates'])} updates by 8 writers: {lost:.2%} lost")
    assert lost < 0.9


def test_lock_free_writers_of_shared_statistics_stay_within_the_bound_of_a_step(stressed: Results) -> None:
    result = stressed[LOCK_FREE_SHARED]
    assert 0.0 < result["least"] <= result["most"] <= 2 * result["wanted"]  # RMSprop's step is RATE at most


def test_locked_writers_lose_nothing(stressed: Results) -> None:
    result = stressed[LOCKED]
    assert result["least"] == result["most"] == result["wanted"] > 0.0


@pytest.mark.parametrize("forced", ["0", "1"])
def test_shared_arrays_have_their_shapes_and_do_not_overlap(forced: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORCED, forced)
    fields = {"a": ((3,), np.float32), "empty": ((0,), np.float32), "b": ((2, 2), np.int64), "c": ((1,), np.uint8)}
    arrays = SharedArrays(get_context("spawn"), fields)
    assert arrays.names() == list(fields)
    assert "a" in arrays
    assert "x" not in arrays
    for name, (shape, dtype) in fields.items():
        assert (arrays[name].shape, arrays[name].dtype) == (shape, dtype)
        assert arrays[name].ctypes.data % 64 == 0
        assert not arrays[name].any()
        arrays[name][...] = 1
        assert (arrays[name] == 1).all()
    arrays["a"][:] = 2.0
    assert (arrays["b"] == 1).all()
    arrays.block.close()
    arrays.block.close()
    assert (arrays["a"] == 2.0).all()
