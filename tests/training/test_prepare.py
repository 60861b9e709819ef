"""Settings made ready for this machine: devices, workers, backends."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

import limelight
from helpers.toys import Corridor
from limelight.errors import ConfigError
from limelight.training.prepare import prepare
from limelight.training.presets import resolve_config

QUICK: dict[str, Any] = {"quiet": True, "total_timesteps": 200}


@pytest.mark.parametrize("device", ["cuda"])
def test_a_missing_device_is_refused(device: str, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match="device = cuda"):
        limelight.train("CartPole-v1", run_dir=str(tmp_path / "r"), device=device, **QUICK)
    assert not (tmp_path / "r").exists()


def test_a_saved_config_has_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("limelight.training.prepare"), "num_cores", lambda: 5)
    assert prepare(resolve_config("CartPole-v1", "a3c", "auto", {}), None).workers.num_workers == 5
    assert prepare(resolve_config("CartPole-v1", "a3c", "auto", {"num_workers": 3}), None).workers.num_workers == 3
    assert prepare(resolve_config("CartPole-v1", "a2c", "auto", {}), None).workers.num_workers is None


def test_workers_do_not_start_further_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single process would step a slow environment in others; a worker steps it itself."""
    make_module = importlib.import_module("limelight.envs.make")
    monkeypatch.setattr(make_module, "num_cores", lambda: 4)
    monkeypatch.setattr(make_module, "_step_seconds", lambda env, name: 1.0)
    assert prepare(resolve_config("x:Corridor", "a2c", "plain", {}), Corridor).env.backend == "async"
    one = {"num_workers": 1}  # a single process
    assert prepare(resolve_config("x:Corridor", "a2c", "plain", one), Corridor).env.backend == "async"
    assert prepare(resolve_config("x:Corridor", "a3c", "plain", {}), Corridor).env.backend == "sync"
    assert prepare(resolve_config("x:Corridor", "a2c", "plain", {"runner": "ray"}), Corridor).env.backend == "sync"
