"""Failures of Ray itself, with the stand-in: memory, the object store, the cluster, and workers that do not answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from ray.exceptions import ObjectStoreFullError, OutOfMemoryError

import limelight
from helpers.fake_ray import FakeRay, Ref, fake_ray  # noqa: F401  # a fixture
from helpers.manual_workers import draw_no_report
from limelight.errors import WorkerError
from limelight.runners.ray import actors
from limelight.runners.ray import runner as ray_runner
from limelight.runners.ray.actors import PooledWorker, late_notes
from limelight.runners.ray.cluster_watch import ClusterWatch, Watched
from limelight.runners.worker_slots import WorkerSlot
from limelight.runs.checkpoint import latest_checkpoint, read_state

QUICK: dict[str, Any] = {
    "quiet": True, "tensorboard": False, "backend": "sync", "preset": "plain", "num_envs": 2, "num_steps": 5,
    "hidden_sizes": (8,), "eval_every": 0, "final_episodes": 0, "report_every": 0, "log_every": 100,
    "runner": "ray", "num_workers": 2, "total_timesteps": 1_000,
}  # fmt: skip
KINDS = [("a2c", "gradients"), ("a3c", "gradients"), ("a3c", "rollouts")]
KILLED = OutOfMemoryError("Task was killed due to the node running low on memory.\nMemory on the node: 23.1GB / 24GB")


class Lines:
    """A logger that keeps messages and the last row."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.row: dict[str, float] = {}

    def log(self, step: int, seconds: float, metrics: Any) -> None:
        self.row |= metrics

    def episodes(self, *args: Any) -> None: ...
    def message(self, text: str) -> None:
        self.messages.append(text)

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)


def fail_rollouts(fake: FakeRay, monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], bool], error: Any) -> None:
    """Let the n-th rollout fail with Ray's error where ``fails(n)``."""
    rollouts = 0

    def call(name: str, method: Callable[..., Any], args: tuple[Any, ...]) -> Ref:
        nonlocal rollouts
        rollouts += name == "collect_rollout"
        if name == "collect_rollout" and fails(rollouts):
            return Ref(error=error)
        return FakeRay.call(fake, name, method, args)

    monkeypatch.setattr(fake, "call", call)


def steps_saved(folder: Path) -> int:
    newest = latest_checkpoint(folder)
    assert newest is not None
    limelight.load(folder, "last")
    return int(read_state(newest)["training"]["runner"]["num_steps"])


