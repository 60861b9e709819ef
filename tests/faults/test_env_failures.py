"""Runs whose environments raise, exit, abort or hang at random moments, in every runner and in evaluations."""

from __future__ import annotations

import json
import logging
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import limelight
from helpers.breaking_envs import RAISED, Breaking
from helpers.fake_ray import FakeRay, fake_ray  # noqa: F401  # a fixture
from helpers.manual_workers import draw_no_report
from limelight.envs import guards
from limelight.errors import EnvError
from limelight.runs.checkpoint import latest_checkpoint, read_state
from limelight.settings.schema import EnvConfig
from limelight.viewing.record import record

QUICK: dict[str, Any] = {
    "quiet": True, "tensorboard": False, "backend": "sync", "preset": "plain", "num_envs": 3, "num_steps": 5,
    "hidden_sizes": (8,), "eval_every": 0, "final_episodes": 0, "report_every": 0, "log_every": 100,
}  # fmt: skip
KINDS = {"a2c": {"algo": "a2c"}, "ray": {"algo": "a2c", "runner": "ray", "num_workers": 2}}


class Lines:
    """A logger that keeps messages and the last row."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.row: dict[str, float] = {}

    def log(self, step: int, seconds: float, metrics: Any) -> None:
        self.row |= metrics

    def episodes(self, *args: Any) -> None: ...
    def message(self, text: str) -> None:
        self.messages.append(text)

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)
    monkeypatch.setattr(guards, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(Breaking, "broken", [])


def train(folder: Path, how: str = "ValueError", step: float = 0.0, reset: float = 0.0, **settings: Any) -> Lines:
    lines = Lines()
    kwargs = {"env_kwargs": {"how": how, "step": step, "reset": reset}, "total_timesteps": 1_500, **QUICK, **settings}
    limelight.train(Breaking, run_dir=str(folder), loggers=[lines], **kwargs)
    return lines


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", list(RAISED))
def test_every_failure_of_a_step_or_reset_is_counted_and_the_run_completes(
    kind: str,
    how: str,
    tmp_path: Path,
    fake_ray: FakeRay,  # noqa: F811
) -> None:
    lines = train(tmp_path / "r", how, 0.03, 0.1, on_env_error="restart", **KINDS[kind])
    told = [line for line in lines.messages if "a new copy goes on" in line]
    assert len(told) == len(Breaking.broken) > 20
    assert lines.row["rollout/env_restarts"] == len(told)
    assert all(line.startswith("worker ") for line in told) == (kind == "ray")
    truncated = [line for line in told if "step()" in line]
    episodes = (tmp_path / "r" / "monitor.csv").read_text().splitlines()[2:]
    short = [line for line in episodes if int(float(line.split(",")[1])) < 20 or float(line.split(",")[0]) < 20.0]
    assert len(short) == len(truncated) > 10
    agent = limelight.load(tmp_path / "r", "last")
    assert all(np.isfinite(p.detach().numpy()).all() for p in agent.model.parameters())


def test_raise_ends_the_run_with_a_checkpoint_and_the_place_and_restart_continues_it(tmp_path: Path) -> None:
    with pytest.raises(EnvError) as error:
        train(tmp_path / "r", step=0.01)
    step = Breaking.broken[0][1]
    assert "step() raised ValueError: the simulator broke (breaking_envs.py, line " in str(error.value)
    assert f"step {step} of its episode" in str(error.value)
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "in break_by\n" in summary["traceback"]
    newest = latest_checkpoint(tmp_path / "r")
    assert newest is not None
    assert read_state(newest)["training"]["error"].startswith("EnvError")
    resumed = limelight.resume(tmp_path / "r", quiet=True, on_env_error="restart", total_timesteps=3_000)
    assert resumed.status == "completed"
    assert len(Breaking.broken) > 10


def test_an_evaluation_leaves_out_the_episodes_that_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "limelight"):
        lines = train(
            tmp_path / "r", step=0.02, on_env_error="restart", eval_every=500, eval_episodes=10, final_episodes=10
        )
    assert lines.row["eval/env_restarts"] > 0
    assert lines.row["eval/min_reward"] == 20.0
    assert lines.row["eval/episodes"] == 10
    assert any("in an evaluation: " in record.getMessage() for record in caplog.records)
    assert limelight.evaluate(limelight.load(tmp_path / "r"), episodes=6).returns == [20.0] * 6


@pytest.mark.parametrize("how", ["SystemExit", "ValueError"])
def test_a_close_or_a_picture_that_fails_does_not_end_the_run(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for close in ("close", "render"):
        monkeypatch.setattr(Breaking, "pictures", 0)
        lines = Lines()
        settings = {**QUICK, "env_kwargs": {"how": how, "close": close}, "total_timesteps": 300, "video_every": 100}
        result = limelight.train(Breaking, run_dir=str(tmp_path / close), loggers=[lines], **settings)
        assert result.status == "completed"
        assert any("no video" in line for line in lines.messages) == (close == "render")


@pytest.mark.parametrize("how", RAISED)
def test_a_picture_that_fails_in_any_way_is_an_error_of_the_environment(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a command that only draws: neither ``sys.exit`` nor KeyboardInterrupt of an environment ends the process."""
    train(tmp_path / "r", total_timesteps=30, env_kwargs={"how": how, "close": "render"})
    agent = limelight.load(tmp_path / "r", "last")
    monkeypatch.setattr(Breaking, "pictures", 10)
    before = signal.signal(signal.SIGINT, lambda *_: None)  # as a run has it
    try:
        happened = "called sys.exit()" if how == "SystemExit" else f"raised {how}: the simulator broke"
        place = r" \(breaking_envs.py, line \d+\)$"
        with pytest.raises(
            EnvError, match=r"^video: .*Breaking cannot render here: render\(\) " + re.escape(happened) + place
        ):
            record(agent, tmp_path / "x.mp4")
    finally:
        signal.signal(signal.SIGINT, before)
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_a_resumed_run_has_the_failures_of_the_one_that_was_not_stopped(tmp_path: Path) -> None:
    settings = {"on_env_error": "restart", "step": 0.02, "reset": 0.05}
    train(tmp_path / "whole", **settings)
    train(tmp_path / "parts", **{**settings, "total_timesteps": 1_500, "callbacks": [Stop(40)]})
    limelight.resume(tmp_path / "parts", quiet=True)
    one, two = (read_state(latest_checkpoint(tmp_path / name)) for name in ("whole", "parts"))  # type: ignore[arg-type]
    np.testing.assert_equal(one["params"], two["params"])
    assert one["training"]["runner"]["env_restarts"] == two["training"]["runner"]["env_restarts"] > 10


