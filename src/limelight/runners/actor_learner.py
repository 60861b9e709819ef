"""Environments, a policy and a learner in one process: all of the synchronous runner, and of each worker of the others.

Built by train.py and runners/worker.py; the two differ only in the train_state that the learner's updates move.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Space

from limelight.algo.collector import RolloutCollector
from limelight.algo.learner import Learner
from limelight.algo.normalization import ObservationNormalizer, make_normalizer, pixel_scale
from limelight.algo.rollout import Rollout
from limelight.algo.train_state import TrainState
from limelight.envs.make import make_envs
from limelight.nn.encoders import is_builtin
from limelight.nn.model import make_model
from limelight.nn.policy import ModelPolicy
from limelight.seeds import Stream, derive_seed
from limelight.settings.schema import TrainConfig
from limelight.spaces.images import PixelScale
from limelight.typing import EnvFactory, State


class ActorLearner:
    """Collects rollouts with the parameters of its learner."""

    def __init__(self, collector: RolloutCollector, learner: Learner, rng: np.random.Generator) -> None:
        self.collector, self.learner = collector, learner
        self.policy = ModelPolicy(learner.model, rng, learner.numpy, learner.algorithm.noise_correlation, learner.kept)

        self.pixels: PixelScale | None = None
        """What pictures were standardised by in the last rollout."""
        self._pictures = collector.normalizer if collector.normalizer and collector.normalizer.by_network else None

    @property
    def normalizer(self) -> ObservationNormalizer | None:
        """The normalization of observations, where the run has one."""
        return self.collector.normalizer

    def collect(self) -> Rollout:
        """The next rollout."""
        if self._pictures is not None:
            self.pixels = pixel_scale(self._pictures.moments)
            self.learner.set_image_scale(self.pixels)
        return self.collector.collect(self.policy)

    def get_state(self) -> State:
        """All that this process alone knows; ``envs`` in it is None where environments cannot be restored."""
        return {
            "learner": self.learner.get_state(),
            "policy": self.policy.get_state(),
            "collector": self.collector.get_state(),
            "normalizer": self.normalizer.get_state() if self.normalizer is not None else None,
            "envs": self.collector.envs.get_state(),
        }

    def set_state(self, state: Mapping[str, Any], seed: int) -> bool:
        """Continue from :meth:`get_state`; False if episodes had to be restarted (from ``seed``)."""
        self.learner.set_state(state["learner"])
        self.policy.set_state(state["policy"])
        if self.normalizer is not None:
            self.normalizer.set_state(state["normalizer"])
        if state["envs"] is None:
            self.collector.reset(seed)
            return False
        self.collector.envs.set_state(state["envs"])
        self.collector.set_state(state["collector"])
        return True

    def close(self) -> None:
        """Free the environments."""
        self.collector.envs.close()


def running_statistics(normalizer: ObservationNormalizer | None, learner: Learner) -> dict[str, ObservationNormalizer]:
    """By name, what keeps running moments: workers share these."""
    named = {
        "observations": normalizer,
        "returns": learner.reward_normalizer.moments if learner.reward_normalizer is not None else None,
    }
    return {name: tracker for name, tracker in named.items() if tracker is not None}


def make_actor_learner(
    config: TrainConfig, factory: EnvFactory | None, seed: int, train_state: TrainState | None = None
) -> ActorLearner:
    """An actor whose environments and actions are seeded by ``seed``, its initial parameters by ``config.seed``.

    Args:
        config: a configuration without anything ``auto`` left.
        factory: makes the environment, where that was given as a Python object and not by name.
        seed: of the environments and the policy.
        train_state: what its updates move; None is its own parameters.
    """
    envs = make_envs(config.env, factory=factory)
    learner, normalizer = make_learner(config, envs.single_observation_space, envs.single_action_space, train_state)
    collector = RolloutCollector(envs, config.algorithm.num_steps, normalizer, config.env.env_id)
    collector.reset(derive_seed(seed, Stream.ENV))
    return ActorLearner(collector, learner, np.random.default_rng(derive_seed(seed, Stream.POLICY)))


def make_learner(
    config: TrainConfig, observations: Space[Any], actions: Space[Any], train_state: TrainState | None = None
) -> tuple[Learner, ObservationNormalizer | None]:
    """Make a learner with its model, and the normalization of observations if the run has one, without environments."""
    model = make_model(observations, actions, config.model, derive_seed(config.seed, Stream.MODEL)).to(config.device)
    learner = Learner(model, config.algorithm, config.model, config.optim, train_state=train_state)
    normalizer = make_normalizer(observations, is_builtin(config.model.encoder)) if config.env.normalize_obs else None
    return learner, normalizer
