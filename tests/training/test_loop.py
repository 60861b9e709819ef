"""The training loop: what it reports at its start and its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import limelight
from helpers.manual_workers import draw_no_report
from limelight.runners.sync import SyncRunner


class TickingLogger:
    """Stores the steps of its ticks."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def tick(self, step: int, seconds: float) -> None:
        self.steps.append(step)

    def log(self, *args: Any) -> None: ...

    def episodes(self, *args: Any) -> None: ...

    def message(self, *args: Any) -> None: ...

    def close(self) -> None: ...


def test_progress_begins_at_the_first_step_and_ends_at_the_step_of_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers may finish further rollouts while the last checkpoint waits for them, here by another 40 steps."""
    draw_no_report(monkeypatch)
    get_state = SyncRunner.get_state

    def train_on(runner: SyncRunner) -> Any:
        runner.advance(runner.num_steps + 40, np.inf)
        return get_state(runner)

    monkeypatch.setattr(SyncRunner, "get_state", train_on)
    logger = TickingLogger()
    settings: dict[str, Any] = {"tensorboard": False, "eval_every": 0, "final_episodes": 0, "checkpoint_every": 0}
    result = limelight.train(
        "CartPole-v1", run_dir=str(tmp_path / "r"), total_timesteps=200, quiet=True, loggers=[logger], **settings
    )
    assert logger.steps[0] == 0
    assert logger.steps[-1] == result.summary["total_timesteps"] >= 240
