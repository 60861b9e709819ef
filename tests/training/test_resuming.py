"""A run that is continued: its files are those of the end before until the checkpoint is accepted."""

from __future__ import annotations

import json
from contextlib import nullcontext
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


class Messages:
    """A logger that keeps messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

    def log(self, *args: Any) -> None: ...
    def episodes(self, *args: Any) -> None: ...
    def close(self) -> None: ...


@pytest.mark.parametrize("ends", [True, False])
def test_a_checkpoint_that_an_error_has_left_says_that_it_may_not_repeat(ends: bool, tmp_path: Path) -> None:
    class Interrupts:
        def on_rollout(self, run: Any) -> None:
            if ends and run.step > 200:
                raise KeyboardInterrupt

    options: dict[str, Any] = {"quiet": True, "tensorboard": False, "eval_every": 0, "final_episodes": 0}
    folder, messages = tmp_path / "run", Messages()
    with pytest.raises(KeyboardInterrupt) if ends else nullcontext():
        limelight.train(
            "CartPole-v1", algo="a2c", total_timesteps=400, run_dir=str(folder), callbacks=[Interrupts()], **options
        )
    limelight.resume(folder, total_timesteps=800, quiet=True, loggers=[messages])
    (resumed,) = [line for line in messages.lines if line.startswith("resumed at step")]
    saved = "the checkpoint was saved when KeyboardInterrupt ended the run, so it may not repeat exactly"
    assert (saved in resumed) == ends
