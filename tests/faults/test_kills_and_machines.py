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
from limelight.runners.worker_slots import RestartPolicy, WorkerSlot
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


class Kills:
    """Kills a worker at random moments, while it starts or trains, and notes when that is noticed."""

    def __init__(self, moments: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.moments = moments
        self.kills: dict[int, float] = {}
        """Process id → time."""
        self.noticed: list[float] = []
        self.starting = 0
        self.stop, self.ready = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._kill)

    def _kill(self) -> None:
        while len(self.kills) < self.moments and not self.stop.wait(self.rng.uniform(0.0, 1.0)):
            if self.rng.random() < 0.5:  # otherwise most moments hit imports
                self.ready.clear()
                self.ready.wait(30.0)
                self.stop.wait(self.rng.uniform(0.0, 1.0))
            if found := [pid for pid in workers() if pid not in self.kills]:
                pid = self.rng.choice(found)
                self.kills[pid] = time.monotonic()
                os.kill(pid, signal.SIGKILL)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Note the time of every exit that the supervisor tells of, and when a worker is ready."""
        handle_exit, mark_ready = RestartPolicy.handle_exit, WorkerSlot.mark_ready

        def noted(policy: RestartPolicy, slot: WorkerSlot, reason: str, *rest: Any) -> str:
            if reason == "killed by SIGKILL":
                self.noticed.append(time.monotonic())
                self.starting += slot.ready_at is None
            return handle_exit(policy, slot, reason, *rest)

        def marked(slot: WorkerSlot) -> None:
            mark_ready(slot)
            self.ready.set()

        monkeypatch.setattr(RestartPolicy, "handle_exit", noted)
        monkeypatch.setattr(WorkerSlot, "mark_ready", marked)
        monkeypatch.setattr("limelight.runners.worker_slots._MAX_DELAY", 1.0)

    def on_evaluation(self, run: Any, result: Any) -> bool:
        """Let the run go on until all kills are done, and it has solved CartPole since."""
        return self.thread.is_alive() or result.mean_return < 475.0

    def end(self) -> None:
        """End killing."""
        self.stop.set()
        self.ready.set()
        self.thread.join()


@pytest.mark.faults
@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
def test_workers_killed_at_random_moments_are_noticed_and_replaced_and_the_run_solves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills, lines = Kills(MOMENTS, seed=0), Lines()
    kills.watch(monkeypatch)
    kills.thread.start()
    try:
        result = limelight.train(
            "CartPole-v1", algo="a3c", num_workers=2, run_dir=str(tmp_path / "r"), total_timesteps=50_000_000,
            max_worker_restarts=1_000, quiet=True, tensorboard=False, report_every=0, eval_every=50_000,
            checkpoint_every=500_000, final_episodes=0, loggers=[lines], callbacks=[kills],
        )  # fmt: skip
    finally:
        kills.end()
    assert result.status == "stopped"  # by the callback: at 475 or more, after the last kill
    assert lines.steps == sorted(lines.steps)
    assert all(np.isfinite(p.detach().numpy()).all() for p in result.agent.model.parameters())
    told = [text for _, text in lines.messages if "exited: killed by SIGKILL" in text]
    assert len(told) == len(kills.noticed) == len(kills.kills) == MOMENTS
    assert 0 < kills.starting < len(kills.noticed)
    delays = [after - before for before, after in zip(sorted(kills.kills.values()), kills.noticed, strict=False)]
    print(f"{len(delays)} kills, {kills.starting} of starting workers, noticed in", np.median(delays), max(delays))
    assert np.median(delays) < 1.0
    assert max(delays) < 3.0


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
