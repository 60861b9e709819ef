"""Evaluation of an agent: whole episodes in separate environments, fixed seeds, greedy or sampled actions."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from limelight.algo.collector import Policy
from limelight.envs.base import EnvBackend, Step
from limelight.envs.episode_info import NO_INFO, EpisodeInfo, InfoNotes
from limelight.envs.faults import how_to_fix
from limelight.envs.games import for_other, stepped_singly
from limelight.envs.guards import pop_restarts
from limelight.envs.make import make_envs
from limelight.envs.source import EnvSource, qualified_name, resolve_env
from limelight.envs.stalls import watched
from limelight.errors import ConfigError, EnvError, NonFiniteError
from limelight.runs import env_numbers
from limelight.runs.env_numbers import Success, success_of
from limelight.runs.statistics import iqm
from limelight.settings.schema import EnvConfig, EvalConfig
from limelight.settings.values import Range, coerce
from limelight.spaces.describe import describe_space, space_difference
from limelight.threads import single_threaded
from limelight.typing import EnvFactory

if TYPE_CHECKING:
    from limelight.runs.agent import Agent

EnvLike = str | Callable[[], gym.Env[Any, Any]] | EnvConfig | None
"""An id, a callable that makes an environment, or settings; None is the environment of the agent's training."""
StepCallback = Callable[[float, int], bool]
"""Called with return and length so far of the first environment's episode, at its start and after each step; return
False to cut the episode."""

_LOG = logging.getLogger("limelight")
MAX_EPISODE_STEPS = 30_000
"""Length at which an episode is cut: a greedy policy can get stuck, and its episode may then never end."""


class Observer(Protocol):
    """Sees every step of an evaluation."""

    def before(self, obs: NDArray[Any], episode_start: NDArray[np.float32]) -> None:
        """Take the normalised observations [B, *obs_shape] that the policy is about to act on."""

    def after(self, actions: NDArray[Any], step: Step) -> None:
        """Take the actions of the environments and the step that they led to."""

    def episode(self, b: int) -> None:
        """Note that the running episode of environment ``b`` counts, and has ended or is cut."""


class Limits(NamedTuple):
    """When running episodes of an evaluation are cut."""

    max_steps: int
    """The length at which an episode is cut."""
    is_over: Callable[[], bool]
    """Called at every step: true cuts all running episodes. It may raise to end the evaluation."""


NO_LIMITS = Limits(MAX_EPISODE_STEPS, lambda: False)
"""Only the length at which any episode is cut."""


