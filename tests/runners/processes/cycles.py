"""Starts and stops the asynchronous runner.  python cycles.py NUMBER WORKERS  prints what remains each time as JSON.

/dev/shm is declared too small, so the shared block is a file in the temporary folder.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import sys
import threading
import warnings
from multiprocessing import heap

from limelight.training.presets import resolve_config
from limelight.training.run import build


def cycle(workers: int) -> dict[str, object]:
    """Run once; return the open files, processes and threads that remain."""
    config = resolve_config("CartPole-v1", "a3c", "plain", {
        "num_workers": workers, "num_envs": 2, "num_steps": 5, "backend": "sync", "device": "cpu",
        "total_timesteps": 200,
    })  # fmt: skip
    runner, _ = build(config, None)
    try:
        while runner.num_steps < 200:
            runner.advance(200, 0.1)
        steps = runner.num_steps
    finally:
        runner.close()
    del runner
    gc.collect()
    return {
        "steps": steps,
        "files": len(os.listdir("/proc/self/fd")),
        "children": [child.name for child in multiprocessing.active_children()],
        "threads": [thread.name for thread in threading.enumerate()],
    }


def main(number: int, workers: int) -> None:
    warnings.simplefilter("error")
    heap.Arena._dir_candidates = []  # type: ignore[attr-defined]
    print(json.dumps([cycle(workers) for _ in range(number)]))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
