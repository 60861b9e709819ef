"""Joining a Ray cluster: what goes wrong is said in one line."""

from __future__ import annotations

import signal
from typing import Any

import pytest

pytest.importorskip("ray")

from limelight.errors import WorkerError
from limelight.runners.ray import cluster
from limelight.settings.io import with_settings
from limelight.settings.schema import TrainConfig


def test_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*args: Any, **kwargs: Any) -> None:
        raise Exception("The current node timed out\nduring startup.")

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", init)
    with pytest.raises(WorkerError) as error:
        cluster.join(with_settings(TrainConfig(), {"runner": "ray", "num_workers": 1}))
    assert "could not be started on this machine (The current node timed out during startup.)" in str(error.value)
    assert "\n" not in str(error.value)


def test_ray_does_not_take_the_handler_of_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    during = []

    def init(*args: Any, **kwargs: Any) -> None:
        from ray._private import utils

        utils.set_sigterm_handler(lambda number, frame: None)
        during.append(signal.getsignal(signal.SIGTERM))
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        raise Exception("no more is needed")

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", init)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(WorkerError):
            cluster.join(with_settings(TrainConfig(), {"runner": "ray", "num_workers": 1}))
        assert [before] == during
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, before)