@dataclass(frozen=True)
class Evaluation:
    """The episodes of one evaluation, in raw rewards."""

    returns: list[float]
    lengths: list[int]
    cut: int = 0
    """Episodes that were cut because they did not end; their environments ran no further ones."""
    infos: list[EpisodeInfo] = field(default_factory=list)
    """The environment's own numbers of each episode."""
    env_restarts: int = 0
    """Environments that failed and were replaced; another episode was run in the place of theirs."""

    @property
    def env(self) -> dict[str, list[float | None]]:
        """Return the environment's own numbers by the keys of its info: one per episode, None where it has none."""
        return env_numbers.by_key(self.infos)

    @property
    def episodes(self) -> int:
        """Return the number of episodes."""
        return len(self.returns)

    @property
    def mean_return(self) -> float:
        """Return the mean episode return."""
        return math.fsum(self.returns) / len(self.returns)  # rounded once: equal returns are their mean

    @property
    def std_return(self) -> float:
        """Return the standard deviation of the episode returns."""
        with np.errstate(over="ignore"):  # the squares of returns beyond 1e154
            return float(np.std(self.returns))

    @property
    def median_return(self) -> float:
        """Return the median episode return."""
        return float(np.median(self.returns))

    @property
    def iqm_return(self) -> float:
        """Return the interquartile mean of the episode returns: the mean of the middle half."""
        return float(iqm(np.asarray(self.returns)))

    @property
    def mean_length(self) -> float:
        """Return the mean episode length in environment steps."""
        return float(np.mean(self.lengths))

    def to_json(self) -> dict[str, Any]:
        """Return statistics and episodes by the names that ``limelight evaluate --json`` prints."""
        keys = ("mean_return", "std_return", "median_return", "iqm_return", "episodes", "mean_length")
        statistics = {key: getattr(self, key) for key in keys}
        episodes = {"cut_episodes": self.cut, "returns": self.returns, "lengths": self.lengths}
        return {**statistics, **episodes, **env_numbers.to_json(self.env)}

    @property
    def success(self) -> Success | None:
        """Return the rate of success with its interval; None where no info tells it."""
        return success_of(self.env)

    def describe_cut(self, asked: int) -> str:
        """Return how many episodes were cut, and that others were not run for that reason; nothing if none was."""
        if not self.cut:
            return ""
        fewer = f" ({asked} were asked for)" if self.episodes < asked else ""
        return f", {self.cut} of them cut after {max(self.lengths):,} steps{fewer}"

    def to_metrics(self) -> dict[str, float]:
        """Return the statistics by the names of logged metrics."""
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
        metrics |= env_numbers.to_metrics(self.env)
        metrics |= {"eval/env_restarts": self.env_restarts} if self.env_restarts else {}
        return {**metrics, "eval/cut_episodes": self.cut} if self.cut else metrics


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """Return several evaluations as one."""
    return Evaluation(
        [value for part in parts for value in part.returns],
        [length for part in parts for length in part.lengths],
        sum(part.cut for part in parts),
        [info for part in parts for info in part.infos],
        sum(part.env_restarts for part in parts),
    )


def evaluate(
    agent: Agent,
    env: EnvLike = None,
    *,
    episodes: int = 100,
    seed: int = 0,
    deterministic: bool = True,
    num_envs: int | None = None,
) -> Evaluation:
    """Run ``episodes`` whole episodes with ``agent``: raw returns, frozen running statistics.

    Args:
        agent: from :func:`limelight.load`, or a :class:`limelight.Agent`.
        env: an id, a callable that makes an environment, settings, or None for the environment of its training.
        episodes: how many; each of the parallel environments runs an equal share, so that short episodes do not
            displace long ones.
        seed: of the environments (and of the actions, if not ``deterministic``); the same seed gives the same result.
        deterministic: the most probable action instead of a sample.
        num_envs: copies of the environment at the same time; None: as in the evaluations of training.
    Raises: EnvError if the environment cannot be made; ConfigError if its spaces are not those of the agent.
    """
    episodes, seed, num_envs = counts(episodes, seed, num_envs)
    deterministic = coerce("deterministic", deterministic, bool)
    with evaluation_envs(agent, env, episodes, num_envs) as (envs, name, limits):
        rng = None if deterministic else np.random.default_rng(seed)
        result = play(envs, agent.policy(rng), agent.normalize, episodes, seed, name=name, limits=limits)
    notes = InfoNotes(env_of(agent, env)[0].info_keys)
    for line in [*notes.take(result.infos), *notes.end()]:
        _LOG.warning("limelight: note: %s", line)
    return result


def counts(episodes: int, seed: int, num_envs: int | None) -> tuple[int, int, int | None]:
    """Return these arguments of :func:`evaluate` as whole numbers.

    Raises: ConfigError for one that is none, or is out of its range.
    """
    episodes, seed = coerce("episodes", episodes, int), coerce("seed", seed, int)
    Range(ge=1).check("episodes", episodes)
    Range(ge=0).check("seed", seed)
    if num_envs is not None:
        num_envs = coerce("num_envs", num_envs, int)
        Range(ge=1).check("num_envs", num_envs)
    return episodes, seed, num_envs


