from __future__ import annotations

from typing import Any

import pytest

from limelight.algo.episodes import Episode
from limelight.viewing.logger import Logger, Loggers


class Recorder:
    """A logger that stores its calls; a ``broken`` one fails to close."""

    def __init__(self, broken: bool = False) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.broken = broken

    def log(self, *args: Any) -> None:
        self.calls.append(("log", *args))

    def episodes(self, *args: Any) -> None:
        self.calls.append(("episodes", *args))

    def message(self, *args: Any) -> None:
        self.calls.append(("message", *args))

    def close(self) -> None:
        self.calls.append(("close",))
        if self.broken:
            raise OSError("disk full")


def test_everything_reaches_every_logger() -> None:
    recorders = [Recorder(), Recorder()]
    loggers: Logger = Loggers(recorders)
    episode = Episode(0, 1.0, 2, True)
    loggers.log(1, 0.5, {"a": 1.0})
    loggers.episodes(2, 0.6, [episode])
    loggers.episodes(3, 0.7, [])
    loggers.message("hello")
    loggers.close()
    for recorder in recorders:
        assert recorder.calls == [
            ("log", 1, 0.5, {"a": 1.0}),
            ("episodes", 2, 0.6, [episode]),
            ("message", "hello"),
            ("close",),
        ]


def test_only_loggers_with_tick_receive_ticks() -> None:
    class Ticking(Recorder):
        def tick(self, *args: Any) -> None:
            self.calls.append(("tick", *args))

    ticking, plain = Ticking(), Recorder()
    Loggers([plain, ticking]).tick(5, 0.5)
    assert (ticking.calls, plain.calls) == ([("tick", 5, 0.5)], [])


def test_all_loggers_are_closed_even_if_one_fails_to_close() -> None:
    recorders = [Recorder(broken=True), Recorder(), Recorder(broken=True)]
    with pytest.raises(OSError, match="disk full"):
        Loggers(recorders).close()
    assert all(recorder.calls == [("close",)] for recorder in recorders)
