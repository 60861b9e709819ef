"""Judging an agent: separate environments, fixed seeds, greedy or stochastic. Called by train.py, cli.py and users."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from limelight.algo.collector import Policy
from limelight.envs.base import EnvBackend
from limelight.envs.games import for_other
from limelight.envs.make import make_envs
from limelight.envs.source import resolve_env
from limelight.errors import ConfigError
from limelight.settings.schema import EnvConfig
from limelight.spaces.describe import describe_space
from limelight.typing import EnvFactory

if TYPE_CHECKING:
    from limelight.runs.agent import Agent

EnvLike = str | Callable[[], gym.Env[Any, Any]] | EnvConfig | None
"""An id, a callable that makes an environment, settings; None is the environment that the agent was trained on."""
StepCallback = Callable[[float, int], bool]
"""Told return and length so far of the first environment's episode, at its start and after each step; False cuts it."""

# An episode as long as this is taken for one that never ends: a greedy policy may walk into a wall for ever.
MAX_EPISODE_STEPS = 30_000


@dataclass(frozen=True)
class Evaluation:
    """Episodes of one evaluation, in raw rewards."""

    returns: list[float]
    lengths: list[int]
    cut: int = 0
    """Episodes cut by us because they did not end; their environments played no further ones."""

    @property
    def episodes(self) -> int:
        """How many."""
        return len(self.returns)

    @property
    def mean_return(self) -> float:
        """Mean episode return."""
        return float(np.mean(self.returns))

    @property
    def std_return(self) -> float:
        """Standard deviation of the episode returns."""
        return float(np.std(self.returns))

    @property
    def median_return(self) -> float:
        """Median episode return."""
        return float(np.median(self.returns))

    @property
    def iqm_return(self) -> float:
        """Interquartile mean: the mean of the middle half."""
        ordered = np.sort(self.returns)
        cut = len(ordered) // 4
        return float(ordered[cut : len(ordered) - cut].mean())

    @property
    def mean_length(self) -> float:
        """Mean episode length in environment steps."""
        return float(np.mean(self.lengths))

    def to_json(self) -> dict[str, float]:
        """What ``limelight evaluate --json`` prints."""
        keys = ("mean_return", "std_return", "median_return", "iqm_return", "episodes", "mean_length")
        return {key: getattr(self, key) for key in keys}

    def to_metrics(self) -> dict[str, float]:
        """Scalars for the loggers."""
        metrics: dict[str, float] = {
            "eval/mean_reward": self.mean_return,
            "eval/std_reward": self.std_return,
            "eval/median_reward": self.median_return,
            "eval/iqm_reward": self.iqm_return,
            "eval/min_reward": min(self.returns),
            "eval/max_reward": max(self.returns),
            "eval/ep_len_mean": self.mean_length,
            "eval/episodes": self.episodes,
        }
        return {**metrics, "eval/cut_episodes": self.cut} if self.cut else metrics


def evaluate(
    agent: Agent,
    env: EnvLike = None,
    *,
    episodes: int = 100,
    seed: int = 0,
    deterministic: bool = True,
) -> Evaluation:
    """Play ``episodes`` whole episodes with ``agent``; raw returns, frozen normalization.

    Args:
        agent: from :func:`limelight.load`, or a :class:`limelight.Agent`.
        env: an id, a callable that makes an environment, or None for the one it was trained on.
        episodes: how many; each of the environments side by side plays an equal share, so that short episodes
            do not crowd out long ones.
        seed: of the environments (and of the actions, if not ``deterministic``); the same seed gives the same result.
        deterministic: the most probable action instead of a sample.
    Raises: ConfigError if the environment cannot be made or is not what the agent was trained for.
    """
    if episodes < 1:
        raise ConfigError(f"episodes = {episodes}: must be ≥ 1")
    config, factory = env_of(agent, env)
    envs = make_eval_envs(config, episodes, factory)
    try:
        check_fits(agent, envs, config.env_id)
        rng = None if deterministic else np.random.default_rng(seed)
        return play(envs, agent.policy(rng), agent.normalize, episodes, seed)
    finally:
        envs.close()


def env_of(agent: Agent, env: EnvLike) -> tuple[EnvConfig, EnvFactory | None]:
    """What makes the environment that ``env`` stands for in :func:`evaluate`."""
    config, factory = agent.config.env, agent.env_factory
    if isinstance(env, str):
        return for_other(config, env), None
    if isinstance(env, EnvConfig):
        return env, None
    return (config, factory) if env is None else (for_other(config, None), env)


def check_fits(agent: Agent, envs: EnvBackend, env_id: str) -> None:
    """Raises: ConfigError if ``envs`` have other spaces than the agent was trained on."""
    for key in ("observation_space", "action_space"):
        theirs, ours = getattr(envs, f"single_{key}"), getattr(agent, key)
        if theirs != ours:
            raise ConfigError(
                f"env_id = {env_id}: its {key} is {describe_space(theirs)}, "
                f"the agent was trained on {describe_space(ours)}"
            )


def make_eval_envs(config: EnvConfig, episodes: int, factory: EnvFactory | None) -> EnvBackend:
    """Environments to judge in: as many side by side as help, never more than episodes."""
    config = dataclasses.replace(config, autoreset_mode="next_step", backend="auto")
    source = resolve_env(config, factory)
    most = 100 if source.spec is not None and source.spec.vector_entry_point else 10
    return make_envs(config, num_envs=min(episodes, most), factory=source)


def play(
    envs: EnvBackend,
    policy: Policy,
    normalize: Callable[[NDArray[Any]], NDArray[Any]],
    episodes: int,
    seed: int,
    watch: StepCallback = lambda episode_return, length: True,
) -> Evaluation:
    """Play ``episodes`` episodes, an equal share in each environment, starting all of them anew from ``seed``.

    ``envs`` restart at the next step (invalid rows); ``policy`` remembers nothing yet.
    """
    B = envs.num_envs
    to_play = np.full(B, episodes // B) + (np.arange(B) < episodes % B)
    returns: list[float] = []
    lengths: list[int] = []
    cut = 0
    episode_return, episode_length = np.zeros(B), np.zeros(B, np.int64)
    obs, episode_start = normalize(envs.reset(seed)), np.ones(B, np.float32)
    watch(0.0, 0)
    while to_play.any():
        step = envs.step(policy.to_env(policy.act(obs, episode_start)))
        obs, episode_start = normalize(step.obs), 1.0 - step.valid.astype(np.float32)
        episode_return += step.rewards
        episode_length += step.valid
        done = step.terminated | step.truncated
        endless = ~done & (episode_length >= MAX_EPISODE_STEPS)
        endless[0] |= not watch(float(episode_return[0]), int(episode_length[0])) and not done[0]
        for b in np.flatnonzero(done | endless):
            if to_play[b]:
                returns.append(float(episode_return[b]))
                lengths.append(int(episode_length[b]))
                to_play[b] = 0 if endless[b] else to_play[b] - 1
                cut += int(endless[b])
            episode_return[b] = episode_length[b] = 0
    return Evaluation(returns, lengths, cut)
