"""Observations to compare an exported policy with its agent on: of episodes that it plays, or random ones."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from limelight.envs.base import Step
from limelight.envs.masks import choices, has_legal_action
from limelight.errors import LimelightError
from limelight.runs.evaluation import Limits, evaluation_envs, play
from limelight.spaces.packed import Packed

if TYPE_CHECKING:
    from limelight.runs.agent import Agent

NUM_ENVS = 4
_MANY = 1_000_000


class Recording(NamedTuple):
    """Raw observations of several environments over time."""

    obs: NDArray[Any]
    """[T, B, *obs_shape], packed where their space is."""
    episode_start: NDArray[np.float32]
    """1 where a row begins an episode, [T, B]."""
    origin: str
    """Of which episodes, or why they are random, in words."""


@final
class _Recorder:
    """Keeps the raw observations of an evaluation until there are enough; an observer of it."""

    def __init__(self, agent: Agent, steps: int) -> None:
        self.obs: list[NDArray[Any]] = []
        self.episode_start: list[NDArray[np.float32]] = []
        self._agent = agent
        self._steps = steps
        self._last: NDArray[Any] = np.zeros(0)

    def normalize(self, obs: NDArray[Any]) -> NDArray[Any]:
        """Return observations as the policy takes them."""
        self._last = obs.copy()
        return self._agent.normalize(obs)

    def before(self, obs: NDArray[Any], episode_start: NDArray[np.float32]) -> None:
        """Keep what the policy is about to act on."""
        self.obs.append(self._last)
        self.episode_start.append(episode_start.copy())

    def after(self, actions: NDArray[Any], step: Step) -> None:
        """Keep nothing."""

    def episode(self, b: int) -> None:
        """Keep nothing."""

    def is_full(self) -> bool:
        """Return whether there are enough."""
        return len(self.obs) >= self._steps


def record(agent: Agent, count: int, seed: int) -> Recording:
    """Return at least ``count`` observations of the agent's sampled play, or random ones where it cannot be played."""
    steps = -(-count // NUM_ENVS)
    recorder = _Recorder(agent, steps)
    policy = agent.policy(np.random.default_rng(seed))  # sampled: more different observations
    try:
        with evaluation_envs(agent, None, _MANY, NUM_ENVS) as (envs, name, limits):
            until = Limits(limits.max_steps, recorder.is_full)
            play(envs, policy, recorder.normalize, _MANY, seed, name=name, limits=until, observer=recorder)
    except LimelightError as error:
        return random_recording(agent, steps, seed, f"random ones, as no episode can be played here ({error})")
    obs = np.stack(recorder.obs)
    return Recording(_with_legal(agent, obs), np.stack(recorder.episode_start), f"episodes of {name}")


def random_recording(agent: Agent, steps: int, seed: int, origin: str) -> Recording:
    """Return observations drawn from their space, in episodes that begin at random."""
    space = copy.deepcopy(agent.observation_space)
    space.seed(seed)
    obs = np.array([[space.sample() for _ in range(NUM_ENVS)] for _ in range(steps)], space.dtype)
    start = (np.random.default_rng(seed).random((steps, NUM_ENVS)) < 0.1).astype(np.float32)
    start[0] = 1.0
    return Recording(_with_legal(agent, obs), start, origin)


def _with_legal(agent: Agent, obs: NDArray[Any]) -> NDArray[Any]:
    """Return observations whose masks leave an action: at the end of an episode they may not."""
    space = agent.observation_space
    if isinstance(space, Packed) and space.mask is not None:
        masks = obs[..., space.mask.part]
        masks[~has_legal_action(masks, choices(agent.action_space))] = 1
    return obs
