"""Fixtures of all tests: one thread, reproducible hypothesis runs, and factories of small learners and rollouts."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from threadpoolctl import threadpool_limits

from limelight.algo.collector import RolloutCollector
from limelight.algo.learner import Learner
from limelight.algo.rollout import FinalObs, Rollout
from limelight.envs.base import EnvBackend
from limelight.nn.model import ActorCritic, make_model
from limelight.nn.network import Engine
from limelight.runners.actor_learner import ActorLearner
from limelight.runners.sync import SyncRunner
from limelight.settings.io import with_settings
from limelight.settings.schema import TrainConfig
from limelight.spaces.packed import Packed

hypothesis.settings.register_profile("limelight", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("limelight")

# These look into /proc and /dev/shm, or send signals to process groups.
ONLY_LINUX = ["faults/test_main_exits.py", "faults/test_ray_workers_exit.py", "runners/processes/test_shared.py"]
collect_ignore = [] if sys.platform == "linux" else ONLY_LINUX

ACTIONS = Discrete(3)
LearnerFactory = Callable[..., Learner]
RolloutFactory = Callable[..., Rollout]
RunnerFactory = Callable[..., SyncRunner]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Compute in one thread: the networks are tiny."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield


@pytest.fixture(autouse=True)
def _same_signal_handlers() -> Iterator[None]:
    """Every test leaves the handler of Ctrl-C as it was."""
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture(autouse=True)
def _same_denormals() -> Iterator[None]:
    """Every test leaves the arithmetic of denormal numbers as it was."""
    yield
    assert np.float32(1e-39) * np.float32(1.0) != 0.0


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def make_actor_critic() -> Callable[..., ActorCritic]:
    """``make_actor_critic(observation_space, seed=0, actions=ACTIONS, **settings)`` returns a small model."""

    def make(space: Space[Any], seed: int = 0, actions: Space[Any] = ACTIONS, **settings: Any) -> ActorCritic:
        config = with_settings(TrainConfig(), {"hidden_sizes": (8, 6), **settings})
        return make_model(space, actions, config.model, seed)

    return make


@pytest.fixture
def make_learner(make_actor_critic: Callable[..., ActorCritic]) -> LearnerFactory:
    """``make_learner(observation_space, engine="auto", seed=0, actions=ACTIONS, **settings)``.

    The first policy is far from uniform, so that no term of the gradient is negligible.
    """

    def make(
        space: Space[Any], engine: Engine = "auto", seed: int = 0, actions: Space[Any] = ACTIONS, **settings: Any
    ) -> Learner:
        settings = {"hidden_sizes": (8, 6), "policy_init_gain": 1.0, **settings}
        config = with_settings(TrainConfig(), settings)
        model = make_actor_critic(space, seed, actions, **settings)
        return Learner(model, config.algorithm, config.optim, engine=engine)

    return make


def random_obs(space: Space[Any], rng: np.random.Generator, *lead: int) -> np.ndarray:
    """Return observations [*lead, *obs_shape] as the collector stores them."""
    if isinstance(space, Discrete):
        return space.start + rng.integers(space.n, size=lead)
    if isinstance(space, MultiDiscrete):
        return space.start + rng.integers(0, space.nvec, size=(*lead, *space.shape))
    if isinstance(space, MultiBinary):
        return rng.integers(0, 2, size=(*lead, *space.shape)).astype(np.int8)
    if isinstance(space, Packed):
        parts = [random_obs(leaf.space, rng, *lead).reshape(*lead, leaf.size) for leaf in space.leaves]
        return np.concatenate(parts, -1).astype(space.dtype)
    assert isinstance(space, Box)
    if np.issubdtype(space.dtype, np.integer):
        return rng.integers(0, 256, size=(*lead, *space.shape)).astype(space.dtype)
    return rng.standard_normal((*lead, *space.shape)).astype(np.float32)


def random_actions(space: Space[Any], rng: np.random.Generator, *lead: int) -> np.ndarray:
    """Return actions [*lead, *action_shape] as distributions sample them, not yet clipped to the bounds of Boxes."""
    if isinstance(space, Packed):
        parts = [random_actions(leaf.space, rng, *lead).reshape(*lead, -1) for leaf in space.leaves]
        return np.concatenate(parts, -1).astype(np.float32)
    if isinstance(space, MultiBinary):
        return rng.integers(2, size=(*lead, *space.shape)).reshape(*lead, -1).astype(np.float32)
    actions = random_obs(space, rng, *lead)
    return actions if isinstance(space, Discrete) else actions.reshape(*lead, -1)


def allow(obs: np.ndarray, actions: np.ndarray, space: Space[Any], action_space: Space[Any]) -> None:
    """Make the taken actions [T, B] (or [T, B, A]) legal in the masks of observations [T+1, B, D]."""
    if not isinstance(space, Packed) or space.mask is None:
        return
    sizes = [action_space.n] if isinstance(action_space, Discrete) else list(action_space.nvec.reshape(-1))
    places = actions.reshape(*actions.shape[:2], -1) - np.reshape(action_space.start, -1)
    for i, first in enumerate(np.cumsum([0, *sizes[:-1]])):
        np.put_along_axis(obs[:-1], space.mask.start + first + places[..., i : i + 1], 1, -1)


@pytest.fixture
def make_rollout() -> RolloutFactory:
    """``make_rollout(observation_space, seed=0, T=7, B=3, stream="next_step", actions=ACTIONS)``.

    Random rewards, observations and actions; a third of the rows end an episode, by termination, truncation or
    both. ``next_step``: the row after an end is invalid. ``same_step``: truncated rows have final observations.
    """

    def make(
        space: Space[Any],
        seed: int = 0,
        T: int = 7,
        B: int = 3,
        stream: str = "next_step",
        actions: Space[Any] = ACTIONS,
    ) -> Rollout:
        rng = np.random.default_rng(seed)
        valid = np.ones((T, B), bool)
        terminated, truncated = rng.random((2, T, B)) < 0.2
        if stream == "next_step":
            for t in range(1, T):
                valid[t] = ~(valid[t - 1] & (terminated[t - 1] | truncated[t - 1]))
            terminated, truncated = terminated & valid, truncated & valid
        final_obs, starts = None, ~valid if stream == "next_step" else terminated | truncated
        if stream == "same_step":
            t, b = np.nonzero(truncated)
            final_obs = FinalObs(t, b, random_obs(space, rng, len(t)))
        obs, taken = random_obs(space, rng, T + 1, B), random_actions(actions, rng, T, B)
        allow(obs, taken, space, actions)
        return Rollout(
            obs=obs,
            actions=taken,
            rewards=(3.0 * rng.standard_normal((T, B)) * valid).astype(np.float32),
            terminated=terminated.astype(np.float32),
            truncated=truncated.astype(np.float32),
            valid=valid.astype(np.float32),
            episode_start=np.concatenate([np.zeros((1, B)), starts]).astype(np.float32),
            num_valid=int(valid.sum()),
            final_obs=final_obs,
        )

    return make


@pytest.fixture
def make_runner(make_learner: LearnerFactory) -> RunnerFactory:
    """``make_runner(envs, num_steps, seed=0, engine="auto", total_timesteps=…, **settings)``, after reset."""

    def make(
        envs: EnvBackend,
        num_steps: int,
        seed: int = 0,
        engine: Engine = "auto",
        total_timesteps: int = 1_000_000,
        **settings: Any,
    ) -> SyncRunner:
        learner = make_learner(
            envs.single_observation_space, engine, seed, envs.single_action_space,
            num_envs=envs.num_envs, num_steps=num_steps, **settings,
        )  # fmt: skip
        collector = RolloutCollector(envs, num_steps, None, "toy")
        collector.reset(seed)
        return SyncRunner(ActorLearner(collector, learner, np.random.default_rng(seed)), total_timesteps)

    return make
