"""Ray workers that are killed or raise are reported and replaced; no process remains after a run."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from helpers.manual_workers import draw_no_report, quick_config
from limelight.errors import LimelightError, WorkerError
from limelight.runners.ray.runner import RayRunner
from limelight.runs.checkpoint import latest_checkpoint, read_state
from limelight.settings.schema import TrainConfig
from limelight.training.run import build, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]
FAILS = "helpers.ray_envs:Fails"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def config_of(algo: str = "a3c", **settings: Any) -> TrainConfig:
    return quick_config(algo, **{"runner": "ray", "num_workers": 2, "total_timesteps": 1_000_000, **settings})


def advance(runner: RayRunner, until: int) -> list[str]:
    messages, deadline = [], time.monotonic() + 120
    while runner.num_steps < until:
        assert time.monotonic() < deadline
        runner.advance(until, 0.2)
        messages += runner.pop_messages()
    return messages


@pytest.mark.parametrize(("algo", "worker_output"), [("a2c", "gradients"), ("a3c", "gradients"), ("a3c", "rollouts")])
def test_a_killed_worker_is_replaced_and_brought_up_to_date(algo: str, worker_output: str) -> None:
    runner, _ = build(config_of(algo, worker_output=worker_output), None)
    assert isinstance(runner, RayRunner)
    try:
        assert advance(runner, 200) == []
        victim, version = runner.pool.workers[1].actor, runner.version
        assert version > 0
        ray.kill(victim)
        until = runner.num_steps + 200
        messages = advance(runner, until)
        while not runner.pool.workers[1].slot.ready:
            messages += advance(runner, runner.num_steps + 20)
        messages += advance(runner, runner.num_steps + 40)
        (message,) = messages
        assert message.startswith("worker 1 (CartPole-v1, 2 environments) exited: ")
        assert message.endswith("restarted in 0.1 s with fresh seeds (restart 1 of 10)")
        assert runner.pool.workers[1].actor is not victim
        assert runner.pool.workers[1].version > version
        assert runner.pool.restart_policy.count == 1
    finally:
        runner.close()


@pytest.mark.parametrize("how", ["raise", "kill"])
def test_a_worker_whose_environment_fails_once_is_replaced(tmp_path: Path, how: str) -> None:
    kwargs = {"how": how, "once": str(tmp_path / "once")}
    runner, _ = build(config_of(env_id=FAILS, env_kwargs=kwargs), None)
    assert isinstance(runner, RayRunner)
    try:
        messages = advance(runner, 400)
        while runner.pool.restart_policy.count == 0 or not all(w.slot.ready for w in runner.pool.workers):
            messages += advance(runner, runner.num_steps + 20)
    finally:
        runner.close()
    (message,) = messages
    assert ("RuntimeError: the simulator broke" in message) == (how == "raise")
    assert ("in step\n" in message) == (how == "raise")  # the worker's traceback
    assert "\x1b" not in message


def test_used_up_restarts_end_the_run_with_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)
    config = config_of(
        env_id=FAILS, max_worker_restarts=1, total_timesteps=1_000_000, run_dir=str(tmp_path / "r"), num_workers=1
    )
    with pytest.raises(WorkerError, match="max_worker_restarts = 1 are used up") as error:
        run(config, quiet=True)
    assert "the simulator broke" in str(error.value)
    newest = latest_checkpoint(tmp_path / "r")
    assert newest is not None
    assert read_state(newest)["training"]["runner"]["num_steps"] > 0


def test_on_worker_error_raise_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)
    with pytest.raises(WorkerError, match="on_worker_error = raise, so the run ends"):
        run(config_of("a2c", env_id=FAILS, on_worker_error="raise", run_dir=str(tmp_path / "r")), quiet=True)


def test_an_error_for_the_user_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LimelightError, match=r"observation.* = nan") as error:
        run(config_of(env_id=FAILS, env_kwargs={"how": "nan"}, run_dir=str(tmp_path / "r")), quiet=True)
    assert "\n" not in str(error.value)


def test_an_environment_that_cannot_be_made_is_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="RuntimeError: no license for the simulator") as error:
        run(config_of(env_id=FAILS, env_kwargs={"how": "constructor"}, run_dir=str(tmp_path / "r")), quiet=True)
    assert str(error.value).endswith("it failed while starting, so it is not restarted")


def test_an_address_where_nothing_answers_is_reported() -> None:
    code = (
        "import sys; from limelight.cli.main import main; "
        "sys.exit(main(['train', 'CartPole-v1', '--runner', 'ray', '--num-workers', '1', '--ray-address', "
        "'127.0.0.1:1']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "ray_address = 127.0.0.1:1: no Ray cluster could be joined there" in done.stderr
    assert "Traceback" not in done.stderr


def processes_with(mark: str) -> list[str]:
    """Return the command lines of processes that have ``mark`` in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:80])
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
@pytest.mark.parametrize("stop", [None, signal.SIGINT])
def test_no_process_remains_after_a_run(tmp_path: Path, stop: signal.Signals | None) -> None:
    mark = f"LIMELIGHT_MARK_{uuid.uuid4().hex}"
    total = "2000" if stop is None else "100000000"
    command = [
        sys.executable, "-m", "limelight", "train", "CartPole-v1", "--algo", "a3c", "--runner", "ray",
        "--num-workers", "2", "--total-timesteps", total, "--run-dir", str(tmp_path / "r"), "--final-episodes", "0",
    ]  # fmt: skip
    env = {**os.environ, mark: "1"}
    env.pop("RAY_ADDRESS", None)
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    if stop is not None:
        metrics, deadline = tmp_path / "r" / "metrics.jsonl", time.monotonic() + 180
        while not (metrics.exists() and metrics.stat().st_size):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        os.killpg(process.pid, stop)  # as a terminal does
    _, errors = process.communicate(timeout=240)
    assert process.returncode == (0 if stop is None else 130), errors
    assert "raylet" not in errors
    assert latest_checkpoint(tmp_path / "r") is not None
    deadline = time.monotonic() + 15
    while left := processes_with(mark):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_training_continues_when_a_node_with_a_worker_is_removed(tmp_path: Path) -> None:
    script = Path(__file__).with_name("ray_nodes.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "r")], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    end = json.loads(done.stdout.splitlines()[-1])
    assert end["removed"]
    assert end["status"] == "completed"  # no early stop, which could come before the node is removed
    assert end["final"] >= 475.0
    first, *later = [text for text in end["messages"] if "exited: " in text]
    assert first.endswith("restarted in 0.1 s with fresh seeds (restart 1 of 10)")
    for count, message in enumerate(later, 2):  # on a busy machine, a second worker may exit as well
        assert re.search(rf"restarted in 0\.[12] s with fresh seeds \(restart {count} of 10\)$", message), later
    assert len(later) <= 1, later
