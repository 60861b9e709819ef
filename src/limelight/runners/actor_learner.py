"""Environments, a policy and a learner in one process: the whole of a synchronous run, and of each worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Space

from limelight.algo.collector import RolloutCollector
from limelight.algo.learner import Learner, change_setting
from limelight.algo.normalization import ObservationNormalizer, RunningMeanStd, make_normalizer
from limelight.algo.rollout import Rollout
from limelight.algo.stopwatch import Stopwatch
from limelight.algo.train_state import TrainState
from limelight.envs.attributes import Order
from limelight.envs.guards import pop_restarts
from limelight.envs.make import make_envs
from limelight.nn.bounds import choose_bounds
from limelight.nn.encoders import is_builtin
from limelight.nn.model import make_model
from limelight.nn.policy import ModelPolicy
from limelight.seeds import Stream, derive_seed
from limelight.settings.schema import TrainConfig
from limelight.spaces.images import PixelScale
from limelight.spaces.packed import Packed
from limelight.typing import EnvFactory, Metrics, State


class ActorLearner:
    """Collects rollouts with the parameters of its learner (an actor-learner of Mnih et al. 2016)."""

    def __init__(self, collector: RolloutCollector, learner: Learner, rng: np.random.Generator) -> None:
        self.collector = collector
        self._timed_collect = Stopwatch(self._collect)
        self.learner = learner
        self.policy = ModelPolicy(learner.network, rng, learner.algorithm.noise_correlation)
        self.image_scale: PixelScale | None = None
        """Mean and scale by which the network normalised images in the last rollout; None where it does not."""
        self._is_whole = True  # the last rollout was completed
        space = collector.envs.single_action_space
        bounds = learner.model.config.action_bounds
        self._clips_actions = (
            isinstance(space, Box) and not isinstance(space, Packed) and choose_bounds(space, bounds) != "squash"
        )
        self.saves_envs = True
        """Whether :meth:`get_state` has the state of the environments."""

    @property
    def normalizer(self) -> ObservationNormalizer | None:
        """The normalizer of observations; None in a run without one."""
        return self.collector.normalizer

    def collect(self) -> Rollout:
        """Collect the next rollout."""
        if self.normalizer is not None and self.normalizer.in_network:
            self.image_scale = self.normalizer.image_scale()
            self.learner.network.set_image_scale(self.image_scale)
        self._is_whole = False
        rollout: Rollout = self._timed_collect(self.policy)
        self._is_whole = True
        return rollout

    def _collect(self, policy: ModelPolicy) -> Rollout:
        return self.collector.collect(policy)

    def pop_restarts(self) -> list[str]:
        """Return a message for each environment that was replaced since the last call."""
        return pop_restarts(self.collector.envs)

    def spent(self) -> tuple[float, float]:
        """Return the seconds of steps of the environments so far, and of collecting, which contains them."""
        return self.collector.timed_step.seconds, self._timed_collect.seconds

    def metrics(self) -> Metrics:
        """Compute the learner's metrics and the share of clipped actions, on demand."""
        metrics = self.learner.metrics()
        if metrics and self._clips_actions:
            metrics["train/actions_clipped"] = self.collector.clipped_share(self.policy)
        return metrics

    def get_state(self) -> State:
        """Return the state that only this process has; ``envs`` is None where environments cannot be saved.

        After a rollout that failed, nothing of it is kept: the environments begin new episodes first.
        """
        can_continue = self.saves_envs and (self._is_whole or self.begin_episodes())
        return {
            "learner": self.learner.get_state(),
            "policy": self.policy.get_state(),
            "collector": self.collector.get_state(),
            "normalizer": self.normalizer.get_state() if self.normalizer is not None else None,
            "envs": self.collector.envs.get_state() if can_continue else None,
        }

    def begin_episodes(self) -> bool:
        """Begin new episodes in all environments; return whether they could."""
        try:
            self.collector.reset(None)
        except Exception:  # whatever broke the rollout may break the reset
            return False
        return self.collector.is_finite()

    def set_state(self, state: Mapping[str, Any], seed: int | None) -> bool:
        """Continue from :meth:`get_state`; return False if episodes had to restart, seeded by ``seed``.

        ``seed``: None before the first step, where the first episodes have begun already.
        """
        self.learner.set_state(state["learner"])
        self.policy.set_state(state["policy"])
        if self.normalizer is not None:
            self.normalizer.set_state(state["normalizer"])
        if seed is None:
            return True
        if not self._restore_envs(state["envs"]):
            self.collector.reset(seed)
            return False
        self.collector.set_state(state["collector"])
        return True

    def _restore_envs(self, state: State | None) -> bool:
        """Continue the episodes of a state; return False where none was saved, or that of another backend."""
        try:
            if state is not None:
                self.collector.envs.set_state(state)
        except KeyError:
            return False
        return state is not None

    def follow(self, order: Order) -> list[Any]:
        """Carry out an order in every environment, or change a setting of the learner; return the results.

        Raises: ConfigError or EnvError.
        """
        if order.kind == "change_setting":
            change_setting(self.learner, order.name, order.value)
            return []
        return self.collector.envs.follow(order)

    def follow_all(self, orders: Iterable[Order]) -> None:
        """Carry out several orders."""
        for order in orders:
            self.follow(order)

    def close(self) -> None:
        """Free the environments."""
        self.collector.envs.close()


