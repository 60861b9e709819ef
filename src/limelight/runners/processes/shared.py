"""What the workers of one run share: a block of memory and a lock. Made by shared_memory.py, used by worker.py.

Both are nameless files handed to spawned processes as descriptors: nothing is left behind however a process dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from enum import IntEnum
from multiprocessing import reduction
from multiprocessing.context import SpawnContext
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from limelight.algo.normalization import Moments
from limelight.algo.optim import initial_state
from limelight.algo.train_state import TrainState
from limelight.settings.schema import TrainConfig

_ALIGNMENT = 64  # bytes of a cache line: two processes never write to the same one without need


class SharedArrays:
    """Named arrays in one block of shared memory; pickled while a process is spawned, the block itself is passed on."""

    def __init__(self, context: SpawnContext, fields: Mapping[str, tuple[tuple[int, ...], DTypeLike]]) -> None:
        self._spans: dict[str, tuple[int, tuple[int, ...], str]] = {}
        offset = 0
        for name, (shape, dtype) in fields.items():
            self._spans[name] = (offset, shape, np.dtype(dtype).str)
            nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            offset += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        # An unlinked file in /dev/shm, or in the temporary folder where that is too small.
        self._block = context.RawArray(ctypes.c_byte, offset + _ALIGNMENT)

    def __getitem__(self, name: str) -> NDArray[Any]:
        offset, shape, dtype = self._spans[name]
        start = -ctypes.addressof(self._block) % _ALIGNMENT + offset
        count = int(np.prod(shape))
        flat: NDArray[Any] = np.frombuffer(memoryview(self._block).cast("B"), dtype, count, start)
        return flat.reshape(shape)

    def __contains__(self, name: str) -> bool:
        return name in self._spans

    def names(self) -> list[str]:
        """Of all arrays."""
        return list(self._spans)


class ProcessLock:
    """Mutual exclusion between processes that the kernel ends if the holder dies. Not reentrant, not for threads."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the lock)
        self._fd = self._file.fileno()

    def __enter__(self) -> None:
        import fcntl

        fcntl.lockf(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        import fcntl

        fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _received_lock, (reduction.DupFd(self._fd),)


def _received_lock(fd: Any) -> ProcessLock:
    """The lock in the spawned process."""
    lock = ProcessLock.__new__(ProcessLock)
    lock._file = os.fdopen(fd.detach(), "rb+")
    lock._fd = lock._file.fileno()
    return lock


class Command(IntEnum):
    """What the main process wants of the workers; they look between two rollouts."""

    WAIT = 0
    RUN = 1
    STOP = 2


class Control(IntEnum):
    """Positions in the control array: written by the main process alone."""

    COMMAND = 0
    LIMIT = 1
    """Environment steps, over all workers, after which nothing more is collected."""
    REPORTS_WANTED = 2
    """Counts up; a worker that sees a new number sends a report."""
    STATES_WANTED = 3
    """Likewise, for what a checkpoint keeps of it."""


class Shared:
    """All shared state of a run. Rows of ``counters`` are the workers, each written by one process
    alone, so that no increment is lost, and last what earlier sessions of the run counted.

    ``[n]`` are parameters, ``[m]`` those of the target critic, ``W`` workers.
    """

    def __init__(
        self,
        context: SpawnContext,
        config: TrainConfig,
        train_state: TrainState,
        moments: Mapping[str, Moments],
    ) -> None:
        """``moments``: what the run keeps running moments of."""
        workers = config.workers
        assert workers.num_workers is not None
        self.num_workers = W = workers.num_workers
        self.own_statistics = workers.shared_memory.optimizer_statistics == "per_worker"
        rows = W if self.own_statistics else 1
        state = initial_state(config.optim, train_state.params.cpu())
        fields: dict[str, tuple[tuple[int, ...], DTypeLike]] = {
            "control": ((len(Control),), np.int64),
            "counters": ((W + 1, _ALIGNMENT // 8), np.int64),
            "params": (tuple(train_state.params.shape), np.float32),
            **{f"optimizer.{k}": ((rows, *t.shape), t.numpy().dtype) for k, t in state.items()},
        }
        if train_state.target_params is not None:
            fields["target_params"] = (tuple(train_state.target_params.shape), np.float32)
        for name, (mean, _, _) in moments.items():
            fields[f"moments.{name}"] = ((2, *mean.shape), np.float64)
            fields[f"count.{name}"] = ((1,), np.int64)
        self.arrays = SharedArrays(context, fields)
        self.lock = ProcessLock()
        """Orders what must not interleave: the moments always, updates where they are ``locked``."""
        self._locked = workers.shared_memory.update_order == "locked"
        for worker in range(rows):
            self.train_state(worker).set_state({**train_state.get_state(), "optimizer": state})

    def train_state(self, worker: int) -> TrainState:
        """What the updates of ``worker`` move: views of the shared block."""
        row = worker if self.own_statistics else 0
        names = [name for name in self.arrays.names() if name.startswith("optimizer.")]
        return TrainState(
            torch.from_numpy(self.arrays["params"]),
            torch.from_numpy(self.arrays["target_params"]) if "target_params" in self.arrays else None,
            {name.removeprefix("optimizer."): torch.from_numpy(self.arrays[name][row : row + 1])[0] for name in names},
        )

    def update_order(self) -> AbstractContextManager[None]:
        """Held while parameters are pulled or pushed: the lock where updates are ``locked``, else nothing."""
        return self.lock if self._locked else contextlib.nullcontext()

    def read_moments(self, name: str) -> Moments:
        """The common moments of this name; hold ``lock``."""
        mean, var = self.arrays[f"moments.{name}"]
        return Moments(np.array(mean), np.array(var), int(self.arrays[f"count.{name}"][0]))

    def write_moments(self, name: str, moments: Moments) -> None:
        """Replace the common moments of this name; hold ``lock``."""
        self.arrays[f"moments.{name}"][0], self.arrays[f"moments.{name}"][1] = moments.mean, moments.var
        self.arrays[f"count.{name}"][0] = moments.size
