"""Ids, callables, settings and the choice of backend; and the one-line error of each mistake."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import WrapperSpec
from gymnasium.spaces import Dict, Discrete, Text
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import TimeLimit

from helpers.toys import Corridor
from limelight.envs import envpool_backend, minigrid
from limelight.envs import make as make_module
from limelight.envs.gymnasium_backend import SyncBackend, VectorBackend
from limelight.envs.make import Choice, explain_backend, make_envs
from limelight.envs.source import near_ids, resolve_env
from limelight.envs.spawn import why_no_workers
from limelight.envs.toy import Ring
from limelight.errors import ConfigError, EnvError
from limelight.settings.schema import EnvConfig
from limelight.typing import EnvFactory


class NarrowVector(gym.vector.VectorEnv[Any, Any, Any]):
    """A vectorised class that takes no time limit."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012  (the shape Gymnasium asks for)

    def __init__(self, num_envs: int, size: int = 3) -> None:
        self.num_envs, self.single_observation_space, self.single_action_space = (
            num_envs,
            Discrete(size),
            Discrete(2),
        )


class WideVector(NarrowVector):
    """A vectorised class whose spaces are not those of the single environment."""

    def __init__(self, num_envs: int, max_episode_steps: int = 5) -> None:
        super().__init__(num_envs, size=4)


class Goal(Ring):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.observation_space = Dict({"place": Discrete(3), "words": Text(3)})


def register(name: str, **settings: Any) -> None:
    gym.register(f"limelight-test/{name}-v0", entry_point=f"{Ring.__module__}:Ring", **settings)


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """Remove the ids that a test registers, but for those of packages, which register once."""
    minigrid.register("MiniGrid-Empty-5x5-v0")
    before = dict(gym.registry)
    yield
    gym.registry.clear()
    gym.registry.update(before)


def message(call: Callable[[], Any], kind: type[Exception] = ConfigError) -> str:
    with pytest.raises(kind) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def choice(config: EnvConfig, factory: EnvFactory | None = None, **kwargs: bool) -> Choice:
    return explain_backend(resolve_env(config, factory), **kwargs)


# --------------------------------------------------------------------------- ids


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("CartPole-v7", ["CartPole-v1", "CartPole-v0"]),
        ("CartPole", ["CartPole-v1", "CartPole-v0"]),
        ("cartpole-v1", ["CartPole-v1", "CartPole-v0"]),
        ("Cartpol-v1", ["CartPole-v1", "phys2d/CartPole-v1"]),
        ("FrozenLake-v0", ["FrozenLake-v1"]),
        ("acrobot", ["Acrobot-v1"]),
        ("qqqqq", []),
        ("", []),
    ],
)
def test_near_ids_are_other_versions_or_similar_names(wrong: str, near: list[str]) -> None:
    assert near_ids(wrong) == near
    text = message(lambda: resolve_env(EnvConfig(env_id=wrong)))
    assert text.startswith(f"env_id = {wrong}: no such environment")
    assert text.endswith(f"did you mean {' or '.join(near)}?" if near else "a package that registers more")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (EnvConfig("no_such_pkg.envs:make"), "env_id = no_such_pkg.envs: no module of that name"),
        (EnvConfig("limelight.envs.toy:Nothing"), "limelight.envs.toy has no callable 'Nothing'"),
        (EnvConfig(env_module="no_such_pkg"), "env_module = no_such_pkg: no module of that name; install it"),
        (EnvConfig(env_module="my-package"), "env_module = my-package: must be the dotted name of a module"),
        (EnvConfig(env_module=""), "env_module = : must be the dotted name of a module"),
    ],
)
def test_missing_modules_are_named(config: EnvConfig, expected: str) -> None:
    assert expected in message(lambda: resolve_env(config))


