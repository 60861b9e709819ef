"""The learner: from a rollout to new parameters,  update = apply ∘ gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from limelight.algo import losses
from limelight.algo.normalization import AdvantageNormalizer, RewardNormalizer
from limelight.algo.optim import clip_by_norm, initial_state, make_optimizer, schedule
from limelight.algo.returns import discounts_and_traces, gae, standardize, vtrace
from limelight.algo.rollout import Float, Rollout
from limelight.algo.train_state import FlatParameters, TrainState, copy_into
from limelight.errors import NonFiniteError
from limelight.nn.model import ActorCritic
from limelight.nn.network import Engine, make_network
from limelight.settings.schema import AlgorithmConfig, OptimConfig
from limelight.typing import FloatArray, Metrics, State


class Targets(NamedTuple):
    """What the loss compares the network with: constants, [T, B]."""

    returns: FloatArray
    """Targets of the values."""
    advantages: FloatArray
    """Weights of ∇log π."""


@dataclass(frozen=True)
class LastUpdate:
    """The arrays of the last gradients, from which metrics are computed on demand; each [T, B]."""

    log_probs: FloatArray
    entropies: FloatArray
    values: FloatArray
    targets: Targets
    w: FloatArray
    """Weight of each row in the loss."""


class Learner:
    """Owns the parameters as one flat vector, their gradients, the optimizer and the target critic.

    ``gradients`` writes the gradients of the model's parameters; ``apply`` moves the ``train_state``, which is these
    parameters themselves, or a vector in shared memory that ``pull`` copies them from.

    Args:
        model: the network's parameters.
        algorithm, optim: settings.
        train_state: what updates move; None is the model's own parameters and a new optimizer state.
        engine: see :func:`limelight.nn.network.make_network`.
    """

    def __init__(
        self,
        model: ActorCritic,
        algorithm: AlgorithmConfig,
        optim: OptimConfig,
        train_state: TrainState | None = None,
        engine: Engine = "auto",
    ) -> None:
        self.model = model
        self.algorithm = algorithm
        self.optim = optim
        # Parameters, and the network over them
        self.flat = FlatParameters(model)
        target_critic = model.make_target_critic() if model.config.critic == "target" else None
        self._target = FlatParameters(target_critic) if target_critic is not None else None
        self.network = make_network(model, algorithm.num_steps, self.flat.grads, target_critic, engine)
        # What updates move
        target_params = self._target.params if self._target is not None else None
        self.train_state = train_state or TrainState(
            self.flat.params, target_params, initial_state(optim, self.flat.params)
        )
        on_another_device = self.flat.params.device != self.train_state.params.device
        self._grads = torch.zeros_like(self.train_state.params) if on_another_device else self.flat.grads
        self.optimizer = make_optimizer(optim, self.train_state.params, self._grads, self.train_state.optimizer_state)
        critic = self.flat.span(model.critic.parameters())
        self._critic_params = self.train_state.params[critic]
        self._learning_rates = learning_rates(optim, critic)
        self._huber_delta = algorithm.huber_delta if algorithm.value_loss == "huber" else None
        # Running statistics and counters
        running = algorithm.normalize_advantages == "running"
        self.advantage_normalizer = AdvantageNormalizer(algorithm.running_decay) if running else None
        self.reward_normalizer = RewardNormalizer(algorithm.gamma) if algorithm.normalize_rewards else None
        self.num_updates = 0
        self.progress = 0.0
        """Share of the step budget that is used, 0 to 1, at the last update."""
        self._target_clock = 0
        self._last: LastUpdate | None = None
        self._reward_max = 0.0
        self.apply_metrics: Metrics = {}
        """Gradient norm and step size of the last :meth:`apply`."""

    def pull(self) -> None:
        """Copy the train state's parameters into the model and the target critic."""
        self.network.parameters_changed()
        self.flat.params.copy_(self.train_state.params)
        if self._target is not None and self.train_state.target_params is not None:
            self._target.params.copy_(self.train_state.target_params)

    def set_parameters(self, params: Float, target_params: Float | None, progress: float) -> None:
        """Replace the parameters [n] and those of the target critic [m]: a pull from another machine.

        ``progress``: share of the step budget that was used when they were made.
        """
        self.network.parameters_changed()
        self.progress = progress
        copy_into(self.flat.params, params)
        if self._target is not None and target_params is not None:
            copy_into(self._target.params, target_params)

    def update(self, rollout: Rollout, progress: float) -> None:
        """Make one update from one rollout; ``progress`` (0 to 1) through the step budget sets the step size."""
        if rollout.num_valid == 0:  # no transition: momentum must not move the parameters
            return
        self.gradients(rollout)
        self.apply(progress, rollout.episodes_ended)

    def gradients(self, rollout: Rollout) -> None:
        """Write the gradient of the loss on one rollout into ``flat.grads``."""
        if rollout.image_scale is not None:
            self.network.set_image_scale(rollout.image_scale)
        # Values, and what they and the policy are compared with
        values, next_values = self.network.values(rollout)
        ratios = None if rollout.log_probs is None else np.exp(self.network.log_probs() - rollout.log_probs)
        targets = self.targets(rollout, values, next_values, ratios)
        # The derivative of each term of the loss, a weighted sum over rows
        a, w = self.algorithm, losses.mask_weights(rollout.valid)
        log_probs, entropies = self.network.backward(
            losses.policy_gradient_loss_grad(targets.advantages, w),
            a.ent_coef * schedule(a.ent_schedule, self.progress) * losses.entropy_loss_grad(w),
            a.vf_coef * losses.value_loss_grad(values, targets.returns, w, self._huber_delta),
        )
        self._last = LastUpdate(log_probs, entropies, values, targets, w)

    def log_probs(self, rollout: Rollout) -> FloatArray:
        """Return log π(aₜ|sₜ) of a rollout's actions under the present parameters, [T, B]."""
        self.network.values(rollout)
        return self.network.log_probs()

    def apply(self, progress: float, episodes_ended: int = 0) -> None:
        """Clip the gradients, step the optimizer, and move the target critic: all on the train state.

        ``episodes_ended``: finished episodes of the rollout, which may be the clock of the target critic.
        Raises: NonFiniteError; no parameter has been touched then.
        """
        self.network.parameters_changed()
        if self._grads is not self.flat.grads:
            self._grads.copy_(self.flat.grads)
        norm = clip_by_norm(self._grads, self.optim.max_grad_norm)
        if not math.isfinite(norm):
            raise NonFiniteError(
                f"learning_rate = {self.optim.learning_rate:g}: the gradient is no longer finite at update "
                f"{self.num_updates}; a smaller learning_rate, max_grad_norm or reward_scale would help"
            )
        self.progress = progress
        factor = schedule(self.optim.lr_schedule, progress)
        self.optimizer.step([(span, rate * factor) for span, rate in self._learning_rates])
        self.num_updates += 1
        if self.train_state.target_params is not None:
            self._move_target_critic(episodes_ended, self.train_state.target_params)
        self.apply_metrics = {"train/grad_norm": norm, "train/learning_rate": self.optim.learning_rate * factor}

    def rewards(self, rollout: Rollout) -> FloatArray:
        """Return the rewards to learn from, [T, B]: raw, then clipped, normalised and scaled; once per rollout."""
        if rollout.learning_rewards is not None:
            return rollout.learning_rewards
        a, rewards = self.algorithm, cast(FloatArray, rollout.rewards)
        if a.reward_clip is not None:
            rewards = rewards.clip(-a.reward_clip, a.reward_clip)
        if self.reward_normalizer is not None:
            rewards = self.reward_normalizer(rollout, rewards)
        if a.reward_scale != 1.0:
            rewards = rewards * a.reward_scale
        return rewards

    def targets(
        self, rollout: Rollout, values: FloatArray, next_values: FloatArray, ratios: FloatArray | None = None
    ) -> Targets:
        """Return value targets and policy weights of a rollout from V(sₜ) and V(sₜ₊₁), all [T, B].

        ``ratios`` π(aₜ|sₜ)/μ(aₜ|sₜ): given where an older policy μ acted, which V-trace corrects.
        """
        a, valid = self.algorithm, rollout.valid
        rewards = self.rewards(rollout)
        self._reward_max = max(self._reward_max, float(rewards.max()), -float(rewards.min()))
        discounts, traces = discounts_and_traces(rollout.terminated, rollout.truncated, valid, a.gamma, a.gae_lambda)
        if ratios is not None:
            returns, advantages = vtrace(rewards, values, next_values, discounts, traces, valid, ratios)
            return Targets(returns, self._normalized(advantages, valid))
        advantages = gae(rewards, values, next_values, discounts, traces, valid)
        returns = values + advantages
        weights = advantages if a.policy_weight == "advantage" else returns * valid
        return Targets(returns, self._normalized(weights, valid))

    def _normalized(self, advantages: FloatArray, valid: FloatArray) -> FloatArray:
        if self.algorithm.normalize_advantages == "batch":
            return standardize(advantages, valid)
        return advantages if self.advantage_normalizer is None else self.advantage_normalizer(advantages, valid)

    def metrics(self) -> Metrics:
        """Compute the metrics of the last gradients and apply; call it before the next rollout is collected."""
        if self._last is None:
            return {}
        metrics = loss_metrics(self._last, self._huber_delta) | {"train/reward_max": self._reward_max}
        if (dead_filters := self.network.dead_filters()) is not None:
            metrics["train/dead_filters"] = dead_filters
        return metrics | self.apply_metrics

    def _move_target_critic(self, episodes_ended: int, target_params: Tensor) -> None:
        """Target ← (1 − τ) target + τ critic, every ``target_update_every`` updates or finished episodes."""
        config = self.model.config
        self._target_clock += 1 if config.target_update_at == "updates" else episodes_ended
        if self._target_clock >= config.target_update_every:
            self._target_clock = 0
            target_params.lerp_(self._critic_params, config.tau)

    def get_state(self) -> State:
        """Return running statistics and counters; parameters and optimizer are the :class:`TrainState`'s."""
        return {
            "target_clock": self._target_clock,
            "advantage_normalizer": self.advantage_normalizer and self.advantage_normalizer.get_state(),
            "reward_normalizer": self.reward_normalizer and self.reward_normalizer.get_state(),
            "num_updates": self.num_updates,
            "progress": self.progress,
            "reward_max": self._reward_max,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`, after the train state has been restored."""
        self.network.parameters_changed()
        if self.advantage_normalizer is not None:
            self.advantage_normalizer.set_state(state["advantage_normalizer"])
        if self.reward_normalizer is not None:
            self.reward_normalizer.set_state(state["reward_normalizer"])
        self._target_clock = int(state["target_clock"])
        self.num_updates = int(state["num_updates"])
        self.progress = float(state["progress"])
        self._reward_max = float(state["reward_max"])


def learning_rates(optim: OptimConfig, critic: slice) -> list[tuple[slice, float]]:
    """Return the step size of each part of the parameter vector; ``critic`` is the last part."""
    if optim.critic_learning_rate is None:
        return [(slice(0, critic.stop), optim.learning_rate)]
    return [(slice(0, critic.start), optim.learning_rate), (critic, optim.critic_learning_rate)]


def loss_metrics(last: LastUpdate, huber_delta: float | None) -> Metrics:
    """Return the terms of the loss, the mean value and the explained variance of an update."""
    values, (returns, advantages), w = last.values, last.targets, last.w
    metrics = {
        "train/policy_loss": float(losses.policy_gradient_loss(last.log_probs, advantages, w)),
        "train/value_loss": float(losses.value_loss(values, returns, w, huber_delta)),
        "train/entropy": -float(losses.entropy_loss(last.entropies, w)),
        "train/value_mean": float((values * w).sum()),
    }
    if w.size > 1:  # one transition has no variance to explain
        metrics["train/explained_variance"] = float(losses.explained_variance(values, returns, w))
    return metrics
