"""The Ray runner: requirements, starting, metrics, checkpoints and errors."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.fake_ray import FakeRay, fake_ray  # noqa: F401  # a fixture
from helpers.manual_workers import draw_no_report, quick_config
from helpers.settings import one_line
from limelight.cli import main as cli
from limelight.envs.attributes import Order
from limelight.errors import ConfigError, NonFiniteError, WorkerError
from limelight.runners.base import ENV_STATE_NOT_RESTORED, MAX_CONSECUTIVE_SKIPS
from limelight.runners.ray import pool as ray_pool
from limelight.runners.ray.runner import RayRunner
from limelight.runners.ray.worker import RayWorker
from limelight.runners.worker_metrics import Counter
from limelight.runs.checkpoint import latest_checkpoint, read_state
from limelight.training.run import build, run


def make_runner(algo: str = "a3c", **settings: Any) -> RayRunner:
    runner, _ = build(
        quick_config(algo, **{"runner": "ray", "num_workers": 2, "total_timesteps": 400, **settings}), None
    )
    assert isinstance(runner, RayRunner)
    return runner


def test_without_ray_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(import_module("limelight.training.prepare"), "find_spec", lambda name: None)
    assert cli.main(["train", "CartPole-v1", "--runner", "ray"]) == 2
    errors = capsys.readouterr().err
    assert "runner = ray: Ray is not installed; pip install 'limelight-rl[ray]'" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("algo", ["a2c", "a3c"])
@pytest.mark.parametrize("worker_output", ["gradients", "rollouts"])
def test_metrics_episodes_and_counts(fake_ray: FakeRay, algo: str, worker_output: str) -> None:  # noqa: F811
    runner = make_runner(algo, worker_output=worker_output)
    metrics = runner.advance(400, 60.0)
    assert 400 <= runner.num_steps < 400 + 2 * 2 * 5
    assert {"train/policy_loss", "train/value_loss", "train/entropy", "train/grad_norm"} <= set(metrics)
    assert ("async/policy_lag" in metrics) == (algo == "a3c")
    assert metrics["async/worker_restarts"] == 0
    assert metrics["async/worker_1/updates_per_second"] > 0
    assert runner.counters[:, 0].sum() == runner.num_steps
    episodes = runner.pop_episodes()
    assert {episode.env for episode in episodes} == {0, 1, 2, 3}
    assert runner.pop_episodes() == runner.pop_messages() == []
    runner.close()
    assert [name for name, _ in fake_ray.calls].count("close") == 2


def test_a_run_starts_with_the_workers_that_the_cluster_has_room_for(
    fake_ray: FakeRay,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second worker is never ready: its task never finishes."""
    starts: list[Any] = []
    wait = fake_ray.wait

    def first_only(refs: Any, num_returns: int, timeout: float) -> Any:
        starts.extend(ref for ref in refs if isinstance(ref.value, bool) and ref not in starts)
        done, rest = wait(refs, num_returns, timeout)
        return [ref for ref in done if ref not in starts[1:]], rest

    monkeypatch.setattr(fake_ray, "wait", first_only)
    monkeypatch.setattr(ray_pool, "free_places", lambda workers: 1)
    runner = make_runner("a2c")
    runner.advance(100, 60.0)
    assert runner.num_steps >= 100
    assert [worker.slot.ready for worker in runner.pool.workers] == [True, False]
    (message,) = runner.pop_messages()
    assert message.startswith("1 of 2 workers have started, and the cluster has room for 1 (each: 1 CPUs, 0 GPUs)")
    state = runner.get_state()
    assert [worker is None for worker in state["workers"]] == [False, True]
    starts.clear()
    resumed = make_runner("a2c")
    assert resumed.set_state(state, seed=7) == ENV_STATE_NOT_RESTORED
    assert [worker.slot.restarts for worker in resumed.pool.workers] == [0, 1]  # one without a state gets fresh seeds


