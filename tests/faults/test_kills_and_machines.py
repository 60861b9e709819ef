"""Workers killed at random moments; the same seed on another load; resuming with other workers, backends, devices."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import limelight
from helpers.fake_ray import FakeRay, fake_ray  # noqa: F401  # a fixture
from helpers.manual_workers import draw_no_report
from limelight.runs.checkpoint import latest_checkpoint, read_state

MOMENTS = int(os.environ.get("LIMELIGHT_MOMENTS", "50"))
QUICK: dict[str, Any] = {
    "quiet": True, "tensorboard": False, "preset": "plain", "eval_every": 0, "final_episodes": 0, "report_every": 0,
    "hidden_sizes": (8,), "num_steps": 5, "num_envs": 4, "backend": "sync", "normalize_obs": True, "seed": 3,
}  # fmt: skip


class Lines:
    """A logger that keeps messages, and the last row of metrics; tells the steps by ``tick``."""

    def __init__(self) -> None:
        self.messages: list[tuple[float, str]] = []
        self.steps: list[int] = []

    def log(self, step: int, seconds: float, metrics: Any) -> None: ...
    def episodes(self, *args: Any) -> None: ...
    def message(self, text: str) -> None:
        self.messages.append((time.monotonic(), text))

    def tick(self, step: int, seconds: float) -> None:
        self.steps.append(step)

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)


def state_of(folder: Path) -> dict[str, Any]:
    newest = latest_checkpoint(folder)
    assert newest is not None
    return read_state(newest)


def workers() -> list[int]:
    """Return the processes that multiprocessing has spawned for this one, those that start included."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            is_worker = b"spawn_main" in (stat.parent / "cmdline").read_bytes()
            if is_worker and int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(stat.parent.name))
    return found


@pytest.mark.faults
@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
def test_workers_killed_at_random_moments_are_noticed_and_replaced_and_the_run_solves(tmp_path: Path) -> None:
    rng, kills, lines, stop = random.Random(0), list[float](), Lines(), threading.Event()

    def kill() -> None:
        while not stop.wait(rng.uniform(0.0, 0.6)) and len(kills) < MOMENTS:
            if found := workers():
                kills.append(time.monotonic())
                os.kill(rng.choice(found), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        result = limelight.train(
            "CartPole-v1", algo="a3c", num_workers=2, run_dir=str(tmp_path / "r"), total_timesteps=3_000_000,
            max_worker_restarts=1_000, quiet=True, tensorboard=False, report_every=0, eval_every=20_000,
            stop_at_return=475.0, loggers=[lines],
        )  # fmt: skip
    finally:
        stop.set()
        killer.join()
    noticed = [at for at, text in lines.messages if "exited: killed by SIGKILL" in text]
    assert len(noticed) > 3
    assert lines.steps == sorted(lines.steps)
    assert result.status == "reached_return"
    assert all(np.isfinite(p.detach().numpy()).all() for p in result.agent.model.parameters())


@pytest.mark.parametrize("backend", ["sync", "vector"])
@pytest.mark.parametrize("num_envs", [1, 4])
def test_the_same_seed_gives_the_same_run_on_a_busy_machine(backend: str, num_envs: int, tmp_path: Path) -> None:
    settings = {**QUICK, "algo": "a2c", "backend": backend, "num_envs": num_envs, "total_timesteps": 2_000}
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        limelight.train("CartPole-v1", run_dir=str(tmp_path / "busy"), **settings)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    limelight.train("CartPole-v1", run_dir=str(tmp_path / "idle"), **settings)
    one, two = state_of(tmp_path / "busy"), state_of(tmp_path / "idle")
    for state in (one, two):
        state["training"]["runner"].pop("seconds")
        state.pop("config")
    np.testing.assert_equal(one, two)


KINDS: dict[str, dict[str, Any]] = {
    "a2c": {"algo": "a2c", "num_steps": 5},
    "a2c, recurrent": {"algo": "a2c", "num_steps": 5, "core": "gru", "core_size": 8},
    "ppo": {"algo": "ppo", "num_steps": 16, "num_epochs": 2, "num_minibatches": 2},
    "stream-ac": {"algo": "stream-ac", "num_steps": 1},
}


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_run_in_processes(kind: str, tmp_path: Path) -> None:
    """As processes take turns in another order each time, this also is the test of an order that changes nothing."""
    num_envs = 1 if kind == "stream-ac" else 2
    settings = {**QUICK, **KINDS[kind], "backend": "async", "num_envs": num_envs, "total_timesteps": 600}
    for name in ("one", "two"):
        limelight.train("CartPole-v1", run_dir=str(tmp_path / name), **settings)
    limelight.train("CartPole-v1", run_dir=str(tmp_path / "sync"), **{**settings, "backend": "sync"})
    one, two, sync = (state_of(tmp_path / name)["params"] for name in ("one", "two", "sync"))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, sync)


