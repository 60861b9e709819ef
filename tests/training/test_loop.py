"""The training loop: what it reports at its start and its end, and a budget of episodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import limelight
from helpers.manual_workers import draw_no_report
from helpers.settings import one_line
from limelight.errors import ConfigError
from limelight.runners.sync import SyncRunner
from limelight.runs.evaluation import Evaluation
from limelight.runs.reader import read_run
from limelight.settings.schema import NO_STEP_BUDGET
from limelight.training.evaluator import Evaluator
from limelight.training.loop import InterruptedRun
from limelight.training.presets import resolve_config


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


QUICK: dict[str, Any] = {
    "tensorboard": False, "eval_every": 0, "final_episodes": 0, "checkpoint_every": 0, "num_envs": 4, "num_steps": 5,
    "hidden_sizes": (16,), "preset": "plain", "quiet": True, "log_every": 100, "lr_schedule": "constant",
}  # fmt: skip


def episodes_of(run_dir: Path) -> list[list[str]]:
    """All columns of monitor.csv but the time, for every episode."""
    lines = (run_dir / "monitor.csv").read_text().splitlines()[2:]
    return [[value for i, value in enumerate(line.split(",")) if i != 2] for line in lines]


def test_a_budget_of_episodes_is_exact_and_a_larger_one_continues_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Episodes that finish in the last rollout after the last of the budget are reported by the continuation."""
    draw_no_report(monkeypatch)
    whole = limelight.train("CartPole-v1", algo="a2c", total_episodes=40, run_dir=str(tmp_path / "whole"), **QUICK)
    for cut in (7, 12, 13):
        folder = tmp_path / f"parts-{cut}"
        part = limelight.train("CartPole-v1", algo="a2c", total_episodes=cut, run_dir=str(folder), **QUICK)
        assert part.summary["total_episodes"] == len(episodes_of(folder)) == cut
        assert part.summary["status"] == "completed"
        rest = limelight.resume(folder, total_episodes=40, quiet=True)
        assert rest.summary["total_timesteps"] == whole.summary["total_timesteps"]
        assert episodes_of(folder) == episodes_of(tmp_path / "whole")
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["rollout/episodes"] == 40
    assert rows[-1]["train/entropy"] > 0.0
    returns = [float(row[0]) for row in episodes_of(tmp_path / "whole")]
    assert [row["rollout/ep_rew_max"] for row in rows] == [
        max(returns[: int(row["rollout/episodes"])]) for row in rows if row["rollout/episodes"]
    ]


def test_steps_and_episodes_end_a_run_whichever_is_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)
    for steps, episodes in ((100, 1_000), (100_000, 3)):
        result = limelight.train(
            "CartPole-v1", algo="a2c", total_timesteps=steps, total_episodes=episodes,
            run_dir=str(tmp_path / str(steps)), **QUICK,
        )  # fmt: skip
        assert (steps <= result.summary["total_timesteps"] < steps + 20) is (steps == 100)
        assert (result.summary["total_episodes"] == episodes) is (episodes == 3)


def test_a_budget_of_episodes_alone_has_no_step_limit() -> None:
    for preset in ("auto", "none", "plain"):
        assert resolve_config("CartPole-v1", "a2c", preset, {"total_episodes": 5}).total_timesteps == NO_STEP_BUDGET
    for name in ("total_timesteps", "n_timesteps"):
        config = resolve_config("CartPole-v1", "a2c", "auto", {"total_episodes": 5, name: 100})
        assert (config.total_timesteps, config.total_episodes) == (100, 5)


def test_a_budget_of_episodes_that_a_run_has_passed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)
    limelight.train("CartPole-v1", algo="a2c", total_episodes=6, run_dir=str(tmp_path / "r"), **QUICK)
    with pytest.raises(ConfigError) as error:
        limelight.resume(tmp_path / "r", total_episodes=5, quiet=True)
    assert (
        one_line(error)
        == f"{tmp_path / 'r'}: total_episodes = 5: the run has done 6 episodes already; give a larger number"
    )


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["local", "ray"])
def test_asynchronous_workers_end_after_a_number_of_episodes(tmp_path: Path, runner: str) -> None:
    if runner == "ray":
        pytest.importorskip("ray")
    settings = {**QUICK, "num_workers": 2, "runner": runner}
    limelight.train("CartPole-v1", algo="a3c", total_episodes=15, run_dir=str(tmp_path / "r"), **settings)
    assert len(episodes_of(tmp_path / "r")) == 15
    result = limelight.resume(tmp_path / "r", total_episodes=40, quiet=True)
    rows = episodes_of(tmp_path / "r")
    assert result.summary["total_episodes"] == len(rows) == 40
    workers = {(int(env) // 4, worker) for *_, env, worker in rows}  # one of them may do all before the other starts
    assert workers <= {(0, "0"), (1, "1")}


def test_an_evaluation_that_a_signal_cut_is_made_when_the_run_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"total_timesteps": 600, "eval_every": 200, "eval_episodes": 2, "final_episodes": 2, "num_envs": 2}
    settings |= {"algo": "a2c", "preset": "plain", "quiet": True, "tensorboard": False}
    limelight.train("CartPole-v1", run_dir=str(tmp_path / "whole"), **settings)
    evaluate, calls = Evaluator.evaluate, []

    def cut(self: Evaluator, step: int, seconds: float) -> Evaluation:
        calls.append(step)
        if len(calls) == 2:
            raise InterruptedRun
        return evaluate(self, step, seconds)

    monkeypatch.setattr(Evaluator, "evaluate", cut)
    cut_run = limelight.train("CartPole-v1", run_dir=str(tmp_path / "cut"), **settings)
    assert cut_run.status == "interrupted"
    assert limelight.resume(tmp_path / "cut", quiet=True).status == "completed"
    assert calls == [calls[0], calls[1], calls[1], calls[3]]
    one, other = (read_run(tmp_path / name).series("eval/mean_reward") for name in ("whole", "cut"))
    np.testing.assert_array_equal(one.steps, other.steps)
    np.testing.assert_array_equal(one.values, other.values)


def test_a_final_evaluation_that_a_signal_cut_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(self: Evaluator, agent: Any) -> Evaluation:
        raise InterruptedRun

    settings: dict[str, Any] = {"total_timesteps": 60, "eval_every": 0, "quiet": True, "tensorboard": False}
    monkeypatch.setattr(Evaluator, "final", cut)
    result = limelight.train("CartPole-v1", run_dir=str(tmp_path / "cut"), final_episodes=2, **settings)
    assert result.status == "completed"  # its budget is used up: nothing is left to resume
    assert (result.summary["final_eval_return"], result.summary["final_eval_interrupted"]) == (None, True)
    assert result.report is not None
    assert "final evaluation cut by a signal" in result.report.read_text(encoding="utf-8")
    result = limelight.train("CartPole-v1", run_dir=str(tmp_path / "none"), final_episodes=0, **settings)
    assert "final_eval_interrupted" not in result.summary
