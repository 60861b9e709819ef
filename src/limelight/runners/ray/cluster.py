"""Joining a Ray cluster, or starting one on this machine for the length of a run. For ray.py."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
from collections.abc import Callable

import ray

from limelight.envs.make import num_cores
from limelight.errors import ConfigError
from limelight.settings.schema import RayConfig, TrainConfig


def join(config: TrainConfig) -> tuple[Callable[[], None], str | None]:
    """Connect this process to the cluster; how to leave it again, and where its dashboard is, if it has one.

    A process that is connected already stays so.

    Raises: ConfigError if nothing answers at ``ray_address``.
    """
    if ray.is_initialized():
        return lambda: None, None
    workers, verbose = config.workers, config.log.verbose
    level = logging.INFO if verbose else logging.ERROR
    if workers.ray.ray_address is not None:
        try:
            _require_answer(workers.ray.ray_address)
            context = ray.init(workers.ray.ray_address, log_to_driver=verbose, logging_level=level)
        except (OSError, RuntimeError, ValueError, AssertionError) as error:
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise ConfigError(
                f"ray_address = {workers.ray.ray_address}: no Ray cluster could be joined there ({why}); "
                "start one with `ray start --head`, or leave it out to train on this machine"
            ) from None
    else:
        assert workers.num_workers is not None
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a run on one's own machine is nobody else's business
        wanted = math.ceil(workers.num_workers * workers.ray.worker_cpus)  # workers that wait need no core each
        context = ray.init("local", num_cpus=max(num_cores(), wanted), log_to_driver=verbose, logging_level=level)
    _show_warnings(verbose)
    return ray.shutdown, context.dashboard_url or None


def _show_warnings(show: bool) -> None:
    """What Ray's own processes warn of goes around ``log_to_driver``, and has no switch that is public."""
    with contextlib.suppress(ImportError):
        from ray._private import worker

        worker._worker_logs_enabled = show


def _require_answer(address: str) -> None:
    """Raise OSError if nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=5.0).close()


def free_places(workers: RayConfig) -> int:
    """How many workers the cluster has room for now, at most: what is free may be in pieces on several nodes."""
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    places = free.get("CPU", 0.0) / workers.worker_cpus
    if workers.worker_gpus:
        places = min(places, free.get("GPU", 0.0) / workers.worker_gpus)
    return int(places + 1e-6)
