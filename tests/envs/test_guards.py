"""Environments that fail are replaced by new copies, each failure by the same rules in every backend."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Tuple

from helpers.breaking_envs import RAISED, Breaking, NoLicense, ResetFails
from helpers.settings import one_line, train_config
from limelight.envs import guards
from limelight.envs import make as make_module
from limelight.envs.attributes import Order
from limelight.envs.base import EnvBackend
from limelight.envs.guards import MOST_IN_A_ROW, pop_restarts
from limelight.envs.make import explain_backend, make_envs, try_envs
from limelight.envs.source import resolve_env
from limelight.errors import ConfigError, EnvError
from limelight.runs.checkpoint import read_state, write_state
from limelight.settings.rules import validate
from limelight.settings.schema import EnvConfig

ACTIONS = np.ones(3, np.int64)


@pytest.fixture(autouse=True)
def as_in_a_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A run handles Ctrl-C; delays are only noted."""
    delays: list[float] = []
    monkeypatch.setattr(guards.time, "sleep", delays.append)
    monkeypatch.setattr(Breaking, "broken", [])
    monkeypatch.setattr(ResetFails, "left", 0)
    before = signal.signal(signal.SIGINT, lambda *_: None)
    yield delays
    signal.signal(signal.SIGINT, before)


def make(kind: Any = Breaking, mode: str = "next_step", on_env_error: str = "restart", **kwargs: Any) -> EnvBackend:
    return make_envs(
        kind, 3, factory=None, backend="sync", autoreset_mode=mode, on_env_error=on_env_error, env_kwargs=kwargs
    )


def step_often(envs: EnvBackend) -> None:
    for _ in range(200):
        envs.step(ACTIONS)


@pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])
@pytest.mark.parametrize("how", list(RAISED))
def test_an_episode_whose_step_fails_is_truncated_at_its_last_observation(how: str, mode: str) -> None:
    envs = make(mode=mode, how=how, step=0.05)
    last, failures, messages = envs.reset(7).copy(), 0, list[str]()
    for _ in range(200):
        step = envs.step(ACTIONS)
        failed = np.zeros(3, bool) if step.failed is None else step.failed
        assert not (failed & ~(step.truncated & step.valid)).any()
        assert not step.rewards[failed].any()
        final = step.obs if step.final_obs is None else step.final_obs
        np.testing.assert_array_equal(final[failed], last[failed])
        assert (step.rewards[step.valid & ~failed] == 1.0).all()
        failures += int(failed.sum())
        messages += pop_restarts(envs)
        last = step.obs.copy()
    assert failures == len(Breaking.broken) == len(messages) > 10
    place = rf"step {Breaking.broken[0][1]} of its episode"
    name = "called sys.exit()" if how == "SystemExit" else f"raised {how}"
    first, *others = messages
    assert f"Breaking: step() {name}" in first
    assert place in first
    assert "\nTraceback (most recent call last):" in first
    assert "in step\n" in first
    assert all("\n" not in other for other in others)
    envs.close()


def test_the_same_seed_gives_the_same_failures_and_episodes_and_a_state_continues_them() -> None:
    def play(envs: EnvBackend, steps: int) -> list[Any]:
        return [[part.copy() for part in envs.step(ACTIONS)[:5]] for _ in range(steps)]

    one, two = make(step=0.05), make(step=0.05)
    one.reset(3)
    two.reset(3)
    np.testing.assert_equal(play(one, 150), play(two, 150))
    resumed, state = make(step=0.05), two.get_state()
    assert state is not None
    resumed.reset(99)
    resumed.set_state(state)
    np.testing.assert_equal(play(one, 150), play(resumed, 150))


class Composite(Breaking):
    observation_space = Dict({"n": Discrete(5), "pair": Tuple((Box(-1.0, 1.0, (2,)), MultiBinary(3)))})  # type: ignore[assignment]

    def _obs(self) -> Any:
        numbers = self.np_random.random(2).astype(np.float32)
        return {"n": int(self.np_random.integers(5)), "pair": (numbers, np.int8([1, 0, 1]))}


