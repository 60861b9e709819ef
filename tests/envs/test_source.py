"""One resolved environment for a whole run, and how many copies of it are made and live at the same time."""

from __future__ import annotations

import dataclasses
import functools
import pickle
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector.utils import CloudpickleWrapper

import limelight
from helpers.counted_envs import CountedFactory, copies
from limelight.cli.env_check.check import check_env
from limelight.envs import make as make_module
from limelight.envs import source as source_module
from limelight.envs.make import explain_backend, make_envs
from limelight.envs.source import qualified_name, resolve_env
from limelight.envs.toy import Ring
from limelight.errors import ConfigError, EnvError
from limelight.settings.schema import EnvConfig
from limelight.training import presets
from limelight.training.prepare import prepare

RING = "limelight.envs.toy:Ring"
COUNTED = "helpers.counted_envs:Counted"
QUICK: dict[str, Any] = {
    "total_timesteps": 200, "quiet": True, "tensorboard": False, "eval_every": 0, "final_episodes": 0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["limelight.training.run"], "draw_report", lambda _run_dir: None)


# --------------------------------------------------------------------------- the resolved environment


@pytest.mark.parametrize(
    ("config", "factory", "kind", "name"),
    [
        (EnvConfig("CartPole-v1"), None, "registered", "CartPole-v1"),
        (EnvConfig("gymnasium:CartPole-v1"), None, "registered", "gymnasium:CartPole-v1"),
        (EnvConfig(RING), None, "callable", RING),
        (EnvConfig(), Ring, "callable", RING),
        (EnvConfig("ignored"), lambda: Ring(), "callable", f"{__name__}:<lambda>"),
    ],
)
def test_an_environment_has_one_kind_and_one_name(config: EnvConfig, factory: Any, kind: str, name: str) -> None:
    source = resolve_env(config, factory)
    assert (source.kind, source.name, source.game) == (kind, name, None)
    assert (source.spec is None) == (kind != "registered")
    assert (source.creator is None) == (kind != "callable")


def test_an_environment_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source = resolve_env(EnvConfig("CartPole-v1", num_envs=8))

    def looked_up_again(env_id: str) -> None:
        pytest.fail(f"{env_id} was looked up again")

    monkeypatch.setattr(source_module.games, "game_of", looked_up_again)
    monkeypatch.setattr(source_module.gym, "registry", {})
    assert explain_backend(source).backend == "vector"
    envs = make_envs(source.config, 2, factory=source, backend="sync")
    envs.close()


@pytest.mark.parametrize(
    ("config", "factory"), [(EnvConfig("CartPole-v1", max_episode_steps=7), None), (EnvConfig(), Ring)]
)
def test_a_source_pickles_and_takes_along_what_its_copies_have_shown(config: EnvConfig, factory: Any) -> None:
    source = resolve_env(config, factory)
    spaces, env = source.spaces(), source.make()
    source.inspection.step_seconds = 1.0
    copy = pickle.loads(pickle.dumps(source))
    assert copy == source
    assert dataclasses.replace(copy.inspection, first=None) == dataclasses.replace(source.inspection, first=None)
    assert copy.make().observation_space == spaces[0] == env.observation_space
    assert not source.is_first(env)
    env.close()


def test_a_registered_class_can_be_sent_to_a_process_that_has_not_registered_it() -> None:
    class Local(Ring):
        pass

    gym.register("limelight-test/Local-v0", entry_point=Local)
    source = resolve_env(EnvConfig("limelight-test/Local-v0"))
    state = CloudpickleWrapper(source).__getstate__()
    del gym.registry["limelight-test/Local-v0"]
    sent = CloudpickleWrapper(None)  # type: ignore[arg-type]
    sent.__setstate__(state)
    assert sent.fn.make().observation_space == Discrete(3)  # type: ignore[attr-defined]


def test_other_settings_of_the_same_environment_keep_what_is_known_and_others_do_not() -> None:
    source = resolve_env(EnvConfig(), Ring)
    source.spaces()
    same = resolve_env(EnvConfig(num_envs=3, backend="sync", autoreset_mode="same_step", normalize_obs=True), source)
    assert same.inspection is source.inspection
    assert (same.config.num_envs, same.factory) == (3, Ring)
    limited = resolve_env(EnvConfig(max_episode_steps=9), source)
    assert limited.inspection.spaces is None
    assert limited.factory is Ring
    assert resolve_env(EnvConfig(RING), resolve_env(EnvConfig())).name == RING


def test_callables_are_named_by_their_path() -> None:
    assert qualified_name(Ring) == RING
    # A name in brackets is no environment's: the class itself is not what the object makes
    assert qualified_name(CountedFactory(Path())) == "helpers.counted_envs:<CountedFactory>"
    assert qualified_name(functools.partial(Ring, size=3)) == "limelight.envs.toy:<partial of Ring>"


def test_a_copy_that_cannot_be_packed_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise EnvError("no")

    monkeypatch.setattr(source_module, "pack_env", refuse)
    with pytest.raises(EnvError):
        resolve_env(EnvConfig(), CountedFactory(tmp_path)).make()
    assert not (tmp_path / "log").read_text().endswith("+\n")


def test_copies_are_closed_if_another_one_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(EnvError, match="making it raised FileExistsError"):
        make_envs(CountedFactory(tmp_path, single=True), 2, backend="sync")
    assert not (tmp_path / "port").exists()


