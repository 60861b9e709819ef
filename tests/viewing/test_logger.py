from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import limelight
from limelight.algo.episodes import Episode
from limelight.errors import ConfigError
from limelight.viewing.logger import Logger, Loggers, require_loggers


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
    loggers = Loggers(recorders)
    loggers.close()
    assert loggers.failed_writes.count == 2
    assert all(recorder.calls == [("close",)] for recorder in recorders)


def test_a_logger_that_lacks_methods_is_refused_before_a_run_begins(tmp_path: Path) -> None:
    class Half:
        def log(self, *args: Any) -> None: ...

        def close(self) -> None: ...

    with pytest.raises(ConfigError, match=r"loggers\[0\] = Half: has no episodes, message"):
        limelight.train("CartPole-v1", run_dir=str(tmp_path / "r"), loggers=[Half()])  # type: ignore[list-item]
    assert not (tmp_path / "r").exists()
    with pytest.raises(ConfigError, match=r"loggers\[0\] = Loggers: is a class; pass an object of it"):
        require_loggers([Loggers])  # type: ignore[list-item]
    require_loggers([Loggers([])])