def test_a_checkpoint_after_an_error_has_no_worker_states(
    fake_ray: FakeRay,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw_no_report(monkeypatch)
    config = quick_config(
        "a2c", env_id="helpers.ray_envs:Fails", env_kwargs={"how": "nan", "after": 50}, runner="ray", num_workers=1,
        total_timesteps=1000, run_dir=str(tmp_path / "r"),
    )  # fmt: skip
    monkeypatch.setattr(import_module("helpers.ray_envs"), "in_ray_worker", lambda: True)
    with pytest.raises(NonFiniteError, match="observation"):
        run(config, quiet=True)
    newest = latest_checkpoint(tmp_path / "r")
    assert newest is not None
    state = read_state(newest)["training"]["runner"]
    assert state["num_steps"] > 0
    assert state["workers"] == [None]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("worker_output", ["gradients", "rollouts"])
def test_the_learner_is_on_a_gpu_and_workers_are_not(fake_ray: FakeRay, worker_output: str) -> None:  # noqa: F811
    """The stand-in for Ray checks that no tensor is sent."""
    runner = make_runner(device="cuda", worker_output=worker_output)
    runner.advance(400, 60.0)
    assert runner.learner.flat.params.device.type == "cuda"
    assert fake_ray.actors[0].real.actor_learner.learner.flat.params.device.type == "cpu"
    runner.close()


def test_workers_that_fail_to_start_in_a_resumed_run_keep_their_states(
    fake_ray: FakeRay,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = make_runner("a3c")
    runner.advance(100, 60.0)
    state = runner.get_state()
    resumed = make_runner("a3c")
    resumed.set_state(state, seed=7)

    def fails(*args: Any) -> None:
        raise RuntimeError("no license for the simulator")

    monkeypatch.setattr(RayWorker, "start", fails)
    with pytest.raises(WorkerError, match="it failed while starting"):
        resumed.advance(200, 60.0)
    assert None not in resumed.get_state()["workers"]


@pytest.mark.parametrize(("algo", "allowed"), [("a2c", 0), ("a3c", MAX_CONSECUTIVE_SKIPS - 1)])
def test_gradients_that_are_not_finite_are_skipped_until_the_limit(
    fake_ray: FakeRay,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    algo: str,
    allowed: int,
) -> None:
    """Asynchronous: skipped, counted, and after too many in a row the run ends. Synchronous: the first ends it."""
    runner = make_runner(algo, total_timesteps=10_000)
    runner.advance(100, 60.0)
    before, version = runner.learner.flat.params.clone(), runner.version

    def fails(*args: Any) -> None:
        raise NonFiniteError("learning_rate = 1: the gradient is no longer finite")

    monkeypatch.setattr(runner.learner, "apply", fails)
    with pytest.raises(NonFiniteError, match="100 in a row" if allowed else "finite$"):
        runner.advance(10_000, 60.0)
    assert int(runner.counters[:, Counter.SKIPPED].max()) >= allowed // 2
    assert runner._consecutive_skips == allowed + 1
    assert runner.version == version
    assert torch.equal(runner.learner.flat.params, before)


def test_workers_send_the_numbers_of_their_environments(fake_ray: FakeRay) -> None:  # noqa: F811
    runner = make_runner(env_id="helpers.informing_envs:Informs", info_keys=("sum:cost",), total_timesteps=60)
    runner.advance(60, 60.0)
    episodes = runner.pop_episodes()
    runner.close()
    assert {episode.info.numbers["sum:cost"] for episode in episodes} == {3.0}
    assert {episode.info.numbers["is_success"] for episode in episodes} == {0.0, 1.0}


def test_an_order_to_environments_on_other_machines_is_refused_in_one_line(fake_ray: FakeRay) -> None:  # noqa: F811
    runner = make_runner()
    with pytest.raises(ConfigError) as error:
        runner.follow(Order("set_env_attr", "level", 1))
    runner.close()
    assert one_line(error) == "set_env_attr = level: not on Ray; use runner local"