def test_an_unknown_id_and_a_broken_environment_are_different_errors() -> None:
    with pytest.raises(ConfigError, match="no such environment"):
        resolve_env(EnvConfig("CartPole-v7"))
    with pytest.raises(EnvError, match="which is no gymnasium"):
        resolve_env(EnvConfig(), lambda: 3).make()  # type: ignore[arg-type, return-value]


# --------------------------------------------------------------------------- how many copies are made


def test_one_that_can_be_had_once_trains(tmp_path: Path) -> None:
    factory = CountedFactory(tmp_path, single=True)
    result = limelight.train(factory, num_envs=1, backend="sync", run_dir=str(tmp_path / "run"), **QUICK)
    assert result.status == "completed"
    assert copies(tmp_path) == (2, 1)  # one to inspect, one to train in


@pytest.mark.parametrize(("num_envs", "cores", "made"), [(1, 2, 2), (4, 1, 5), (4, 2, 5)])
def test_copies_of_a_synchronous_run(
    num_envs: int, cores: int, made: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One copy shows the spaces, for the preset, and with several cores the time of a step, for the backend."""
    monkeypatch.setattr(make_module, "num_cores", lambda: cores)
    limelight.train(CountedFactory(tmp_path), num_envs=num_envs, run_dir=str(tmp_path / "run"), **QUICK)
    assert copies(tmp_path) == (made, num_envs)


def test_copies_of_an_id(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"env_kwargs": {"folder": str(tmp_path)}, "num_envs": 1, **QUICK}
    limelight.train(COUNTED, run_dir=str(tmp_path / "run"), **settings)
    assert copies(tmp_path) == (2, 1)


def test_copies_in_processes_of_their_own(tmp_path: Path) -> None:
    envs = make_envs(CountedFactory(tmp_path), 2, backend="async", seed=0)
    envs.close()
    assert copies(tmp_path) == (3, 2)  # Gymnasium would make one more, to read its spaces


def test_copies_of_an_asynchronous_run(tmp_path: Path) -> None:
    factory = CountedFactory(tmp_path, single=True)
    limelight.train(
        factory, algo="a3c", num_workers=1, num_envs=1, run_dir=str(tmp_path / "run"), on_worker_error="raise", **QUICK
    )
    made, live = copies(tmp_path)
    assert live == 1
    assert made <= 3


def test_copies_of_an_evaluation(tmp_path: Path) -> None:
    result = limelight.train(CountedFactory(tmp_path), num_envs=1, run_dir=str(tmp_path / "run"), **QUICK)
    (tmp_path / "log").write_text("")
    limelight.evaluate(result.agent, CountedFactory(tmp_path), episodes=3)
    made, live = copies(tmp_path)
    assert live == 3
    assert made <= 5


@pytest.mark.parametrize("cores", [1, 2])
def test_copies_of_a_check(cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_module, "num_cores", lambda: cores)
    found = check_env(EnvConfig(COUNTED, env_kwargs={"folder": str(tmp_path), "single": True}))
    assert [finding for finding in found if finding.level == "fail"] == []
    assert copies(tmp_path) == (2, 1)


def test_what_one_copy_shows_serves_preset_and_preparation(tmp_path: Path) -> None:
    source = resolve_env(EnvConfig(qualified_name(CountedFactory)), CountedFactory(tmp_path))
    config = presets.resolve_config(source.config.env_id, "a2c", "auto", {"num_envs": 1, "backend": "sync"}, source)
    prepared = prepare(config, source)
    assert prepared.env.backend == "sync"
    assert copies(tmp_path) == (1, 1)
    assert source.spaces() == (Box(-1.0, 1.0, (3,)), Discrete(2))


def test_the_backend_is_chosen_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = []
    fastest = make_module._fastest

    def counted(*args: Any) -> Any:
        chosen.append(args)
        return fastest(*args)

    monkeypatch.setattr(make_module, "_fastest", counted)
    limelight.train(Ring, num_envs=2, run_dir=str(tmp_path / "run"), **QUICK)
    assert len(chosen) == 1


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (gym.make("CartPole-v1"), "env = TimeLimit: is one environment, but copies of it are made; pass an id or"),
        (gym.make_vec("CartPole-v1", 2, "vector_entry_point"), "env = CartPoleVectorEnv: is a vector environment"),
        (gym.spec("CartPole-v1"), "env = EnvSpec: is a specification; pass its id, 'CartPole-v1'"),
        (3, "env = 3: must be an id, or a callable that makes an environment"),
    ],
)
def test_what_makes_no_environments_is_refused_with_what_to_pass(wrong: Any, expected: str) -> None:
    for call in (limelight.make_envs, limelight.train):
        with pytest.raises(ConfigError) as error:
            call(wrong)
        assert str(error.value).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = (", "SyntaxError"),
        ("1 / 0", r"ZeroDivisionError: division by zero \(broken_module.py, line 1\)"),
        ("raise SystemExit(0)", r"called sys.exit\(\) \(broken_module.py, line 1\)"),
        ("from os import no_such", "ImportError: cannot import name 'no_such'"),
    ],
)
def test_a_module_that_fails_is_one_line_with_its_place(
    text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=f"^env_id = broken_module: importing it .*{expected}"):
        resolve_env(EnvConfig("broken_module:Env"))


def test_the_environment_is_the_first_argument_of_train() -> None:
    with pytest.raises(ConfigError, match="env_id = 'Pendulum-v1': is the first argument"):
        limelight.train(env_id="Pendulum-v1")
    with pytest.raises(ConfigError, match="preset = 3: must be text"):
        limelight.train("CartPole-v1", preset=3)  # type: ignore[arg-type]
