"""One worker's turn, pull → collect → gradients → push, by hand: what moves, what is counted, what is shared."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.faulty_envs import HugeReward
from helpers.manual_workers import a3c, assert_same, worker_group
from limelight.algo.normalization import ObservationNormalizer, no_moments
from limelight.errors import NonFiniteError
from limelight.runners.processes.shared import Command, Control
from limelight.runners.processes.worker import Ready, Report, StateReply, WorkerSpec
from limelight.runners.processes.worker import _run as run_here
from limelight.runners.worker_metrics import Counter


@pytest.mark.parametrize("settings", [{}, {"activation": "silu"}], ids=["written-out", "autograd"])
def test_gradients_do_not_accumulate(settings: dict[str, Any]) -> None:
    with worker_group(a3c(**settings)) as group:
        learner = group.workers[0].actor_learner.learner
        group.workers[0].pull()
        rollout = group.workers[0].actor_learner.collect()
        learner.gradients(rollout)
        first = learner.flat.grads.clone()
        learner.gradients(rollout)
        assert first.abs().max() > 0
        assert torch.equal(learner.flat.grads, first)


def test_what_is_pushed_is_the_gradient_at_the_pulled_parameters() -> None:
    config = a3c(num_workers=2, max_grad_norm=None, lr_schedule="constant", optimizer_statistics="per_worker")
    with worker_group(config) as group:
        one, other = group.workers
        pulled = group.shared.train_state(0).params.clone()
        version = one.pull()
        rollout = one.actor_learner.collect()
        other.update()  # moves what is shared in the meantime
        one.actor_learner.learner.gradients(rollout)
        grads = one.actor_learner.learner.flat.grads.clone()
        assert torch.equal(one.actor_learner.learner.flat.params, pulled)
        before = group.shared.train_state(0).params.clone()
        assert not torch.equal(before, pulled)
        one.push(rollout, version)
        second_moment = (1 - config.optim.rms_alpha) * grads**2
        expected = before - config.optim.learning_rate * grads / (second_moment.sqrt() + config.optim.optim_eps)
        torch.testing.assert_close(group.shared.train_state(0).params, expected, rtol=0, atol=1e-7)
        assert torch.equal(one.actor_learner.learner.flat.grads, grads)
        assert torch.equal(one.actor_learner.learner.flat.params, pulled)
        one.pull()
        assert torch.equal(one.actor_learner.learner.flat.params, group.shared.train_state(0).params)


def test_the_lag_counts_the_updates_of_others_between_pull_and_push() -> None:
    with worker_group(a3c(num_workers=3)) as group:
        a, b, c = group.workers
        for _ in range(4):
            a.update(want_metrics=False)
        assert (a.lag_sum, a.lag_max) == (0, 0)  # nobody else was there
        version = a.pull()
        rollout = a.actor_learner.collect()
        a.actor_learner.learner.gradients(rollout)
        b.update(want_metrics=False)
        late = b.pull()
        c.update(want_metrics=False)
        b_rollout = b.actor_learner.collect()
        b.actor_learner.learner.gradients(b_rollout)
        b.push(b_rollout, late)
        a.push(rollout, version)
        assert (a.lag_sum, a.lag_max) == (3, 3)
        assert (b.lag_sum, b.lag_max) == (1, 1)
        assert (c.lag_sum, c.lag_max) == (0, 0)
        a.report(7)
        (report,) = a.channel.sent  # type: ignore[attr-defined]
        assert isinstance(report, Report)
        assert (report.number, report.updates, report.lag_sum, report.lag_max) == (7, 5, 3, 3)
        assert (a.recent_updates, a.lag_sum, a.lag_max) == (0, 0, 0)


def test_steps_and_updates_are_counted_for_each_worker() -> None:
    with worker_group(a3c(num_workers=2)) as group:
        turns, steps = [3, 5], []
        for worker, n in zip(group.workers, turns, strict=True):
            before = int(worker.steps.sum())
            for _ in range(n):
                worker.update()
            steps.append(int(worker.steps.sum()) - before)
        counters = group.shared.arrays["counters"]
        assert counters[:2, Counter.UPDATES].tolist() == turns
        assert counters[:2, Counter.STEPS].tolist() == steps
        assert [w.actor_learner.learner.num_updates for w in group.workers] == turns
        assert not counters[2].any()


def test_a_gradient_that_is_not_finite_is_skipped_and_counted_until_it_lasts() -> None:
    with worker_group(a3c(env_id="helpers.faulty_envs:HugeReward"), HugeReward) as group, np.errstate(all="ignore"):
        (worker,) = group.workers
        before = group.shared.train_state(0).get_state()
        for _ in range(99):
            worker.update()
        assert_same(group.shared.train_state(0).get_state(), before)
        counters = group.shared.arrays["counters"][0]
        assert counters[Counter.SKIPPED] == worker.skipped_in_a_row == 99
        assert counters[Counter.UPDATES] == 0
        assert counters[Counter.STEPS] > 0
        with pytest.raises(NonFiniteError, match=r"^learning_rate = .* no longer finite") as info:
            worker.update()
        assert "\n" not in str(info.value)
        assert counters[Counter.SKIPPED] == 100


def test_one_finite_gradient_is_enough_to_go_on() -> None:
    with worker_group(a3c()) as group:
        (worker,) = group.workers
        worker.skipped_in_a_row = 99
        worker.update()
        assert worker.skipped_in_a_row == 0
        assert group.shared.arrays["counters"][0, Counter.UPDATES] == 1


def test_a_worker_stops_at_the_limit_rests_when_told_and_sends_what_a_checkpoint_keeps() -> None:
    with worker_group(a3c(total_timesteps=100)) as group:
        (worker,), control = group.workers, group.shared.arrays["control"]
        told: list[int] = []

        def nap(_: float) -> None:
            """Called where there is nothing to do: first at the limit, then at rest."""
            told.append(int(worker.steps.sum()))
            if len(told) == 1:
                control[Control.COMMAND], control[Control.STATES_WANTED] = Command.WAIT, 5
            else:
                control[Control.COMMAND] = Command.STOP

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("limelight.runners.processes.worker.time.sleep", nap)
            worker.work()
        assert 100 <= told[0] < 100 + 10
        assert told[0] == told[1]
        report, rest = worker.channel.sent  # type: ignore[attr-defined]
        assert isinstance(report, Report)
        assert isinstance(rest, StateReply)
        assert rest.number == 5
        assert report.updates == rest.state["learner"]["num_updates"] == group.shared.arrays["counters"][0, 1]
        assert sum(episode.length for episode in report.episodes) <= told[0]
        assert len(report.episodes) > 0


def test_a_worker_can_be_asked_for_its_state_as_soon_as_it_says_that_it_is_ready() -> None:
    config = a3c()
    with worker_group(config) as group:
        control = group.shared.arrays["control"]
        sent: list[object] = []

        def send(message: object) -> None:
            sent.append(message)
            if isinstance(message, Ready):
                control[Control.COMMAND], control[Control.STATES_WANTED] = Command.WAIT, 1
            elif isinstance(message, StateReply):
                control[Control.COMMAND] = Command.STOP

        naps = []

        def give_up(seconds: float) -> None:
            naps.append(seconds)
            if len(naps) > 3:
                control[Control.COMMAND] = Command.STOP

        channel = cast(Any, SimpleNamespace(send=send))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("limelight.runners.processes.worker.time.sleep", give_up)
            run_here(WorkerSpec(0, 0, config, None, 0), None, group.shared, channel)
        assert [type(message) for message in sent] == [Ready, Report, StateReply]


# --------------------------------------------------------------------------- what is seen is shared


@given(data=st.data(), num_normalizers=st.integers(1, 4))
def test_shared_moments_are_those_of_all_observations(data: st.DataObject, num_normalizers: int) -> None:
    normalizers = [ObservationNormalizer((2,)) for _ in range(num_normalizers)]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    common, seen = no_moments((2,)), [np.zeros((0, 2))]
    acts = st.tuples(st.integers(0, num_normalizers - 1), st.none() | st.integers(0, 5))
    for which, size in data.draw(st.lists(acts, max_size=25)):
        if size is None:
            common = normalizers[which].share(common)
        else:
            batch = rng.normal(rng.normal(0, 100), 3, (size, 2))
            seen.append(batch)
            normalizers[which].update(batch)
    for normalizer in [*normalizers, *normalizers]:
        common = normalizer.share(common)
    everything = np.concatenate(seen)
    assert common.size == len(everything)
    for normalizer in normalizers:
        assert_same(normalizer.moments, common)
        assert normalizer.seen.size == 0
    if len(everything):
        np.testing.assert_allclose(common.mean, everything.mean(0), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(common.var, everything.var(0), rtol=1e-7, atol=1e-9)


def test_workers_normalize_by_what_all_of_them_have_seen() -> None:
    with worker_group(a3c(num_workers=2, normalize_obs=True)) as group:
        seen: list[np.ndarray] = []

        def remember(obs: np.ndarray) -> None:
            seen.append(obs.copy())

        normalizers = []
        for worker in group.workers:
            normalizer = worker.actor_learner.normalizer
            assert normalizer is not None
            assert (normalizer.moments.size, normalizer.seen) == (2, None)  # of the first reset, and not shared yet
            seen.append(np.stack([env.unwrapped.state for env in worker.actor_learner.collector.envs.envs]))  # type: ignore[attr-defined]
            update = normalizer.update
            normalizer.update = lambda obs, update=update: (remember(obs), update(obs))  # type: ignore[method-assign, assignment, misc]
            normalizers.append(normalizer)
        for turn in (0, 1, 1, 0, 1, 0, 0):
            group.workers[turn].update(want_metrics=False)
        for worker in (*group.workers, group.workers[0]):
            worker.pull()
        assert_same(normalizers[0].moments, normalizers[1].moments)
        assert_same(normalizers[0].moments, group.shared.read_moments("observations"))
        everything = np.concatenate(seen)
        assert normalizers[0].moments.size == len(everything) > 70
        np.testing.assert_allclose(normalizers[0].moments.mean, everything.mean(0), atol=1e-6)
        np.testing.assert_allclose(normalizers[0].moments.var, everything.var(0), atol=1e-6)


# --------------------------------------------------------------------------- a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("critic", ["shared", "target"])
def test_a_model_on_the_gpu_learns_for_a_vector_on_the_cpu(critic: str) -> None:
    with worker_group(a3c(num_workers=2, device="cuda", critic=critic)) as group:
        train_state = group.shared.train_state(0)
        before = train_state.params.clone()
        for worker in (*group.workers, *group.workers):
            worker.update()
            assert worker.actor_learner.learner.flat.params.device.type == "cuda"
        assert train_state.params.device.type == "cpu"
        assert (train_state.params - before).abs().max() > 1e-4
        group.workers[0].pull()
        assert torch.equal(group.workers[0].actor_learner.learner.flat.params.cpu(), train_state.params)