@contextmanager
def evaluation_envs(
    agent: Agent, env: EnvLike, episodes: int, num_envs: int | None, in_process: bool = False
) -> Iterator[tuple[EnvBackend, str, Limits]]:
    """Make the environments of :func:`evaluate`, whose arguments these are, and close them.

    ``in_process``: step them one by one in this process, so that each is seeded by itself.

    Yields: environments, their name, and when episodes are cut.
    """
    require_agent(agent)
    config, factory = env_of(agent, env)
    source = resolve_env(config, factory)
    settings = agent.config.eval if env is None else EvalConfig()
    settings = dataclasses.replace(settings, eval_backend="sync") if in_process else settings
    envs = make_eval_envs(source, episodes, settings, num_envs)
    try:
        check_fits(agent, envs, config.env_id)
        with watched(config.step_timeout):
            yield envs, config.env_id, Limits(max_steps(source), lambda: False)
    finally:
        envs.close()


def require_agent(agent: Any) -> None:
    """Refuse what is no agent, with a line that says what to pass."""
    if hasattr(agent, "policy") and hasattr(agent, "normalize") and not isinstance(agent, type):
        return
    if isinstance(agent, str | Path):
        raise ConfigError(f"agent = {str(agent)!r}: is a path; pass the agent that is saved there, limelight.load(...)")
    instead = "its agent, result.agent" if hasattr(type(agent), "agent") else "an agent, e.g. limelight.load(run_dir)"
    raise ConfigError(f"agent: is a {type(agent).__name__}; pass {instead}")


def env_of(agent: Agent, env: EnvLike) -> tuple[EnvConfig, EnvFactory | None]:
    """Return the settings and the factory of the environment that ``env`` means in :func:`evaluate`."""
    config, factory = agent.config.env, agent.env_factory
    if isinstance(env, str):
        return for_other(config, env), None
    if isinstance(env, EnvConfig):
        return env, None
    if env is None:
        return config, factory
    return for_other(config, env.name if isinstance(env, EnvSource) else qualified_name(env)), env


def check_fits(agent: Agent, envs: EnvBackend, env_id: str) -> None:
    """Check that ``envs`` have the spaces that the agent was trained on.

    Raises: ConfigError if not.
    """
    for key in ("observation_space", "action_space"):
        space, trained_on = getattr(envs, f"single_{key}"), getattr(agent, key)
        difference = space_difference(space, trained_on, float_bounds=key == "action_space")
        if difference is not None:
            texts = describe_space(space), describe_space(trained_on)
            detail = f" ({difference})" if texts[0] == texts[1] else ""
            raise ConfigError(
                f"env_id = {env_id}: its {key} is {texts[0]}, the agent was trained on {texts[1]}{detail}"
            )


def max_steps(source: EnvSource) -> int:
    """Return the length at which an episode is cut: the environment's own limit is heeded where it is larger."""
    return max(MAX_EPISODE_STEPS, source.time_limit() or 0)


def make_eval_envs(source: EnvSource, episodes: int, settings: EvalConfig, num_envs: int | None = None) -> EnvBackend:
    """Make the environments of an evaluation: at most as many as episodes, and as many as make it faster.

    Where ``auto`` has chosen processes and the environment fails in them, it is stepped in this process, with a note.

    Args:
        source: makes the copies.
        episodes: of the evaluation.
        settings: number and stepping of the copies.
        num_envs: overrides the number of copies.
    """
    most = num_envs or settings.eval_envs
    if most is None:
        most = 100 if source.spec is not None and source.spec.vector_entry_point else 10
    backend = "auto" if settings.eval_backend == "fastest" else settings.eval_backend
    config = dataclasses.replace(
        source.config, autoreset_mode="next_step", backend=backend, num_envs=min(episodes, most)
    )
    if source.game is not None and backend in ("sync", "async"):
        config = stepped_singly(config)
    envs = make_envs(config, factory=source)
    if envs.name != "async" or backend != "auto":
        return envs
    try:
        envs.reset(seed=0)
    except EnvError as error:
        envs.close()
        _LOG.warning("limelight: note: evaluations step in this process, as in others: %s", error)
        return make_envs(dataclasses.replace(config, backend="sync"), factory=source)
    return envs


