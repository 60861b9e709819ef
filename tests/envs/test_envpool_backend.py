"""EnvPool must be Gymnasium's environment of the same id: its stream, time limit, dynamics, arguments and spaces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from limelight.algo.collector import RolloutCollector
from limelight.algo.episodes import Episode
from limelight.envs.base import EnvBackend, Step
from limelight.envs.envpool_backend import EnvPoolBackend, why_no_envpool
from limelight.envs.games import all_games
from limelight.envs.gymnasium_backend import SyncBackend
from limelight.envs.make import Choice, explain_backend, make_envs
from limelight.envs.source import resolve_env
from limelight.errors import CheckpointError, ConfigError
from limelight.settings.schema import EnvConfig
from limelight.training.run import resume, train

pytest.importorskip("envpool")
IDS = (
    "CartPole-v1", "Acrobot-v1", "MountainCarContinuous-v0", "Pendulum-v1", "FrozenLake-v1",
    "LunarLander-v3", "LunarLanderContinuous-v3", "BipedalWalker-v3",
    "HalfCheetah-v4", "HalfCheetah-v5", "Hopper-v4", "Hopper-v5", "Humanoid-v5",
)  # fmt: skip
LIMIT, NUM_ENVS = 13, 3
pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date.*")  # Gymnasium, of v4


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a temporary folder, as MuJoCo writes a log file into the current one."""
    monkeypatch.chdir(tmp_path)


def made(env_id: str) -> gym.Env[Any, Any]:
    """Make Gymnasium's environment, or skip the test if its package is missing."""
    try:
        return gym.make(env_id, disable_env_checker=True)
    except (gym.error.DependencyNotInstalled, ImportError) as error:
        pytest.skip(str(error))


def pool(env_id: str, num_envs: int = NUM_ENVS, seed: int = 0, **settings: Any) -> EnvPoolBackend:
    made(env_id).close()
    envs = make_envs(env_id, num_envs, seed=seed, backend="envpool", **settings)
    assert isinstance(envs, EnvPoolBackend)
    return envs


def message(call: Callable[[], Any], kind: type[Exception] = ConfigError) -> str:
    with pytest.raises(kind) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def sampler(envs: EnvBackend) -> Callable[[], NDArray[Any]]:
    """Return a function that draws actions for all environments, in the dtype of Gymnasium's space."""
    space = envs.single_action_space
    space.seed(0)
    return lambda: np.stack([np.asarray(space.sample()) for _ in range(envs.num_envs)])


def check_contract(envs: EnvBackend, step: Step) -> None:
    space = envs.single_observation_space
    assert step.obs.shape == (envs.num_envs, *(space.shape or ()))
    assert step.obs.dtype == space.dtype
    assert step.rewards.dtype == np.float32
    assert step.terminated.dtype == step.truncated.dtype == step.valid.dtype == np.bool_
    for array in (step.rewards, step.terminated, step.truncated, step.valid):
        assert array.shape == (envs.num_envs,)
    assert not step.rewards[~step.valid].any()
    assert not (step.terminated | step.truncated)[~step.valid].any()
    assert step.final_obs is None


# --------------------------------------------------------------------------- the stream


@pytest.mark.parametrize("env_id", IDS)
def test_the_stream_keeps_the_contract(env_id: str) -> None:
    """Every episode: at most LIMIT valid rows, truncated at exactly LIMIT, then invalid rows, then the next."""
    envs = pool(env_id, max_episode_steps=LIMIT)
    reference = made(env_id)
    assert envs.single_observation_space == reference.observation_space
    assert envs.single_action_space == reference.action_space
    act, length, ends = sampler(envs), np.zeros(NUM_ENVS, int), np.zeros(NUM_ENVS, int)
    pause: list[int] = [0] * NUM_ENVS  # how many invalid rows are still expected
    for _ in range(5 * LIMIT):
        step = envs.step(act())
        check_contract(envs, step)
        for b in range(NUM_ENVS):
            assert step.valid[b] == (pause[b] == 0)
            if pause[b]:
                pause[b] -= 1
                continue
            length[b] += 1
            assert step.truncated[b] == (length[b] == LIMIT)
            if step.terminated[b] or step.truncated[b]:
                pause[b] = 1 if step.terminated[b] else 2
                length[b], ends[b] = 0, ends[b] + 1
    assert (ends >= 3).all()
    reference.close()
    envs.close()
    envs.close()


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "MountainCarContinuous-v0", "HalfCheetah-v4", "HalfCheetah-v5"])
def test_the_time_limit_is_gymnasiums(env_id: str) -> None:
    envs = pool(env_id, 1)
    limit = gym.registry[env_id].max_episode_steps
    assert limit is not None
    zeros = np.zeros((1, *(envs.single_action_space.shape or ())), np.float32)
    for _ in range(2):
        ends = [bool(envs.step(zeros).truncated[0]) for _ in range(limit)]
        assert ends == [False] * (limit - 1) + [True]
        assert [bool(envs.step(zeros).valid[0]) for _ in range(2)] == [False, False]


