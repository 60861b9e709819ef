"""Random play of one copy of an environment: what it shows of itself before anything is learnt."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Space
from numpy.typing import NDArray

from limelight.envs.faults import StepValueError, call_fault, end_flags, one_number, step_misfit, stops_the_run
from limelight.envs.last_call import LAST_ACTIONS
from limelight.envs.masks import random_action
from limelight.errors import LimelightError
from limelight.spaces.packed import Packed
from limelight.typing import AnyEnv


@dataclass(frozen=True)
class Probe:
    """Facts from random play."""

    steps: int
    step_seconds: float
    """Median time of a step."""
    episode_lengths: tuple[int, ...]
    """Lengths of the episodes that ended."""
    lowest_reward: float
    highest_reward: float
    rewarded_ends: float
    """Share of the episodes whose last reward is not 0; 0 if none ended."""
    end_share: float
    """Share of the last steps of episodes in the sum of absolute rewards; 0 without rewards."""
    largest_observation: float
    """The largest absolute value in the float parts of observations; 0 without such parts."""


def probe(env: AnyEnv, name: str, max_steps: int, max_seconds: float) -> Probe:
    """Step ``env`` with random legal actions until one of the limits; another copy gives the same but for the time.

    Raises: EnvError if the environment raises or exits.
    """
    calls = ["reset()"]
    try:
        return _play(env, max_steps, max_seconds, calls)
    except LimelightError:
        raise
    except StepValueError as error:
        raise step_misfit(name, "", 0, env.observation_space, error) from error
    except BaseException as error:
        if stops_the_run(error):
            raise
        step = calls[::-1].index("reset()")
        where = f" in step {step} of an episode of random play" if step else ""
        raise call_fault(name, calls[-1], error, where) from error


def _play(env: AnyEnv, max_steps: int, max_seconds: float, calls: list[str]) -> Probe:
    """Play; the last of ``calls`` is the method of the environment that was called last."""
    seed, step, actions = 0, 0, deque[Any](maxlen=LAST_ACTIONS)  # what stalls.py tells of a call
    env.action_space.seed(seed)
    obs, info = env.reset(seed=seed)
    rewards: list[float] = []
    seconds: list[float] = []
    lengths: list[int] = []
    ends: list[float] = []
    largest, started = 0.0, time.perf_counter()
    while len(rewards) < max_steps and (len(rewards) < 2 or time.perf_counter() - started < max_seconds):
        action = random_action(env, obs, info)
        calls.append("step()")
        actions.append(action)
        step += 1
        start = time.perf_counter()
        obs, reward, terminated, truncated, info = env.step(action)
        seconds.append(time.perf_counter() - start)
        rewards.append(one_number(reward))
        largest = max(largest, _largest(env.observation_space, obs))
        if any(end_flags(terminated, truncated)):
            lengths.append(step)
            ends.append(abs(rewards[-1]))
            step = 0
            calls.append("reset()")
            obs, info = env.reset()
    # The first step may compile or load something
    return Probe(
        len(rewards), statistics.median(seconds[1:]), tuple(lengths), min(rewards), max(rewards),
        float(np.mean(np.asarray(ends or [0.0]) != 0)),
        sum(ends) / (float(np.abs(rewards).sum()) or 1.0), largest,
    )  # fmt: skip


def real_parts(space: Space[Any]) -> Iterator[tuple[Box, slice]]:
    """Yield the float Boxes of a space of single or packed observations, each with its place in the flat vector."""
    leaves = (
        [(leaf.space, leaf.part) for leaf in space.visible] if isinstance(space, Packed) else [(space, slice(None))]
    )
    for part, place in leaves:
        if isinstance(part, Box) and part.dtype.kind == "f":
            yield part, place


def _largest(space: Space[Any], obs: NDArray[Any]) -> float:
    return max((float(np.abs(np.ravel(obs)[place]).max(initial=0.0)) for _, place in real_parts(space)), default=0.0)