def test_env_module_registers_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ring_package.py").write_text(
        "import gymnasium\ngymnasium.register('rings/Ring-v0', entry_point='limelight.envs.toy:Ring')\n"
    )
    (tmp_path / "broken_package.py").write_text("import no_such_dependency\n")
    envs = make_envs(EnvConfig("rings/Ring-v0", env_module="ring_package", num_envs=2), seed=0)
    assert envs.step(np.zeros(2, np.int64)).rewards.tolist() == [1.0, 1.0]
    assert make_envs("ring_package:rings/Ring-v0", 1).num_envs == 1  # Gymnasium's own way to write the same
    text = message(lambda: make_envs(EnvConfig("rings/Ring-v0", env_module="broken_package")))
    assert text == "env_module = broken_package: it imports no_such_dependency, which is not installed; install that"
    sys.modules.pop("ring_package")


def test_packages_that_are_not_installed_are_named() -> None:
    gym.register("limelight-test/Missing-v0", entry_point="no_such_pkg.envs:Env")
    assert message(lambda: make_envs("limelight-test/Missing-v0"), EnvError).endswith(
        "needs the module no_such_pkg, which is not installed; install it"
    )

    def needs_something() -> gym.Env[Any, Any]:
        raise gym.error.DependencyNotInstalled("Foo is missing,\nrun `pip install foo`")

    assert message(lambda: make_envs(needs_something), EnvError).endswith(": Foo is missing, run `pip install foo`")


def test_a_missing_extra_of_gymnasium_comes_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Box2D", None)  # whether installed or not, importing it now fails
    for module in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, module)
    text = message(lambda: make_envs("LunarLander-v3"), EnvError)
    assert text == 'env_id = LunarLander-v3: needs more than is installed; pip install "gymnasium[box2d]"'


# --------------------------------------------------------------------------- callables and arguments


@pytest.mark.parametrize("source", ["helpers.toys:Corridor", Corridor, lambda length=6: Corridor(length)])
def test_callables_work_like_ids(source: Any) -> None:
    envs = make_envs(source, 2, seed=0, env_kwargs={"length": 3}, max_episode_steps=4)
    right = np.ones(2, np.int64)
    assert not envs.step(right).terminated.any()
    assert envs.step(right).terminated.all()
    assert not envs.step(right).valid.any()
    assert [envs.step(0 * right).truncated.all() for _ in range(4)] == [False, False, False, True]
    if isinstance(source, str):
        assert choice(EnvConfig(source, num_envs=1)).backend == "sync"
    else:
        assert make_envs(EnvConfig("ignored"), 1, factory=source).single_action_space == Discrete(2)


def test_time_limits_override_the_environments_own() -> None:
    def limited() -> gym.Env[Any, Any]:
        return gym.wrappers.OrderEnforcing(TimeLimit(Ring(max_steps=100), 2))

    for source in (limited, Ring, "CartPole-v1"):
        envs = make_envs(source, 1, seed=0, backend="sync", max_episode_steps=3)
        cut = [bool(envs.step(np.array([t % 2])).truncated[0]) for t in range(3)]
        assert cut == [False, False, True]


def _refuses(size: int = 3) -> gym.Env[Any, Any]:
    raise ValueError("size must\nbe small")


