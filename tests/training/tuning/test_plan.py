"""The request of a search: what is refused, what is fixed, and what is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limelight.envs.source import resolve_env
from limelight.errors import LimelightError
from limelight.settings.schema import EnvConfig
from limelight.training.tuning.plan import Options, Plan, new_plan, resumed_plan

SOURCE = resolve_env(EnvConfig(env_id="CartPole-v1"))


def plan_in(folder: Path, options: Options | None = None, **given: Any) -> Plan:
    given = {"run_dir": str(folder / "tune"), "preset": "plain", "algo": "a2c", **given}
    return new_plan("CartPole-v1", given, options or Options(), SOURCE, "limelight tune CartPole-v1")


@pytest.mark.parametrize(
    ("given", "seconds", "message"),
    [
        ({"total_episodes": 10}, None, "total_episodes = 10: trials are compared at equal steps"),
        ({"stop_at_return": 1.0}, None, "stop_at_return = 1.0: trials are compared"),
        ({"eval_every": 0}, None, "eval_every = 0: trials are ranked by their evaluations"),
        ({"eval_every": 600, "total_timesteps": 1000}, None, "eval_every = 600: must be at most a third of the 1000"),
        ({"total_timesteps": 1000}, 5.0, "total_timesteps = 1000: the budget is --seconds"),
        ({"preset": "mine.yaml"}, None, "preset = mine.yaml: a search begins from a preset by name"),
        ({"preset": "nine"}, None, "preset = 'nine': must be auto"),
        ({"gamma": 2.0}, None, "gamma = 2.0: must be"),
        ({"seed": 2**31 - 5}, None, "leaves no room for fresh seeds"),
        ({"callback": ("StopAftr(3)",)}, None, "StopAftr"),
    ],
)
def test_what_cannot_work_is_refused_before_there_is_a_folder(
    given: dict[str, Any], seconds: float | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(LimelightError) as caught:
        plan_in(tmp_path, Options(seconds=seconds), **given)
    assert message in str(caught.value)
    assert not (tmp_path / "tune").exists()


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "file").touch()
    with pytest.raises(LimelightError, match="is not empty"):
        plan_in(tmp_path)


def test_a_plan_is_saved_and_continued_with_more_trials(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, hidden_sizes=(16,), total_timesteps=1200)
    assert plan.config.eval.eval_every == 100
    assert plan.budget_in_words == "1,200 steps"
    again = resumed_plan(plan.folder, {"trials": 70})
    assert again.options.trials == 70
    assert resumed_plan(plan.folder, {}).options.trials == plan.options.trials  # kept once the search begins
    assert (again.space, again.defaults, again.given) == (plan.space, plan.defaults, plan.given)
    assert again.config == plan.config
    assert "hidden_sizes" not in again.space
    trial = again.trial_config({"gamma": 0.9}, 7)
    assert (trial.algorithm.gamma, trial.seed, trial.model.hidden_sizes, trial.run_dir) == (0.9, 7, (16,), None)


def test_a_budget_of_seconds_ends_the_runs_by_a_callback(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, Options(seconds=2.5), callback=("StopWithoutImprovement()",))
    assert plan.config.log.callback == ("StopWithoutImprovement()", "StopAfter(2.5)")
    assert plan.limit == (2.5, "seconds")
    assert "lr_schedule" not in plan.space  # no end of steps to fall to
    assert plan.of_preset({}) == {"lr_schedule": "constant"}
    assert plan.budget_in_words == "2.5 seconds of training"


def test_a_preset_has_what_is_about_learning(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, gamma=0.5, eval_episodes=3, seed=4, device="cpu", total_timesteps=1200)
    found = {"gamma": 0.5, "learning_rate": 0.1, "total_timesteps": 1200}
    assert plan.of_preset({"learning_rate": 0.1}) == found


def test_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LimelightError, match=r"no tune\.json there, so it is no folder of limelight tune"):
        resumed_plan(tmp_path, {})
    (tmp_path / "tune.json").write_text("{")
    with pytest.raises(LimelightError, match=r"tune\.json: damaged"):
        resumed_plan(tmp_path, {})
    (tmp_path / "tune.json").write_text(json.dumps({"env_id": "CartPole-v1"}))
    with pytest.raises(LimelightError, match=r"tune\.json: damaged"):
        resumed_plan(tmp_path, {})