def test_an_end_in_the_last_step_of_the_limit_is_both() -> None:
    """EnvPool calls such an end only truncated, which would bootstrap from a terminal state."""
    left = np.zeros(1, np.int64)
    endless = pool("CartPole-v1", 1, seed=4)
    steps = next(t for t in range(1, 100) if endless.step(left).terminated[0])
    envs = pool("CartPole-v1", 1, seed=4, max_episode_steps=steps)
    rows = [envs.step(left) for _ in range(steps)]
    assert [bool(row.terminated[0]) for row in rows] == [bool(row.truncated[0]) for row in rows]
    assert rows[-1].terminated[0]
    assert [bool(envs.step(left).valid[0]) for _ in range(2)] == [False, True]


class FirstAction:
    """A policy that always takes the first action."""

    def begin_rollout(self) -> None:
        pass

    def act(self, obs: NDArray[Any], episode_start: object) -> NDArray[np.int64]:
        return np.zeros(len(obs), np.int64)

    def to_env(self, actions: NDArray[np.int64]) -> NDArray[np.int64]:
        return actions


def test_the_collector_counts_whole_episodes() -> None:
    """CartPole pays 1 for each step, in terminated and truncated episodes."""
    collector = RolloutCollector(pool("CartPole-v1", 8, max_episode_steps=9), 40, None, "CartPole-v1")
    collector.reset(1)
    rollout = collector.collect(FirstAction())
    episodes: list[Episode] = collector.pop_episodes()
    assert {episode.length for episode in episodes} <= {8, 9}
    assert any(episode.terminated for episode in episodes)
    assert not all(episode.terminated for episode in episodes)
    assert all(episode.episode_return == episode.length for episode in episodes)
    assert rollout.num_valid == rollout.valid.sum() == rollout.rewards.sum()


# --------------------------------------------------------------------------- the same environment


def set_gymnasium(env: gym.Env[Any, Any], obs: NDArray[Any]) -> None:
    """Set Gymnasium's environment to the state of EnvPool's first observation."""
    inner: Any = env.unwrapped
    if env.spec is not None and env.spec.id == "Pendulum-v1":
        inner.state = np.array([np.arctan2(obs[1], obs[0]), obs[2]], np.float64)
    elif hasattr(inner, "set_state"):  # MuJoCo; the observation lacks the position along the track
        nq, nv = inner.model.nq, inner.model.nv
        inner.set_state(np.concatenate([[0.0], obs[: nq - 1]]), obs[nq - 1 : nq - 1 + nv])
    else:
        inner.state = np.array(obs, np.float64)


@pytest.mark.parametrize(
    "env_id",
    [
        "CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0",
        "HalfCheetah-v4", "HalfCheetah-v5", "Hopper-v4", "Hopper-v5",
    ],
)  # fmt: skip
def test_the_same_actions_lead_to_the_same_observations_and_rewards(env_id: str) -> None:
    env = made(env_id)
    for seed in range(3):
        envs = pool(env_id, 1)
        env.reset(seed=0)
        set_gymnasium(env, envs.reset(seed)[0])
        act = sampler(envs)
        for _ in range(8):
            actions = act()
            step, (obs, reward, terminated, truncated, _) = envs.step(actions), env.step(actions[0])
            np.testing.assert_allclose(step.obs[0], obs, atol=1e-5)
            np.testing.assert_allclose(step.rewards[0], reward, atol=1e-4)
            assert (step.terminated[0], step.truncated[0]) == (terminated, truncated)
    env.close()