class Stop:
    def __init__(self, rollouts: int) -> None:
        self.left = rollouts

    def on_rollout(self, run: Any) -> bool:
        self.left -= 1
        return self.left > 0


class Final:
    """Lets the environments of the final evaluation fail."""

    def on_end(self, run: Any, status: str) -> None:
        Breaking.fails = True


class FailsAtTheEnd(Breaking):
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if getattr(Breaking, "fails", False) and self.steps == 4:
            raise ValueError("the simulator broke")
        return super().step(action)


def test_a_final_evaluation_that_fails_is_named_and_the_run_can_be_evaluated_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Breaking, "fails", False, raising=False)
    settings = {**QUICK, "total_timesteps": 100, "final_episodes": 2, "eval_backend": "sync"}
    with pytest.raises(EnvError, match=r"in an evaluation: .* in environment 0, step 5 of its episode") as error:
        limelight.train(FailsAtTheEnd, run_dir=str(tmp_path / "r"), callbacks=[Final()], **settings)
    assert error.value.run_dir == tmp_path / "r"
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["error"].startswith("EnvError: in an evaluation: ")
    monkeypatch.setattr(Breaking, "fails", False)
    result = limelight.resume(tmp_path / "r", env=FailsAtTheEnd, quiet=True)
    assert (result.status, result.summary["final_eval_episodes"]) == ("completed", 2)
    assert "error" not in result.summary


def test_environments_that_were_replaced_before_an_evaluation_fails_are_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "r"
    limelight.train(Breaking, run_dir=str(folder), **{**QUICK, "total_timesteps": 30})
    agent = limelight.load(folder)
    env = EnvConfig(
        on_env_error="restart", env_kwargs={"how": "ValueError", "step": 1.0}, env_id=agent.config.env.env_id
    )
    with pytest.raises(EnvError, match="new copies in a row have failed"):
        limelight.evaluate(agent, env, episodes=1, num_envs=1)
    assert len([line for line in caplog.messages if "in an evaluation: " in line]) == guards.MOST_IN_A_ROW
