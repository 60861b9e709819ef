"""Evaluation in full: greedy and sampled, in raw rewards and in those that were learnt from, with all steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from limelight.algo.normalization import divided, shaped_rewards
from limelight.errors import ConfigError
from limelight.runs.evaluation import EnvLike, Evaluation, counts, evaluation_envs, play
from limelight.runs.statistics import difference_interval, iqm, mean_interval
from limelight.runs.traces import EpisodeTrace, Tracer
from limelight.settings.values import coerce

if TYPE_CHECKING:
    from limelight.runs.agent import Agent


@dataclass(frozen=True)
class TracedEvaluation:
    """The episodes of one evaluation, with their steps."""

    evaluation: Evaluation
    traces: tuple[EpisodeTrace, ...]
    """In the order of the returns."""
    trained_returns: list[float] | None
    """The returns in the rewards that were learnt from; None where these are the raw ones, or unknown."""

    @property
    def worst(self) -> EpisodeTrace:
        """Return the episode of the lowest return, the first of equal ones."""
        return self.traces[int(np.argmin(self.evaluation.returns))]

    @property
    def median(self) -> EpisodeTrace:
        """Return the episode in the middle of the order by return, the lower of two."""
        order = np.argsort(self.evaluation.returns, kind="stable")
        return self.traces[int(order[(len(order) - 1) // 2])]

    def to_json(self) -> dict[str, Any]:
        """Return statistics, intervals and episodes."""
        found = {**self.evaluation.to_json(), "interval": list(mean_interval(self.evaluation.returns))}
        if self.trained_returns is not None:
            found["as_trained"] = {**statistics(self.trained_returns), "returns": self.trained_returns}
        return found


@dataclass(frozen=True)
class FullEvaluation:
    """An agent that acts greedily, and the same one that samples its actions."""

    greedy: TracedEvaluation
    sampled: TracedEvaluation
    rewards: str
    """What was done to rewards before they were learnt from, in words; empty: nothing."""

    @property
    def difference(self) -> tuple[float, float, float]:
        """Return the mean greedy return minus the mean sampled one, and its 95 % interval."""
        greedy, sampled = self.greedy.evaluation, self.sampled.evaluation
        low, high = difference_interval(greedy.returns, sampled.returns)
        return greedy.mean_return - sampled.mean_return, low, high

    def to_json(self) -> dict[str, Any]:
        """Return both evaluations and their difference."""
        gap, low, high = self.difference
        return {
            "greedy": self.greedy.to_json(),
            "sampled": self.sampled.to_json(),
            "greedy_minus_sampled": {"mean": gap, "interval": [low, high]},
            "rewards_as_trained": self.rewards or None,
        }


def statistics(returns: Sequence[float]) -> dict[str, Any]:
    """Return mean, its 95 % interval over episodes, median and interquartile mean."""
    values = np.asarray(returns, np.float64)
    return {
        "mean_return": float(values.mean()),
        "interval": list(mean_interval(returns)),
        "median_return": float(np.median(values)),
        "iqm_return": float(iqm(values)),
    }


def evaluate_in_full(
    agent: Agent,
    env: EnvLike = None,
    *,
    episodes: int = 100,
    seed: int = 0,
    num_envs: int | None = None,
    with_values: bool = False,
) -> FullEvaluation:
    """Evaluate ``agent`` twice on the same seeds, greedily and with sampled actions, and keep all steps.

    The arguments are those of :func:`limelight.evaluate` and of :func:`trace`, and so are the errors. Where rewards
    were clipped, normalized or scaled for learning, the returns in those rewards are there too, by the frozen
    statistics of training.
    """
    greedy, sampled = (
        trace(agent, env, episodes=episodes, seed=seed, num_envs=num_envs, with_values=with_values, deterministic=how)
        for how in (True, False)
    )
    return FullEvaluation(greedy, sampled, describe_rewards(agent))


def trace(
    agent: Agent,
    env: EnvLike = None,
    *,
    episodes: int = 100,
    seed: int = 0,
    deterministic: bool = True,
    num_envs: int | None = None,
    with_values: bool = False,
) -> TracedEvaluation:
    """Evaluate as :func:`limelight.evaluate` does, and keep every step.

    Args:
        with_values: keep V(s) of every step too, at the cost of a further forward pass; the environments are then
            stepped one by one, so that each episode can be repeated by its seed and actions.
    """
    episodes, seed, num_envs = counts(episodes, seed, num_envs)
    deterministic, with_values = coerce("deterministic", deterministic, bool), coerce("with_values", with_values, bool)
    with evaluation_envs(agent, env, episodes, num_envs, in_process=with_values) as (envs, name, limits):
        policy = agent.policy(None if deterministic else np.random.default_rng(seed))
        tracer = Tracer(envs.num_envs, seed, policy, agent.model if with_values else None)
        played = play(envs, policy, agent.normalize, episodes, seed, name=name, limits=limits, observer=tracer)
    is_known = describe_rewards(agent) and not _unknown(agent)
    trained = [float(as_trained(agent, episode.rewards).sum()) for episode in tracer.episodes] if is_known else None
    return TracedEvaluation(played, tuple(tracer.episodes), trained)


def as_trained(agent: Agent, rewards: Sequence[float]) -> NDArray[np.float64]:
    """Return rewards as the learner of ``agent`` took them, by the frozen statistics.

    Raises: ConfigError where the statistics are missing.
    """
    if _unknown(agent):
        raise ConfigError("normalize_rewards = true: the agent was saved without the statistics of its rewards")
    statistics = agent.reward_statistics
    normalize = None if statistics is None else lambda raw: divided(raw, statistics)
    return np.asarray(shaped_rewards(np.asarray(rewards), agent.config.algorithm, normalize), np.float64)


def describe_rewards(agent: Agent) -> str:
    """Return what was done to rewards before they were learnt from; empty: nothing."""
    a, texts = agent.config.algorithm, []
    if a.reward_clip is not None:
        texts.append(f"clipped to ±{a.reward_clip:g}")
    if a.normalize_rewards and agent.reward_statistics is None:
        texts.append("normalized by statistics that this file lacks")
    elif agent.reward_statistics is not None:
        texts.append(f"divided by {float(agent.reward_statistics.moments.var) ** 0.5:.3g}")
    if a.reward_scale != 1.0:
        texts.append(f"times {a.reward_scale:g}")
    return ", ".join(texts)


def _unknown(agent: Agent) -> bool:
    return agent.config.algorithm.normalize_rewards and agent.reward_statistics is None