@single_threaded()
def play(
    envs: EnvBackend,
    policy: Policy,
    normalize: Callable[[NDArray[Any]], NDArray[Any]],
    episodes: int,
    seed: int,
    watch: StepCallback = lambda episode_return, length: True,
    name: str = "the environment",
    limits: Limits = NO_LIMITS,
    observer: Observer | None = None,
) -> Evaluation:
    """Run ``episodes`` episodes, an equal share in each environment, after a reset of all environments with ``seed``.

    Args:
        envs: environments with NEXT_STEP autoreset.
        policy: a policy in its initial recurrent state; it computes on one thread, as in training.
        normalize: returns observations as the policy takes them.
        episodes, seed: how many, and of the environments.
        watch: called at every step of the first environment.
        name: the environment's name in messages.
        limits: when running episodes are cut.
        observer: sees every step; None: nothing is kept of them.
    Raises: NonFiniteError for an episode whose return is not finite, as training would.
    """
    B = envs.num_envs
    to_play = np.full(B, episodes // B) + (np.arange(B) < episodes % B)
    returns, lengths, infos, cut = list[float](), list[int](), list[EpisodeInfo](), 0
    episode_return, episode_length = np.zeros(B), np.zeros(B, np.int64)
    obs, episode_start = normalize(envs.reset(seed)), np.ones(B, np.float32)
    watch(0.0, 0)
    while to_play.any():
        step = _step(envs, policy, obs, episode_start, observer)
        obs, episode_start = normalize(step.obs), 1.0 - step.valid.astype(np.float32)
        episode_return += step.rewards
        episode_length += step.valid
        done = step.terminated | step.truncated
        endless = ~done & ((episode_length >= limits.max_steps) | limits.is_over())
        endless[0] |= not watch(float(episode_return[0]), int(episode_length[0])) and not done[0]
        for b in np.flatnonzero(done | endless):
            if to_play[b] and (step.failed is None or not step.failed[b]):  # another is played in its place
                returns.append(_finite(name, int(b), float(episode_return[b]), int(episode_length[b])))
                lengths.append(int(episode_length[b]))
                infos.append(NO_INFO if step.ends is None else step.ends.get(int(b), NO_INFO))
                if observer is not None:
                    observer.episode(int(b))
                to_play[b] = 0 if endless[b] else to_play[b] - 1
                cut += int(endless[b])
            episode_return[b] = episode_length[b] = 0
    return Evaluation(returns, lengths, cut, infos, _note_restarts(envs))


def _note_restarts(envs: EnvBackend) -> int:
    """Log which environments were replaced in an evaluation; return how many."""
    restarts = pop_restarts(envs)
    for line in restarts:
        _LOG.warning("limelight: note: in an evaluation: %s", line)
    return len(restarts)


def _step(
    envs: EnvBackend, policy: Policy, obs: NDArray[Any], episode_start: NDArray[np.float32], observer: Observer | None
) -> Step:
    """Act on normalised observations and step the environments; the observer, if any, sees both."""
    if observer is not None:
        observer.before(obs, episode_start)
    actions = policy.to_env(policy.act(obs, episode_start))
    try:
        step = envs.step(actions)
    except EnvError:
        _note_restarts(envs)
        raise
    if observer is not None:
        observer.after(actions, step)
    return step


def _finite(name: str, b: int, episode_return: float, length: int) -> float:
    """Return the return of an episode of environment ``b``.

    Raises: NonFiniteError.
    """
    if math.isfinite(episode_return):
        return episode_return
    raise NonFiniteError(
        f"{name}: return = {episode_return} of an episode of {length} steps in environment {b} of an evaluation; "
        f"{how_to_fix(name)}"
    )
