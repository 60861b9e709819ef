"""Removes one of two Ray nodes on this machine while A3C trains. Run as a script; prints the result as JSON."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import limelight


def remove_once_training(cluster: object, node: object, metrics: Path) -> None:
    while not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.1)
    cluster.remove_node(node, allow_graceful=False)  # type: ignore[attr-defined]


def main(run_dir: str) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    node = cluster.add_node(num_cpus=2)
    remover = threading.Thread(
        target=remove_once_training, args=(cluster, node, Path(run_dir) / "metrics.jsonl"), daemon=True
    )
    remover.start()
    messages: list[str] = []

    class Listener:
        def message(self, text: str) -> None:
            messages.append(text)

        def log(self, *args: object) -> None: ...
        def episodes(self, *args: object) -> None: ...
        def close(self) -> None: ...

    result = limelight.train(
        "CartPole-v1", algo="a3c", runner="ray", ray_address=cluster.address, num_workers=2, seed=1, quiet=True,
        total_timesteps=400_000, run_dir=run_dir, loggers=[Listener()],
    )  # fmt: skip
    remover.join(10.0)
    final = result.summary["final_eval_return"]
    print(
        json.dumps({"status": result.status, "final": final, "removed": not remover.is_alive(), "messages": messages})
    )
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
