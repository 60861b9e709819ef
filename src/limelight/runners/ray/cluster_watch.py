"""A watch over the two processes of Ray without which a run cannot go on: the head's, and the one of this machine.

Ray ends a process whose raylet has exited at the next object that it stores, and one whose head has not answered for a
minute, without an exception. A run that notices before can still save a checkpoint.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from typing import NamedTuple, final

import ray

from limelight.errors import WorkerError

HEAD_GRACE = 40.0
"""Seconds in which the head may come back. Ray ends the process after 60, RAY_gcs_rpc_server_reconnect_timeout_s."""
LOOK_EVERY = 0.5
"""Seconds between two attempts to connect, and after which a watch that has been stopped ends."""
_CONNECT_TIMEOUT = 2.0
_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Options of a connection that let it end where the other machine is gone, within 20 s."""


class Watched(NamedTuple):
    """A process of Ray that accepts connections as long as it runs."""

    name: str
    """Its name in messages."""
    address: tuple[str, int]
    """Host and port."""
    grace: float
    """Seconds without a connection after which it counts as lost."""


@final
class ClusterWatch:
    """Keeps a connection to each process, in a thread of its own: it ends with the process."""

    def __init__(self, processes: tuple[Watched, ...]) -> None:
        self.processes = processes
        self._lost: str | None = None
        self._noticed: list[str] = []
        self._stopped = threading.Event()
        self._connections: list[socket.socket] = []
        self._threads = [
            threading.Thread(target=self._watch, args=(process,), name="limelight-ray-watch", daemon=True)
            for process in processes
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_lost(self) -> bool:
        """Return whether a process is gone; Ray must not be called any more then."""
        return self._lost is not None

    def require_cluster(self) -> None:
        """Look at the connections without waiting: Ray ends this process where it is called without its raylet.

        Raises: WorkerError if a process is gone.
        """
        if self._lost is None and any(map(_is_readable, self._connections)):
            self.look()
        if self._lost is not None:
            raise WorkerError(f"the Ray cluster is lost: {self._lost}")

    def look(self) -> None:
        """Connect to those that are lost without a grace, as :meth:`require_cluster`, for a failure just received."""
        for process in self.processes:
            if not process.grace and self._lost is None:
                connection = _connected(process.address)
                if connection is None:
                    self._lose(process, 0.0)
                else:
                    connection.close()
        if self._lost is not None:
            self.require_cluster()

    def pop_messages(self) -> list[str]:
        """Return the lines since the last call on a head that does not answer, or does again."""
        messages, self._noticed = self._noticed, []
        return messages

    def stop(self) -> None:
        """End watching."""
        self._stopped.set()
        for connection in self._connections.copy():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # ends recv
        for thread in self._threads:
            thread.join()

    def _watch(self, process: Watched) -> None:
        since = time.monotonic()
        told = False
        while not self._stopped.is_set():
            connection = _connected(process.address)
            if connection is not None:
                if told:
                    self._noticed.append(f"Ray: {process.name} answers again")
                told = False
                with connection:
                    self._wait_for_end(connection)
                    self._connections.remove(connection)
                since = time.monotonic()
                continue
            seconds = time.monotonic() - since
            if seconds >= process.grace:
                self._lose(process, seconds)
                return
            if not told:
                told = True
                self._noticed.append(
                    f"Ray: {process.name} does not answer; the run ends with a checkpoint in {process.grace:g} s "
                    "unless it does again"
                )
            self._stopped.wait(LOOK_EVERY)

    def _wait_for_end(self, connection: socket.socket) -> None:
        """Return once the other side has ended the connection, or this watch is stopped."""
        connection.settimeout(LOOK_EVERY)
        self._connections.append(connection)
        while not self._stopped.is_set():
            try:
                if not connection.recv(1024):
                    return
            except TimeoutError:
                continue
            except OSError:
                return

    def _lose(self, process: Watched, seconds: float) -> None:
        waited = f" for {seconds:.0f} s" if process.grace else ""
        text = f"{process.name} does not answer{waited}; its process or its machine is gone"
        self._lost = self._lost or text


def _is_readable(connection: socket.socket) -> bool:
    """Return whether the other side has sent something or ended the connection."""
    if not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    try:
        poll.register(connection, select.POLLIN)
    except ValueError:  # closed here
        return False
    return bool(poll.poll(0))


def _connected(address: tuple[str, int]) -> socket.socket | None:
    """Return a connection, or None if nothing accepts it."""
    try:
        connection = socket.create_connection(address, timeout=_CONNECT_TIMEOUT)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def watch_cluster(is_own: bool) -> ClusterWatch:
    """Watch the cluster that this process is connected to.

    Args:
        is_own: this process has started it, so that a head that has ended does not come back.
    """
    context = ray.get_runtime_context()
    own = context.get_node_id()
    processes = []
    host, _, port = context.gcs_address.rpartition(":")
    if port.isdecimal():
        head = Watched(f"the head (gcs_server, {context.gcs_address})", (host.strip("[]"), int(port)), HEAD_GRACE)
        processes.append(head._replace(grace=0.0) if is_own else head)
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["NodeID"] == own and node["NodeManagerPort"]:
            address = str(node["NodeManagerAddress"]), int(node["NodeManagerPort"])
            name = f"this machine's part of it (raylet, {address[0]}:{address[1]})"
            processes.append(Watched(name, address, 0.0))
    return ClusterWatch(tuple(processes))
