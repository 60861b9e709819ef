"""Each rule on a run that was trained to fail that way, on rows where that takes too long, and on healthy runs.

Rows alone show ``values_above_returns`` and ``policy_lag``: no short run does.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

import limelight
from helpers.callbacks import Fails
from helpers.failing_envs import Aliased, Breaks, SlowOnce, Small
from limelight.algo.episodes import Episode
from limelight.cli import main as cli
from limelight.envs.toy import Aim, Catch
from limelight.runs.folder import only_process
from limelight.runs.reader import RunData, read_run
from limelight.settings.io import get_setting, save_yaml, with_settings
from limelight.settings.rules import validate
from limelight.settings.schema import TrainConfig
from limelight.training import run as training
from limelight.viewing.explain import machine
from limelight.viewing.explain.diagnosis import RULES, diagnose, explain
from limelight.viewing.explain.evidence import Evidence, Finding
from limelight.viewing.jsonl import JsonlLogger
from limelight.viewing.monitor_csv import MonitorCsvLogger
from limelight.viewing.report import write_report

SHORT: dict[str, Any] = {
    "algo": "a2c", "preset": "plain", "total_timesteps": 4_000, "log_every": 200, "num_envs": 4, "num_steps": 8,
    "tensorboard": False, "eval_every": 0, "final_episodes": 0, "checkpoint_every": 0, "seed": 1, "backend": "sync",
}  # fmt: skip
SQUARE = Box(-1.0, 1.0, (2,), np.float32)
FAILING: dict[str, tuple[Any, dict[str, Any]]] = {
    "no_episode_ended": (partial(Small, length=0), {"total_timesteps": 1_000}),
    "returns_equal": (Small, {"total_timesteps": 1_000}),
    "reward_rare": (
        partial(Small, "lock", 4, 4), {"total_timesteps": 8_000, "learning_rate": 1e-5, "num_envs": 16}
    ),
    "values_diverge": ("CartPole-v1", {"critic": "separate", "critic_learning_rate": 5.0, "gamma": 0.9}),
    "entropy_gone": ("CartPole-v1", {"learning_rate": 0.1, "ent_coef": 0.0}),
    "entropy_high": ("CartPole-v1", {"learning_rate": 1e-6}),
    "dead_filters": (Catch, {"learning_rate": 0.3, "total_timesteps": 2_000}),
    "gradients_clipped": (partial(Small, "noise", scale=1e4), {}),
    "actions_clipped": (
        partial(Aim, SQUARE),
        {"log_std_init": 2.0, "learning_rate": 1e-6, "total_timesteps": 1_000, "log_every": 50},
    ),
    "return_flat": (
        partial(Aim, SQUARE),
        {"log_std_init": -1.0, "learning_rate": 1e-6, "total_timesteps": 1_000, "log_every": 300},
    ),
}  # fmt: skip
FAILING_SLOWLY: dict[str, tuple[Any, dict[str, Any]]] = {
    "critic_right_and_flat": (
        partial(Small, "context", length=1, ends=True),
        {"learning_rate": 0.005, "total_timesteps": 8_000, "num_envs": 16, "vf_coef": 1.0, "ent_coef": 0.0},
    ),
    "not_finite": (
        partial(Breaks, overflows=True), {"algo": "a3c", "num_workers": 1, "total_timesteps": 2_000, "backend": "auto"}
    ),
    "best_lost": (partial(Small, "fading"), {"learning_rate": 1e-3, "num_envs": 2}),
    "greedy_far": (Aliased, {"learning_rate": 1e-4, "eval_every": 500, "eval_episodes": 3}),
    "still_rising": (
        partial(Aim, SQUARE, np.full(2, 0.9, np.float32)),
        {"log_std_init": -1.0, "learning_rate": 5e-5, "lr_schedule": "constant"},
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "draw_report", lambda run_dir: None)


def train(folder: Path, env: Any, **settings: Any) -> RunData:
    limelight.train(env, run_dir=str(folder), quiet=True, **{**SHORT, **settings})
    return read_run(folder)


def check(findings: list[Finding], run: RunData) -> None:
    """Every finding has figures, and a setting that exists, has another value than the run, and is valid."""
    for finding in findings:
        assert any(letter.isdigit() for letter in finding.evidence), finding
        assert get_setting(run.config, finding.setting) != finding.value, finding
        validate(with_settings(run.config, {finding.setting: finding.value}))
        assert finding.try_text().startswith(f"--{finding.setting.replace('_', '-')} ")


@pytest.mark.parametrize("rule", FAILING)
def test_a_run_that_fails_is_explained_by_its_cause_first(rule: str, tmp_path: Path) -> None:
    env, settings = FAILING[rule]
    run = train(tmp_path / "r", env, **settings)
    findings = diagnose(run)
    assert findings[0].rule == rule, findings
    check(findings, run)


def test_a_run_that_failed_is_explained_by_its_error_first(tmp_path: Path) -> None:
    with pytest.raises(limelight.EnvError):
        train(tmp_path / "env", Breaks)
    finding = diagnose(read_run(tmp_path / "env"))[0]
    assert finding.rule == "run_failed"
    assert "raised ZeroDivisionError: no price" in finding.evidence
    assert finding.try_text().startswith("limelight check")
    # An error of a callback
    with pytest.raises(limelight.LimelightError):
        train(tmp_path / "told", Small, callbacks=[Fails()])
    finding = diagnose(read_run(tmp_path / "told"))[0]
    assert "callback" in finding.cause
    assert finding.try_text() == f"limelight train --resume {tmp_path / 'told'}"
    # An error that is the network's own
    run = make_run(tmp_path / "net", [{}] * 5, RISE)
    (run.folder / "summary.json").write_text(json.dumps({"status": "failed", "error": "NonFiniteError: value = nan"}))
    finding = diagnose(read_run(run.folder))[0]
    assert (finding.rule, finding.setting) == ("run_failed", "learning_rate")


@pytest.mark.slow
@pytest.mark.parametrize("rule", FAILING_SLOWLY)
def test_a_run_that_fails_slowly_is_explained_by_its_cause_first(rule: str, tmp_path: Path) -> None:
    env, settings = FAILING_SLOWLY[rule]
    run = train(tmp_path / "r", env, **settings)
    findings = diagnose(run)
    assert findings, explain(run)
    assert findings[0].rule == rule, findings
    check(findings, run)


@pytest.mark.slow
def test_workers_that_were_restarted_are_found(tmp_path: Path) -> None:
    run = train(
        tmp_path / "r",
        Breaks,
        algo="a3c",
        num_workers=1,
        on_worker_error="restart",
        total_timesteps=2_000,
        backend="auto",
    )
    assert "workers_restarted" in {finding.rule for finding in diagnose(run)}


@pytest.mark.slow
def test_secondary_findings_are_there_too(tmp_path: Path) -> None:
    found = []
    for seed in range(1, 7):  # whether the critic fits some of the noise is a matter of chance
        run = train(tmp_path / str(seed), partial(Small, "noise"), learning_rate=0.01, seed=seed)
        found.append({finding.rule for finding in diagnose(run)})
    assert all("all_truncated" in rules for rules in found)
    assert any("critic_useless" in rules for rules in found)


def test_where_the_time_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LEAST_SECONDS", 0.0)
    slow = train(tmp_path / "slow", partial(Small, seconds=0.001), total_timesteps=500)
    finding = machine.environment_slow(Evidence(slow))
    assert finding is not None
    assert (finding.setting, finding.value) == ("backend", "async")
    assert machine.evaluation_slow(Evidence(slow)) is None
    often = train(tmp_path / "often", Small, total_timesteps=500, eval_every=100, eval_episodes=200)
    finding = machine.evaluation_slow(Evidence(often))
    assert finding is not None
    assert (finding.setting, finding.value) == ("eval_every", 400)


@pytest.mark.slow
def test_a_healthy_run_gets_one_line(tmp_path: Path) -> None:
    run = train(
        tmp_path / "r", "CartPole-v1", total_timesteps=60_000, num_envs=16, num_steps=16, preset="auto", log_every=1_000
    )
    assert len(explain(run)) == 1
    assert explain(run)[0].endswith("; nothing found")


# --------------------------------------------------------------------------- by rows


def make_run(folder: Path, rows: list[dict[str, float]], returns: list[float], **settings: object) -> RunData:
    """Make the folder of a run with rows every 1,000 steps and equally many episodes between them."""
    folder.mkdir()
    settings = {"total_timesteps": 1_000 * len(rows), **settings}
    save_yaml(with_settings(TrainConfig(), settings), folder / "config.yaml")
    metrics, monitor = JsonlLogger(folder / "metrics.jsonl"), MonitorCsvLogger(folder / "monitor.csv", "CartPole-v1")
    for i, row in enumerate(rows):
        part = returns[i * len(returns) // len(rows) : (i + 1) * len(returns) // len(rows)]
        step = 1_000 * (i + 1)
        monitor.episodes(step, i + 1.0, [Episode(0, value, 20, True, step) for value in part])
        metrics.log(step, i + 1.0, row)
    metrics.close()
    monitor.close()
    return read_run(folder)


NOISE = np.random.default_rng(0).normal(10.0, 3.0, 400).tolist()
RISE = (np.linspace(0.0, 200.0, 400).clip(max=100.0) + np.array(NOISE)).tolist()
"""Returns that rise and level off."""
BY_ROWS: dict[str, tuple[dict[str, float], dict[str, object]]] = {
    "policy_lag": ({"async/policy_lag": 9.0}, {"algo": "a3c", "asynchronous": True, "num_workers": 2}),
    "values_above_returns": ({"train/value_mean": 400.0, "rollout/truncated_share": 0.0}, {}),
    "dead_filters": ({"train/dead_filters": 0.7}, {}),
    "workers_restarted": ({"async/worker_restarts": 2.0}, {"asynchronous": True, "num_workers": 2}),
    "not_finite": ({"train/value_loss": float("nan")}, {}),
}


@pytest.mark.parametrize("rule", BY_ROWS)
def test_rows_that_show_a_fault_are_found_and_slightly_better_ones_are_not(rule: str, tmp_path: Path) -> None:
    row, settings = BY_ROWS[rule]
    run = make_run(tmp_path / "bad", [row] * 20, RISE, **settings)
    findings = diagnose(run)
    assert [finding.rule for finding in findings] == [rule]
    check(findings, run)
    better = {name: 0.0 if np.isnan(value) or "restarts" in name else 0.6 * value for name, value in row.items()}
    assert diagnose(make_run(tmp_path / "good", [better] * 20, RISE, **settings)) == []


def test_the_gradients_of_a_slow_worker_are_old_whatever_their_mean(tmp_path: Path) -> None:
    """In shared memory the mean over all workers is at most their number less one."""
    settings = {"algo": "a3c", "asynchronous": True, "num_workers": 2}

    def found(name: str, slow: float) -> list[Finding]:
        rates = {"async/worker_0/updates_per_second": 90.0, "async/worker_1/updates_per_second": slow}
        return diagnose(make_run(tmp_path / name, [{"async/policy_lag": 1.0, **rates}] * 20, RISE, **settings))

    (finding,) = found("slow", 10.0)
    assert finding.rule == "policy_lag"
    assert finding.evidence.startswith("worker 1 makes 10 updates/s, the others 90 together: its gradients are about 9")
    assert found("alike", 12.0) == []
    (finding,) = found("hangs", 0.0)
    assert finding.evidence.endswith("it hangs")


@pytest.mark.slow
def test_a_worker_whose_environment_is_slow_is_found(tmp_path: Path) -> None:
    run = train(
        tmp_path / "r", partial(SlowOnce, str(tmp_path / "taken")), algo="a3c", num_workers=2, num_envs=1,
        total_timesteps=20_000, log_every=2_000, backend="sync",
    )  # fmt: skip
    assert "policy_lag" in {finding.rule for finding in diagnose(run)}


def test_signs_that_are_harmless_while_the_return_rises_are_not_reported(tmp_path: Path) -> None:
    """A solved CartPole: all episodes are cut, nothing is left to explain, most gradients are clipped."""
    row = {
        "rollout/truncated_share": 1.0, "train/explained_variance": -0.1, "train/grads_clipped": 1.0,
        "train/grad_norm": 1e3, "train/entropy_share": 0.99, "train/actions_clipped": 0.5, "train/entropy": 0.69,
    }  # fmt: skip
    assert diagnose(make_run(tmp_path / "rises", [row] * 20, RISE)) == []
    flat = {finding.rule for finding in diagnose(make_run(tmp_path / "flat", [row] * 20, NOISE))}
    assert flat == {"entropy_high", "actions_clipped", "gradients_clipped", "critic_useless", "all_truncated"}


def test_episodes_that_cannot_terminate_are_no_finding(tmp_path: Path) -> None:
    def rules(env_id: str) -> set[str]:
        run = make_run(tmp_path / env_id, [{"rollout/truncated_share": 1.0}] * 20, NOISE, env_id=env_id)
        return {finding.rule for finding in diagnose(run)}

    assert rules("Pendulum-v1") == rules("HalfCheetah-v5") == {"return_flat"}
    assert rules("MountainCarContinuous-v0") == {"all_truncated"}


def test_a_curve_that_still_rises_asks_for_more_steps_once_it_has_ended(tmp_path: Path) -> None:
    steep = (np.linspace(0.0, 200.0, 400) + np.array(NOISE)).tolist()
    run = make_run(tmp_path / "r", [{}] * 20, steep)
    assert diagnose(run) == []  # it still runs
    (tmp_path / "r" / "summary.json").write_text(json.dumps({"status": "completed"}))
    (finding,) = diagnose(read_run(tmp_path / "r"))
    assert (finding.rule, finding.setting, finding.value) == ("still_rising", "total_timesteps", 40_000)
    (tmp_path / "r" / "summary.json").write_text(json.dumps({"status": "completed", "solved_at_step": 19_000}))
    assert diagnose(read_run(tmp_path / "r")) == []
    level = make_run(tmp_path / "level", [{}] * 20, RISE)
    (tmp_path / "level" / "summary.json").write_text(json.dumps({"status": "completed"}))
    assert diagnose(read_run(level.folder)) == []


def test_a_best_that_was_lost_and_found_again_is_not_reported(tmp_path: Path) -> None:
    def rows(means: list[float]) -> list[dict[str, float]]:
        return [{"rollout/ep_rew_mean": mean} for mean in means]

    lost = make_run(tmp_path / "lost", rows([100.0] * 5 + [12.0] * 15), RISE)
    assert [finding.rule for finding in diagnose(lost)] == ["best_lost"]
    found = make_run(tmp_path / "found", rows([100.0] * 5 + [12.0] * 5 + [90.0] * 10), RISE)
    assert diagnose(found) == []


def test_a_run_without_any_row_is_not_explained_away(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    save_yaml(TrainConfig(), folder / "config.yaml")
    assert explain(read_run(folder)) == [
        "CartPole-v1 · a2c: broken off (killed, or running on another machine) at step 0 of 200,000; nothing found"
    ]
    with only_process(folder):
        assert explain(read_run(folder)) == ["CartPole-v1 · a2c: running at step 0 of 200,000; nothing found"]


def test_rules_have_the_names_of_their_findings_and_their_documentation() -> None:
    names = [rule.__name__ for rule in RULES]
    assert len(set(names)) == len(names)
    page = (Path(limelight.__file__).parents[2] / "docs" / "explain.md").read_text(encoding="utf-8")
    assert [name for name in [*names, "return_flat"] if f"| `{name}` |" not in page] == []
    tested = {
        *FAILING,
        *FAILING_SLOWLY,
        *BY_ROWS,
        "run_failed",
        "critic_useless",
        "all_truncated",
        "evaluation_slow",
        "environment_slow",
    }
    assert {*names, "return_flat"} == tested


# --------------------------------------------------------------------------- where it is shown


def test_the_command_and_the_report_show_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "bad", [{"train/dead_filters": 0.7}] * 20, RISE)
    assert cli.main(["explain", str(tmp_path / "bad")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("1. dead_filters: 70% of the filters gave 0 everywhere at steps 10,000 to 20,000")
    assert lines[4] == "   try: --normalize-obs true"
    make_run(tmp_path / "good", [{}] * 20, RISE)
    assert cli.main(["explain", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("bad: CartPole-v1 · a2c: ")
    assert out.splitlines()[-1].startswith("good: CartPole-v1 · a2c: ")
    page = write_report([tmp_path / "bad"]).read_text(encoding="utf-8")
    assert page.index("<h2>What to look at</h2>") < page.index("<h2>Learning curve</h2>")
    assert "<code>--normalize-obs true</code>" in page
