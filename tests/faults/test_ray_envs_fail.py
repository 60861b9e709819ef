"""Environments that raise or hang on Ray itself: every failure is counted and told, and no hang is silent."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from helpers.manual_workers import quick_config
from helpers.ray_envs import RAISES
from limelight.runners.ray.runner import RayRunner
from limelight.training.run import build

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)
KINDS = [
    pytest.param("a2c", "gradients", marks=pytest.mark.faults),
    pytest.param("a2c", "rollouts", marks=pytest.mark.faults),
    pytest.param("a3c", "gradients", marks=pytest.mark.faults),
    pytest.param("a3c", "rollouts", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def runner_of(algo: str, env: str, **settings: Any) -> RayRunner:
    config = quick_config(
        algo, env_id=f"helpers.ray_envs:{env}", runner="ray", num_workers=2, total_timesteps=1_000_000, **settings
    )
    runner, _ = build(config, None)
    assert isinstance(runner, RayRunner)
    return runner


def advance(runner: RayRunner, until: int, seconds: float = 60.0) -> list[str]:
    messages, deadline = [], time.monotonic() + seconds
    while runner.num_steps < until:
        assert time.monotonic() < deadline, messages
        runner.advance(until, 0.2)
        messages += runner.pop_messages()
    return messages


@pytest.mark.parametrize(("algo", "output"), KINDS)
def test_every_exception_of_a_step_or_reset_is_counted_and_told(algo: str, output: str) -> None:
    runner = runner_of(algo, "FailsInTurn", on_env_error="restart", worker_output=output)
    try:
        messages = advance(runner, 800)
        metrics: dict[str, float] = {}
        while not metrics:
            metrics = dict(runner.advance(1_000, 5.0))
            messages += runner.pop_messages()
    finally:
        runner.close()
    assert all(re.match(r"worker [01]: .*a new copy goes on", line) for line in messages), messages
    assert metrics["rollout/env_restarts"] == len(messages) > 20
    assert metrics["async/worker_restarts"] == 0
    for name in RAISES:
        said = "called sys.exit()" if name == "SystemExit" else f"raised {name}: failure"
        assert any(f"step() {said}" in line for line in messages), (name, messages)
    assert any("reset() " in line for line in messages)


@pytest.mark.parametrize(("algo", "output"), KINDS)
def test_a_hang_is_named_with_environment_seed_and_actions_and_replaced(algo: str, output: str, tmp_path: Path) -> None:
    runner = runner_of(
        algo, "Hangs", env_kwargs={"once": str(tmp_path / "once")}, on_env_error="restart", step_timeout=2.0,
        worker_output=output,
    )  # fmt: skip
    try:
        messages: list[str] = []
        while not messages:
            messages += advance(runner, runner.num_steps + 20)
        advance(runner, runner.num_steps + 100)
    finally:
        runner.close()
    (message,) = messages
    assert re.match(
        r"worker [01]: helpers\.ray_envs:Hangs: step\(\) of environment [01] \(seed \d+, step \d+, "
        r"last actions \[.*\]\) has not returned for \d s \(ray_envs\.py, line \d+\); step_timeout = 2; a new copy",
        message,
    ), message


@pytest.mark.faults
def test_a_hang_that_holds_the_lock_of_python_ends_its_worker_which_is_replaced(tmp_path: Path) -> None:
    kwargs = {"once": str(tmp_path / "once"), "holds_lock": True}
    runner = runner_of("a2c", "Hangs", env_kwargs=kwargs, step_timeout=1.0)
    try:
        messages: list[str] = []
        while not messages:
            messages += advance(runner, runner.num_steps + 20)
        while not all(worker.slot.ready for worker in runner.pool.workers):
            advance(runner, runner.num_steps + 20)
    finally:
        runner.close()
    (message,) = messages
    assert re.match(r"worker [01] \(helpers\.ray_envs:Hangs, 2 environments\) exited: ", message)
    assert message.endswith("restarted in 0.1 s with fresh seeds (restart 1 of 10)")
