"""Trials of num_envs, backends and workers: which there are, what is measured, and the flags that are printed."""

from __future__ import annotations

import time
from typing import Any

import pytest

from limelight.cli import main as cli
from limelight.cli.arguments import throughput_request
from limelight.cli.env_check import throughput
from limelight.cli.env_check.throughput import Trial, as_lines, try_settings
from limelight.settings.io import with_settings
from limelight.settings.schema import TrainConfig


def request(*argv: str) -> Any:
    found = throughput_request([*argv, "--throughput"], lambda line: None)
    assert found is not None
    return found


def test_backends_then_more_environments_then_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "_backends", lambda: ["sync", "vector", "async"])
    measured: list[dict[str, Any]] = []

    def measure(base: TrainConfig, source: Any, changes: Any, deadline: float, must_work: bool = False) -> Trial:
        measured.append(dict(changes))
        num_envs, backend = changes.get("num_envs", base.env.num_envs), changes.get("backend", "vector")
        speed = {"sync": 900.0, "vector": 100.0, "async": 50.0}[backend] * num_envs
        return Trial(changes, num_envs, backend, changes.get("num_workers"), speed)

    monkeypatch.setattr(throughput, "_measure", measure)
    monkeypatch.setattr(throughput, "num_cores", lambda: 3)
    asked = request("CartPole-v1", "--num-envs", "8")
    trials = try_settings(asked.config, asked.source)
    assert measured == [
        {}, {"backend": "sync"}, {"backend": "async"},
        {"backend": "sync", "num_envs": 32}, {"backend": "sync", "num_envs": 128},
        {"asynchronous": True, "num_workers": 3}, {"asynchronous": True, "num_workers": 3, "num_envs": 128},
    ]  # fmt: skip
    assert as_lines(trials, asked.config, asked.given)[-2] == (
        "fastest: limelight train CartPole-v1 --num-envs 128 --backend sync"
    )


def test_real_trials_keep_their_time_and_say_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "_backends", lambda: ["sync", "vector"])
    asked = request("MountainCar-v0", "--algo", "stream-ac")  # one environment, and no workers
    started = time.perf_counter()
    trials = try_settings(asked.config, asked.source, seconds=2.0)
    assert time.perf_counter() - started < 60.0
    assert trials[0].speed is not None
    refused = [trial for trial in trials if trial.speed is None]
    assert any("num_envs" in trial.note for trial in refused)
    lines = as_lines(trials, asked.config, asked.given)
    assert lines[0].split() == ["steps/s", "num_envs", "backend", "workers"]
    assert any(line.startswith("not tried: ") for line in lines)
    assert any(line.startswith("fastest: limelight train MountainCar-v0 --algo stream-ac") for line in lines)


def test_rollouts_of_trials_are_short() -> None:
    asked = request("CartPole-v1", "--algo", "ppo", "--num-envs", "8", "--num-steps", "2048")
    config = throughput._shortened(asked.config, asked.source)
    assert config.algorithm.num_steps == 256
    assert config.algorithm.num_minibatches == max(1, asked.config.algorithm.num_minibatches // 8)


def test_the_table_has_the_fastest_first() -> None:
    config = with_settings(TrainConfig(), {"num_envs": 8})
    trials = [
        Trial({}, 8, "sync", None, 1_000.0),
        Trial({"backend": "vector"}, 8, "vector", None, None, "it has no vectorised class"),
        Trial({"asynchronous": True, "num_workers": 2}, 8, "sync", 2, 12_000.0),
    ]
    assert as_lines(trials, config, {"env_kwargs": {"a": "x y"}, "algo": "a2c"}) == [
        "steps/s  num_envs  backend  workers",
        " 12,000         8  sync           2",
        "  1,000         8  sync           –  as training would have it",
        "not tried: --backend vector (it has no vectorised class)",
        "fastest: limelight train CartPole-v1 --env-kwargs a 'x y' --algo a2c --asynchronous true --num-workers 2",
        "more environments than 8, and workers, change the updates as well as the speed: compare what is learned "
        "(limelight compare)",
    ]


def test_the_command_prints_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(throughput, "try_settings", lambda config, source: [Trial({}, 8, "vector", None, 5.0)])
    assert cli.main(["check", "CartPole-v1", "--throughput"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "fastest: limelight train CartPole-v1"
    assert cli.main(["check", "CartPole-v1", "--throughput", "--algo", "a2c"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "fastest: limelight train CartPole-v1 --algo a2c"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["CartPole-v1", "--algo", "ppo"], "algo = 'ppo': only --probe and --throughput train; add one of them"),
        (["CartPole-v9", "--throughput"], "CartPole-v9"),
        (["CartPole-v1", "--throughput", "--num-envs", "0"], "num_envs = 0"),
        (["CartPole-v1", "--troughput"], "did you mean --throughput"),
        (["CartPole-v1", "--throughput", "--gamma", "1.5"], "gamma = 1.5"),
        (["CartPole-v1", "--throughput", "--gama", "0.5"], "did you mean --gamma"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", *argv]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
