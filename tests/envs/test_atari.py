"""Atari by ALE: ids, settings, the adapter contract, lives, and one game as it is in the vector environment."""

from __future__ import annotations

import dataclasses
import gc
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from helpers.settings import env_config
from limelight.algo.collector import RolloutCollector
from limelight.cli import catalog
from limelight.cli.env_check.check import check_env
from limelight.envs import atari, games, minigrid
from limelight.envs.atari import AtariBackend, AtariGame
from limelight.envs.base import EnvBackend, Step
from limelight.envs.games import all_games, for_other, game_of, id_of
from limelight.envs.gymnasium_backend import SyncBackend
from limelight.envs.make import explain_backend, make_envs
from limelight.envs.source import near_ids, resolve_env
from limelight.envs.toy import Ring
from limelight.errors import CheckpointError, ConfigError, EnvError
from limelight.runs.evaluation import make_eval_envs, play
from limelight.settings.io import with_settings
from limelight.settings.schema import EvalConfig, TrainConfig
from limelight.training.prepare import prepare
from limelight.training.run import resume, train

pytest.importorskip("ale_py")
STICKY: dict[str, Any] = {"sticky_actions": 0.25}


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


def actions_of(envs: EnvBackend, steps: int, seed: int = 0) -> NDArray[np.int64]:
    """Draw random actions, [steps, B]."""
    space = envs.single_action_space
    assert isinstance(space, Discrete)
    return np.random.default_rng(seed).integers(space.n, size=(steps, envs.num_envs))


def games_of(game: str, num_envs: int = 2, seed: int | None = 0, **settings: Any) -> AtariBackend:
    """Start games from ``seed``."""
    envs = AtariBackend(game, env_config(game, **settings), num_envs, 1)
    envs.reset(seed)
    return envs


# --------------------------------------------------------------------------- ids


@pytest.mark.parametrize(
    "env_id",
    [
        "ALE/SpaceInvaders-v5", "ale_py:ALE/SpaceInvaders-v5", "SpaceInvadersNoFrameskip-v4",
        "SpaceInvadersDeterministic-v4", "space_invaders", "SpaceInvaders", "spaceinvaders",
    ],
)  # fmt: skip
def test_every_id_of_a_game_is_the_same_environment(env_id: str) -> None:
    import ale_py  # noqa: F401  (registers its own environments, some under these ids)

    assert game_of(env_id) == "space_invaders"
    assert explain_backend(resolve_env(env_config(env_id))) == ("ale", f"{env_id} is an Atari game")


def test_make_envs_makes_games() -> None:
    envs = make_envs("SpaceInvadersNoFrameskip-v4", 2)
    assert isinstance(envs, AtariBackend)
    assert envs.single_observation_space == Box(0, 255, (4, 84, 84), np.uint8)
    assert envs.single_action_space == Discrete(6)
    envs.close()


def test_every_game_is_found_by_all_its_ids() -> None:
    assert len(all_games()) > 100
    for game in all_games().values():
        pascal = id_of(game)[4:-3]
        assert {game_of(name) for name in (game, pascal, id_of(game), f"{pascal}NoFrameskip-v4")} == {game}


@pytest.mark.parametrize(
    ("env_id", "expected"),
    [
        ("Pong-v4", "skips frames at random; use ALE/Pong-v5"),
        ("Pong-v0", "skips frames at random; use ALE/Pong-v5 with sticky_actions 0.25"),
        ("PongNoFrameskip-v0", "has sticky actions; use ALE/Pong-v5 with sticky_actions 0.25"),
        ("Pong-ram-v4", "shows memory, not images; use ALE/Pong-v5"),
        ("Pong-ramNoFrameskip-v4", "shows memory, not images; use ALE/Pong-v5"),
        ("ALE/Pnog-v5", "ALE has no game Pnog; did you mean Pong?"),
        ("PnogNoFrameskip-v4", "ALE has no game Pnog; did you mean Pong?"),
        ("ALE/Zzzzzzz-v5", "ALE has no game Zzzzzzz; `limelight list envs ALE` shows all"),
        ("ALE/MazeCraze-v5", "MazeCraze takes two players; `limelight list envs ALE` shows the games for one"),
        ("pnog", "no such environment; did you mean ALE/Pong-v5?"),
        ("Breakout-v5", "no such environment; did you mean ALE/Breakout-v5?"),
        ("ALE/Breakout", "no such environment; did you mean ALE/Breakout-v5?"),
        ("space_invader", "no such environment; did you mean ALE/SpaceInvaders-v5 or ALE/SpaceWar-v5?"),
    ],
)
def test_ids_that_are_no_game_get_a_one_line_error(env_id: str, expected: str) -> None:
    assert message(lambda: make_envs(env_id)) == f"env_id = {env_id}: {expected}"


