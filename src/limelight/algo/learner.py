"""From a rollout to new parameters:  update = apply ∘ gradients.

The only caller of ``backward`` and of the optimizer. Knows nothing of environments, runners or processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limelight.algo import losses
from limelight.algo.normalization import AdvantageNormalizer, RewardNormalizer
from limelight.algo.optim import clip_by_norm, initial_state, make_optimizer, schedule
from limelight.algo.returns import gae, standardize, vtrace
from limelight.algo.rollout import FinalObs, Rollout
from limelight.algo.train_state import FlatParameters, TrainState, copy_into
from limelight.errors import NonFiniteError
from limelight.nn.activation_cache import keep
from limelight.nn.images import set_image_scale
from limelight.nn.model import ActorCritic
from limelight.nn.numpy_engine import network as numpy_mlp
from limelight.settings.schema import AlgorithmConfig, ModelConfig, OptimConfig
from limelight.spaces.images import PixelScale
from limelight.typing import Array, Metrics, State


@dataclass(frozen=True)
class Targets(Generic[Array]):
    """What the losses compare the network with; constants, [T, B]."""

    returns: Array
    """Targets of the values."""
    weights: Array
    """Weights of ∇log π."""


class Learner:
    """Owns the parameters (one flat vector), their gradients, the optimizer and the target critic.

    ``gradients`` are of the model's own parameters; ``apply`` moves the ``train_state``, which is these parameters,
    or a
    vector elsewhere that ``pull`` copies them from. Two ways to the same gradients are chosen between when it is built:
    autograd, for any model, and the written-out backward of nn/numpy_mlp.py, for small MLPs and for heads alone.
    """

    def __init__(
        self,
        model: ActorCritic,
        algorithm: AlgorithmConfig,
        model_config: ModelConfig,
        optim: OptimConfig,
        use_numpy: bool | None = None,
        train_state: TrainState | None = None,
    ) -> None:
        self.model, self.algorithm, self.model_config, self.optim = model, algorithm, model_config, optim
        self.flat = FlatParameters(model)
        self.device = self.flat.params.device
        self.target_critic = model.make_target_critic() if model_config.critic == "target" else None
        self._target = FlatParameters(self.target_critic) if self.target_critic is not None else None
        self.train_state = train_state or self.local_state()
        # The gradients on the train_state's device; the same tensor, unless a GPU learns for a train_state in
        # shared memory.
        on_gpu = self.device != self.train_state.params.device
        self._grads = torch.zeros_like(self.train_state.params) if on_gpu else self.flat.grads
        self.optimizer = make_optimizer(optim, self.train_state.params, self._grads, self.train_state.optimizer_state)
        critic = self.flat.span(model.critic.parameters())
        self._critic_params = self.train_state.params[critic]
        whole, actor = slice(0, len(self.flat)), slice(0, critic.start)
        own_critic_rate = optim.critic_learning_rate
        self._learning_rates = (
            [(whole, optim.learning_rate)]
            if own_critic_rate is None
            else [(actor, optim.learning_rate), (critic, own_critic_rate)]
        )
        self._target_clock = 0
        self.weight_moments = (
            AdvantageNormalizer(algorithm.running_decay) if algorithm.normalize_advantages == "running" else None
        )
        self.reward_normalizer = RewardNormalizer(algorithm.gamma) if algorithm.normalize_rewards else None
        self.num_updates = 0
        self.progress = 0.0
        """0 to 1 through the step budget, as of the last update."""
        self.kept = keep(model.encoder, algorithm.num_steps)
        self.numpy: numpy_mlp.NumpyActorCritic | None = None
        if numpy_mlp.supports(model, self.kept) if use_numpy is None else use_numpy:
            self.numpy = numpy_mlp.NumpyActorCritic(model, algorithm.num_steps, self.kept)
            if self.target_critic is not None:
                self._numpy_target = numpy_mlp.NumpyCritic(self.target_critic)

    def local_state(self) -> TrainState:
        """The train_state of a learner that works alone: its own vectors, and a new optimizer state."""
        target_params = self._target.params if self._target is not None else None
        return TrainState(self.flat.params, target_params, initial_state(self.optim, self.flat.params))

    # ------------------------------------------------------------------ the verbs

    def load(self, params: NDArray[np.float32], target_params: NDArray[np.float32] | None, progress: float) -> None:
        """Act and learn with these parameters [n], and the target critic's [m]: :meth:`pull` from another machine.

        ``progress``: 0 to 1 through the step budget, when they were made.
        """
        self._forget()
        self.progress = progress
        copy_into(self.flat.params, params)
        if self._target is not None and target_params is not None:
            copy_into(self._target.params, target_params)

    def pull(self) -> None:
        """Copy the train_state's parameters into the model (and the target critic)."""
        self._forget()
        self.flat.params.copy_(self.train_state.params)
        if self._target is not None and self.train_state.target_params is not None:
            self._target.params.copy_(self.train_state.target_params)

    def _forget(self) -> None:
        """What acting has computed is of no use once parameters change."""
        if self.numpy is not None:
            self.numpy.forget()
        elif self.kept is not None:
            self.kept.acted.forget()

    def set_image_scale(self, scale: PixelScale) -> None:
        """Let the networks see pictures by this, until the next call: for acting and learning alike."""
        for network in (self.model, self.target_critic):
            if network is not None:
                set_image_scale(network, scale)

    def update(self, rollout: Rollout, progress: float, want_metrics: bool = False) -> Metrics:
        """One update from one rollout; ``progress`` (0 to 1) through the step budget sets the step size."""
        if rollout.num_valid == 0:  # nothing happened; momentum must not move the parameters
            return {}
        metrics = self.gradients(rollout, want_metrics)
        metrics.update(self.apply(progress, rollout.episodes_ended))
        return metrics

    def gradients(self, rollout: Rollout, want_metrics: bool = False) -> Metrics:
        """Write the gradient of the loss into ``flat.grads``; metrics only if asked for (they cost time)."""
        if rollout.pixels is not None:
            self.set_image_scale(rollout.pixels)
        if self.numpy is not None and rollout.log_probs is None:
            return self._written_out_gradients(self.numpy, rollout, want_metrics)
        return self._autograd_gradients(rollout, want_metrics)

    def apply(self, progress: float, episodes_ended: int = 0) -> Metrics:
        """Clip, step the optimizer, move the target critic (which may count finished episodes): all on the train_state.

        Raises: NonFiniteError; the parameters are then as they were.
        """
        self._forget()
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
        rates = [(span, rate * factor) for span, rate in self._learning_rates]
        self.optimizer.step(rates)
        self.num_updates += 1
        if self.train_state.target_params is not None:
            self._move_target_critic(episodes_ended, self.train_state.target_params)
        return {"train/grad_norm": norm, "train/learning_rate": self.optim.learning_rate * factor}

    def log_probs(self, rollout: Rollout) -> NDArray[np.float32]:
        """The log π(aₜ|sₜ) of a rollout's actions, [T, B]; what acting has computed is not computed again."""
        T, B = rollout.rewards.shape
        with torch.no_grad():
            if self.numpy is not None:
                rows, _ = self.numpy.forward(rollout.obs.reshape((T + 1) * B, *rollout.obs.shape[2:]))
                params = torch.from_numpy(rows[: T * B].reshape(T, B, -1))
            else:
                features = None if self.kept is None else self.kept.unroll(rollout.obs)
                obs = torch.from_numpy(rollout.obs).to(self.device)
                params = self.model(obs, *self._memory(rollout), features).params[:-1]
            actions = torch.from_numpy(rollout.actions).to(self.device)
            found: NDArray[np.float32] = self.model.distribution.log_prob(params, actions).float().cpu().numpy()
            return found

    # ------------------------------------------------------------------ targets

    def rewards(self, rollout: Rollout) -> NDArray[np.float32]:
        """Rewards to learn from, [T, B]: raw ones clipped, normalised, scaled, as set; the one place they change."""
        a = self.algorithm
        if rollout.learning_rewards is not None:
            return rollout.learning_rewards
        rewards = rollout.rewards
        if a.reward_clip is not None:
            rewards = rewards.clip(-a.reward_clip, a.reward_clip)
        if self.reward_normalizer is not None:
            rewards = self.reward_normalizer(rollout, rewards)
        if a.reward_scale != 1.0:
            rewards = rewards * a.reward_scale
        return rewards

    def targets(
        self,
        rewards: Array,
        values: Array,
        next_values: Array,
        terminated: Array,
        truncated: Array,
        valid: Array,
        ratios: Array | None = None,
    ) -> Targets[Array]:
        """Value targets and policy weights from the learner's rewards and values, all [T, B].

        ``ratios`` π(aₜ|sₜ)/μ(aₜ|sₜ), where an older policy μ acted: V-trace corrects for that.
        """
        a = self.algorithm
        if ratios is not None:
            returns, weights = vtrace(
                rewards, values, next_values, terminated, truncated, valid, ratios, a.gamma, a.gae_lambda
            )
            return Targets(returns, self._normalized(weights, valid))
        advantages = gae(rewards, values, next_values, terminated, truncated, valid, a.gamma, a.gae_lambda)
        returns = values + advantages
        weights = advantages if a.policy_weight == "advantage" else returns * valid
        return Targets(returns, self._normalized(weights, valid))

    def _normalized(self, weights: Array, valid: Array) -> Array:
        if self.algorithm.normalize_advantages == "batch":
            return standardize(weights, valid)
        return weights if self.weight_moments is None else self.weight_moments(weights, valid)

    # ------------------------------------------------------------------ gradients, two ways

    def _autograd_gradients(self, rollout: Rollout, want_metrics: bool) -> Metrics:
        a = self.algorithm
        obs, rewards, terminated, truncated, valid, actions = (
            torch.from_numpy(x).to(self.device)
            for x in (
                rollout.obs, self.rewards(rollout), rollout.terminated, rollout.truncated, rollout.valid,
                rollout.actions,
            )
        )  # fmt: skip
        features = None if self.kept is None else self.kept.unroll(rollout.obs)
        output = self.model(obs, *self._memory(rollout), features)
        params, values = output.params[:-1], output.values[:-1]
        next_values = self._next_values(obs, output.values.detach(), rollout)
        log_probs = self.model.distribution.log_prob(params, actions)
        ratios = None
        if rollout.log_probs is not None:
            ratios = (log_probs.detach() - torch.from_numpy(rollout.log_probs).to(self.device)).exp()
        targets = self.targets(rewards, values.detach(), next_values, terminated, truncated, valid, ratios)

        rows = losses.row_weights(valid)
        policy_loss = losses.policy_gradient_loss(log_probs, targets.weights, rows)
        value_loss = self._value_loss(values, targets.returns, rows)
        entropy_loss = losses.entropy_loss(self.model.distribution.entropy(params), rows)
        loss = policy_loss + a.vf_coef * value_loss + self._ent_coef() * entropy_loss
        self.flat.grads.zero_()
        loss.backward()
        if not want_metrics:
            return {}
        parts = policy_loss.detach(), value_loss.detach(), entropy_loss.detach(), values.detach()
        return self._metrics(*parts, targets.returns, rows)

    def _written_out_gradients(self, net: numpy_mlp.NumpyActorCritic, rollout: Rollout, want_metrics: bool) -> Metrics:
        a = self.algorithm
        T, B = rollout.rewards.shape
        obs = rollout.obs.reshape((T + 1) * B, *rollout.obs.shape[2:])
        params, all_values = net.forward(obs)
        params, all_values = params[: T * B], all_values.reshape(T + 1, B)
        values, valid = all_values[:-1], rollout.valid
        actions = rollout.actions.reshape(T * B, *rollout.actions.shape[2:])
        next_values = self._next_values_numpy(net, obs, all_values, rollout)
        rewards = self.rewards(rollout)
        targets = self.targets(rewards, values, next_values, rollout.terminated, rollout.truncated, valid)

        rows = losses.row_weights(valid)
        d_log_probs = losses.policy_gradient_loss_grad(targets.weights, rows)
        d_entropies = self._ent_coef() * losses.entropy_loss_grad(rows)
        d_values = a.vf_coef * self._value_loss_grad(values, targets.returns, rows)
        log_probs, entropies, d_params = net.distribution.grad(
            params, actions, d_log_probs.reshape(-1), d_entropies.reshape(-1)
        )
        net.backward(d_params, d_values.reshape(-1))
        if not want_metrics:
            return {}
        policy_loss = losses.policy_gradient_loss(log_probs.reshape(T, B), targets.weights, rows)
        value_loss = self._value_loss(values, targets.returns, rows)
        entropy_loss = losses.entropy_loss(entropies.reshape(T, B), rows)
        return self._metrics(policy_loss, value_loss, entropy_loss, values, targets.returns, rows)

    def _ent_coef(self) -> float:
        return self.algorithm.ent_coef * schedule(self.algorithm.ent_schedule, self.progress)

    def _value_loss(self, values: Array, returns: Array, rows: Array) -> Array:
        if self.algorithm.value_loss == "mse":
            return losses.squared_value_loss(values, returns, rows)
        return losses.huber_value_loss(values, returns, rows, self.algorithm.huber_delta)

    def _value_loss_grad(self, values: Array, returns: Array, rows: Array) -> Array:
        if self.algorithm.value_loss == "mse":
            return losses.squared_value_loss_grad(values, returns, rows)
        return losses.huber_value_loss_grad(values, returns, rows, self.algorithm.huber_delta)

    def _metrics(
        self,
        policy_loss: Array,
        value_loss: Array,
        entropy_loss: Array,
        values: Array,
        returns: Array,
        rows: Array,
    ) -> Metrics:
        metrics = {
            "train/policy_loss": float(policy_loss),
            "train/value_loss": float(value_loss),
            "train/entropy": -float(entropy_loss),
            "train/value_mean": float((values * rows).sum()),
        }
        if math.prod(rows.shape) > 1:  # one transition has no variance to explain
            metrics["train/explained_variance"] = float(losses.explained_variance(values, returns, rows))
        if self.kept is not None:
            metrics["train/dead_filters"] = self.kept.dead_filters()
        return metrics

    # ------------------------------------------------------------------ bootstrapping

    def _memory(self, rollout: Rollout) -> tuple[Tensor | None, Tensor | None]:
        """The recurrent state before obs[0] and where episodes start; Nones without memory."""
        if rollout.recurrent_state is None:
            return None, None
        state, episode_start = torch.from_numpy(rollout.recurrent_state), torch.from_numpy(rollout.episode_start)
        return state.to(self.device), episode_start.to(self.device)

    def _next_values(self, obs: Tensor, values: Tensor, rollout: Rollout) -> Tensor:
        """V(sₜ₊₁) [T, B] for bootstrapping: the next row's value, or V(final observation) where the stream lacks it."""
        critic, (state, episode_start) = self.target_critic, self._memory(rollout)
        with torch.no_grad():
            if critic is None:
                next_values = values[1:]
            elif state is None:
                next_values = critic(obs[1:])
            else:  # the memory at obs[1] is what obs[0] has left
                next_values = critic(obs, self.model.split_state(state)[1], episode_start)[1:]
        final = rollout.final_obs
        if final is not None and len(final.obs):
            next_values = next_values.clone()
            next_values[final.t, final.b] = self._final_values(final)
        return next_values

    def _next_values_numpy(
        self,
        net: numpy_mlp.NumpyActorCritic,
        obs: NDArray[Any],
        values: NDArray[np.float32],
        rollout: Rollout,
    ) -> NDArray[np.float32]:
        """As :meth:`_next_values`, leaving the activations of the last forward in place."""
        B = values.shape[1]
        next_values = values[1:]
        if self.target_critic is not None:
            next_values = self._numpy_target.forward(net.flatten(obs[B:])).reshape(-1, B)
        if rollout.final_obs is not None and len(rollout.final_obs.obs):
            next_values = next_values.copy()
            next_values[rollout.final_obs.t, rollout.final_obs.b] = self._final_values(rollout.final_obs).numpy()
        return next_values

    def _final_values(self, final: FinalObs) -> Tensor:
        """V of final observations [K] from what was remembered there; rare enough for torch on every path."""
        obs = torch.from_numpy(final.obs).to(self.device)[None]
        state = None if final.recurrent_state is None else torch.from_numpy(final.recurrent_state).to(self.device)
        with torch.no_grad():
            if self.target_critic is not None:
                values: Tensor = self.target_critic(obs, self.model.split_state(state)[1])[0]
                return values
            return self.model(obs, state).values[0]

    def _move_target_critic(self, episodes_ended: int, target_params: Tensor) -> None:
        """Target ← (1 − τ) target + τ critic, every so many updates or finished episodes."""
        if self.model_config.target_update_at == "updates":
            self._target_clock += 1
        else:
            self._target_clock += episodes_ended
        if self._target_clock >= self.model_config.target_update_every:
            self._target_clock = 0
            target_params.lerp_(self._critic_params, self.model_config.tau)

    # ------------------------------------------------------------------ what a checkpoint keeps

    def get_state(self) -> State:
        """Running moments and counters: what is the learner's own, beside the :class:`TrainState`."""
        return {
            "target_clock": self._target_clock,
            "weight_moments": self.weight_moments.get_state() if self.weight_moments is not None else None,
            "reward_normalizer": self.reward_normalizer.get_state() if self.reward_normalizer is not None else None,
            "num_updates": self.num_updates,
            "progress": self.progress,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`; the train_state's state is set before."""
        self._forget()
        if self.weight_moments is not None:
            self.weight_moments.set_state(state["weight_moments"])
        if self.reward_normalizer is not None:
            self.reward_normalizer.set_state(state["reward_normalizer"])
        self._target_clock = int(state["target_clock"])
        self.num_updates = int(state["num_updates"])
        self.progress = float(state.get("progress", 0.0))  # older checkpoints have none