@pytest.mark.parametrize("kind", [Breaking, Composite])
def test_the_first_step_after_a_state_was_set_may_fail(kind: type[Breaking], tmp_path: Path) -> None:
    envs, resumed = make(kind), make(kind)
    envs.reset(3)
    last, state = envs.step(ACTIONS).obs.copy(), envs.get_state()
    assert state is not None
    write_state(tmp_path / "state", state)
    resumed.set_state(read_state(tmp_path / "state"))
    resumed.follow(Order("set_env_attr", "step_share", 1.0))
    step = resumed.step(ACTIONS)
    assert step.failed is not None
    assert step.failed.all()
    np.testing.assert_array_equal(step.obs, last)


def test_the_last_observation_of_a_state_is_copied() -> None:
    """Other environments of a checkpoint may have the same array."""
    envs = make(Breaking)
    envs.reset(3)
    last, state = envs.step(ACTIONS).obs.copy(), envs.get_state()
    assert state is not None
    envs.set_state(state)
    for guard in state["guards"]:
        guard["obs"][...] = 7.0
    envs.follow(Order("set_env_attr", "step_share", 1.0))
    np.testing.assert_array_equal(envs.step(ACTIONS).obs, last)


def test_an_environment_that_fails_while_it_is_timed_is_no_end_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_module, "num_cores", lambda: 4)
    settings: dict[str, Any] = {"backend": "auto", "env_kwargs": {"how": "SystemExit", "step": 1.0}}
    with pytest.raises(EnvError, match=r"step\(\) called sys\.exit"):
        make_envs(Breaking, 3, **settings)
    envs = make_envs(Breaking, 3, on_env_error="restart", **settings)
    envs.reset(1)
    assert envs.step(ACTIONS).failed is not None
    envs.close()


def test_new_copies_have_the_attributes_that_were_set() -> None:
    envs = make()
    envs.reset(3)
    envs.follow(Order("set_env_attr", "step_share", 1.0))
    failed = [envs.step(ACTIONS).failed for _ in range(6)]
    assert [each is not None and bool(each.all()) for each in failed] == [True, False] * 3  # a reset follows


def test_a_reset_that_fails_is_tried_again_after_growing_delays(as_in_a_run: list[float]) -> None:
    envs = make(ResetFails)
    ResetFails.left = 5
    obs = envs.reset(0)
    assert obs.shape == (3, 3)
    assert as_in_a_run == pytest.approx([0.1, 0.2, 0.4, 0.8])
    envs.step(ACTIONS)
    messages = pop_restarts(envs)
    assert len(messages) == 5
    assert "ResetFails: reset() raised ValueError: the simulator broke (breaking_envs.py, line " in messages[0]
    assert "in environment 0" in messages[0]


def test_a_reset_that_always_fails_ends_the_run(as_in_a_run: list[float]) -> None:
    envs = make(ResetFails)
    ResetFails.left = 1_000
    with pytest.raises(
        EnvError, match=rf"{MOST_IN_A_ROW} new copies in a row have failed without a whole epi"
    ) as error:
        envs.reset(0)
    assert "ResetFails: reset() raised ValueError" in one_line(error)
    assert max(as_in_a_run) == guards.MOST_DELAY
    ResetFails.left = 0


