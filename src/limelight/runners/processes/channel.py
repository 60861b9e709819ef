"""A worker's end of its channel to the main process, which its threads share, and the notes that go through it."""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, final


@dataclass(frozen=True)
class Note:
    """Message: a line for people, such as that a step has not returned."""

    text: str


@final
class WorkerChannel:
    """A connection on which several threads may send."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        """Send a message, whole. Raises: OSError where the main process has closed its end."""
        with self._lock:
            self._connection.send(message)

    def poll(self) -> bool:
        """Return whether a message has arrived."""
        return self._connection.poll()

    def recv(self) -> Any:
        """Return the next message."""
        return self._connection.recv()


def send_notes(channel: WorkerChannel) -> None:
    """Send the notes of this process to the main process, which shows them, instead of printing them."""

    def send(record: logging.LogRecord) -> bool:
        with contextlib.suppress(OSError):  # the main process has exited
            channel.send(Note(record.getMessage().removeprefix("limelight: ")))
        return False

    logging.getLogger("limelight").addFilter(send)
