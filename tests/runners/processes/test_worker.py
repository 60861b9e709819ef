"""One update of a worker, pull → collect → gradients → push: parameters, counters, statistics, messages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.faulty_envs import HugeReward
from helpers.manual_workers import Channel, assert_same, quick_config, worker_group
from limelight.algo.normalization import ObservationNormalizer, no_moments
from limelight.envs import guards
from limelight.envs.guards import MOST_IN_A_ROW
from limelight.errors import EnvError, NonFiniteError
from limelight.runners.processes.shared import Command, Control
from limelight.runners.processes.worker import Ready, Report, StateReply, WorkerSpec
from limelight.runners.processes.worker import _run as run_here
from limelight.runners.worker_metrics import Counter


@pytest.mark.parametrize("settings", [{}, {"activation": "silu"}], ids=["written-out", "autograd"])
def test_gradients_do_not_accumulate(settings: dict[str, Any]) -> None:
    with worker_group(quick_config(**settings)) as group:
        learner = group.workers[0].actor_learner.learner
        group.workers[0].pull()
        rollout = group.workers[0].actor_learner.collect()
        learner.gradients(rollout)
        first = learner.flat.grads.clone()
        learner.gradients(rollout)
        assert first.abs().max() > 0
        assert torch.equal(learner.flat.grads, first)


def test_a_push_applies_the_gradient_at_the_pulled_parameters() -> None:
    config = quick_config(num_workers=2, max_grad_norm=None, lr_schedule="constant", optimizer_statistics="per_worker")
    with worker_group(config) as group:
        one, other = group.workers
        pulled = group.shared.train_state(0).params.clone()
        version = one.pull()
        rollout = one.actor_learner.collect()
        other.update()  # changes the shared parameters in the meantime
        one.actor_learner.learner.gradients(rollout)
        grads = one.actor_learner.learner.flat.grads.clone()
        assert torch.equal(one.actor_learner.learner.flat.params, pulled)
        before = group.shared.train_state(0).params.clone()
        assert not torch.equal(before, pulled)
        one.push(version, rollout.episodes_ended)
        second_moment = (1 - config.optim.rms_alpha) * grads**2
        expected = before - config.optim.learning_rate * grads / (second_moment.sqrt() + config.optim.optim_eps)
        torch.testing.assert_close(group.shared.train_state(0).params, expected, rtol=0, atol=1e-7)
        assert torch.equal(one.actor_learner.learner.flat.grads, grads)
        assert torch.equal(one.actor_learner.learner.flat.params, pulled)
        one.pull()
        assert torch.equal(one.actor_learner.learner.flat.params, group.shared.train_state(0).params)


def test_the_lag_counts_the_updates_of_others_between_pull_and_push() -> None:
    with worker_group(quick_config(num_workers=3)) as group:
        a, b, c = group.workers
        for _ in range(4):
            a.update()
        assert (a.lag_sum, a.lag_max) == (0, 0)  # no other worker has updated
        version = a.pull()
        rollout = a.actor_learner.collect()
        a.actor_learner.learner.gradients(rollout)
        b.update()
        late = b.pull()
        c.update()
        b_rollout = b.actor_learner.collect()
        b.actor_learner.learner.gradients(b_rollout)
        b.push(late, b_rollout.episodes_ended)
        a.push(version, rollout.episodes_ended)
        assert (a.lag_sum, a.lag_max) == (3, 3)
        assert (b.lag_sum, b.lag_max) == (1, 1)
        assert (c.lag_sum, c.lag_max) == (0, 0)
        a.report(7)
        (report,) = a.channel.sent  # type: ignore[attr-defined]
        assert isinstance(report, Report)
        assert (report.number, report.updates, report.lag_sum, report.lag_max) == (7, 5, 3, 3)
        assert (a.recent_updates, a.lag_sum, a.lag_max) == (0, 0, 0)


def test_steps_and_updates_are_counted_for_each_worker() -> None:
    with worker_group(quick_config(num_workers=2)) as group:
        num_updates, steps = [3, 5], []
        for worker, n in zip(group.workers, num_updates, strict=True):
            before = int(worker.steps.sum())
            for _ in range(n):
                worker.update()
            steps.append(int(worker.steps.sum()) - before)
        counters = group.shared.arrays["counters"]
        assert counters[:2, Counter.UPDATES].tolist() == num_updates
        assert counters[:2, Counter.STEPS].tolist() == steps
        assert [w.actor_learner.learner.num_updates for w in group.workers] == num_updates
        assert not counters[2].any()


def test_updates_without_a_finite_gradient_are_skipped_and_counted_100_in_a_row_end_the_run() -> None:
    with (
        worker_group(quick_config(env_id="helpers.faulty_envs:HugeReward"), HugeReward) as group,
        np.errstate(all="ignore"),
    ):
        (worker,) = group.workers
        before = group.shared.train_state(0).get_state()
        for _ in range(99):
            worker.update()
        assert_same(group.shared.train_state(0).get_state(), before)
        counters = group.shared.arrays["counters"][0]
        assert counters[Counter.SKIPPED] == worker.skips.in_a_row == 99
        assert counters[Counter.UPDATES] == 0
        assert counters[Counter.STEPS] > 0
        with pytest.raises(NonFiniteError, match=r"^learning_rate = .* no longer finite") as info:
            worker.update()
        assert "\n" not in str(info.value)
        assert counters[Counter.SKIPPED] == 100


def test_a_finite_gradient_resets_the_count_of_skipped_updates() -> None:
    with worker_group(quick_config()) as group:
        (worker,) = group.workers
        worker.skips.in_a_row = 99
        worker.update()
        assert worker.skips.in_a_row == 0
        assert group.shared.arrays["counters"][0, Counter.UPDATES] == 1


def test_a_worker_stops_at_the_limit_and_pauses_to_send_its_state() -> None:
    with worker_group(quick_config(total_timesteps=100)) as group:
        (worker,), control = group.workers, group.shared.arrays["control"]
        steps: list[int] = []

        def sleep(_: float) -> None:
            """Replaces the sleep of an idle worker: first at the limit, then in the pause."""
            steps.append(int(worker.steps.sum()))
            if len(steps) == 1:
                control[Control.COMMAND], control[Control.STATES_WANTED] = Command.PAUSE, 5
            else:
                control[Control.COMMAND] = Command.STOP

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("limelight.runners.processes.worker.time.sleep", sleep)
            worker.work()
        assert 100 <= steps[0] < 100 + 10
        assert steps[0] == steps[1]
        report, reply = worker.channel.sent  # type: ignore[attr-defined]
        assert isinstance(report, Report)
        assert isinstance(reply, StateReply)
        assert reply.number == 5
        assert report.updates == reply.state["learner"]["num_updates"] == group.shared.arrays["counters"][0, 1]
        assert sum(episode.length for episode in report.episodes) <= steps[0]
        assert len(report.episodes) > 0
        # An episode has the step count at the push of its rollout.
        assert all(episode.length <= episode.step <= steps[0] for episode in report.episodes)
        assert report.episodes == sorted(report.episodes, key=lambda episode: episode.step)


def test_a_worker_answers_a_request_for_its_state_that_comes_when_it_is_ready() -> None:
    config = quick_config()
    with worker_group(config) as group:
        control = group.shared.arrays["control"]
        sent: list[object] = []

        def send(message: object) -> None:
            sent.append(message)
            if isinstance(message, Ready):
                control[Control.COMMAND], control[Control.STATES_WANTED] = Command.PAUSE, 1
            elif isinstance(message, StateReply):
                control[Control.COMMAND] = Command.STOP

        sleeps = []

        def sleep(seconds: float) -> None:
            sleeps.append(seconds)
            if len(sleeps) > 3:
                control[Control.COMMAND] = Command.STOP

        channel = cast(Any, SimpleNamespace(send=send))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("limelight.runners.processes.worker.time.sleep", sleep)
            run_here(WorkerSpec(0, 0, config, None, 0), None, group.shared, channel)
        assert [type(message) for message in sent] == [Ready, Report, StateReply]


def test_environments_replaced_before_an_error_are_reported_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The eleventh failure in a row ends the worker."""
    monkeypatch.setattr(guards, "FIRST_DELAY", 0.0)
    config = quick_config(env_id="helpers.breaking_envs:Breaking", env_kwargs={"step": 1.0}, on_env_error="restart")
    channel = Channel()
    with worker_group(config) as group, pytest.raises(EnvError, match="so the run ends"):
        run_here(WorkerSpec(0, 0, config, None, 0), None, group.shared, cast(Any, channel))
    ready, *_, last = channel.sent
    assert isinstance(ready, Ready)
    assert isinstance(last, Report)
    told = sum(len(report.restarts) for report in channel.sent[1:])
    assert told == int(group.shared.arrays["counters"][0, Counter.ENV_RESTARTS]) >= MOST_IN_A_ROW