@pytest.mark.parametrize("env_id", ["pong", "Pong-v0", "Pong-v4", "PongNoFrameskip-v4", "ALE/Pong-v5"])
def test_ids_registered_by_others_are_not_games(env_id: str) -> None:
    gym.registry.pop(env_id, None)
    gym.register(env_id, entry_point=f"{Ring.__module__}:Ring")
    assert resolve_env(env_config(env_id)).game is None
    assert make_envs(env_id, 2, seed=0).single_observation_space == Discrete(3)


def test_ids_that_resemble_games_are_unaffected() -> None:
    for env_id in ("CartPole-v1", "CartPole-v0", "limelight.envs.toy:Ring", "FrozenLake-v1"):
        assert game_of(env_id) is None
    assert resolve_env(env_config("pong"), Ring).game is None
    assert near_ids("cartpole") == ["CartPole-v1", "CartPole-v0"]


def test_without_ale_py_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(games, "find_spec", lambda _name: None)
    all_games.cache_clear()
    try:
        for env_id in ("ALE/Pong-v5", "PongNoFrameskip-v4"):
            text = message(lambda env_id=env_id: make_envs(env_id), EnvError)
            assert text == f"env_id = {env_id}: needs ale-py, which is not installed; {games.INSTALL}"
        assert f"Atari games need {games.INSTALL}" in message(lambda: make_envs("pong"))
        assert catalog.environments()[-2:] == ["atari", f"  {'ALE/Pong-v5, pong, …':28} {games.INSTALL}"]
        assert make_envs("CartPole-v0", 1).num_envs == 1
    finally:
        all_games.cache_clear()


def test_an_ale_py_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atari, "version", lambda _name: "0.11.2")
    assert message(lambda: make_envs("pong"), EnvError) == f"ale-py 0.11.2: is too old; {games.INSTALL}"


def test_a_missing_rom_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ale_py import roms

    there = roms.get_rom_path("pong")
    assert there is not None
    for folder in (tmp_path, tmp_path / "nowhere"):
        monkeypatch.setenv("ALE_ROMS_DIR", str(folder))
        text = message(lambda: make_envs("pong"), EnvError)
        assert text.startswith("env_id = ALE/Pong-v5: its ROM cannot be read (")
        assert text.endswith("; ALE_ROMS_DIR must be unset, or a folder that holds ale-py's pong.bin")
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    (tmp_path / "pong.bin").write_bytes(b"another game")
    assert "The hash of pong.bin does not match" in message(lambda: make_envs("pong"), EnvError)
    shutil.copy(there, tmp_path)
    AtariGame("pong", env_config(), "rgb_array").close()
    assert capsys.readouterr().out == ""


