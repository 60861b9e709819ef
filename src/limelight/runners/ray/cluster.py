"""Joins a Ray cluster, or starts one on this machine for the length of a run."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import ray

from limelight.envs.make import num_cores
from limelight.errors import ConfigError, WorkerError
from limelight.runners.ray.cluster_watch import ClusterWatch, watch_cluster
from limelight.settings.schema import RayConfig, TrainConfig


class Cluster(NamedTuple):
    """The cluster that this process is connected to."""

    leave: Callable[[], None]
    """Disconnects the process."""
    dashboard: str | None
    """Its URL, if there is one."""
    watch: ClusterWatch


def join(config: TrainConfig) -> Cluster:
    """Connect this process to the cluster; one that was connected before stays connected afterwards.

    Raises: ConfigError if no cluster answers at ``ray_address``; WorkerError if Ray cannot be started here.
    """
    if ray.is_initialized():
        return Cluster(lambda: None, None, watch_cluster(is_own=False))
    workers, verbose = config.workers, config.log.verbose
    level = logging.INFO if verbose else logging.ERROR
    if workers.ray.ray_address is not None:
        try:
            _require_answer(workers.ray.ray_address)
            with _own_signal_handlers():
                context = ray.init(workers.ray.ray_address, log_to_driver=verbose, logging_level=level)
        except (OSError, RuntimeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"ray_address = {workers.ray.ray_address}: no Ray cluster could be joined there ({_reason(error)}); "
                "start one with `ray start --head`, or leave it out to train on this machine; "
                "one that wants a token needs RAY_AUTH_MODE=token here, too"
            ) from None
    else:
        assert workers.num_workers is not None
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics of local runs
        # More workers than cores are allowed here: Ray's CPUs are reservations.
        num_cpus = max(num_cores(), math.ceil(workers.num_workers * workers.ray.worker_cpus))
        try:
            with _own_signal_handlers():
                context = ray.init("local", num_cpus=num_cpus, log_to_driver=verbose, logging_level=level)
        except Exception as error:  # Ray raises a bare Exception where its processes do not come up in time
            raise WorkerError(
                f"Ray could not be started on this machine ({_reason(error)}); logs: /tmp/ray/session_latest; "
                "algo a3c needs no Ray"
            ) from None
    _show_warnings(verbose)
    is_own = workers.ray.ray_address is None
    return Cluster(ray.shutdown, context.dashboard_url or None, watch_cluster(is_own))


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Keep the handler of SIGTERM, where Ray sets one that exits with another status and without a checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    from ray._private import utils

    before, set_handler = signal.getsignal(signal.SIGTERM), getattr(utils, "set_sigterm_handler", None)
    if set_handler is not None:  # no public setting leaves the handler as it is
        utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        if set_handler is not None:
            utils.set_sigterm_handler = set_handler
        signal.signal(signal.SIGTERM, before)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _show_warnings(show: bool) -> None:
    """Show or hide the warnings of Ray's own processes: ``log_to_driver`` does not, and no public setting does."""
    with contextlib.suppress(ImportError):
        from ray._private import worker

        worker._worker_logs_enabled = show


def _require_answer(address: str) -> None:
    """Raise OSError if nothing listens at HOST:PORT, where Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=5.0).close()


def free_places(settings: RayConfig) -> int:
    """Return how many workers the cluster has room for, at most: free CPUs may be spread over several nodes."""
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    places = free.get("CPU", 0.0) / settings.worker_cpus
    if settings.worker_gpus:
        places = min(places, free.get("GPU", 0.0) / settings.worker_gpus)
    return int(places + 1e-6)
