"""What an environment may hand over, and what follows: whole runs, in one process."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import limelight
from helpers.commands import refusal
from helpers.rude_envs import BeyondFloat32, Money, Ninth, OneBadReading, Sharpe
from limelight.cli import main as cli
from limelight.errors import NonFiniteError

QUICK: dict[str, Any] = {"quiet": True, "tensorboard": False, "eval_every": 0, "final_episodes": 0, "backend": "sync"}


def numbers(text: str) -> Any:
    """Parse JSON as strict parsers do: without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


# --------------------------------------------------------------------------- observations that are not finite


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("normalize", [True, False])
def test_one_bad_reading_names_its_environment_and_the_run_resumes(
    tmp_path: Path, value: float, normalize: bool
) -> None:
    kwargs = {
        **QUICK,
        "num_envs": 4,
        "normalize_obs": normalize,
        "total_timesteps": 1_000,
        "run_dir": str(tmp_path / "r"),
    }
    with pytest.raises(NonFiniteError, match=rf"observation\[1\] = {value} in environment 1, step 10 of its episode"):
        limelight.train(OneBadReading, env_kwargs={"value": float(value)}, **kwargs)
    agent = limelight.load(tmp_path / "r", "last")
    if agent.normalizer is not None:
        moments = agent.normalizer.statistics.moments
        assert np.isfinite(moments.mean).all()
        assert np.isfinite(moments.var).all()
    result = limelight.resume(tmp_path / "r", quiet=True)
    assert (result.status, result.summary["total_timesteps"] >= 1_000) == ("completed", True)


def test_one_huge_reading_does_not_end_a_feature(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With 1e30 in the variance, the feature would be 0 for the rest of the run."""
    kwargs = {**QUICK, "num_envs": 4, "normalize_obs": True, "total_timesteps": 3_000, "run_dir": str(tmp_path / "r")}
    with caplog.at_level(logging.WARNING, "limelight"):
        limelight.train(OneBadReading, env_kwargs={"value": 1e30, "at": 410}, **kwargs)
    (note,) = (record.getMessage() for record in caplog.records)
    assert "OneBadReading: observation[1] was about 1e+30, usually" in note
    normalizer = limelight.load(tmp_path / "r", "last").normalizer
    assert normalizer is not None
    assert 0.01 < normalizer.statistics.moments.var[1] < 1.0


# --------------------------------------------------------------------------- returns


def test_a_return_that_is_not_finite_is_refused_by_evaluations_as_by_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "r")
    message = refusal(
        capsys, "train", "helpers.rude_envs:Sharpe", "--total-timesteps", "300", "--eval-every", "10", "--num-steps",
        "2", "--num-envs", "2", "--quiet", "--run-dir", folder,
    )  # fmt: skip
    assert "rude_envs:Sharpe: return = nan of an episode of 20 steps in environment 0 of an evaluation" in message
    assert numbers((tmp_path / "r" / "summary.json").read_text())["best_eval_return"] is None
    for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines():
        numbers(line)
    assert "return = nan" in refusal(capsys, "evaluate", folder, "--json")
    with pytest.raises(NonFiniteError, match="return = nan"):
        limelight.evaluate(limelight.load(folder), Sharpe, episodes=2)


def test_json_of_an_evaluation_is_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The squares of returns of 1e200 are beyond float64."""
    limelight.train(Money, total_timesteps=100, run_dir=str(tmp_path / "r"), **QUICK)
    assert cli.main(["evaluate", str(tmp_path / "r"), "--env-id", "helpers.rude_envs:Huge", "--json"]) == 0
    result = numbers(capsys.readouterr().out)
    assert result["std_return"] is None
    assert result["mean_return"] == pytest.approx(1.5e202, rel=0.2)


def test_returns_are_summed_in_float64(tmp_path: Path) -> None:
    result = limelight.train(Money, total_timesteps=200, run_dir=str(tmp_path / "r"), **{**QUICK, "final_episodes": 3})
    assert (tmp_path / "r" / "monitor.csv").read_text().splitlines()[-1].startswith(f"{20 * 16_777_217.0},")
    assert result.summary["final_eval_return"] == 20 * 16_777_217.0


def test_a_threshold_that_is_reached_but_for_rounding_stops_the_run(tmp_path: Path) -> None:
    assert sum([0.1] * 9) < 0.9
    result = limelight.train(
        Ninth, run_dir=str(tmp_path / "r"), total_timesteps=2_000, stop_at_return=0.9,
        **{**QUICK, "eval_every": 200, "final_episodes": 1},
    )  # fmt: skip
    assert result.status == "reached_return"
    assert result.summary["solved_at_step"] < 500


def test_a_reward_beyond_float32_is_shown_as_it_is(tmp_path: Path) -> None:
    beyond = r"reward = 1e\+39 in environment 0, step 3 of its episode; beyond float32"
    with pytest.raises(NonFiniteError, match=beyond):
        limelight.train(BeyondFloat32, run_dir=str(tmp_path / "r"), total_timesteps=200, **QUICK)
