"""The shared state of worker processes: one block of shared memory and one lock (runners/processes/portable.py)."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from enum import IntEnum
from multiprocessing.context import SpawnContext
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from limelight.algo.normalization import Moments
from limelight.algo.optim import initial_state
from limelight.algo.train_state import TrainState
from limelight.runners.processes.portable import Lock, make_block, make_lock
from limelight.settings.schema import TrainConfig

_ALIGNMENT = 64
"""Bytes of a cache line: arrays start at its multiples, so that two processes rarely write to the same line."""


class WaitedLock:
    """A lock that adds up the seconds that this process waits for it."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self.seconds = 0.0

    def __enter__(self) -> None:
        start = time.perf_counter()
        self._lock.__enter__()
        self.seconds += time.perf_counter() - start

    def __exit__(self, *error: object) -> None:
        self._lock.__exit__(*error)


class SharedArrays:
    """Named arrays in one block of shared memory; a spawned process that receives them sees the same memory."""

    def __init__(self, context: SpawnContext, fields: Mapping[str, tuple[tuple[int, ...], DTypeLike]]) -> None:
        self._spans: dict[str, tuple[int, tuple[int, ...], str]] = {}
        offset = 0
        for name, (shape, dtype) in fields.items():
            self._spans[name] = (offset, shape, np.dtype(dtype).str)
            nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            offset += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        self.block = make_block(context, offset + _ALIGNMENT)

    def __getitem__(self, name: str) -> NDArray[Any]:
        offset, shape, dtype = self._spans[name]
        block = self.block.array
        start = -ctypes.addressof(block) % _ALIGNMENT + offset
        count = int(np.prod(shape))
        flat: NDArray[Any] = np.frombuffer(memoryview(block).cast("B"), dtype, count, start)
        return flat.reshape(shape)

    def __contains__(self, name: str) -> bool:
        return name in self._spans

    def names(self) -> list[str]:
        """Return the names of all arrays."""
        return list(self._spans)


class Command(IntEnum):
    """Commands of the main process to all workers, which read them between two rollouts."""

    PAUSE = 0
    RUN = 1
    STOP = 2


class Control(IntEnum):
    """Positions in the control array, which only the main process writes."""

    COMMAND = 0
    LIMIT = 1
    """Environment steps, over all workers, after which workers collect nothing more."""
    REPORTS_WANTED = 2
    """A counter; a worker that reads a new number sends a report."""
    ORDERS = 4
    """A counter; a worker that reads a new number carries out the orders in its channel."""
    STATES_WANTED = 3
    """A counter; a worker that reads a new number sends a report and its state for a checkpoint."""


class SharedState:
    """All state that the main process and the workers of a run share, made before the first worker starts.

    ``counters`` has a row per worker, which only this worker writes, so that no increment is lost; its last row has the
    counts of the sessions that a resumed run continues. Shapes: ``[n]`` parameters, ``[m]`` parameters of the target
    critic, ``W`` workers.
    """

    def __init__(
        self,
        context: SpawnContext,
        config: TrainConfig,
        train_state: TrainState,
        statistics: Mapping[str, Moments],
    ) -> None:
        """``statistics``: the running statistics that workers share, by name."""
        workers = config.workers
        assert workers.num_workers is not None
        self.num_workers = W = workers.num_workers
        self.num_train_states = W if workers.shared_memory.optimizer_statistics == "per_worker" else 1
        state = initial_state(config.optim, train_state.params.cpu())
        fields: dict[str, tuple[tuple[int, ...], DTypeLike]] = {
            "control": ((len(Control),), np.int64),
            "counters": ((W + 1, _ALIGNMENT // 8), np.int64),
            "params": (tuple(train_state.params.shape), np.float32),
            **{f"optimizer.{k}": ((self.num_train_states, *t.shape), t.numpy().dtype) for k, t in state.items()},
        }
        if train_state.target_params is not None:
            fields["target_params"] = (tuple(train_state.target_params.shape), np.float32)
        for name, (mean, _, _) in statistics.items():
            fields[f"statistics.{name}"] = ((2, *mean.shape), np.float64)
            fields[f"count.{name}"] = ((1,), np.int64)
        self.arrays = SharedArrays(context, fields)
        self.lock = make_lock()
        """Held while running statistics are shared, and during updates where ``update_order`` is ``locked``."""
        self._locked = workers.shared_memory.update_order == "locked"
        self._waited_lock = WaitedLock(self.lock)
        for worker in range(self.num_train_states):
            self.train_state(worker).set_state({**train_state.get_state(), "optimizer": state})

    def train_state(self, worker: int) -> TrainState:
        """Return the parameters and optimizer state that ``worker`` updates, as views of the shared block."""
        row = worker if self.num_train_states > 1 else 0
        names = [name for name in self.arrays.names() if name.startswith("optimizer.")]
        return TrainState(
            torch.from_numpy(self.arrays["params"]),
            torch.from_numpy(self.arrays["target_params"]) if "target_params" in self.arrays else None,
            {name.removeprefix("optimizer."): torch.from_numpy(self.arrays[name][row : row + 1])[0] for name in names},
        )

    def close(self) -> None:
        """Close the lock and remove what has a name; the arrays stay as they are."""
        self.arrays.block.close()
        self.lock.remove()

    def update_order(self) -> AbstractContextManager[None]:
        """Return the context to pull or push parameters in: the lock where updates are ``locked``, else no lock."""
        return self._waited_lock if self._locked else contextlib.nullcontext()

    @property
    def waited_seconds(self) -> float:
        """The seconds that this process has waited for the lock, where updates are ``locked``."""
        return self._waited_lock.seconds

    def read_statistics(self, name: str) -> Moments:
        """Return the shared statistics of this name; the caller holds ``lock``."""
        mean, var = self.arrays[f"statistics.{name}"]
        return Moments(np.array(mean), np.array(var), int(self.arrays[f"count.{name}"][0]))

    def write_statistics(self, name: str, statistics: Moments) -> None:
        """Replace the shared statistics of this name; the caller holds ``lock``."""
        mean_and_var = self.arrays[f"statistics.{name}"]
        mean_and_var[0] = statistics.mean
        mean_and_var[1] = statistics.var
        self.arrays[f"count.{name}"][0] = statistics.size
