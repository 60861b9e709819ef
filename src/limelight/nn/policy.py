"""Policies to collect and evaluate with: the model plus a random stream. Several acting paths, one result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limelight.nn.activation_cache import CachingEncoder
from limelight.nn.model import ActorCritic
from limelight.nn.noise import CorrelatedNoise, Features, Noise, white_noise
from limelight.nn.numpy_engine import cells as numpy_recurrent
from limelight.nn.numpy_engine.network import NumpyActorCritic

Act = Callable[[NDArray[Any], NDArray[np.float32]], NDArray[Any]]


class ModelPolicy:
    """Acts with a model: samples with ``rng``, or takes the most probable action where ``rng`` is None.

    Args: ``fast``: the model in NumPy, where it has that form. ``kept``: that of the learner that learns from what this
    policy acts on, and no other policy's.
    """

    recurrent_state: NDArray[np.float32] | None
    """What it remembers, [B, S]; None: nothing yet, or no memory. ``act`` replaces it and never writes into it."""

    def __init__(
        self,
        model: ActorCritic,
        rng: np.random.Generator | None,
        fast: NumpyActorCritic | None,
        noise_correlation: float = 0.0,
        kept: CachingEncoder | None = None,
    ) -> None:
        self.model, self.rng, self.fast, self.kept = model, rng, fast, kept
        self.noise: Noise | None = None
        if rng is not None and noise_correlation:
            self.noise = CorrelatedNoise(model.distribution, model.policy_head, rng, noise_correlation)
        elif rng is not None:
            self.noise = white_noise(model.distribution, rng)
        self.device = next(model.parameters()).device
        self.recurrent_state = None
        self._recurrent = numpy_recurrent.NumpyRecurrent(model) if numpy_recurrent.supports(model) else None
        self.to_env = model.distribution.to_env
        """What the environments get of actions."""
        self.act: Act = self._choose_act()
        """Actions [B, *action_shape] for observations [B, *obs_shape], with a mask [B] (float32) of those that begin
        an episode, before which the memory is zeroed; the path is chosen here, once."""

    def get_state(self) -> dict[str, Any]:
        """Its random stream, and the noise of the last step where the next depends on it."""
        assert self.rng is not None
        last = self.noise.last if isinstance(self.noise, CorrelatedNoise) else None
        return {"rng": self.rng.bit_generator.state, "noise": last}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        assert self.rng is not None
        self.rng.bit_generator.state = state["rng"]
        if isinstance(self.noise, CorrelatedNoise):
            self.noise.last = state["noise"]

    def _choose_act(self) -> Act:
        if self.model.state_size:
            return self._act_recurrent if self._recurrent is None else self._act_recurrent_numpy
        return self._act_torch if self.fast is None else self._act_numpy

    def _act_numpy(self, obs: NDArray[Any], episode_start: NDArray[np.float32]) -> NDArray[Any]:
        assert self.fast is not None
        return self.fast.act(obs, self.noise)

    def _act_torch(self, obs: NDArray[Any], episode_start: NDArray[np.float32]) -> NDArray[Any]:
        with torch.inference_mode():
            params, features = self.model.policy(self._row(obs), self._features(obs))
            return self._actions(params[0], features[0])

    def _act_recurrent(self, obs: NDArray[Any], episode_start: NDArray[np.float32]) -> NDArray[Any]:
        with torch.inference_mode():
            state = None if self.recurrent_state is None else torch.from_numpy(self.recurrent_state).to(self.device)
            output = self.model(self._row(obs), state, self._row(episode_start), self._features(obs))
            self.recurrent_state = output.recurrent_state.cpu().numpy()
            return self._actions(output.params[0], output.features[0])

    def _act_recurrent_numpy(self, obs: NDArray[Any], episode_start: NDArray[np.float32]) -> NDArray[Any]:
        assert self._recurrent is not None
        params, state = self._recurrent.step(obs, self.recurrent_state, episode_start)
        self.recurrent_state = state
        noise = None if self.noise is None else self.noise(state[:, : self._recurrent.num_features])
        return self._recurrent.distribution.act(params, noise)

    def _features(self, obs: NDArray[Any]) -> Tensor | None:
        """Of the encoder, where it keeps them for learning; otherwise the model runs it itself."""
        return None if self.kept is None else self.kept.act(obs)[None]

    def _row(self, x: NDArray[Any]) -> Tensor:
        """[B, ...] → [1, B, ...] where the model is."""
        if x.dtype == np.float64:  # the collector stores float32, so that is what encoders learn from
            x = x.astype(np.float32)
        return torch.from_numpy(x).to(self.device)[None]

    def _actions(self, params: Tensor, features: Features) -> NDArray[Any]:
        """Actions [B, *action_shape] for distribution parameters [B, K] and what the policy head sees, [B, F]."""
        distribution = self.model.distribution
        if self.noise is None:
            actions = distribution.mode(params)
        else:
            noise = torch.from_numpy(self.noise(features)).to(self.device)
            actions = distribution.sample(params, noise)
        result: NDArray[Any] = actions.cpu().numpy()
        return result
