"""Environments in processes of their own: what breaks there is replaced, whether Python raises or the process exits."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.breaking_envs import Breaking, NoLicense, RefusesInProcesses
from limelight.envs.attributes import Order
from limelight.envs.base import EnvBackend
from limelight.envs.guards import pop_restarts
from limelight.envs.make import make_envs
from limelight.envs.stalls import watched
from limelight.errors import EnvError

ACTIONS = np.ones(2, np.int64)


@pytest.mark.faults
@pytest.mark.parametrize("mode", ["next_step", "same_step"])
@pytest.mark.parametrize("how", ["kill", "abort", "ValueError", "hang"])
def test_what_breaks_in_a_process_is_truncated_at_its_last_observation(how: str, mode: str) -> None:
    envs = make_envs(
        Breaking, 2, backend="async", on_env_error="restart", autoreset_mode=mode, step_timeout=1.0,
        env_kwargs={"how": how, "step": 0.02},
    )  # fmt: skip
    try:
        last, messages, failures = envs.reset(5).copy(), list[str](), 0
        for _ in range(150):
            step = envs.step(ACTIONS)
            failed = np.zeros(2, bool) if step.failed is None else step.failed
            assert not (failed & ~(step.truncated & step.valid)).any()
            final = step.obs if step.final_obs is None else step.final_obs
            np.testing.assert_array_equal(final[failed], last[failed])
            last, failures = step.obs.copy(), failures + int(failed.sum())
            messages += pop_restarts(envs)
            if failures >= 3:
                break
    finally:
        envs.close()
    assert failures >= 3
    words = {"kill": "by signal 9 exited", "abort": "by signal 6 exited", "hang": "has not returned for 1 s"}
    assert all(words.get(how, "raised ValueError") in message for message in messages)
    assert all(re.search("environment [01]", message) for message in messages)


@pytest.mark.faults
def test_a_process_that_is_stopped_is_replaced_or_named() -> None:
    for on_env_error in ("restart", "raise"):
        envs = make_envs(Breaking, 2, backend="async", on_env_error=on_env_error, step_timeout=0.5)
        with watched(0.5):
            envs.reset(5)
            victim = envs.envs.processes[1].pid  # type: ignore[attr-defined]
            os.kill(victim, signal.SIGSTOP)
            try:
                if on_env_error == "restart":
                    step = envs.step(ACTIONS)
                    assert step.failed is not None
                    assert step.failed.tolist() == [False, True]
                else:
                    with pytest.raises(EnvError, match=r"no answer of 1\) has not returned"):
                        envs.step(ACTIONS)
            finally:
                if Path(f"/proc/{victim}").exists():
                    os.kill(victim, signal.SIGKILL)
                envs.close()


def step_often(envs: EnvBackend) -> None:
    for _ in range(10):
        envs.step(ACTIONS[:1])


@pytest.mark.faults
def test_a_process_that_always_exits_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limelight.envs.renewed.MOST_IN_A_ROW", 1)
    envs = make_envs(Breaking, 1, backend="async", on_env_error="restart", env_kwargs={"how": "kill", "step": 1.0})
    try:
        envs.reset(5)
        with pytest.raises(EnvError, match=r"the process of environment 0 by signal 9 exited; fix .* so the run ends"):
            step_often(envs)
    finally:
        envs.close()


@pytest.mark.parametrize("times", [pytest.param(3, marks=pytest.mark.slow), pytest.param(99, marks=pytest.mark.faults)])
def test_a_constructor_that_raises_in_a_new_process_is_tried_again_then_raised(times: int, tmp_path: Path) -> None:
    kwargs = {"folder": str(tmp_path), "times": times}
    envs = make_envs(NoLicense, 1, backend="async", on_env_error="restart", env_kwargs=kwargs)
    messages: list[str] = []
    try:
        envs.reset(5)
        if times > 10:
            with pytest.raises(EnvError) as error:
                step_often(envs)
            assert "NoLicense: making it raised RuntimeError: no license for the simulator" in str(error.value)
            assert str(error.value).endswith(
                "10 new copies in a row have failed without a whole episode, so the run ends"
            )
            assert len(list(tmp_path.glob("refused*"))) == 11
            return
        truncated = [step for _ in range(10) if (step := envs.step(ACTIONS[:1])).truncated[0]]
        messages = pop_restarts(envs)
    finally:
        envs.close()
    assert len(truncated) == 1
    assert "the process of environment 0 by signal 9 exited" in messages[0]
    assert ["no license for the simulator" in message for message in messages] == [False, True, True, True]
    assert "restart 4 of this environment" in messages[3]


@pytest.mark.faults
def test_new_processes_have_the_attributes_that_were_set() -> None:
    envs = make_envs(Breaking, 2, backend="async", on_env_error="restart")
    try:
        envs.reset(5)
        envs.follow(Order("set_env_attr", "how", "kill"))
        envs.follow(Order("set_env_attr", "step_share", 1.0))
        failed = [envs.step(ACTIONS).failed for _ in range(4)]
    finally:
        envs.close()
    assert [each is not None and bool(each.all()) for each in failed] == [True, False] * 2  # a reset follows


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ValueError", "hang"])
def test_the_first_process_of_an_environment_makes_it_again_where_that_fails(
    how: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kwargs = {"folder": str(tmp_path), "times": 2, "how": how}
    settings: dict[str, Any] = {"backend": "async", "env_kwargs": kwargs, "step_timeout": 2.0}
    if how == "ValueError":
        with (
            pytest.raises(EnvError, match="making it raised ValueError: the simulator broke"),
            closing(make_envs(RefusesInProcesses, 2, **settings)) as envs,
        ):
            envs.reset(0)
        for path in tmp_path.iterdir():
            path.unlink()
    with watched(2.0), closing(make_envs(RefusesInProcesses, 2, on_env_error="restart", **settings)) as envs:
        assert envs.reset(0).shape == (2, 3)
        envs.step(ACTIONS)
    assert len(list(tmp_path.iterdir())) == 2
    words = "making environment" if how == "hang" else "making it raised ValueError"
    assert len([line for line in capfd.readouterr().err.splitlines() if words in line]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("how", "words"), [("kill", "by signal 9 exited"), ("abort", "by signal 6 exited")])
def test_a_process_that_exits_while_it_starts_is_named_or_started_again(
    how: str, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"backend": "async", "env_kwargs": {"folder": str(tmp_path), "times": 1, "how": how}}
    with pytest.raises(EnvError, match=f"RefusesInProcesses: the process of environment [01] {words}; fix") as error:
        make_envs(RefusesInProcesses, 2, **settings)
    assert "\n" not in str(error.value)
    assert not multiprocessing.active_children()
    (tmp_path / "refused0").unlink()
    with closing(make_envs(RefusesInProcesses, 2, on_env_error="restart", **settings)) as envs:
        assert envs.reset(0).shape == (2, 3)
        assert len(multiprocessing.active_children()) == 2
    (note,) = caplog.messages
    assert f"{words}; fix the environment" in note
