"""``limelight replay`` on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import limelight
from helpers.commands import refusal
from limelight.cli import main as cli
from limelight.errors import NonFiniteError


def test_replay_prints_the_place_and_the_actions(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError):
        limelight.train(
            "helpers.overflowing_envs:Overflows", algo="a2c", preset="plain", env_kwargs={"what": "nan"}, num_envs=2,
            num_steps=4, total_timesteps=400, eval_every=0, checkpoint_every=40, quiet=True, tensorboard=False,
            run_dir=str(tmp_path / "r"),
        )  # fmt: skip
    assert cli.main(["replay", str(tmp_path / "r")]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0] == "first number that is not finite: nan"
    assert lines[1] == "  place        observation[1] of the environment"
    assert lines[4].startswith("last 10 actions of environment 0")
    assert len(lines) == 16
    assert "replaying from step" in captured.err


def test_a_replay_of_nothing_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "not a run folder" in refusal(capsys, "replay", str(tmp_path))
    assert "at = -1: must be ≥ 0" in refusal(capsys, "replay", str(tmp_path), "--at", "-1")
    assert "RUN_DIR: missing" in refusal(capsys, "replay")
