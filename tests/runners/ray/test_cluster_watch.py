"""A process of Ray that ends is noticed by its connection, at once or after a grace."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest

pytest.importorskip("ray")

from limelight.errors import WorkerError
from limelight.runners.ray import cluster_watch
from limelight.runners.ray.cluster_watch import ClusterWatch, Watched


class Server:
    """Accepts connections at one port, as a process of Ray does, until it is closed."""

    def __init__(self, port: int = 0) -> None:
        self.listener = socket.create_server(("127.0.0.1", port))
        self.address: tuple[str, int] = self.listener.getsockname()
        self.accepted: list[socket.socket] = []
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        try:
            while True:
                connection = self.listener.accept()[0]
                self.accepted.append(connection)
                with suppress(OSError):  # a test has ended it
                    connection.sendall(b"settings")
        except OSError:
            return

    def close(self) -> None:
        with suppress(OSError):  # closed before
            self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()
        for connection in self.accepted:
            connection.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with closing(Server()) as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_watch, "LOOK_EVERY", 0.02)


@contextmanager
def watching(process: Watched) -> Iterator[ClusterWatch]:
    watch = ClusterWatch((process,))
    try:
        yield watch
    finally:
        watch.stop()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_process_that_ends_is_lost_at_once_and_named(server: Server) -> None:
    with watching(Watched("the raylet", server.address, 0.0)) as watch:
        wait_until(lambda: bool(server.accepted))
        time.sleep(0.1)
        watch.require_cluster()
        server.close()
        with pytest.raises(WorkerError, match=r"^the Ray cluster is lost: the raylet does not answer; its process or"):
            watch.require_cluster()
        assert watch.is_lost


def test_a_failure_that_was_just_received_is_asked_about(server: Server) -> None:
    with watching(Watched("the raylet", server.address, 0.0)) as watch:
        watch.look()
        server.close()
        with pytest.raises(WorkerError, match="the raylet does not answer"):
            watch.look()


def test_a_head_has_time_to_come_back(server: Server) -> None:
    with watching(Watched("the head", server.address, 30.0)) as watch:
        wait_until(lambda: bool(server.accepted))
        server.close()
        lines: list[str] = []
        wait_until(lambda: bool(lines.extend(watch.pop_messages()) or lines))
        watch.require_cluster()
        watch.look()
        assert lines == ["Ray: the head does not answer; the run ends with a checkpoint in 30 s unless it does again"]
        again = Server(server.address[1])
        wait_until(lambda: watch.pop_messages() == ["Ray: the head answers again"])
        watch.require_cluster()
        again.close()


def test_a_head_that_stays_away_is_lost_after_its_grace(server: Server) -> None:
    with watching(Watched("the head", server.address, 0.3)) as watch:
        wait_until(lambda: bool(server.accepted))
        server.close()
        start = time.monotonic()
        wait_until(lambda: watch.is_lost)
        assert time.monotonic() - start > 0.2
        with pytest.raises(WorkerError, match="the head does not answer for 0 s; its process or its machine is gone"):
            watch.require_cluster()


def test_a_connection_that_only_is_ended_is_made_anew(server: Server) -> None:
    with watching(Watched("the raylet", server.address, 0.0)) as watch:
        wait_until(lambda: bool(server.accepted))
        server.accepted[0].close()
        wait_until(lambda: len(server.accepted) >= 2)
        watch.require_cluster()
        assert not watch.is_lost


def test_a_watch_ends_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_watch, "LOOK_EVERY", 30.0)
    watch = ClusterWatch((Watched("the raylet", server.address, 0.0),))
    wait_until(lambda: bool(server.accepted))
    time.sleep(0.05)
    start = time.monotonic()
    watch.stop()
    assert time.monotonic() - start < 5.0
    assert not watch.is_lost