@pytest.mark.parametrize("backend", ["auto", "sync", "async"])
def test_a_reset_that_fails_while_a_copy_is_inspected_is_tried_again(
    backend: str, as_in_a_run: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    ResetFails.left = 3
    make_envs(ResetFails, 3, backend=backend, on_env_error="restart").close()
    assert as_in_a_run[:2] == pytest.approx([0.1, 0.2])
    notes = [line for line in caplog.messages if line.endswith("; a new copy is made")]
    assert len(notes) == 3
    assert "ResetFails: reset() raised ValueError: the simulator broke (breaking_envs.py, line " in notes[0]


def test_without_restarts_a_reset_that_fails_while_a_copy_is_inspected_is_an_error() -> None:
    ResetFails.left = 1  # not taken for one without masks
    with pytest.raises(EnvError, match=r"ResetFails: reset\(\) raised ValueError: the simulator broke"):
        make_envs(ResetFails, 3, backend="sync")
    assert ResetFails.left == 0


def test_a_reset_that_always_fails_while_a_copy_is_inspected_is_an_error(as_in_a_run: list[float]) -> None:
    ResetFails.left = 1_000
    with pytest.raises(EnvError, match=f"; {MOST_IN_A_ROW} new copies in a row have failed"):
        make(ResetFails)
    assert max(as_in_a_run) == guards.MOST_DELAY
    assert ResetFails.left == 1_000 - MOST_IN_A_ROW - 1
    ResetFails.left = 0


@pytest.mark.parametrize("num_envs", [1, 3])
def test_a_constructor_that_fails_before_a_run_is_tried_again(num_envs: int, as_in_a_run: list[float]) -> None:
    calls: list[int] = []

    def make_it() -> Breaking:
        calls.append(1)
        if len(calls) % 3:
            raise OSError("no license is free")
        return Breaking()

    make_envs(make_it, num_envs, backend="sync", on_env_error="restart").close()
    assert len(calls) == 3 * (1 + num_envs)  # one copy is inspected
    assert as_in_a_run == pytest.approx([0.1] * (1 + num_envs))


def test_a_constructor_that_raises_keyboard_interrupt_in_a_run_is_named() -> None:
    def make_it() -> Breaking:
        raise KeyboardInterrupt

    with pytest.raises(EnvError, match="making it raised KeyboardInterrupt"):
        make_envs(make_it, 1)


def test_many_failures_in_a_row_are_noted_while_they_are_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    envs = make(ResetFails)
    ResetFails.left = 7
    envs.reset(0)
    (note,) = caplog.messages
    assert "ResetFails: reset() raised ValueError" in note
    assert note.endswith("tried again, up to 10 times in a row")


def test_arguments_that_are_wrong_are_not_tried_again(as_in_a_run: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"env_kwargs = \{'size': -1\}: .* refuses them"):
        make_envs("helpers.breaking_envs:Sized", 1, on_env_error="restart", env_kwargs={"size": -1})
    assert not as_in_a_run


def test_a_step_that_always_fails_ends_the_run() -> None:
    envs = make(step=1.0)
    envs.reset(0)
    with pytest.raises(EnvError, match="new copies in a row have failed"):
        step_often(envs)


@pytest.mark.parametrize("how", list(RAISED))
def test_without_restarts_the_error_names_environment_and_step(how: str) -> None:
    envs = make(on_env_error="raise", how=how, step=0.05)
    envs.reset(7)
    with pytest.raises(EnvError) as error:
        step_often(envs)
    assert f"step {Breaking.broken[0][1]} of its episode; fix" in one_line(error)
    assert " in environment " in one_line(error)
    assert error.value.from_env


def test_backends_that_step_all_at_once_are_refused_and_not_chosen() -> None:
    for backend in ("vector", "envpool", "ale"):
        with pytest.raises(ConfigError, match=f"on_env_error = restart: backend {backend} steps all") as error:
            validate(train_config(backend=backend, on_env_error="restart"))
        assert "set backend to sync, async or auto" in one_line(error)
    source = resolve_env(EnvConfig("CartPole-v1", on_env_error="restart"))
    assert explain_backend(source).backend == "sync"
    assert explain_backend(resolve_env(EnvConfig("CartPole-v1"))).backend == "vector"


def test_a_step_that_fails_for_good_tells_of_the_copies_that_were_tried(tmp_path: Path) -> None:
    envs = make(NoLicense, how="ValueError", times=99, folder=str(tmp_path))
    envs.reset(7)
    with pytest.raises(EnvError, match="so the run ends"):
        step_often(envs)
    assert len(pop_restarts(envs)) == MOST_IN_A_ROW


@pytest.mark.parametrize("how", ["ValueError", "KeyboardInterrupt"])
def test_a_constructor_that_raises_is_tried_again_whatever_its_arguments(how: str, tmp_path: Path) -> None:
    envs = make_envs(
        NoLicense, 2, backend="sync", on_env_error="restart",
        env_kwargs={"how": how, "times": 3, "folder": str(tmp_path)},
    )  # fmt: skip
    envs.reset(7)
    for _ in range(8):
        envs.step(ACTIONS[:2])
    refusals = ["making it raised RuntimeError: no license" in message for message in pop_restarts(envs)]
    assert refusals == [False, True, True, True]


def test_a_reset_that_fails_before_the_run_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    config = EnvConfig(env_id="helpers.breaking_envs:ResetFails", backend="sync", on_env_error="restart")
    monkeypatch.setattr(ResetFails, "left", 2)
    try_envs(config, resolve_env(config, ResetFails))
    assert ResetFails.left == 0
