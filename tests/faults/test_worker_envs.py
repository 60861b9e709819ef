"""Environments that raise, exit, abort or hang in the worker processes of A3C: told, counted, replaced, or the end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faults.test_workers_exit import ENV, Recorder
from helpers.faulty_envs import FaultyEnvs
from helpers.manual_workers import draw_no_report, quick_config
from limelight.errors import WorkerError
from limelight.runners.processes import supervisor
from limelight.runs.checkpoint import latest_checkpoint, read_state
from limelight.training.run import RunResult, run

ONLY_POSIX = pytest.mark.skipif("not hasattr(__import__('os'), 'fork')", reason="inherits a descriptor")
NAME = "helpers.faulty_envs:<FaultyEnvs>"


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)


def train(folder: Path, *faults: str, only_once: bool = False, after: int = 30, **settings: Any) -> Recorder:
    """Train with a worker for each fault; return what the main process was told."""
    settings = {"total_timesteps": 1_500, "log_every": 100, "on_env_error": "restart", **settings}
    config = quick_config(env_id=ENV, num_workers=len(faults), run_dir=str(folder / "r"), **settings)
    recorder = Recorder()
    result: RunResult = run(
        config, factory=FaultyEnvs(folder, faults, after, only_once), quiet=True, loggers=[recorder]
    )
    assert result.status == "completed"
    assert all(np.isfinite(p.detach().numpy()).all() for p in result.agent.model.parameters())
    return recorder


def texts(recorder: Recorder, part: str) -> list[str]:
    return [text for _, text in recorder.messages if part in text]


def check_exceptions(recorder: Recorder, folder: Path) -> None:
    told = texts(recorder, "a new copy goes on")
    failures = (folder / "0.faults").read_text().split()
    assert len(told) == len(failures) > 8
    assert len(set(failures)) == 1  # one process
    assert recorder.rows[-1]["rollout/env_restarts"] == len(told)
    assert recorder.rows[-1]["async/worker_restarts"] == 0
    for kind in ("raised RuntimeError: the simulator broke", "called sys.exit()", "raised KeyboardInterrupt: the"):
        assert any(kind in text for text in told)
    pattern = (
        rf"worker 0: {NAME}: step\(\) .* \(faulty_envs.py, line \d+\) in environment [01], step \d+ of its episode; "
    )
    assert all(re.match(pattern, text) for text in told)
    assert sum("Traceback (most recent call last):" in text and "in raise_each" in text for text in told) == 4


def test_exceptions_in_a_worker_are_told_and_counted_and_its_process_goes_on(tmp_path: Path) -> None:
    check_exceptions(train(tmp_path, "raise_each"), tmp_path)


@pytest.mark.slow
def test_the_same_holds_for_recurrent_agents_and_evaluations(tmp_path: Path) -> None:
    check_exceptions(train(tmp_path, "raise_each", core="gru"), tmp_path)
    config = quick_config(
        env_id="helpers.breaking_envs:Breaking", total_timesteps=3_000, run_dir=str(tmp_path / "eval"), log_every=100,
        env_kwargs={"how": "SystemExit", "step": 0.02}, on_env_error="restart", eval_every=1_000, eval_episodes=20,
    )  # fmt: skip
    recorder = Recorder()
    assert run(config, quiet=True, loggers=[recorder]).status == "completed"
    evaluations = [row for row in recorder.rows if "eval/mean_reward" in row]
    assert sum(row.get("eval/env_restarts", 0) for row in evaluations) > 0
    assert all(row["eval/mean_reward"] == 20.0 for row in evaluations)  # the episodes that failed are left out


@pytest.mark.slow
def test_a_reset_that_fails_three_times_is_tried_again_after_growing_delays(tmp_path: Path) -> None:
    recorder = train(tmp_path, "resets", num_envs=1)
    told = texts(recorder, "reset() raised RuntimeError: the simulator broke")
    assert len(told) == recorder.rows[-1]["rollout/env_restarts"] == 3
    assert recorder.rows[-1]["async/worker_restarts"] == 0
    _, second, third = sorted(float(file.stem) for file in tmp_path.glob("*.failed_reset"))
    assert third - second >= 0.1


@ONLY_POSIX
def test_an_abort_names_worker_environment_step_and_line_and_the_run_ends_with_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(WorkerError) as error:
        train(tmp_path, "abort", on_worker_error="raise", total_timesteps=100_000)
    reason, call, title, first, *_, last = str(error.value).splitlines()
    assert reason == f"worker 0 ({ENV}, 2 environments) exited: killed by SIGABRT"
    assert re.fullmatch(r"step\(\) of environment [01] \(seed \d+, step \d+, last actions \[[01](, [01])*\]\)", call)
    assert title == "Fatal Python error: Aborted"
    assert re.fullmatch(r'  File ".*faulty_envs.py", line \d+ in abort', first)
    assert last == "on_worker_error = raise, so the run ends"
    newest = latest_checkpoint(tmp_path / "r")
    assert newest is not None
    assert read_state(newest)["training"]["error"].startswith("WorkerError")


@ONLY_POSIX
@pytest.mark.slow
def test_workers_that_abort_are_replaced_and_the_message_has_the_traceback(tmp_path: Path) -> None:
    recorder = train(tmp_path, "abort", "read_null", only_once=True, on_env_error="raise", total_timesteps=6_000)
    for worker, name, function in ((0, "SIGABRT", "abort"), (1, "SIGSEGV", "read_null")):
        (text,) = texts(recorder, f"worker {worker} ({ENV}, 2 environments) exited: killed by {name}\n")
        assert f" in {function}\n" in text
    assert recorder.rows[-1]["async/worker_restarts"] == 2


@ONLY_POSIX
@pytest.mark.slow
def test_a_step_that_hangs_in_a_worker_is_ended_and_named_with_seed_and_actions(tmp_path: Path) -> None:
    recorder = train(
        tmp_path, "hang", "hold_the_lock", only_once=True, step_timeout=1.0, total_timesteps=20_000, after=25
    )
    call = r"environment \d \(seed \d+, step \d+, last actions \[[01](, [01])*\]\)"
    hangs = texts(recorder, "has not returned for")
    place = r"\(faulty_envs.py, line \d+\); step_timeout = 1; a new copy goes on "
    assert 1 <= len(hangs) <= 2  # of both environments
    assert all(re.match(rf"worker 0: {NAME}: step\(\) of {call} has not returned for 1 s {place}", x) for x in hangs)
    (held,) = texts(recorder, "exited: ")
    reason, place, title, *frames = held.splitlines()
    assert reason.startswith(
        f"worker 1 ({ENV}, 2 environments) exited: step_timeout is over, in code that no exception"
    )
    assert re.fullmatch(rf"step\(\) of {call}", place)
    assert title.startswith("Timeout (0:00:0")
    assert frames[0].endswith(" in hold_the_lock")
    assert recorder.rows[-1]["async/worker_restarts"] == 1


@pytest.mark.faults
def test_without_a_timeout_a_stall_in_a_worker_is_a_message_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "SILENT_AFTER", 20.0)
    recorder = train(tmp_path, "stall", "stall_with_the_lock", num_envs=1, on_env_error="raise")
    (note,) = texts(recorder, "has not returned for 30 s")
    assert re.match(
        rf"worker 0: note: {NAME}: step\(\) of environment [01] \(seed \d+, last actions [01]\) has not", note
    )
    assert note.endswith("; step_timeout ends such a call")
    (silent,) = texts(recorder, "worker 1 (")
    assert re.fullmatch(rf"worker 1 \({ENV}\): no message for 2\d s; it is in a rollout or an update; .*", silent)
