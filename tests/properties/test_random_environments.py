"""Random environments, right and wrong ones: a run trains on what it was given, or ends in an error of one line."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Space
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import limelight
from helpers.manual_workers import draw_no_report
from helpers.random_envs import Plan, plans
from limelight.algo.collector import RolloutCollector
from limelight.algo.rollout import Rollout
from limelight.errors import LimelightError
from limelight.settings.io import all_settings
from limelight.spaces.packed import walk

SECONDS = 60
SETTINGS_EXCLUDE = re.compile(r"backend = vector: |num_minibatches = |normalize_obs|normalize_advantages = batch")
"""Errors of combinations of settings that the strategy below may choose."""
SETTINGS = {
    "num_envs": st.integers(1, 3), "num_steps": st.sampled_from((1, 4, 5)),
    "core": st.sampled_from(("feedforward", "gru")),
    "autoreset_mode": st.sampled_from(("next_step", "next_step", "same_step", "disabled")),
    "normalize_obs": st.sampled_from((False, False, True)), "critic": st.sampled_from(("shared", "separate")),
    "algo": st.sampled_from(("a2c", "a2c", "ac", "ppo", "auto")),
    "backend": st.sampled_from(("sync", "auto", "vector")),
    "max_episode_steps": st.sampled_from((None, 3)), "preset": st.sampled_from(("plain", "plain", "plain", "auto")),
}  # fmt: skip
QUICK: dict[str, Any] = {
    "total_timesteps": 60, "hidden_sizes": (4,), "eval_episodes": 1, "final_episodes": 1, "eval_envs": 1,
    "checkpoint_every": 0, "tensorboard": False, "quiet": True, "device": "cpu", "precision": "float32",
}  # fmt: skip


class Hangs(KeyboardInterrupt):
    """A run has taken too long."""


@contextmanager
def limited(seconds: float = SECONDS) -> Iterator[None]:
    """Raise Hangs after so many seconds."""

    def stop(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def open_files() -> set[str]:
    """Return the files, pipes and sockets that this process has open."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
        except OSError:  # the one of listdir
            continue
    return found


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[Any]]:
    """The observations of every rollout that a learner gets, [T+1, B, *shape]."""
    draw_no_report(monkeypatch)
    rollouts: list[NDArray[Any]] = []
    collect = RolloutCollector.collect

    def recorded(self: RolloutCollector, policy: Any) -> Rollout:
        rollout = collect(self, policy)
        rollouts.append(rollout.obs.copy())
        return rollout

    monkeypatch.setattr(RolloutCollector, "collect", recorded)
    return rollouts


def flat(space: Space[Any], obs: Any, dtype: np.dtype[Any]) -> list[Any]:
    """Return the numbers of an observation in the order of the packed vector; floats as the dtype rounds them."""
    numbers: list[Any] = []
    for path, _ in walk(space):
        part = obs
        for key in path:
            part = part[key]
        array = np.asarray(part).reshape(-1)
        numbers += (array.astype(dtype) if dtype.kind == "f" else array).tolist()
    return numbers


def assert_seen(plan: Plan, rollouts: list[NDArray[Any]]) -> None:
    """Every copy's stream of observations, as the learner saw it, is a part of what one copy returned."""
    streams = np.concatenate([*(rollout[:-1] for rollout in rollouts), rollouts[-1][-1:]])
    returned = [[flat(plan.observation_space, obs, streams.dtype) for obs in copy] for copy in plan.log]
    size = next(len(copy[0]) for copy in returned if copy)
    for b in range(streams.shape[1]):
        stream = [row.reshape(-1).tolist()[:size] for row in streams[:, b]]
        places = [(copy, k) for copy in returned for k in range(len(copy) - len(stream) + 1)]
        assert any(copy[k : k + len(stream)] == stream for copy, k in places), (stream[:4], returned[0][:4])


def check_run(plan: Plan, chosen: dict[str, Any], seen: list[NDArray[Any]]) -> str:
    """Train on the environment of ``plan`` and check the outcome; return what it was."""
    seen.clear()
    before, endless = open_files(), plan.length is None and chosen.get("max_episode_steps") is None
    evaluations = {"eval_every": 0, "final_episodes": 0} if endless else {"eval_every": 30}
    with tempfile.TemporaryDirectory() as folder, limited():
        run_dir = Path(folder) / "run"
        try:
            result = limelight.train(plan, run_dir=str(run_dir), **{**QUICK, **evaluations, **chosen})
        except LimelightError as error:
            text = str(error)
            assert "\n" not in text, text
            assert (
                "random_envs:" in text or text.startswith("action space") or text.split(" = ")[0] in all_settings()
            ), text
            assert plan.may_be_refused() or SETTINGS_EXCLUDE.match(text), text
            outcome = f"refused {plan.fault[0] if plan.fault else plan.mask}"
        else:
            assert result.status == "completed"
            agent = result.agent
            assert all(np.isfinite(p.detach().numpy()).all() for p in agent.model.parameters())
            assert not plan.is_refused(chosen.get("max_episode_steps")), "trained on a fault"
            assert plan.actions == [], plan.actions[:1]
            if chosen.get("autoreset_mode") == "next_step" and not chosen.get("normalize_obs"):
                assert_seen(plan, seen)
            outcome = f"trained {plan.fault or plan.mask}"
    assert multiprocessing.active_children() == []
    assert open_files() <= before
    return outcome


RUNS = given(plan=plans(), chosen=st.fixed_dictionaries(SETTINGS))
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=60, suppress_health_check=CHECKS, phases=(Phase.explicit, Phase.generate))
@RUNS
def test_a_random_environment_trains_or_is_refused_in_one_line(
    seen: list[NDArray[Any]], plan: Plan, chosen: dict[str, Any]
) -> None:
    event(check_run(plan, chosen, seen))


@pytest.mark.random
@settings(max_examples=1_000, suppress_health_check=CHECKS, phases=(Phase.explicit, Phase.generate))
@RUNS
def test_a_thousand_random_environments_train_or_are_refused_in_one_line(
    seen: list[NDArray[Any]], plan: Plan, chosen: dict[str, Any]
) -> None:
    event(check_run(plan, chosen, seen))