@pytest.mark.parametrize(
    ("source", "kwargs", "expected"),
    [
        (
            "CartPole-v1", {"gravity": 1.0},
            "env_kwargs.gravity: CartPole-v1 has no such argument; it takes sutton_barto_reward, render_mode",
        ),
        ("helpers.toys:Corridor", {"lenght": 3}, "it takes length; did you mean length?"),
        (lambda: Ring(), {"size": 3}, "has no such argument; it takes none"),
        (lambda **kwargs: Ring(**kwargs), {"depth": 3}, "env_kwargs = {'depth': 3}: "),
        (_refuses, {"size": 9}, "refuses them (ValueError: size must be small (test_make.py, line"),
        ("FrozenLake-v1", {"map_name": "9x9"}, "FrozenLake-v1 refuses them (KeyError: '9x9')"),
        ("helpers.toys:Scripted", {}, "helpers.toys:Scripted needs episodes; give a value"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_named(source: Any, kwargs: dict[str, Any], expected: str) -> None:
    assert expected in message(lambda: make_envs(source, 1, env_kwargs=kwargs))


def test_env_kwargs_reach_the_environment_in_every_backend() -> None:
    for backend in ("sync", "vector"):
        envs = make_envs("CartPole-v1", 2, seed=0, backend=backend, env_kwargs={"sutton_barto_reward": True})
        assert envs.step(np.zeros(2, np.int64)).rewards.tolist() == [0.0, 0.0]


def test_an_error_in_the_users_callable_reaches_the_user() -> None:
    def broken() -> gym.Env[Any, Any]:
        raise RuntimeError("out of fuel")

    with pytest.raises(EnvError, match=r"making it raised RuntimeError: out of fuel \(test_make.py, line \d+\)"):
        make_envs(broken)


def test_objects_that_are_no_environment_are_refused() -> None:
    assert "it made a builtins.int, which is no gymnasium.Env" in message(lambda: make_envs(lambda: 3), EnvError)  # type: ignore[arg-type, return-value]
    text = message(lambda: make_envs(lambda: gym.make_vec("CartPole-v1", 2)), EnvError)  # type: ignore[arg-type, return-value]
    assert "num_envs copies are made of one environment" in text


@pytest.mark.parametrize("num_envs", [1, 2])
def test_one_environment_for_all_calls_is_refused(num_envs: int) -> None:
    env = Ring()
    text = message(lambda: make_envs(lambda: env, num_envs), EnvError)
    assert text.endswith("the callable returned one environment twice; make a new one in every call")


# --------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"num_envs": 0}, "num_envs = 0: must be ≥ 1"),
        ({"max_episode_steps": 0}, "max_episode_steps = 0: must be ≥ 1"),
        ({"backend": "fast"}, "backend = 'fast': must be auto | vector | sync | async | envpool"),
        ({"num_env": 3}, "num_env: no such setting of environments; did you mean num_envs?"),
        ({"gamma": 0.9}, "gamma: no such setting of environments"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], expected: str) -> None:
    assert expected in message(lambda: make_envs("CartPole-v1", **settings))


def test_unsupported_spaces_are_refused_early() -> None:
    assert "observation space Text at ['words'] is not supported" in message(lambda: make_envs(Goal), EnvError)


def test_the_seed_decides_the_streams() -> None:
    def first(seed: int, reset_seed: int | None) -> bytes:
        return make_envs("CartPole-v1", 2, seed=seed, backend="sync").reset(reset_seed).tobytes()

    assert first(1, None) == first(1, None)
    assert first(1, None) != first(2, None)
    assert first(1, 5) == first(2, 5)


# --------------------------------------------------------------------------- choice of backend


def test_an_explicit_backend_is_kept() -> None:
    for backend in ("vector", "sync", "async", "envpool"):
        assert choice(EnvConfig(backend=backend, num_envs=1)) == (backend, "as set")  # type: ignore[arg-type]


def test_the_vectorised_class_is_chosen_where_it_is_faster_and_can_replace_the_environment() -> None:
    assert choice(EnvConfig(num_envs=8)).backend == "vector"
    assert choice(EnvConfig(num_envs=4)).backend == "sync"
    assert choice(EnvConfig(num_envs=8, autoreset_mode="same_step")).backend == "sync"
    assert choice(EnvConfig(num_envs=8, max_episode_steps=9)).backend == "vector"
    assert choice(EnvConfig(num_envs=8, env_kwargs={"sutton_barto_reward": True})).backend == "vector"
    assert choice(EnvConfig("Acrobot-v1", num_envs=64)).backend == "sync"
    assert isinstance(make_envs("CartPole-v1", 8), VectorBackend)
    assert isinstance(make_envs("CartPole-v1", 4), SyncBackend)


WRAPPER = WrapperSpec("TimeLimit", "gymnasium.wrappers:TimeLimit", {"max_episode_steps": 5})


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "has no vectorised class"),
        (
            {"vector_entry_point": NarrowVector, "max_episode_steps": 5},
            "got an unexpected keyword argument 'max_episode_steps'",
        ),
        ({"vector_entry_point": "no_such_pkg.envs:Env"}, "cannot be imported (No module named"),
        (
            {"vector_entry_point": NarrowVector, "additional_wrappers": (WRAPPER,)},
            "cannot take the wrappers that limelight-test/Odd-v0 is registered with",
        ),
        ({"vector_entry_point": gym.vector.VectorEnv}, "got an unexpected keyword argument"),
        ({"vector_entry_point": lambda num_envs: None}, "does not have autoreset_mode next_step"),
        ({"vector_entry_point": WideVector}, "differ in observation_space, Discrete(3) and Discrete(4)"),
    ],
)  # fmt: skip
def test_a_vectorised_class_that_cannot_replace_the_environment_is_refused(settings: Any, reason: str) -> None:
    register("Odd", **settings)
    text = message(lambda: make_envs("limelight-test/Odd-v0", 8, backend="vector"))
    assert text.startswith("backend = vector: ")
    assert reason in text
    assert text.endswith("; use backend sync or async")


