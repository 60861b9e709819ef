"""Large arrays of environments as files."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from helpers.rude_envs import Prices
from limelight.envs.snapshot import get_env_states
from limelight.runs.array_file import array_file
from limelight.runs.checkpoint import read_state, write_state


@pytest.mark.parametrize("dtype", ["?", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)])
def test_safetensors_reads_it(dtype: str, shape: tuple[int, ...]) -> None:
    array: Any = (np.arange(np.prod(shape, dtype=int)) % 2).reshape(shape).astype(dtype)
    read = safetensors.numpy.load(b"".join(array_file(array)))["array"]
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_saving_data_that_environments_share_takes_the_memory_of_two_of_them(tmp_path: Path) -> None:
    """One copy is needed, as the environments go on; it grows neither with their number nor with writing."""
    envs = [Prices() for _ in range(8)]
    tracemalloc.start()
    try:
        states = get_env_states(envs)
        write_state(tmp_path / "s", {"envs": states})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * Prices.NBYTES
    saved = read_state(tmp_path / "s")["envs"]
    for state in saved:
        (prices,) = (value for name, value in state["layers"][0]["attributes"] if name == "prices")
        np.testing.assert_array_equal(prices, envs[0].prices)
