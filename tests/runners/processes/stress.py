"""Eight processes push as fast as they can.  python stress.py SECONDS ORDER:STATISTICS...  prints the result as JSON.

The processes are forked, so that torch is imported once; each makes the same calls as a worker's push.
"""

from __future__ import annotations

import json
import os
import sys
import time
from multiprocessing import get_context

import numpy as np
import torch

from limelight.algo.optim import initial_state, make_optimizer
from limelight.algo.train_state import TrainState
from limelight.runners.processes.shared import SharedState
from limelight.runners.worker_metrics import Counter
from limelight.settings.io import with_settings
from limelight.settings.schema import OptimConfig, TrainConfig

WRITERS, NUMBERS = 8, 5_000
RATE = 2.0**-9
"""With gradients of 1, α = 0 and ε = 1 RMSprop's step is −RATE / 2, exactly."""


def push(shared: SharedState, optim: OptimConfig, writer: int, until: float) -> None:
    """Push repeatedly, as one writer, until ``until``."""
    train_state = shared.train_state(writer)
    optimizer = make_optimizer(optim, train_state.params, torch.ones(NUMBERS), train_state.optimizer_state)
    mine = shared.arrays["counters"][writer]
    while time.monotonic() < until:
        with shared.update_order():
            optimizer.step([(slice(0, NUMBERS), RATE)])
        mine[Counter.UPDATES] += 1


def stress(seconds: float, order: str, statistics: str) -> dict[str, object]:
    """Let all writers push for ``seconds``; return their updates and the range of the parameters."""
    settings = {
        "asynchronous": True, "num_workers": WRITERS, "update_order": order, "optimizer_statistics": statistics,
        "rms_alpha": 0.0, "optim_eps": 1.0,
    }  # fmt: skip
    config = with_settings(TrainConfig(), settings)
    zeros = torch.zeros(NUMBERS)
    shared = SharedState(get_context("spawn"), config, TrainState(zeros, None, initial_state(config.optim, zeros)), {})
    children = []
    until = time.monotonic() + seconds
    for writer in range(WRITERS):
        child = os.fork()
        if child == 0:
            push(shared, config.optim, writer, until)
            os._exit(0)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    updates = shared.arrays["counters"][:WRITERS, Counter.UPDATES]
    moved = -shared.arrays["params"].astype(np.float64)
    return {
        "statuses": statuses,
        "updates": updates.tolist(),
        "finite": bool(np.isfinite(moved).all()),
        "least": float(moved.min()),
        "most": float(moved.max()),
        "mean": float(moved.mean()),
        "wanted": float(updates.sum() * RATE / 2),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({way: stress(float(sys.argv[1]), *way.split(":")) for way in sys.argv[2:]}))
