"""A run that is continued: its files are those of the end before until the checkpoint is accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import limelight
from limelight.errors import ConfigError, LimelightError


def test_a_run_that_is_killed_after_a_resume_has_no_summary_of_its_first_end(tmp_path: Path) -> None:
    class Killed(BaseException):
        """Ends the run as SIGKILL would: nothing is written afterwards."""

    class Kills:
        def on_rollout(self, run: Any) -> None:
            assert not (run.run_dir / "summary.json").exists()
            raise Killed

    options: dict[str, Any] = {"quiet": True, "tensorboard": False, "eval_every": 0, "final_episodes": 0}
    folder = tmp_path / "run"
    limelight.train("CartPole-v1", algo="a2c", total_timesteps=100, run_dir=str(folder), **options)
    assert json.loads((folder / "summary.json").read_text())["status"] == "completed"
    with pytest.raises(Killed):
        limelight.resume(folder, total_timesteps=400, quiet=True, callbacks=[Kills()])
    with pytest.raises(ConfigError):
        limelight.resume(folder, gamma=0.1, quiet=True)


class Refuses:
    """A callback that does not take its state back."""

    def on_start(self, run: Any) -> None:
        """Do nothing."""

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: Any) -> None:
        raise LimelightError("of another version")


def test_a_resume_that_is_refused_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    options: dict[str, Any] = {"quiet": True, "tensorboard": False, "eval_every": 0, "final_episodes": 0}
    folder = tmp_path / "run"
    limelight.train(
        "CartPole-v1", algo="a2c", total_timesteps=100, run_dir=str(folder), callbacks=[Refuses()], **options
    )
    names = ("summary.json", "config.yaml", "metrics.jsonl", "monitor.csv")
    before = [(folder / name).read_bytes() for name in names]
    with pytest.raises(LimelightError, match="of another version") as raised:
        limelight.resume(folder, total_timesteps=400, quiet=True, callbacks=[Refuses()])
    assert raised.value.from_callback
    assert [(folder / name).read_bytes() for name in names] == before
