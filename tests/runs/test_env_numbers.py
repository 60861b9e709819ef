"""Numbers of the environment over the episodes of an evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.informing_envs import Informs
from helpers.manual_workers import draw_no_report, quick_config
from limelight.cli.main import main
from limelight.envs.episode_info import NO_INFO, EpisodeInfo
from limelight.runs.agent import load
from limelight.runs.env_numbers import describe, means_of, success_of
from limelight.runs.evaluation import Evaluation, evaluate, joined
from limelight.training.run import run


def test_success_is_a_share_with_its_interval() -> None:
    success = success_of({"is_success": [1.0, 0.0, None, 1.0], "x": [2.0, None, None, 4.0]})
    assert success is not None
    assert (success.key, success.episodes) == ("is_success", 3)
    assert success.rate == pytest.approx(2 / 3)
    assert 0.0 < success.low < success.rate < success.high < 1.0
    assert means_of({"x": [2.0, None, 4.0], "never": [None]}) == {"x": 3.0}


def test_success_by_other_numbers_has_no_rate() -> None:
    assert success_of({"success": [0.3, 1.0]}) is None
    assert success_of({"success": [None]}) is success_of({}) is None


def test_words_tell_how_many_episodes_have_a_number() -> None:
    text = describe({"success": [1.0, 0.0], "rare": [None, 0.25]}, 2)
    assert text == ("success rate 50.0 % (95 % interval 9.5–90.5 %), rare 0.25 over the 1 of 2 episodes that tell it")


def test_evaluations_are_joined_episode_by_episode() -> None:
    both = joined([Evaluation([1.0], [3], 0, [EpisodeInfo({"a": 2.0}, {})]), Evaluation([2.0], [4], 1, [NO_INFO])])
    assert (both.returns, both.lengths, both.cut) == ([1.0, 2.0], [3, 4], 1)
    assert both.env == {"a": [2.0, None]}


def test_evaluate_tells_success_in_words_and_json(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    draw_no_report(monkeypatch)
    env_id = "helpers.informing_envs:Informs"
    config = quick_config("a2c", env_id=env_id, total_timesteps=40, final_episodes=4, run_dir=str(tmp_path / "r"))
    result = run(config, quiet=True)
    assert result.summary["final_eval_success_rate"] == 1.0, "each copy plays its first episode"
    asked = ["evaluate", str(tmp_path / "r"), "--episodes", "20"]
    assert main([*asked, "--info-keys", "distance", "costs"]) == 0
    out = capsys.readouterr().out
    assert "success rate 50.0 % (95 % interval 29.9–70.1 %), distance 0.125" in out
    assert "info_keys = costs: none of 20 episodes had it" in caplog.text
    assert main([*asked, "--info-keys", "max:cost"]) == 2
    assert "must be cost (at the end of an episode) or sum:cost (over it)" in capsys.readouterr().err
    evaluation = evaluate(load(tmp_path / "r"), episodes=3, num_envs=1)
    assert evaluation.to_json()["success_episodes"] == 3
    assert evaluation.env == {"is_success": [1.0, 0.0, 1.0]}
    assert Informs().level == 1.0
