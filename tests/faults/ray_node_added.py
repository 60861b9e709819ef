"""Adds a Ray node while a run waits for room for its second worker; prints the end as JSON.

Run as a script, with the algorithm.
"""

from __future__ import annotations

import json
import logging
import sys
import time


def main(algo: str) -> None:
    import ray
    from ray.cluster_utils import Cluster

    from helpers.manual_workers import quick_config
    from limelight.runners.ray.runner import RayRunner
    from limelight.runners.worker_metrics import Counter
    from limelight.training.run import build

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(cluster.address, log_to_driver=False, logging_level=logging.CRITICAL)
    runner, _ = build(quick_config(algo, runner="ray", num_workers=2, total_timesteps=10_000_000), None)
    assert isinstance(runner, RayRunner)
    messages: list[str] = []

    def advance(steps: int) -> None:
        until, deadline = runner.num_steps + steps, time.monotonic() + 90
        while runner.num_steps < until and time.monotonic() < deadline:
            runner.advance(until, 0.2)
            messages.extend(runner.pop_messages())

    advance(300)
    alone = [int(count) for count in runner.counters[:, Counter.STEPS]]
    cluster.add_node(num_cpus=1)
    deadline = time.monotonic() + 90
    while not all(worker.slot.ready for worker in runner.pool.workers) and time.monotonic() < deadline:
        advance(20)
    advance(500)
    together = [int(count) for count in runner.counters[:, Counter.STEPS]]
    runner.close()
    print(json.dumps({"messages": messages, "alone": alone, "together": together}))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
