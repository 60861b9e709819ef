"""Lets Ray end a worker that takes too much memory, while a run trains; prints the messages as JSON.

Run as a script: the folder of the file that only one worker can create, and the algorithm.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path


def used_share() -> float:
    """Return the share of this machine's memory that is in use."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    numbers = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return 1.0 - numbers["MemAvailable"] / numbers["MemTotal"]


def main(folder: str, algo: str) -> None:
    threshold = f"{used_share() + 0.08:.3f}"
    os.environ |= {"RAY_memory_usage_threshold": threshold, "RAY_memory_monitor_refresh_ms": "100"}
    import ray

    from helpers.manual_workers import quick_config
    from limelight.errors import WorkerError
    from limelight.training.run import build

    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL)
    kwargs = {"once": str(Path(folder) / "once")}
    config = quick_config(
        algo, env_id="helpers.ray_envs:Allocates", env_kwargs=kwargs, runner="ray", num_workers=2,
        total_timesteps=10_000_000,
    )  # fmt: skip
    runner, _ = build(config, None)
    messages, error, deadline, until = [], "", time.monotonic() + 90, 0
    try:
        while time.monotonic() < deadline and not (until and runner.num_steps >= until):
            runner.advance(runner.num_steps + 20, 0.2)
            messages += runner.pop_messages()
            if messages and not until:
                until = runner.num_steps + 500
    except WorkerError as failure:
        error = str(failure)
    runner.close()
    print(json.dumps({"messages": messages, "error": error, "went_on": bool(until and runner.num_steps >= until)}))
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