def stream(envs: EnvBackend, steps: int = 20) -> bytes:
    act = sampler(envs)
    return b"".join(envs.step(act()).obs.tobytes() for _ in range(steps))


def test_the_seed_of_a_reset_decides_the_episodes() -> None:
    envs = pool("LunarLander-v3")
    first = envs.reset(7).copy()
    assert len({row.tobytes() for row in first}) == NUM_ENVS
    played = stream(envs)
    np.testing.assert_array_equal(envs.reset(7), first)
    assert stream(envs) == played
    assert not np.array_equal(envs.reset(8), first)
    assert not np.array_equal(envs.reset(), envs.reset())
    make_envs("CartPole-v1", 2, backend="envpool", seed=2**31 - 1).close()


def test_without_a_seed_every_pool_differs() -> None:
    made("CartPole-v1")
    one, other = (make_envs("CartPole-v1", 2, backend="envpool").reset() for _ in range(2))
    assert not np.array_equal(one, other)


def test_a_reset_in_the_middle_leaves_no_reset_due() -> None:
    envs = pool("CartPole-v1", 2, max_episode_steps=3)
    for seed in (1, None):
        for t in range(3):
            step = envs.step(np.full(2, t % 2))
        assert step.truncated.all()
        envs.reset(seed)
        assert envs.step(np.zeros(2, np.int64)).valid.all()
        envs.reset(0)


def test_a_pool_can_be_closed_in_the_middle_of_an_episode() -> None:
    envs = pool("CartPole-v1")
    envs.step(np.zeros(NUM_ENVS, np.int64))
    envs.close()
    envs.close()


# --------------------------------------------------------------------------- arguments, and what cannot be had


def test_env_kwargs_are_options_of_envpool() -> None:
    act = np.ones((1, 6), np.float32)
    cheap, dear = (
        pool("HalfCheetah-v5", 1, env_kwargs={"ctrl_cost_weight": weight}).step(act).rewards[0] for weight in (0.0, 1.0)
    )
    assert cheap - dear == pytest.approx(6.0, abs=1e-4)


