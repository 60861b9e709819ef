"""Policies to collect and evaluate with: the model plus a random stream. Two acting paths, one result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from limelight.nn.model import ActorCritic
from limelight.nn.numpy_mlp import NumpyActorCritic

Act = Callable[[NDArray[Any]], NDArray[Any]]


class ModelPolicy:
    """Acts with a model: samples with ``rng``, or takes the most probable action where ``rng`` is None."""

    def __init__(self, model: ActorCritic, rng: np.random.Generator | None, fast: NumpyActorCritic | None) -> None:
        self.model, self.rng, self.fast = model, rng, fast
        self.device = next(model.parameters()).device
        self.act: Act = self._act_torch if fast is None else self._act_numpy
        """Actions [B, *action_shape] for observations [B, *obs_shape]; the path is chosen here, once."""

    def _act_numpy(self, obs: NDArray[Any]) -> NDArray[Any]:
        assert self.fast is not None
        noise = None if self.rng is None else self.model.distribution.noise(self.rng, len(obs))
        return self.fast.act(obs, noise) + self.fast.first_action

    def _act_torch(self, obs: NDArray[Any]) -> NDArray[Any]:
        distribution = self.model.distribution
        if obs.dtype == np.float64:  # the collector stores float32, so that is what encoders learn from
            obs = obs.astype(np.float32)
        with torch.inference_mode():
            params = self.model.policy_params(torch.from_numpy(obs).to(self.device)[None])[0]
            if self.rng is None:
                actions = distribution.mode(params)
            else:
                noise = torch.from_numpy(distribution.noise(self.rng, len(obs))).to(self.device)
                actions = distribution.sample(params, noise)
        result: NDArray[Any] = actions.cpu().numpy()
        return result
