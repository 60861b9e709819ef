"""The callbacks that come with the library."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.manual_workers import draw_no_report, quick_config
from limelight.errors import ConfigError
from limelight.runs.evaluation import Evaluation
from limelight.settings.named import load_named
from limelight.training.builtin_callbacks import ScheduleEnvAttr, StopWithoutImprovement
from limelight.training.callbacks import BUILT_IN, require_callback
from limelight.training.run import resume, run

RUN: Any = SimpleNamespace(step=10, message=lambda text: None)


def judged(callback: StopWithoutImprovement, *means: float) -> list[bool]:
    return [callback.on_evaluation(RUN, Evaluation([mean], [1])) for mean in means]


def test_it_stops_after_evaluations_without_improvement() -> None:
    assert judged(StopWithoutImprovement(2), 1.0, 2.0, 2.0, 3.0, 3.0, 2.0) == [True] * 5 + [False]
    assert judged(StopWithoutImprovement(1, min_delta=0.5), 1.0, 1.4) == [True, False]


def test_its_state_continues() -> None:
    first, second = StopWithoutImprovement(3), StopWithoutImprovement(3)
    judged(first, 5.0, 4.0, 4.0)
    second.set_state(first.get_state())
    assert judged(second, 5.0) == [False]


def test_a_curriculum_follows_the_steps_and_the_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)
    folder = tmp_path / "run"
    text = "ScheduleEnvAttr('level', {0: 1.0, 30: 5.0, 90: 7.0})"
    config = quick_config(
        "a2c", env_id="helpers.informing_envs:Informs", total_timesteps=60, num_steps=3, run_dir=str(folder),
        callback=(text,),
    )  # fmt: skip
    run(config, quiet=True)
    resume(folder, total_timesteps=150, quiet=True)
    returns = [float(line.split(",")[0]) for line in (folder / "monitor.csv").read_text().splitlines()[2:]]
    assert returns == sorted(returns)
    assert {returns[0], returns[-1]} == {3.0, 21.0}
    assert 15.0 in returns


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_has_a_short_name(name: str) -> None:
    arguments = {
        "StopWithoutImprovement": "", "StopAfter": "(60)", "ScheduleEnvAttr": "('level', {0: 1})",
        "ChangeSetting": "('ent_coef', 0.0, at=5)",
    }[name]  # fmt: skip
    callback = load_named("callback", name + arguments, BUILT_IN)
    require_callback(name, callback)
    assert type(callback).__name__ == name


@pytest.mark.parametrize("text", ["StopAfter", "StopWithoutImprovement(0)", "ScheduleEnvAttr('a', 3)"])
def test_wrong_arguments_are_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="callback = "):
        load_named("callback", text, BUILT_IN)


def test_values_before_the_first_step_stay() -> None:
    calls: list[Any] = []
    callback = ScheduleEnvAttr("level", {20: 1})
    callback.on_rollout(SimpleNamespace(step=10, set_env_attr=lambda *args: calls.append(args)))  # type: ignore[arg-type]
    assert calls == []


def test_patience_is_a_whole_number() -> None:
    with pytest.raises(ConfigError, match=r"patience = 2.5: must be a whole number"):
        StopWithoutImprovement(patience=2.5)  # type: ignore[arg-type]