@pytest.mark.parametrize(
    ("env_id", "settings", "expected"),
    [
        ("CartPole-v1", {"env_kwargs": {"sutton_barto_reward": True}}, "has no option sutton_barto_reward"),
        ("Pendulum-v3", {}, "EnvPool has no Pendulum-v3 (it has Pendulum-v1, "),
        ("Blackjack-v1", {}, "cannot carry the composite spaces or action masks of Blackjack-v1"),
        ("CartPole-v1", {"autoreset_mode": "same_step"}, "autoreset_mode = same_step: EnvPool has only next_step"),
        ("limelight.envs.toy:Ring", {}, "limelight.envs.toy:Ring is a callable, and EnvPool knows only ids"),
    ],
)
def test_why_envpool_cannot_be_used_is_named(
    env_id: str, settings: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = "Pendulum-v3"
    monkeypatch.setitem(gym.registry, odd, EnvSpec(odd, gym.registry["Pendulum-v1"].entry_point))
    assert expected in message(lambda: make_envs(env_id, 2, backend="envpool", **settings))


def test_options_of_a_wrong_type_are_refused() -> None:
    made("HalfCheetah-v5")
    source = resolve_env(EnvConfig("HalfCheetah-v5", env_kwargs={"ctrl_cost_weight": "much"}))
    assert why_no_envpool(source) == "EnvPool's HalfCheetah-v5 refuses env_kwargs {'ctrl_cost_weight': 'much'}"


@pytest.mark.parametrize(
    ("role", "space"),
    [("observation", Box(-1, 1, (5,))), ("action", Discrete(3)), ("action", Box(-1, 1, (1,)))],
)
def test_an_environment_with_other_spaces_is_refused(
    role: str, space: gym.Space[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id was registered again for another environment, and EnvPool has it, too."""

    def other(**kwargs: Any) -> gym.Env[Any, Any]:
        env = gym.envs.classic_control.CartPoleEnv(**kwargs)  # type: ignore[attr-defined]
        setattr(env, f"{role}_space", space)
        return env

    monkeypatch.setattr(gym.registry["CartPole-v1"], "entry_point", other)
    text = message(lambda: make_envs("CartPole-v1", 2, backend="envpool"))
    assert text.startswith(f"backend = envpool: CartPole-v1 has {role} space ")
    assert text.endswith("; use backend sync")


def test_episodes_cannot_be_saved() -> None:
    envs = pool("CartPole-v1")
    assert envs.get_state() is None
    assert "the checkpoint's episodes are of another backend" in message(lambda: envs.set_state({}), CheckpointError)


# --------------------------------------------------------------------------- Atari


def games_of(game: str, num_envs: int = 2, backend: str = "envpool", **settings: Any) -> EnvBackend:
    """Start games, by EnvPool or by ALE."""
    pytest.importorskip("ale_py")
    return make_envs(game, num_envs, seed=0, backend=backend, **settings)


def test_games_keep_the_contract_and_their_limit() -> None:
    """A game over is followed by one invalid row, the limit by two; the limit counts steps, not frames."""
    envs = games_of("breakout", terminal_on_life_loss=True, max_episode_steps=115, frame_skip=5, frame_size=42)
    assert isinstance(envs, EnvPoolBackend)
    assert envs.single_observation_space == Box(0, 255, (4, 42, 42), np.uint8)
    assert envs.single_action_space == Discrete(4)
    act, length, pause, ends, lost = sampler(envs), [0, 0], [0, 0], {"over": 0, "limit": 0}, 0
    for _ in range(600):
        step = envs.step(act())
        check_contract(envs, step)
        assert step.life_lost is not None
        assert not step.life_lost[~step.valid | step.terminated].any()
        lost += int(step.life_lost.sum())
        for b in range(2):
            assert step.valid[b] == (pause[b] == 0)
            if pause[b]:
                pause[b] -= 1
                continue
            length[b] += 1
            assert step.truncated[b] == (length[b] == 115)
            if step.terminated[b] or step.truncated[b]:
                pause[b] = 2 if step.truncated[b] and not step.terminated[b] else 1
                ends["over" if step.terminated[b] else "limit"] += 1
                length[b] = 0
    assert min(ends.values()) >= 1
    assert lost >= 4 * ends["over"], "a game has five lives"
    envs.close()
    envs.close()


@pytest.mark.parametrize("game", ["pong", "space_invaders"])
def test_games_are_ales_games(game: str) -> None:
    """The newest of the stacked frames are the same, byte for byte, if games start alike: with FIRE only."""
    pool_of, ale = (games_of(game, backend=name, noop_max=1) for name in ("envpool", "ale"))
    assert pool_of.single_observation_space == ale.single_observation_space
    assert pool_of.single_action_space == ale.single_action_space
    theirs, ours = pool_of.reset(0), ale.reset(0)
    np.testing.assert_array_equal(theirs[:, -1], ours[:, -1])
    assert theirs[:, 0].any()  # the first frame is repeated; ALE's are black
    assert not ours[:, 0].any()
    act = sampler(ale)
    rewards = 0.0
    for _ in range(120):
        actions = act()
        one, other = pool_of.step(actions), ale.step(actions)
        np.testing.assert_array_equal(one.obs[:, -1], other.obs[:, -1])
        np.testing.assert_array_equal(one.rewards, other.rewards)
        rewards += float(np.abs(one.rewards).sum())
    np.testing.assert_array_equal(one.obs, other.obs)
    assert rewards > 0


def test_lives_are_lost_in_the_same_steps_as_with_ale() -> None:
    both = [games_of("breakout", backend=name, noop_max=1, terminal_on_life_loss=True) for name in ("envpool", "ale")]
    lost = 0
    act = sampler(both[0])
    for _ in range(120):
        actions = act()
        one, other = (envs.step(actions) for envs in both)
        assert one.life_lost is not None
        np.testing.assert_array_equal(one.life_lost, other.life_lost)
        lost += int(one.life_lost.sum())
    assert lost >= 4


def test_every_game_is_one_of_envpools() -> None:
    pytest.importorskip("ale_py")
    import envpool

    from limelight.envs.envpool_backend import _request

    ids = {_request(resolve_env(EnvConfig(game))).env_id for game in all_games().values()}
    assert len(ids) == len(all_games())
    assert ids <= set(envpool.list_all_envs())


def test_why_envpools_games_cannot_be_used_is_named() -> None:
    text = message(lambda: games_of("pong", noop_max=0))
    begin = "EnvPool's games begin with a frame or more, but noop_max = 0 (1 is the least)"
    assert text == f"backend = envpool: {begin}; use backend ale"
    assert explain_backend(resolve_env(EnvConfig("pong", num_envs=64))).backend == "ale"
    envs = games_of("pong")
    for wrong in ([0, 6], [-1, 0], [0]):
        with pytest.raises(ValueError, match="must be 2 whole numbers of 0 … 5"):
            envs.step(np.array(wrong))
    assert envs.step(np.array([0, 5])).life_lost is None


# --------------------------------------------------------------------------- training


def test_auto_chooses_it_only_to_train_on_mujoco_and_box2d() -> None:
    made("LunarLander-v3")

    def choice(env_id: str = "LunarLander-v3", num_envs: int = 8, **settings: Any) -> Choice:
        return explain_backend(resolve_env(EnvConfig(env_id, num_envs=num_envs, **settings)))

    assert choice() == ("envpool", "faster, and EnvPool has LunarLander-v3 with the same spaces")
    assert choice(num_envs=4).backend != "envpool"
    assert choice("Acrobot-v1", num_envs=64).backend != "envpool"
    assert choice(autoreset_mode="same_step").backend != "envpool"
    gravity = choice(env_kwargs={"gravity": -9.0})
    assert gravity.reason.endswith("EnvPool's LunarLander-v3 has no option gravity (env_kwargs)")
    assert isinstance(make_envs("LunarLander-v3", 8), SyncBackend)


class Listener:
    """A logger that keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def log(self, *_args: object) -> None: ...
    def episodes(self, *_args: object) -> None: ...
    def message(self, text: str) -> None:
        self.messages.append(text)

    def close(self) -> None: ...


SHORT: dict[str, Any] = {
    "backend": "envpool", "num_envs": 4, "total_timesteps": 400, "eval_every": 200, "eval_episodes": 2,
    "final_episodes": 2, "tensorboard": False, "quiet": True,
}  # fmt: skip


def test_training_and_resuming(tmp_path: Path) -> None:
    """Evaluations step Gymnasium's environment; a resumed run restarts its episodes and says so."""
    listener = Listener()
    result = train("CartPole-v1", algo="a2c", run_dir=str(tmp_path / "run"), loggers=[listener], **SHORT)
    assert result.summary["final_eval_return"] >= 8
    assert result.agent.config.env.backend == "envpool"
    assert not any(text.startswith("backend") for text in listener.messages)  # it was asked for
    again = resume(result.run_dir, quiet=True, loggers=[listener], total_timesteps=800)
    assert again.status == "completed"
    assert any("episodes restart" in text for text in listener.messages)


def test_asynchronous_workers_have_a_pool_each(tmp_path: Path) -> None:
    result = train("CartPole-v1", algo="a3c", num_workers=2, run_dir=str(tmp_path / "run"), **SHORT)
    assert result.status == "completed"
    assert result.summary["total_timesteps"] >= 400


def test_a_run_says_which_backend_it_took_and_why(tmp_path: Path) -> None:
    made("LunarLander-v3")
    listener, settings = Listener(), {**SHORT, "backend": "auto", "num_envs": 8}
    train("LunarLander-v3", algo="a2c", run_dir=str(tmp_path / "run"), loggers=[listener], **settings)
    assert "backend envpool: faster, and EnvPool has LunarLander-v3 with the same spaces" in listener.messages
