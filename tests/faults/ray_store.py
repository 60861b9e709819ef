"""Fills the object store of a Ray cluster while a run sends rollouts through it; prints the end as JSON.

Run as a script: the run's folder, the algorithm, and ``spill`` or ``full``: the disk takes what the store cannot, or
counts as full.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any


class Fills:
    """A callback after whose second rollout an actor of another program fills the store."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.until = 0
        self.filler: Any = None
        self.filled = 0

    def on_rollout(self, run: Any) -> bool | None:
        import ray

        if self.filler is None:
            self.filler = ray.remote(Filler).options(num_cpus=0).remote()
            self.filling = self.filler.fill.remote()
            return None
        if not self.until and ray.wait([self.filling], timeout=0.0)[0]:
            self.filled = ray.get(self.filling)
            self.until = run.step + self.steps
        return run.step < self.until if self.until else None


class Filler:
    """Keeps objects of 10 MB, up to 300 MB; where the store takes no more, smaller ones."""

    def fill(self) -> int:
        import numpy as np
        import ray

        self.kept = []
        for size in (10_000_000, 1_000_000, 200_000):
            try:
                while sum(reference_size for _, reference_size in self.kept) < 300_000_000:
                    self.kept.append((ray.put(np.ones(size, np.uint8)), size))
            except ray.exceptions.RayError:
                pass
        return len(self.kept)


def main(run_dir: str, algo: str, disk: str) -> None:
    if disk == "full":
        os.environ |= {"RAY_local_fs_capacity_threshold": "0.0001"}
    import ray

    import limelight

    ray.init(
        "local", num_cpus=4, object_store_memory=80_000_000, include_dashboard=False, log_to_driver=False,
        logging_level=logging.CRITICAL,
    )  # fmt: skip
    fills, start, end = Fills(2_000), time.monotonic(), {"status": "", "error": ""}
    try:
        result = limelight.train(
            "helpers.ray_envs:Large", algo=algo, runner="ray", num_workers=2, num_envs=2, num_steps=5, quiet=True,
            preset="plain", backend="sync", hidden_sizes=(8,), worker_output="rollouts", total_timesteps=10_000_000,
            eval_every=0, final_episodes=0, report_every=0, tensorboard=False, run_dir=run_dir, callbacks=[fills],
        )  # fmt: skip
        end["status"] = result.status
    except limelight.LimelightError as error:
        end["error"] = str(error)
    print(json.dumps({**end, "filled": fills.filled, "seconds": time.monotonic() - start}))
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