@pytest.mark.parametrize(("algo", "output"), KINDS)
def test_a_worker_that_was_out_of_memory_is_named_counted_and_replaced(
    algo: str,
    output: str,
    tmp_path: Path,
    fake_ray: FakeRay,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_rollouts(fake_ray, monkeypatch, lambda number: number in (6, 20), KILLED)
    lines = Lines()
    limelight.train(algo=algo, worker_output=output, run_dir=str(tmp_path / "r"), loggers=[lines], **QUICK)
    told = [line for line in lines.messages if "exited" in line]
    assert len(told) == 2
    assert "exited: its machine ran out of memory, and Ray ended it (Task was killed due to the node" in told[0]
    assert "(num_envs) or shorter rollouts (num_steps) need less\nrestarted in 0.1 s" in told[0]
    assert lines.row["async/worker_restarts"] == 2
    assert steps_saved(tmp_path / "r") >= 1_000


@pytest.mark.parametrize(("algo", "output"), KINDS)
def test_workers_that_are_out_of_memory_again_and_again_end_the_run_with_a_checkpoint(
    algo: str,
    output: str,
    tmp_path: Path,
    fake_ray: FakeRay,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_rollouts(fake_ray, monkeypatch, lambda number: number > 8, KILLED)
    settings = {**QUICK, "max_worker_restarts": 2, "worker_output": output}
    with pytest.raises(WorkerError, match="ran out of memory") as error:
        limelight.train(algo=algo, run_dir=str(tmp_path / "r"), **settings)
    assert str(error.value).endswith("max_worker_restarts = 2 are used up")
    assert steps_saved(tmp_path / "r") > 0


@pytest.mark.parametrize(("algo", "output"), KINDS)
def test_a_full_object_store_ends_the_run_with_a_checkpoint(
    algo: str,
    output: str,
    tmp_path: Path,
    fake_ray: FakeRay,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def put(value: Any) -> Ref:
        if len(fake_ray.puts) >= 8:
            raise ObjectStoreFullError("the store has 0 bytes left")
        return FakeRay.put(fake_ray, value)

    monkeypatch.setattr(fake_ray, "put", put)
    with pytest.raises(WorkerError, match=r"Ray's object store does not take new parameters: .*the store has 0 bytes"):
        limelight.train(algo=algo, worker_output=output, run_dir=str(tmp_path / "r"), **QUICK)
    assert steps_saved(tmp_path / "r") > 0


class LoseCluster:
    """A callback after whose rollouts the cluster is lost."""

    def __init__(self, fake: FakeRay, rollouts: int) -> None:
        self.fake = fake
        self.left = rollouts

    def on_rollout(self, run: Any) -> None:
        self.left -= 1
        if self.left == 0:
            self.fake.calls.clear()
            self.fake.watch._lose(Watched("the head", ("127.0.0.1", 1), 40.0), 40.0)


@pytest.mark.parametrize(("algo", "output"), KINDS)
def test_a_cluster_that_is_lost_is_not_called_again_and_the_run_resumes_elsewhere(
    algo: str,
    output: str,
    tmp_path: Path,
    fake_ray: FakeRay,  # noqa: F811
) -> None:
    settings = {**QUICK, "total_timesteps": 100_000, "checkpoint_every": 0, "worker_output": output}
    with pytest.raises(WorkerError, match="the Ray cluster is lost: the head does not answer for 40 s") as error:
        limelight.train(algo=algo, run_dir=str(tmp_path / "r"), callbacks=[LoseCluster(fake_ray, 2)], **settings)
    assert error.value.run_dir == tmp_path / "r"
    assert fake_ray.calls == []  # neither for states nor to close
    saved = steps_saved(tmp_path / "r")
    assert 0 < saved < 100_000
    fake_ray.watch = ClusterWatch(())
    resumed = limelight.resume(tmp_path / "r", quiet=True, total_timesteps=saved + 200)
    assert resumed.status == "completed"
    assert steps_saved(tmp_path / "r") >= saved + 200


def test_a_failure_of_a_cluster_that_is_lost_is_none_of_its_worker(
    tmp_path: Path,
    fake_ray: FakeRay,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_rollouts(fake_ray, monkeypatch, lambda number: number > 8, KILLED)
    nothing = ClusterWatch(())
    nothing.processes = (Watched("the raylet", ("127.0.0.1", 1), 0.0),)
    fake_ray.watch = nothing
    lines = Lines()
    with pytest.raises(WorkerError, match="the Ray cluster is lost: the raylet does not answer"):
        limelight.train(algo="a3c", run_dir=str(tmp_path / "r"), loggers=[lines], **QUICK)
    assert not any("exited" in line for line in lines.messages)


class StopAtStart:
    """A callback that stops a run before its first step."""

    def on_start(self, run: Any) -> bool:
        return False


def test_a_run_that_is_resumed_without_room_for_a_worker_can_be_stopped(
    tmp_path: Path,
    fake_ray: FakeRay,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limelight.train(algo="a2c", run_dir=str(tmp_path / "r"), **QUICK)
    saved, calls = steps_saved(tmp_path / "r"), 0

    def wait(refs: Any, num_returns: int, timeout: float) -> Any:
        nonlocal calls
        calls += 1
        assert calls < 1_000
        time.sleep(min(timeout, 0.01))
        return [], list(refs)

    monkeypatch.setattr(fake_ray, "wait", wait)
    monkeypatch.setattr(ray_runner, "START_TIMEOUT", 0.1)
    settings = {"quiet": True, "total_timesteps": saved + 1_000}
    resumed = limelight.resume(tmp_path / "r", callbacks=[StopAtStart()], **settings)
    assert resumed.status == "stopped"
    assert steps_saved(tmp_path / "r") == saved


def test_a_worker_that_does_not_answer_is_noted_once(
    fake_ray: FakeRay,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late, slow, idle = (PooledWorker(WorkerSlot(index)) for index in range(3))
    late.pending = slow.pending = 1
    late.asked_at = slow.asked_at = idle.asked_at = time.monotonic() - actors.NOTE_AFTER - 1
    answered, unanswered = Ref(), Ref()
    monkeypatch.setattr(fake_ray, "wait", lambda refs, timeout: ([ref for ref in refs if ref is answered], []))
    pending = {unanswered: late, answered: slow}
    workers = [late, slow, idle]
    assert late_notes(workers, pending) == [
        "worker 0 has not answered for 31 s; step_timeout ends and names a step that hangs"
    ]
    assert late_notes(workers, pending) == []