@pytest.mark.parametrize("backend", ["sync", pytest.param("vector", marks=pytest.mark.faults)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_run_of_every_algorithm(kind: str, backend: str, tmp_path: Path) -> None:
    num_envs = 1 if kind == "stream-ac" else 3
    settings = {**QUICK, **KINDS[kind], "backend": backend, "num_envs": num_envs, "total_timesteps": 300}
    for name in ("one", "two", "other"):
        seed = int(name == "other")
        limelight.train("CartPole-v1", run_dir=str(tmp_path / name), **{**settings, "seed": seed})
    one, two, other = (state_of(tmp_path / name)["params"] for name in ("one", "two", "other"))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


@pytest.mark.faults
@pytest.mark.parametrize("backend", ["ale", "envpool"])
def test_the_same_seed_gives_the_same_run_of_a_game(backend: str, tmp_path: Path) -> None:
    """Both step several games in threads of C++."""
    pytest.importorskip("ale_py" if backend == "ale" else "envpool")
    settings = {**QUICK, "algo": "a2c", "backend": backend, "num_envs": 2, "num_steps": 5, "total_timesteps": 200}
    for name in ("one", "two"):
        limelight.train("ALE/Pong-v5", run_dir=str(tmp_path / name), **settings)
    one, two = (state_of(tmp_path / name)["params"] for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("before", "after"), [(3, 2), (2, 3)])
@pytest.mark.parametrize("algo", ["a2c", "a3c"])
def test_a_run_on_ray_resumes_with_other_workers_and_says_so(
    algo: str,
    before: int,
    after: int,
    tmp_path: Path,
    fake_ray: FakeRay,  # noqa: F811
) -> None:
    settings = {**QUICK, "algo": algo, "runner": "ray", "total_timesteps": 1_000}
    limelight.train("CartPole-v1", run_dir=str(tmp_path / "r"), num_workers=before, **settings)
    saved, lines = state_of(tmp_path / "r")["training"], Lines()
    limelight.resume(tmp_path / "r", num_workers=after, total_timesteps=2_000, quiet=True, loggers=[lines])
    (resumed,) = [text for _, text in lines.messages if text.startswith("resumed at step")]
    assert f"num_workers was {before}, so it does not repeat exactly" in resumed
    new = state_of(tmp_path / "r")["training"]
    assert new["runner"]["num_steps"] >= 2_000 > saved["runner"]["num_steps"] >= 1_000
    assert new["runner"]["version"] > saved["runner"]["version"]
    assert new["runner"]["moments"]["observations"]["count"] > saved["runner"]["moments"]["observations"]["count"]
    assert new["episodes"]["count"] > saved["episodes"]["count"]
    assert len(new["runner"]["workers"]) == after


def test_a_run_goes_on_with_another_backend_and_says_so(tmp_path: Path) -> None:
    settings = {**QUICK, "algo": "a2c", "total_timesteps": 1_000, "eval_every": 500, "eval_episodes": 2}
    limelight.train("CartPole-v1", run_dir=str(tmp_path / "r"), **settings)
    saved, lines = state_of(tmp_path / "r"), Lines()
    limelight.resume(tmp_path / "r", backend="vector", total_timesteps=2_000, quiet=True, loggers=[lines])
    (resumed,) = [text for _, text in lines.messages if text.startswith("resumed at step")]
    assert "backend was sync, so it does not repeat exactly" in resumed
    new = state_of(tmp_path / "r")
    assert new["training"]["runner"]["num_steps"] >= 2_000
    assert new["training"]["evaluator"]["best_return"] >= saved["training"]["evaluator"]["best_return"]
    assert new["training"]["runner"]["actor"]["learner"]["num_updates"] > 50


def test_signal_handlers_are_as_before_after_every_end(tmp_path: Path) -> None:
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGURG]
    before = [signal.getsignal(number) for number in numbers]

    class Ends:
        def __init__(self, how: str) -> None:
            self.how = how

        def on_rollout(self, run: Any) -> None:
            if self.how == "raise":
                raise ZeroDivisionError
            if self.how in ("SIGINT", "SIGTERM"):
                os.kill(os.getpid(), getattr(signal, self.how))

    for how in ("complete", "raise", "SIGINT", "SIGTERM"):
        settings = {**QUICK, "algo": "a2c", "total_timesteps": 300, "step_timeout": 20.0, "callbacks": [Ends(how)]}
        with contextlib.suppress(limelight.errors.LimelightError):
            result = limelight.train("CartPole-v1", run_dir=str(tmp_path / how), **settings)
            assert result.status == ("completed" if how == "complete" else "interrupted")
        assert [signal.getsignal(number) for number in numbers] == before
        assert latest_checkpoint(tmp_path / how) is not None