def test_callables_have_no_vectorised_class() -> None:
    assert "has no vectorised class" in message(lambda: make_envs(Ring, 8, backend="vector"))


@pytest.mark.parametrize(
    ("cores", "num_envs", "seconds", "chosen"),
    [(4, 4, 1e-3, "async"), (4, 4, 1e-4, "sync"), (1, 4, 1e-3, "sync"), (4, 1, 1e-3, "sync")],
)
def test_processes_are_chosen_where_steps_are_expensive(
    cores: int, num_envs: int, seconds: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_module, "num_cores", lambda: cores)
    monkeypatch.setattr(make_module, "_step_seconds", lambda env, name: seconds)
    assert choice(EnvConfig(num_envs=num_envs), Ring).backend == chosen
    assert choice(EnvConfig(num_envs=num_envs), Ring, may_start_workers=False).backend == "sync"


def test_without_envpool_installed_it_is_not_chosen_and_asking_for_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(make_module, "num_cores", lambda: 1)  # nothing is measured, so Box2D need not be installed
    monkeypatch.setattr(envpool_backend, "find_spec", lambda _name: None)
    missing = 'EnvPool is not installed (pip install "limelight-rl[envpool]")'
    assert choice(EnvConfig("LunarLander-v3", num_envs=8)) == ("sync", missing)
    text = message(lambda: make_envs("CartPole-v1", 2, backend="envpool"))
    assert text == f"backend = envpool: {missing}; use backend sync"


@pytest.mark.parametrize(
    ("env_id", "num_envs", "backend", "reason"),
    [
        ("CartPole-v1", 8, "vector", "CartPole-v1 has a vectorised class"),
        ("Acrobot-v1", 8, "sync", "in one process"),
        ("limelight.envs.toy:Ring", 8, "sync", "in one process"),
        ("LunarLander-v3", 7, "sync", "EnvPool is used from 8 environments on"),
    ],
)
def test_the_choice_has_a_reason(
    env_id: str, num_envs: int, backend: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_module, "num_cores", lambda: 1)
    assert choice(EnvConfig(env_id, num_envs=num_envs)) == (backend, reason)


def test_envpool_is_refused_for_environments_registered_with_wrappers() -> None:
    register("Odd", additional_wrappers=(WRAPPER,))
    text = message(lambda: make_envs("limelight-test/Odd-v0", 8, backend="envpool"))
    assert text.startswith("backend = envpool: EnvPool cannot take the wrappers that limelight-test/Odd-v0 is")


def test_step_times_are_measured_over_resets() -> None:
    env = Ring(max_steps=3)
    assert 0 < make_module._step_seconds(env, "env") < make_module._ASYNC_FROM_SECONDS
    assert make_module.num_cores() >= 1


def test_async_is_built_when_asked_for() -> None:
    envs = make_envs("limelight.envs.toy:Ring", 2, seed=0, backend="async", max_episode_steps=2)
    assert envs.name == "async"
    assert [envs.step(np.zeros(2, np.int64)).truncated.all() for _ in range(3)] == [False, True, False]
    envs.close()


def test_a_daemon_of_multiprocessing_starts_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    assert "daemon of multiprocessing" in (why_no_workers() or "")
    with pytest.raises(ConfigError, match="this process is a daemon of multiprocessing, which may start none"):
        make_envs("CartPole-v1", 2, backend="async")
