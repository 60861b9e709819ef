"""A worker's end of its channel: whole messages from several threads, and notes in place of lines on standard error."""

from __future__ import annotations

import logging
import threading
from multiprocessing import Pipe
from typing import Any

import pytest

from limelight.runners.processes.channel import Note, WorkerChannel, send_notes


def test_messages_of_several_threads_arrive_whole() -> None:
    ours, theirs = Pipe()
    channel = WorkerChannel(theirs)
    texts = [str(i) * 50_000 for i in range(4)]  # longer than a pipe takes at once
    threads = [threading.Thread(target=lambda text=text: [channel.send(text) for _ in range(5)]) for text in texts]
    for thread in threads:
        thread.start()
    received = [ours.recv() for _ in range(20)]
    for thread in threads:
        thread.join()
    assert sorted(received) == sorted(texts * 5)
    ours.send("an order")
    assert channel.poll()
    assert channel.recv() == "an order"


def test_notes_go_through_the_channel_and_not_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = Pipe()
    logger = logging.getLogger("limelight")
    before: list[Any] = list(logger.filters)
    try:
        send_notes(WorkerChannel(theirs))
        logger.warning("limelight: note: %s", "close() raised")
        assert ours.recv() == Note("note: close() raised")
        ours.close()
        logger.warning("nobody listens")
    finally:
        logger.filters[:] = before
    assert capsys.readouterr().err == ""