# --------------------------------------------------------------------------- shared statistics


@given(data=st.data(), num_normalizers=st.integers(1, 4))
def test_shared_statistics_are_those_of_all_observations(data: st.DataObject, num_normalizers: int) -> None:
    normalizers = [ObservationNormalizer((2,)) for _ in range(num_normalizers)]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    common, seen = no_moments((2,)), [np.zeros((0, 2))]
    acts = st.tuples(st.integers(0, num_normalizers - 1), st.none() | st.integers(0, 5))
    for which, size in data.draw(st.lists(acts, max_size=25)):
        if size is None:
            common = normalizers[which].statistics.share(common)
        else:
            batch = rng.normal(rng.normal(0, 100), 3, (size, 2))
            seen.append(batch)
            normalizers[which].update(batch)
    for normalizer in [*normalizers, *normalizers]:
        common = normalizer.statistics.share(common)
    everything = np.concatenate(seen)
    assert common.size == len(everything)
    for normalizer in normalizers:
        assert_same(normalizer.statistics.moments, common)
        assert normalizer.statistics._pending.size == 0
    if len(everything):
        np.testing.assert_allclose(common.mean, everything.mean(0), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(common.var, everything.var(0), rtol=1e-7, atol=1e-9)


def test_workers_normalize_by_the_observations_of_all_workers() -> None:
    with worker_group(quick_config(num_workers=2, normalize_obs=True)) as group:
        seen: list[np.ndarray] = []

        def remember(obs: np.ndarray) -> None:
            seen.append(obs.copy())

        normalizers = []
        for worker in group.workers:
            normalizer = worker.actor_learner.normalizer
            assert normalizer is not None
            assert (normalizer.statistics.moments.size, normalizer.statistics._pending) == (
                2,
                None,
            )  # of the first reset, not shared yet
            seen.append(np.stack([env.unwrapped.state for env in worker.actor_learner.collector.envs.envs]))  # type: ignore[attr-defined]
            update = normalizer.update
            normalizer.update = lambda obs, update=update: (remember(obs), update(obs))  # type: ignore[method-assign, assignment, misc]
            normalizers.append(normalizer)
        for index in (0, 1, 1, 0, 1, 0, 0):
            group.workers[index].update()
        for worker in (*group.workers, group.workers[0]):
            worker.pull()
        assert_same(normalizers[0].statistics.moments, normalizers[1].statistics.moments)
        assert_same(normalizers[0].statistics.moments, group.shared.read_statistics("observations"))
        everything = np.concatenate(seen)
        assert normalizers[0].statistics.moments.size == len(everything) > 70
        np.testing.assert_allclose(normalizers[0].statistics.moments.mean, everything.mean(0), atol=1e-6)
        np.testing.assert_allclose(normalizers[0].statistics.moments.var, everything.var(0), atol=1e-6)


# --------------------------------------------------------------------------- a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("critic", ["shared", "target"])
def test_a_model_on_the_gpu_updates_parameters_on_the_cpu(critic: str) -> None:
    with worker_group(quick_config(num_workers=2, device="cuda", critic=critic)) as group:
        train_state = group.shared.train_state(0)
        before = train_state.params.clone()
        for worker in (*group.workers, *group.workers):
            worker.update()
            assert worker.actor_learner.learner.flat.params.device.type == "cuda"
        assert train_state.params.device.type == "cpu"
        assert (train_state.params - before).abs().max() > 1e-4
        group.workers[0].pull()
        assert torch.equal(group.workers[0].actor_learner.learner.flat.params.cpu(), train_state.params)
