"""Settings made ready for this machine: devices, workers, backends."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

import limelight
from helpers.toys import Corridor
from limelight.cli import main as cli
from limelight.errors import ConfigError
from limelight.settings.io import with_settings
from limelight.settings.schema import TrainConfig
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_asked_for_on_resume_is_refused_where_it_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = limelight.train(
        "CartPole-v1", total_timesteps=60, num_envs=1, quiet=True, tensorboard=False, run_dir=str(tmp_path / "r"),
        report_every=0, eval_every=0, final_episodes=0,
    ).run_dir  # fmt: skip
    for begin in (limelight.resume, limelight.branch):
        with pytest.raises(ConfigError, match="device = cuda: PyTorch sees no CUDA device here"):
            begin(run, device="cuda", total_timesteps=90, quiet=True)
    words = ["train", "--resume", str(run), "--device", "cuda", "--total-timesteps", "90"]
    assert cli.main(words) == 2
    assert "device = cuda: PyTorch sees no CUDA device here" in capsys.readouterr().err


def test_a_backend_for_games_is_refused_before_its_threads_are_chosen() -> None:
    config = with_settings(TrainConfig(), {"env_id": "CartPole-v1", "backend": "ale"})
    with pytest.raises(ConfigError, match="backend = ale: CartPole-v1 is no Atari game; use backend auto"):
        prepare(config, None)
