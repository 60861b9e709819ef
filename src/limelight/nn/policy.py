"""A policy to collect and evaluate with: a network, the noise of its actions, and a recurrent state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limelight.nn.network import Network
from limelight.nn.noise import CorrelatedNoise, Noise, white_noise


class ModelPolicy:
    """Samples actions with ``rng``, or takes the most probable ones where ``rng`` is None.

    Args:
        network: computes the actions.
        rng: random stream of the actions.
        noise_correlation: correlation of the noise of continuous actions from one step to the next.
    """

    recurrent_state: NDArray[np.float32] | None
    """State after the last observations, [B, S]; None: all zeros, or no memory."""

    def __init__(self, network: Network, rng: np.random.Generator | None, noise_correlation: float = 0.0) -> None:
        self.network = network
        self.rng = rng
        self.recurrent_state = None
        self.noise: Noise | None = None
        model = network.model
        if rng is not None and noise_correlation:
            self.noise = CorrelatedNoise(model.distribution, model.policy_head, rng, noise_correlation)
        elif rng is not None:
            self.noise = white_noise(model.distribution, rng)
        self.begin_rollout = network.begin_rollout
        self.to_env = model.distribution.to_env

    def act(self, obs: NDArray[Any], episode_start: NDArray[np.float32]) -> NDArray[Any]:
        """Return actions [B, *action_shape] for observations [B, *obs_shape] and move the recurrent state.

        ``episode_start`` [B] is 1 where the state is zeroed first.
        """
        actions, self.recurrent_state = self.network.act(obs, self.recurrent_state, episode_start, self.noise)
        return actions

    def get_state(self) -> dict[str, Any]:
        """Return the random stream, and the last noise where the next depends on it."""
        assert self.rng is not None
        last = self.noise.last if isinstance(self.noise, CorrelatedNoise) else None
        return {"rng": self.rng.bit_generator.state, "noise": last}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        assert self.rng is not None
        self.rng.bit_generator.state = state["rng"]
        if isinstance(self.noise, CorrelatedNoise):
            self.noise.last = state["noise"]