def reward_statistics(learner: Learner) -> RunningMeanStd | None:
    """Return the running statistics that rewards are normalised by; None where they are not."""
    return learner.reward_normalizer.statistics if learner.reward_normalizer is not None else None


def running_statistics(normalizer: ObservationNormalizer | None, learner: Learner) -> dict[str, RunningMeanStd]:
    """Return the running statistics that workers share, by name: those of observations and of returns."""
    named = {
        "observations": normalizer.statistics if normalizer is not None else None,
        "returns": reward_statistics(learner),
    }
    return {name: statistics for name, statistics in named.items() if statistics is not None}


def make_actor_learner(
    config: TrainConfig, factory: EnvFactory | None, seed: int, train_state: TrainState | None = None
) -> ActorLearner:
    """Make an actor-learner; its initial parameters are seeded by ``config.seed``.

    Args:
        config: a configuration in which no setting is ``auto``.
        factory: makes the environment, where it was given as a Python object and not by name.
        seed: seeds the environments, the policy and the order of rows in minibatches.
        train_state: the parameters that its updates move; None makes its own.
    """
    envs = make_envs(config.env, factory=factory)
    try:
        spaces = envs.single_observation_space, envs.single_action_space
        learner, normalizer = make_learner(config, *spaces, train_state, seed)
        collector = RolloutCollector(envs, config.algorithm.num_steps, normalizer, config.env.env_id)
        collector.reset(derive_seed(seed, Stream.ENV))
    except BaseException:
        envs.close()
        raise
    actor_learner = ActorLearner(collector, learner, np.random.default_rng(derive_seed(seed, Stream.POLICY)))
    actor_learner.saves_envs = config.checkpoint.checkpoint_envs
    return actor_learner


def make_learner(
    config: TrainConfig,
    observations: Space[Any],
    actions: Space[Any],
    train_state: TrainState | None = None,
    seed: int | None = None,
) -> tuple[Learner, ObservationNormalizer | None]:
    """Make a learner with its model, and the normalization of observations if the run has one, without environments.

    ``seed``: seeds the order of rows in minibatches; None: ``config.seed``.
    """
    model = make_model(observations, actions, config.model, derive_seed(config.seed, Stream.MODEL)).to(config.device)
    order = derive_seed(config.seed if seed is None else seed, Stream.MINIBATCHES)
    learner = Learner(model, config.algorithm, config.optim, train_state, seed=order)
    if not config.env.normalize_obs:
        return learner, None
    per_frame = config.env.image_statistics == "frame"
    return learner, make_normalizer(observations, is_builtin(config.model.encoder), per_frame)
