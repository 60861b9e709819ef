"""``limelight replay`` and ``limelight export`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import limelight
from helpers.commands import refusal
from helpers.export_agents import KINDS, make_agent
from limelight.cli import main as cli
from limelight.errors import ConfigError, NonFiniteError


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


def test_export_prints_the_difference_and_the_inputs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    agent, output = make_agent(KINDS["clipped"]), tmp_path / "files" / "arm.pt2"
    agent.save(tmp_path / "agent")
    (tmp_path / "agent" / "summary.json").write_text('{"best_eval_return": 3.5, "final_eval_return": null}')
    assert cli.main(["export", str(tmp_path / "agent"), "--output", str(output), "--stochastic", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(output)
    assert output.is_file()
    assert 0.0 <= found["difference"] < 1e-5
    assert found["observations"] == 1000
    assert found["metadata"]["scores"] == {"best_eval_return": 3.5}
    assert [port["name"] for port in found["metadata"]["inputs"]] == ["obs", "noise"]


def test_the_default_file_lies_in_the_folder_of_the_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make_agent(KINDS["discrete"])
    agent.save(tmp_path)
    asked = []

    def export(self: limelight.Agent, path: Path, **options: object) -> object:
        asked.append((path, options))
        raise ConfigError("enough")

    monkeypatch.setattr(limelight.Agent, "export", export)
    assert refusal(capsys, "export", str(tmp_path)) == "enough"
    assert refusal(capsys, "export", str(tmp_path), "--format", "torch") == "enough"
    others = {"deterministic": True, "metadata": {}}
    assert asked == [
        (tmp_path / "agent.onnx", {"format": None, **others}),
        (tmp_path / "agent.pt2", {"format": "torch", **others}),
    ]


def test_an_export_that_cannot_work_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no such folder; give the folder of a run" in refusal(capsys, "export", str(tmp_path / "none"))
    assert "holds no agent" in refusal(capsys, "export", str(tmp_path))
    assert "RUN_DIR: missing" in refusal(capsys, "export")
    assert "format = tf: must be onnx | torch" in refusal(capsys, "export", str(tmp_path), "--format", "tf")
    make_agent(KINDS["discrete"]).save(tmp_path / "agent")
    message = refusal(capsys, "export", str(tmp_path / "agent"), "--output", str(tmp_path / "a.h5"))
    assert "a.h5: must end in .onnx or .pt2" in message
