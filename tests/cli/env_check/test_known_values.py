"""``limelight check --probe``: good settings learn the tasks, bad ones are named, broken environments too."""

from __future__ import annotations

from typing import Any

import pytest

from limelight.cli import main as cli
from limelight.cli.env_check import known_values, throughput
from limelight.cli.env_check.check import check_env
from limelight.cli.env_check.findings import Finding
from limelight.cli.env_check.throughput import Trial
from limelight.settings.schema import EnvConfig


def probed(env_id: str, **settings: Any) -> tuple[dict[str, Finding], Finding]:
    """Return the findings of the tasks by the beginning of their line, and the verdict."""
    found = check_env(EnvConfig(env_id), {"backend": "sync", **settings})
    lines = {f.message.split("  ")[0]: f for f in found if f.subject == "probe"}
    return lines, found[-1]


def test_settings_that_learn_are_not_at_fault() -> None:
    lines, verdict = probed("Pendulum-v1")
    assert len(lines) == 5
    assert {finding.level for finding in lines.values()} == {"ok"}
    assert verdict.message.startswith("neither: the settings of a2c learnt all tasks")


def test_settings_that_learn_nothing_are_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_values, "MOST_SECONDS", 2.5)
    monkeypatch.setattr(known_values, "LEAST_STEPS", 0)
    lines, verdict = probed("CartPole-v1", learning_rate=1e-7)
    assert {finding.level for finding in lines.values()} == {"warn"}
    assert verdict.message.startswith("the settings of a2c, which learnt 0 of 5 tasks; the critic does not learn")


def test_a_value_near_the_known_one_counts_as_learnt() -> None:
    result = known_values.Result("delay", 0.9, 0.1, 100, 1.0)
    assert not result.is_learnt
    assert " ".join(result.line().split()) == "reward a step later known 0.90 learnt 0.10 100 steps 1.0 s"
    assert known_values.Result("constant", 2.0, 2.1, 100, 1.0).is_learnt


def test_a_recurrent_network_must_remember() -> None:
    lines, _ = probed("limelight.envs.toy:Recall", core="lstm", normalize_rewards=False)
    assert len(lines) == 6
    assert lines["reward by memory"].level == "ok"


def test_a_task_that_had_too_little_time_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_values, "MOST_SECONDS", 0.1)
    monkeypatch.setattr(known_values, "LEAST_STEPS", 10_000_000)
    _, verdict = probed("CartPole-v1", learning_rate=1e-7)
    assert verdict.message.startswith("undecided: fewer than 10,000,000 steps")


def test_asynchronous_settings_are_probed_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_values, "MOST_SECONDS", 0.1)
    lines, verdict = probed("CartPole-v1", algo="a3c")
    assert len(lines) == 5
    assert "undecided" in verdict.message or "the settings of a3c" in verdict.message


def test_an_environment_without_two_observations_has_fewer_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_values, "MOST_SECONDS", 0.1)
    lines, _ = probed("limelight.envs.toy:Aim")
    assert list(lines) == ["reward a step later", "reward by action", "reward always 1"]


def test_a_broken_environment_is_at_fault() -> None:
    found = check_env(EnvConfig("cli.env_check.test_probe:nothing"), {})
    assert found[-1].level == "fail"
    assert not any(finding.subject == "probe" for finding in found)


def test_settings_without_a_probe_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "CartPole-v1", "--gamma", "0.5"]) == 2
    assert "gamma = 0.5: only --probe and --throughput train; add one of them" in capsys.readouterr().err
    assert cli.main(["check", "CartPole-v1", "--probe", "--algo", "a4c"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_probe_and_throughput_go_together(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(known_values, "MOST_SECONDS", 0.1)
    monkeypatch.setattr(known_values, "LEAST_STEPS", 0)
    monkeypatch.setattr(throughput, "try_settings", lambda config, source: [Trial({}, 3, "sync", None, 123.0)])
    argv = ["check", "CartPole-v1", "--algo", "a2c", "--num-envs", "3", "--probe", "--throughput"]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert out.index("at fault") < out.index("fastest: limelight train CartPole-v1 --algo a2c")
    assert cli.main([word for word in argv if word != "--probe"]) == 0
    assert "contract" not in capsys.readouterr().out


def test_the_rules_that_are_shown_are_those_of_the_settings_that_are_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_values, "MOST_SECONDS", 0.1)
    env_id = "limelight.envs.toy:Recall"
    alone = [finding.message for finding in check_env(EnvConfig(env_id)) if finding.subject == "rule"]
    given = {"algo": "a2c", "num_envs": 3, "num_steps": 5}
    found = [finding.message for finding in check_env(EnvConfig(env_id), given) if finding.subject == "rule"]
    assert any("num_envs" in rule for rule in alone)
    assert not any("algo ppo" in rule or "num_envs" in rule or "num_steps" in rule for rule in found)
