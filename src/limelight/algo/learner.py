"""The learner: from a rollout to new parameters,  update = apply ∘ gradients."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch

from limelight.algo import losses
from limelight.algo.epochs import Epochs, has_epochs
from limelight.algo.gradient_fault import origin_of
from limelight.algo.last_update import Applied, LastUpdate, Targets, joined, loss_metrics
from limelight.algo.next_actions import make_next_actions
from limelight.algo.normalization import AdvantageNormalizer, RewardNormalizer, learning_rewards
from limelight.algo.optim import ObGD, clipping, initial_state, make_optimizer, schedule
from limelight.algo.returns import standardize
from limelight.algo.rollout import Float, Rollout
from limelight.algo.streaming import Streaming
from limelight.algo.targets import estimator_inputs, make_targets, vtrace_targets
from limelight.algo.train_state import FlatParameters, TargetClock, TrainState, copy_into
from limelight.errors import NonFiniteError
from limelight.nn.model import ActorCritic
from limelight.nn.network import Engine, make_network
from limelight.settings.schema import AlgorithmConfig, OptimConfig
from limelight.typing import FloatArray, Metrics, State

_PARTS = ("advantage_normalizer", "reward_normalizer", "epochs", "next_actions")
"""Attributes of a learner with a state of their own; None where the run has no such part."""


class Learner:
    """Owns the parameters as one flat vector, their gradients, the optimizer and the target critic.

    ``gradients`` writes the gradients of the model's parameters; ``apply`` moves the ``train_state``, which is these
    parameters themselves, or a vector in shared memory that ``pull`` copies them from.

    Args:
        model: the network's parameters.
        algorithm: settings of the returns and the losses.
        optim: settings of the optimizer.
        train_state: what updates move; None is the model's own parameters and a new optimizer state.
        engine: see :func:`limelight.nn.network.make_network`.
        seed: of the order of rows in minibatches, and of next actions that are drawn for bootstrapping.
    """

    def __init__(
        self,
        model: ActorCritic,
        algorithm: AlgorithmConfig,
        optim: OptimConfig,
        train_state: TrainState | None = None,
        engine: Engine = "auto",
        seed: int = 0,
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
        target, params = None if self._target is None else self._target.params, self.flat.params
        self.train_state = train_state or TrainState(params, target, initial_state(optim, params))
        is_elsewhere = self.flat.params.device != self.train_state.params.device
        self._grads = torch.zeros_like(self.train_state.params) if is_elsewhere else self.flat.grads
        vectors = self.train_state.params, self._grads, self.train_state.optimizer_state
        critic = self.flat.span(model.critic.parameters())
        self.optimizer = make_optimizer(optim, *vectors, critic, algorithm.gamma * algorithm.gae_lambda)
        self._clip = clipping(self.optimizer, self._grads, optim.max_grad_norm)
        self._critic_params = self.train_state.params[critic]
        self._learning_rates = learning_rates(optim, critic)
        self.huber_delta = algorithm.huber_delta if algorithm.value_loss == "huber" else None
        # Targets
        self._expected_values = self.network.expected_values if model.config.critic_output == "q" else None
        self.next_actions = make_next_actions(model, algorithm, seed)
        # The updates from one rollout
        self.epochs = Epochs(self, seed) if has_epochs(algorithm) else None
        single = Streaming(self) if isinstance(self.optimizer, ObGD) else self._single_gradient
        self.successive_gradients: Callable[[Rollout], Iterable[int]] = self.epochs or single
        """Writes the gradient of each update from a rollout, to be applied before the next is asked for; yields the
        finished episodes that each counts."""
        running = algorithm.normalize_advantages == "running"
        self._standardizes = algorithm.normalize_advantages == "batch" and self.epochs is None
        self.advantage_normalizer = AdvantageNormalizer(algorithm.running_decay) if running else None
        self.reward_normalizer = RewardNormalizer(algorithm.gamma) if algorithm.normalize_rewards else None
        self.num_updates = 0
        self.progress = 0.0
        """Share of the step budget that is used, 0 to 1, at the last update."""
        self._target_clock = TargetClock(model.config)
        self._reward_max = 0.0
        self.last_updates: list[LastUpdate] = []  # the minibatches of the last epoch; one, where there are none
        self.applied = Applied(optim.max_grad_norm)

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
        """Make the updates from one rollout; ``progress`` (0 to 1) through the step budget sets the step size."""
        if rollout.num_valid == 0:  # no transition: momentum must not move the parameters
            return
        for episodes_ended in self.successive_gradients(rollout):
            self.apply(progress, episodes_ended)

    def _single_gradient(self, rollout: Rollout) -> tuple[int]:
        self.gradients(rollout)
        return (rollout.episodes_ended,)

    def gradients(self, rollout: Rollout) -> None:
        """Write the gradient of the loss on one rollout into ``flat.grads``."""
        if rollout.image_scale is not None:
            self.network.set_image_scale(rollout.image_scale)
        values, next_values = self.values(rollout)
        ratios = None if rollout.log_probs is None else np.exp(self.network.log_probs() - rollout.log_probs)
        targets = self.targets(rollout, values, next_values, ratios)
        w = losses.mask_weights(rollout.valid)
        d_log_probs = losses.policy_gradient_loss_grad(targets.advantages, w)
        d_values = losses.value_loss_grad(values, targets.returns, w, self.huber_delta)
        log_probs, entropies = self.write_gradients(d_log_probs, d_values, w)
        self.last_updates = [LastUpdate(log_probs, entropies, values, targets, w)]

    def values(self, rollout: Rollout) -> tuple[FloatArray, FloatArray]:
        """Return V(sₜ) and V(sₜ₊₁) as :meth:`limelight.nn.network.Network.values`, each [T, B]; draw next actions."""
        return self.network.values(rollout, None if self.next_actions is None else self.next_actions.noise(rollout))

    def write_gradients(self, d_log_probs: Any, d_values: Any, w: Any) -> tuple[FloatArray, FloatArray]:
        """Write the gradient from the derivatives of the policy's loss and of the values' loss, each [T, B]."""
        a = self.algorithm
        d_entropies = a.ent_coef * schedule(a.ent_schedule, self.progress) * losses.entropy_loss_grad(w)
        return self.network.backward(d_log_probs, d_entropies, a.vf_coef * d_values)

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
        norm = self._clip()
        if not math.isfinite(norm):
            raise NonFiniteError(not_finite_message(self))
        self.progress = progress
        factor = schedule(self.optim.lr_schedule, progress)
        self.optimizer.step([(span, rate * factor) for span, rate in self._learning_rates])
        self.num_updates += 1
        target = self.train_state.target_params
        if target is not None and self._target_clock.is_due(episodes_ended):
            target.lerp_(self._critic_params, self.model.config.tau)
        self.applied.note(norm, self.optim.learning_rate * factor)

    def rewards(self, rollout: Rollout) -> FloatArray:
        """Return the rewards to learn from, [T, B]: raw, then clipped, normalised and scaled; once per rollout."""
        if rollout.learning_rewards is not None:
            return rollout.learning_rewards
        return learning_rewards(rollout, self.algorithm, self.reward_normalizer)

    def targets(
        self, rollout: Rollout, values: FloatArray, next_values: FloatArray, ratios: FloatArray | None = None
    ) -> Targets:
        """Return value targets and policy weights of a rollout from V(sₜ) and V(sₜ₊₁), all [T, B].

        ``ratios`` π(aₜ|sₜ)/μ(aₜ|sₜ): given where an older policy μ acted, which V-trace corrects.
        """
        rewards = self.rewards(rollout)
        self._reward_max = max(self._reward_max, float(np.maximum.reduce(abs(rewards), axis=None)))
        x = estimator_inputs(rollout, rewards, values, next_values, self.algorithm)
        targets = (
            make_targets(x, self.algorithm, self._expected_values) if ratios is None else vtrace_targets(x, ratios)
        )
        return Targets(targets.returns, self._normalized(targets.advantages, rollout.valid))

    def _normalized(self, advantages: FloatArray, valid: FloatArray) -> FloatArray:
        if self._standardizes:
            return standardize(advantages, valid)
        return advantages if self.advantage_normalizer is None else self.advantage_normalizer(advantages, valid)

    def metrics(self) -> Metrics:
        """Compute the metrics of the last gradients and apply; call it before the next rollout is collected."""
        if not self.last_updates:
            return {}
        metrics = loss_metrics(joined(self.last_updates), self.algorithm) | {"train/reward_max": self._reward_max}
        epochs = None if self.epochs is None else self.epochs.num_done
        optional = {"train/epochs": epochs, "train/dead_filters": self.network.dead_filters()}
        return metrics | {name: x for name, x in optional.items() if x is not None} | self.applied.metrics()

    def get_state(self) -> State:
        """Return running statistics and counters; parameters and optimizer are the :class:`TrainState`'s."""
        return {
            "target_clock": self._target_clock.count,
            **{name: (part := getattr(self, name)) and part.get_state() for name in _PARTS},
            "num_updates": self.num_updates,
            "progress": self.progress,
            "reward_max": self._reward_max,
            "clipped": self.applied.clipped,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`, after the train state has been restored."""
        self.network.parameters_changed()
        for name in _PARTS:
            if getattr(self, name) is not None:
                getattr(self, name).set_state(state[name])
        self._target_clock.count = int(state["target_clock"])
        self.num_updates = int(state["num_updates"])
        self.progress = float(state["progress"])
        self._reward_max = float(state["reward_max"])
        self.applied.clipped = None if state["clipped"] is None else float(state["clipped"])


CHANGEABLE = ("learning_rate", "critic_learning_rate", "ent_coef", "vf_coef")
"""Settings that may change while a learner learns."""


def change_setting(learner: Learner, name: str, value: float) -> None:
    """Change one of the settings ``CHANGEABLE`` from the next update on; schedules multiply the new value."""
    change: dict[str, Any] = {name: value}
    if name in ("ent_coef", "vf_coef"):
        learner.algorithm = dataclasses.replace(learner.algorithm, **change)
        return
    learner.optim = dataclasses.replace(learner.optim, **change)
    learner._learning_rates = learning_rates(learner.optim, learner.flat.span(learner.model.critic.parameters()))


def not_finite_message(learner: Learner) -> str:
    """Return the message on a gradient that is not finite, with the first number of its update that is not."""
    origin = origin_of(learner.last_updates, learner.algorithm, learner.model)
    return (
        f"learning_rate = {learner.optim.learning_rate:g}: the gradient is no longer finite at update "
        f"{learner.num_updates}; it begins with {origin}; a smaller learning_rate, max_grad_norm or reward_scale would "
        "help"
    )


def learning_rates(optim: OptimConfig, critic: slice) -> list[tuple[slice, float]]:
    """Return the step size of each part of the parameter vector; ``critic`` is the last part."""
    critic_rate = optim.learning_rate if optim.critic_learning_rate is None else optim.critic_learning_rate
    if optim.critic_learning_rate is None and optim.optimizer != "obgd":  # which bounds the step of each part
        return [(slice(0, critic.stop), optim.learning_rate)]
    return [(slice(0, critic.start), optim.learning_rate), (critic, critic_rate)]