# --------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("mode", "is played in its default mode and difficulty; for another, train on a callable"),
        ("difficulty", "is played in its default mode and difficulty; for another, train on a callable"),
        ("frameskip", "is an Atari game; set frame_skip instead"),
        ("repeat_action_probability", "is an Atari game; set sticky_actions instead"),
        ("full_action_space", "is an Atari game; set full_action_set instead"),
        ("noop_max", "is an Atari game; set noop_max instead"),
        ("max_num_frames_per_episode", "is an Atari game; set max_episode_steps (in steps of frame_skip frames)"),
        ("obs_type", "is an Atari game, which takes no such argument; leave it out"),
        ("frame_skp", "is an Atari game, which takes no such argument; did you mean frame_skip or "),
    ],
)
def test_arguments_of_games_are_settings(key: str, expected: str) -> None:
    text = message(lambda: make_envs("pong", env_kwargs={key: 1}))
    assert text.startswith(f"env_kwargs.{key}: pong {expected}")


@pytest.mark.parametrize(
    ("env", "settings", "expected"),
    [
        ("pong", {"frame_size": 35}, "frame_size = 35: must be ≥ 36 and ≤ 256"),
        ("pong", {"frame_stack": 0}, "frame_stack = 0: must be ≥ 1"),
        ("pong", {"frame_skip": 0}, "frame_skip = 0: must be ≥ 1"),
        ("pong", {"sticky_actions": 1.1}, "sticky_actions = 1.1: must be ≥ 0 and ≤ 1"),
        ("pong", {"noop_max": -1}, "noop_max = -1: must be ≥ 0"),
        ("pong", {"env_threads": 0}, "env_threads = 0: must be ≥ 1"),
        ("pong", {"backend": "ale", "autoreset_mode": "same_step"}, "same_step: ALE has only next_step; set that"),
        ("pong", {"backend": "vector"}, "backend = vector: pong has no vectorised class"),
        ("pong", {"backend": "sync", "env_threads": 2}, "only backend ale uses it, but backend = sync; set it to none"),
        (
            "pong",
            {"backend": "sync", "terminal_on_life_loss": True},
            "terminal_on_life_loss = true: backend sync does not report lives; use backend ale, or set it to false",
        ),
        ("CartPole-v1", {"backend": "ale"}, "backend = ale: CartPole-v1 is no Atari game; use backend auto"),
        ("CartPole-v1", {"frame_skip": 2}, "frame_skip = 2: only Atari games use it, CartPole-v1 is none"),
        ("CartPole-v1", {"fire_reset": False}, "fire_reset = false: only Atari games use it, CartPole-v1 is none"),
        (Ring, {"frame_size": 42}, "frame_size = 42: only Atari games use it, limelight.envs.toy:Ring is none"),
        ("CartPole-v1", {"env_threads": 2}, "env_threads = 2: only Atari games use it, CartPole-v1 is none"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_named(env: Any, settings: dict[str, Any], expected: str) -> None:
    assert expected in message(lambda: make_envs(env, 2, **settings))


def test_a_run_refuses_what_its_environment_does_not_use(tmp_path: Path) -> None:
    text = message(lambda: train("CartPole-v1", frame_stack=1, run_dir=str(tmp_path / "run")))
    assert text == "frame_stack = 1: only Atari games use it, CartPole-v1 is none; leave it out"
    assert not (tmp_path / "run").exists()


def test_an_agent_of_a_game_is_evaluated_elsewhere_without_the_settings_of_games() -> None:
    config = env_config("pong", frame_size=42, frame_stack=1, env_threads=3, max_episode_steps=9)
    assert for_other(config, "ALE/Breakout-v5") == dataclasses.replace(config, env_id="ALE/Breakout-v5")
    assert for_other(config, "CartPole-v1") == env_config("CartPole-v1", max_episode_steps=9)
    assert for_other(config, None) == env_config("pong", max_episode_steps=9)


def test_settings_reach_the_game() -> None:
    def frames(**settings: Any) -> tuple[int, int]:
        """Return the frame numbers after a reset and after a step."""
        game = AtariGame("pong", env_config("pong", **{"noop_max": 0, **settings}))
        before = game.reset(seed=0)[1]
        return before["episode_frame_number"], game.step(0)[-1]["episode_frame_number"]

    assert frames() == (1, 5)  # FIRE, four frames
    assert frames(fire_reset=False) == (0, 4)
    assert frames(frame_skip=7) == (1, 8)
    assert frames(noop_max=30)[0] > 1
    envs = games_of("pong", full_action_set=True, frame_size=42, frame_stack=1)
    assert envs.single_action_space == Discrete(18)
    assert envs.reset().shape == (2, 1, 42, 42)
    assert envs.step(np.full(2, 17)).valid.all()


@pytest.mark.parametrize("frame_skip", [1, 3, 4])
def test_the_limit_counts_steps(frame_skip: int) -> None:
    envs = games_of("pong", max_episode_steps=6, frame_skip=frame_skip)
    steps = [envs.step(np.zeros(2, np.int64)) for _ in range(13)]
    assert [step.truncated.all() for step in steps] == [t in (5, 12) for t in range(13)]
    assert [step.valid.all() for step in steps] == [t != 6 for t in range(13)]


def test_by_default_a_game_is_truncated_after_half_an_hour() -> None:
    for frame_skip in (1, 4, 7):
        assert games.step_limit(env_config(frame_skip=frame_skip)) * frame_skip == pytest.approx(108_000, abs=7)
    assert games_of("pong", 1, max_episode_steps=10**12).step(np.zeros(1, np.int64)).valid.all()


def test_games_without_no_ops_start_alike_and_continue() -> None:
    envs = games_of("breakout", noop_max=0)
    first = envs.reset()
    assert (first == first[0]).all()
    for actions in actions_of(envs, 20):
        step = envs.step(actions)
    assert step.valid.all()
    assert (step.obs[0] != step.obs[1]).any()
    others = games_of("breakout").reset()
    assert (others[0] != others[1]).any()


# --------------------------------------------------------------------------- the stream


def check_contract(envs: EnvBackend, step: Step) -> None:
    assert step.obs.shape == (envs.num_envs, *(envs.single_observation_space.shape or ()))
    assert step.obs.dtype == np.uint8
    assert step.rewards.dtype == np.float64
    for flags in (step.terminated, step.truncated, step.valid):
        assert flags.dtype == np.bool_
        assert flags.shape == step.rewards.shape == (envs.num_envs,)
    assert not step.rewards[~step.valid].any()
    assert not (step.terminated | step.truncated)[~step.valid].any()
    assert step.final_obs is None


def test_the_stream_keeps_the_contract() -> None:
    """A done row still has the old game's frame; one invalid row follows, with the new game's first one."""
    envs = games_of("breakout", max_episode_steps=180)
    before, done = envs.reset(), np.zeros(2, bool)
    ends = {"terminated": 0, "truncated": 0}
    for actions in actions_of(envs, 500):
        step = envs.step(actions)
        check_contract(envs, step)
        np.testing.assert_array_equal(step.valid, ~done)
        moved_on = (step.obs[:, :-1] == before[:, 1:]).all((1, 2, 3))
        begun = ~step.obs[:, :-1].any((1, 2, 3))
        np.testing.assert_array_equal(moved_on, step.valid)
        np.testing.assert_array_equal(begun, ~step.valid)
        before, done = step.obs, step.terminated | step.truncated
        ends["terminated"] += int(step.terminated.sum())
        ends["truncated"] += int(step.truncated.sum())
    assert min(ends.values()) >= 2
    envs.close()
    envs.close()


def assert_equal(ours: Step, theirs: Step) -> None:
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("frame_stack", [4, 1])
def test_one_game_is_the_vector_environment_frame_for_frame(frame_stack: int) -> None:
    """Checked with sticky actions, beyond the ends of games and their limit."""
    settings: dict[str, Any] = {"max_episode_steps": 180, "frame_stack": frame_stack, **STICKY}
    envs, game = games_of("breakout", 1, **settings), AtariGame("breakout", env_config("breakout", **settings))
    np.testing.assert_array_equal(envs.reset(9)[0], game.reset(seed=9)[0])
    ends, is_over = set(), False
    for actions in actions_of(envs, 500):
        step = envs.step(actions)
        if is_over:
            obs, reward, terminated, truncated = game.reset()[0], 0.0, False, False
        else:
            obs, reward, terminated, truncated, _ = game.step(actions[0])
        np.testing.assert_array_equal(step.obs[0], obs)
        assert (step.rewards[0], step.terminated[0], step.truncated[0]) == (reward, terminated, truncated)
        assert step.valid[0] == (not is_over)
        is_over = terminated or truncated
        ends |= {(terminated, truncated)} - {(False, False)}
    assert ends == {(True, False), (False, True)}


@pytest.mark.parametrize("seed", [3, 2**31 - 2])
def test_single_games_in_sync_are_the_vector_environment(seed: int) -> None:
    settings: dict[str, Any] = {"max_episode_steps": 25, **STICKY}
    ale, sync = games_of("breakout", **settings), make_envs("breakout", 2, backend="sync", **settings)
    assert isinstance(sync, SyncBackend)
    assert ale.single_observation_space == sync.single_observation_space
    np.testing.assert_array_equal(ale.reset(seed), sync.reset(seed))
    for actions in actions_of(ale, 60):
        assert_equal(ale.step(actions), sync.step(actions))


def test_other_autoreset_modes_are_gymnasiums() -> None:
    config = env_config("pong", num_envs=2, autoreset_mode="same_step", max_episode_steps=3)
    assert explain_backend(resolve_env(config)).backend in ("sync", "async")
    envs = make_envs(dataclasses.replace(config, backend="sync"), seed=0)
    step = [envs.step(np.zeros(2, np.int64)) for _ in range(3)][-1]
    assert step.valid.all()
    assert step.truncated.all()
    assert step.final_obs is not None


def test_the_seed_decides_and_every_game_has_its_own() -> None:
    def stream(envs: AtariBackend) -> NDArray[np.uint8]:
        return np.stack([envs.step(np.full(envs.num_envs, t % 4)).obs for t in range(40)])

    settings: dict[str, Any] = {"noop_max": 0, **STICKY}  # sticky actions make games random while they are played, too
    two, one = games_of("breakout", seed=5, **settings), games_of("breakout", 1, seed=6, **settings)
    played = stream(two)
    np.testing.assert_array_equal(played[:, 1], stream(one)[:, 0])
    assert not np.array_equal(played[:, 0], played[:, 1])
    two.reset(5)
    np.testing.assert_array_equal(played, stream(two))
    two.reset()
    assert not np.array_equal(played, stream(two))
    assert not np.array_equal(*(stream(games_of("breakout", 1, None, **settings)) for _ in range(2)))


def test_a_reset_in_the_middle_leaves_no_reset_due() -> None:
    envs = games_of("pong", max_episode_steps=3)
    for seed in (1, None):
        assert [envs.step(np.zeros(2, np.int64)) for _ in range(3)][-1].truncated.all()
        envs.reset(seed)
        assert envs.step(np.zeros(2, np.int64)).valid.all()
        envs.reset(0)


def test_an_action_that_the_game_does_not_have_is_refused_at_once() -> None:
    envs = games_of("pong")
    for wrong in ([0, 6], [-1, 0], [0], [0, 0, 0], [[0, 1]], [0.0, 1.0], [True, False]):
        text = message(lambda wrong=wrong: envs.step(np.array(wrong)), ValueError)
        assert text == f"actions {wrong}: must be 2 whole numbers of 0 … 5"
        assert envs.step(np.array([5, 0])).valid.all()


@pytest.mark.parametrize("wrong", [6, -1, 0.5, None])
def test_an_action_that_a_single_game_does_not_have_is_refused(wrong: Any) -> None:
    game = AtariGame("pong", env_config())
    game.reset(seed=0)
    assert message(lambda: game.step(wrong), ValueError) == f"actions [{wrong}]: must be 1 whole numbers of 0 … 5"
    game.step(np.int32(5))


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads as Linux shows them")
def test_threads_are_as_many_as_set_and_exit_with_the_backend() -> None:
    def threads() -> int:
        gc.collect()  # backends of other tests
        return len(os.listdir("/proc/self/task"))

    before, cores = threads(), os.cpu_count() or 1
    for num_envs, asked in ((2, 1), (3, 2), (2, 8)):
        envs = AtariBackend("pong", env_config(), num_envs, asked)
        assert threads() - before == min(asked, num_envs, cores)
        envs.close()
        assert threads() == before


@pytest.mark.parametrize(("settings", "threads"), [({}, 8), ({"algo": "a3c", "num_workers": 3}, 2)])
def test_cores_are_shared_among_workers(
    settings: dict[str, Any], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["limelight.training.prepare"], "num_cores", lambda: 8)
    asynchronous = {"asynchronous": True} if settings else {}
    config = with_settings(TrainConfig(), {"env_id": "pong", **settings, **asynchronous})
    assert prepare(config, None).env.atari.env_threads == threads
    given = prepare(with_settings(config, {"env_threads": 5}), None)
    assert given.env.atari.env_threads == 5


# --------------------------------------------------------------------------- rewards and lives


def test_rewards_are_raw() -> None:
    envs = games_of("space_invaders")
    rewards = np.stack([envs.step(actions).rewards for actions in actions_of(envs, 200)])
    assert rewards.max() >= 5
    assert set(np.unique(rewards % 5)) == {0.0}


def test_lives_are_reported_only_if_asked_for() -> None:
    envs = games_of("breakout")
    assert all(envs.step(actions).life_lost is None for actions in actions_of(envs, 60))


def test_a_lost_life_is_a_drop_in_lives_of_a_game_that_continues() -> None:
    envs, game = games_of("breakout", 1, terminal_on_life_loss=True), AtariGame("breakout", env_config())
    envs.reset(4)
    lives, is_over, lost = game.reset(seed=4)[1]["lives"], False, 0
    for actions in actions_of(envs, 500):
        step = envs.step(actions)
        before = lives
        if is_over:
            lives, terminated = game.reset()[1]["lives"], False
            expected = False
        else:
            _, _, terminated, _, info = game.step(actions[0])
            lives = info["lives"]
            expected = lives < before and not terminated
        assert step.life_lost is not None
        assert step.life_lost.tolist() == [expected]
        assert step.terminated[0] == terminated, "the game goes on"
        is_over, lost = terminated, lost + expected
    assert lost >= 8


def test_a_life_lost_in_the_last_step_of_the_limit_is_an_end() -> None:
    """The learner must not bootstrap from the states after it."""

    def losses(limit: int | None) -> tuple[list[int], NDArray[np.bool_]]:
        envs = games_of("breakout", 1, terminal_on_life_loss=True, max_episode_steps=limit)
        steps = [envs.step(actions) for actions in actions_of(envs, 120)]
        return [t for t, step in enumerate(steps) if step.life_lost], np.array([step.truncated[0] for step in steps])

    first = losses(None)[0][0]
    lost, truncated = losses(first + 1)
    assert lost[0] == first
    assert truncated[first]


class Script:
    """A policy that plays given actions [T, B] and counts the steps since the last reset."""

    def __init__(self, actions: NDArray[np.int64]) -> None:
        self.actions, self.t = actions, 0
        self.recurrent_state: NDArray[np.float32] | None = None

    def begin_rollout(self) -> None:
        pass

    def act(self, obs: NDArray[Any], episode_start: NDArray[np.float32]) -> NDArray[np.int64]:
        before = np.zeros((len(obs), 1), np.float32) if self.recurrent_state is None else self.recurrent_state
        self.recurrent_state = before * (1.0 - episode_start[:, None]) + 1.0
        self.t += 1
        return self.actions[(self.t - 1) % len(self.actions)]

    def to_env(self, actions: NDArray[np.int64]) -> NDArray[np.int64]:
        return actions


def test_a_lost_life_is_an_end_for_the_learner_and_not_for_the_statistics() -> None:
    def collected(**settings: Any) -> tuple[Any, list[Any], NDArray[np.float32] | None]:
        envs = games_of("breakout", 2, **settings)
        collector = RolloutCollector(envs, 400, None, "breakout")
        collector.reset(1)
        policy = Script(actions_of(envs, 400))
        rollout = collector.collect(policy)
        return rollout, collector.pop_episodes(), policy.recurrent_state

    whole, episodes, remembered = collected()
    lives, same_episodes, same_remembered = collected(terminal_on_life_loss=True)
    for name in ("obs", "actions", "rewards", "truncated", "valid", "episode_start"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(lives, name))
    assert same_episodes == episodes
    np.testing.assert_array_equal(remembered, same_remembered)
    assert remembered is not None
    assert remembered.min() > 10, "a game was truncated in the middle of the rollout"
    games_over, ends = int(whole.terminated.sum()), int(lives.terminated.sum())
    assert len(episodes) == games_over >= 2
    assert all(episode.terminated for episode in episodes)
    assert 4 * games_over <= ends - games_over <= 4 * (games_over + 2), "a game has five lives"
    assert (lives.terminated[whole.terminated == 1] == 1).all()


def test_evaluation_plays_whole_games() -> None:
    def evaluated(terminal_on_life_loss: bool) -> Any:
        config = env_config("breakout", terminal_on_life_loss=terminal_on_life_loss)
        envs = make_eval_envs(resolve_env(config), 2, EvalConfig())
        assert envs.name == "ale"
        return play(envs, Script(actions_of(envs, 997)), lambda obs: obs, 2, seed=3)

    evaluation = evaluated(True)
    assert evaluation == evaluated(False)
    assert min(evaluation.lengths) > 100


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_evaluation_of_single_games_needs_no_settings_of_the_vector_environment(backend: str) -> None:
    config = env_config("breakout", terminal_on_life_loss=True, env_threads=1)
    envs = make_eval_envs(resolve_env(config), 1, EvalConfig(eval_backend=backend))
    assert envs.name == backend
    envs.close()


def test_evaluation_has_as_many_games_side_by_side_whatever_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    import ale_py  # noqa: F401  (registers the second one with a vectorised class)

    def make(config: Any, factory: Any) -> SimpleNamespace:
        return SimpleNamespace(name="ale", num_envs=config.num_envs)

    monkeypatch.setattr(sys.modules["limelight.runs.evaluation"], "make_envs", make)
    for env_id in ("pong", "ALE/Pong-v5"):
        assert make_eval_envs(resolve_env(env_config(env_id)), 12, EvalConfig()).num_envs == 10


# --------------------------------------------------------------------------- one game as an environment


def test_the_source_of_a_game_pickles() -> None:
    source = pickle.loads(pickle.dumps(resolve_env(env_config("pong", max_episode_steps=7))))
    game = source.make()
    assert isinstance(game, AtariGame)
    assert game.spec is not None
    assert (game.spec.id, game.spec.max_episode_steps) == ("ALE/Pong-v5", 7)
    assert not source.is_packed()
    game.close()
    game.close()


def test_unseeded_games_differ() -> None:
    assert len({AtariGame("breakout", env_config()).reset()[0].tobytes() for _ in range(5)}) > 1


def shrunk(frame: NDArray[np.uint8], size: int = 84) -> NDArray[np.float64]:
    """Return the mean brightness in each of ``size`` × ``size`` equal parts of a colour frame."""
    grey = frame @ np.array([0.299, 0.587, 0.114])

    def parts(length: int) -> NDArray[np.float64]:
        ends = np.clip(np.arange(size + 1)[:, None] * length / size - np.arange(length), 0.0, 1.0)
        return np.diff(ends, axis=0) * size / length

    return parts(grey.shape[0]) @ grey @ parts(grey.shape[1]).T


@pytest.mark.parametrize(("game", "height"), [("breakout", 210), ("pooyan", 220)])
@pytest.mark.parametrize("seed", [7, None])
def test_the_rendered_frame_shows_the_observation(game: str, height: int, seed: int | None) -> None:
    """It is in colour and full size, of the same step, with and without a seed."""
    env = AtariGame(game, env_config(**STICKY), "rgb_array")
    rng = np.random.default_rng(0)
    obs, _ = env.reset(seed=seed)
    for t in range(25):
        frame = env.render()
        assert frame.shape == (height, 160, 3)
        assert frame.dtype == np.uint8
        differs = np.abs(shrunk(frame) - obs[-1])
        assert np.quantile(differs, 0.99) < 1.0, f"step {t} of another game"  # moving colours are merged
        obs, _, terminated, truncated, _ = env.step(rng.integers(env.action_space.n))
        if terminated or truncated:
            obs, _ = env.reset()
    assert AtariGame(game, env_config()).render() is None


# --------------------------------------------------------------------------- the commands


def test_games_are_listed_without_making_any(monkeypatch: pytest.MonkeyPatch) -> None:
    import ale_py  # noqa: F401  (registers its own environments)

    monkeypatch.setattr(catalog, "resolve_env", lambda _config: pytest.fail("a game was made"))
    assert catalog.environments("space_inv") == ["atari", f"  {'ALE/SpaceInvaders-v5':28} space_invaders"]
    assert catalog.environments("pong") == ["atari", f"  {'ALE/Pong-v5':28} pong"]
    assert len(catalog.environments("ALE/")) == 1 + len(all_games())
    assert message(lambda: catalog.environments("pnog")).endswith("; did you mean ALE/Pong-v5?")


@pytest.mark.slow
def test_check_knows_games() -> None:
    found = {finding.subject: finding for finding in check_env(env_config("breakout", max_episode_steps=300))}
    assert {finding.level for finding in found.values()} <= {"ok", "warn"}
    assert found["make"].message == "breakout is an AtariGame"
    assert "an action is held for 4 frames" in found["game"].message
    assert found["network"].message.startswith("Box(4, 42, 42) uint8 through the CNN a3c-half")  # as the preset has it
    assert found["seeding"].level == "ok"
    assert found["time limit"].message.startswith("300 steps are declared; the longest of")
    assert found["backend"].message.startswith("ale, for 8 environments")
    assert found["preset"].message.startswith("breakout (for breakout)")


def test_check_reports_unused_settings() -> None:
    (finding,) = [f for f in check_env(env_config("CartPole-v1", frame_skip=2)) if f.level == "fail"]
    assert finding.subject == "backend"
    assert finding.message.startswith("frame_skip = 2: only Atari games use it")


def test_episodes_cannot_be_saved() -> None:
    envs = games_of("pong")
    assert envs.get_state() is None
    assert "the checkpoint's episodes are of another backend" in message(lambda: envs.set_state({}), CheckpointError)


class Listener:
    """A logger that keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def log(self, *_args: object) -> None: ...
    def episodes(self, *_args: object) -> None: ...
    def message(self, text: str) -> None:
        self.messages.append(text)

    def close(self) -> None: ...


def test_training_and_resuming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run restarts its games and says so."""
    monkeypatch.setattr(sys.modules["limelight.training.run"], "draw_report", lambda _run_dir: None)
    listener = Listener()
    settings: dict[str, Any] = {
        "num_envs": 4, "env_threads": 1, "max_episode_steps": 20, "total_timesteps": 100, "eval_every": 0,
        "final_episodes": 2, "tensorboard": False, "terminal_on_life_loss": True,
    }  # fmt: skip
    result = train("breakout", run_dir=str(tmp_path / "run"), quiet=True, loggers=[listener], **settings)
    assert "backend ale: breakout is an Atari game" in listener.messages
    assert result.agent.config.env.backend == "ale"
    assert result.summary["final_eval_return"] >= 0
    again = resume(result.run_dir, quiet=True, loggers=[listener], total_timesteps=200)
    assert again.status == "completed"
    assert any("episodes restart" in text for text in listener.messages)
