"""Several updates from one rollout: epochs of minibatches, with a clipped ratio (proximal policy optimization).

Source: Schulman et al. 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from limelight.algo import losses
from limelight.algo.last_update import LastUpdate, Targets
from limelight.algo.minibatches import Batch, row_minibatches, sequence_minibatches, whole_rollout
from limelight.algo.returns import standardize
from limelight.algo.rollout import Rollout
from limelight.settings.schema import AlgorithmConfig
from limelight.typing import FloatArray, State

if TYPE_CHECKING:
    from limelight.algo.learner import Learner

KL_FACTOR = 1.5
"""Multiple of ``target_kl`` above which updates are left out, as in Spinning Up and Stable-Baselines3."""
_MAX_LOG_RATIO = 20.0
"""log r is bounded by this before the exponential, which would overflow float32 beyond 88."""


def has_epochs(a: AlgorithmConfig) -> bool:
    """Whether updates need this module: several per rollout, or a loss that compares with older values."""
    return (
        a.num_epochs > 1
        or a.num_minibatches > 1
        or any(bound is not None for bound in (a.clip_ratio, a.value_clip, a.target_kl))
    )


class Epochs:
    """Computes the gradients of all updates from a rollout, one after the other.

    Returns and advantages, V_old and log π_old are computed once per rollout, before the first update.

    Args:
        learner: whose network, losses and normalizers these are.
        seed: of the order of rows in minibatches.
    """

    def __init__(self, learner: Learner, seed: int) -> None:
        a = learner.algorithm
        self.learner = learner
        self.rng = np.random.default_rng(seed)
        self.num_updates = 0
        """Updates from the last rollout so far."""
        self._has_ratio = a.clip_ratio is not None or a.target_kl is not None
        self._minibatches = whole_rollout
        if a.num_minibatches > 1:
            self._minibatches = sequence_minibatches if learner.model.state_size else row_minibatches

    def __call__(self, rollout: Rollout) -> Iterator[int]:
        """Write the gradient of each update in turn; apply each one before the next is asked for.

        Yields: finished episodes that the update counts; all of the rollout's with the first.
        """
        a = self.learner.algorithm
        whole, episodes_ended = self._prepare(rollout), rollout.episodes_ended
        self.num_updates = 0
        for _ in range(a.num_epochs):
            updates: list[LastUpdate] = []
            for batch in self._minibatches(whole, a.num_minibatches, self.rng):
                update = self._gradients(batch)
                if update is None:  # the policy has moved far enough
                    return
                updates.append(update)
                self.learner.last_updates = updates
                self.num_updates += 1
                yield episodes_ended
                episodes_ended = 0

    @property
    def num_done(self) -> float:
        """Epochs over the last rollout: fewer than ``num_epochs`` where ``target_kl`` has ended them."""
        return self.num_updates / self.learner.algorithm.num_minibatches

    def _prepare(self, rollout: Rollout) -> Batch:
        """Compute the constants of the rollout's losses."""
        network = self.learner.network
        if rollout.image_scale is not None:
            network.set_image_scale(rollout.image_scale)
        values, next_values = self.learner.values(rollout)
        values = values.copy()  # the next forward pass may overwrite it
        log_probs = None
        if self._has_ratio:  # of the policy that acted: the present one, unless the rollout has come from elsewhere
            log_probs = network.log_probs() if rollout.log_probs is None else rollout.log_probs
        targets = self.learner.targets(rollout, values, next_values)
        if self._minibatches is not whole_rollout:
            network.parameters_changed()  # the activations of acting are of other rows
        return Batch(rollout, targets, values, log_probs)

    def _gradients(self, batch: Batch) -> LastUpdate | None:
        """Write the gradient of the loss on a minibatch; return None, and write nothing, beyond ``target_kl``."""
        learner, a = self.learner, self.learner.algorithm
        values = learner.network.values(batch.rollout)[0]
        w = losses.mask_weights(batch.rollout.valid)
        log_ratios: FloatArray | None = None
        ratios: FloatArray | None = None
        if batch.log_probs is not None:
            log_ratios = np.minimum(learner.network.log_probs() - batch.log_probs, _MAX_LOG_RATIO)
            ratios = np.exp(log_ratios)
            if a.target_kl is not None and losses.approx_kl(log_ratios, ratios, w) > KL_FACTOR * a.target_kl:
                return None
        returns, advantages = batch.targets
        if a.normalize_advantages == "batch":
            advantages = standardize(advantages, batch.rollout.valid)
        if ratios is None or a.clip_ratio is None:
            d_log_probs = losses.policy_gradient_loss_grad(advantages, w)
        else:
            d_log_probs = losses.clipped_policy_gradient_loss_grad(ratios, advantages, w, a.clip_ratio)
        delta = learner.huber_delta
        if a.value_clip is None:
            d_values = losses.value_loss_grad(values, returns, w, delta)
        else:
            d_values = losses.clipped_value_loss_grad(values, batch.values, returns, w, a.value_clip, delta)
        log_probs, entropies = learner.write_gradients(d_log_probs, d_values, w)
        targets = Targets(returns, advantages)
        return LastUpdate(log_probs, entropies, values.copy(), targets, w, log_ratios, ratios, batch.values)

    def get_state(self) -> State:
        """Return the random stream."""
        return {"rng": self.rng.bit_generator.state}

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`."""
        self.rng.bit_generator.state = state["rng"]
