"""Environments whose last actions and rewards are recorded, and that stop at the first number that is not finite."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Space
from numpy.typing import NDArray

from limelight.envs.attributes import Order
from limelight.envs.base import EnvBackend, Step
from limelight.errors import FirstNonFiniteError
from limelight.spaces.packed import place_name
from limelight.typing import State


class RecordedRow(NamedTuple):
    """One step of all environments."""

    number: int
    """Of the step, from 0."""
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    valid: NDArray[np.bool_]
    ended: NDArray[np.bool_]


class RecordedEnvs:
    """Steps other environments and keeps the last ``length`` steps.

    Raises :class:`FirstNonFiniteError` at a reward, an observation or a continuous action that is not finite.
    """

    def __init__(self, envs: EnvBackend, length: int) -> None:
        self.envs = envs
        self.name = envs.name
        self.num_envs = envs.num_envs
        self.single_observation_space: Space[Any] = envs.single_observation_space
        self.single_action_space: Space[Any] = envs.single_action_space
        self.rows: deque[RecordedRow] = deque(maxlen=length)
        self.count = 0
        """Steps so far."""

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Reset the environments."""
        return self.envs.reset(seed)

    def step(self, actions: NDArray[Any]) -> Step:
        """Step the environments, record the step and check it."""
        self._require("action", actions)
        step = self.envs.step(actions)
        self.rows.append(
            RecordedRow(
                self.count, actions.copy(), step.rewards.copy(), step.valid.copy(), step.terminated | step.truncated
            )
        )
        self.count += 1
        with np.errstate(over="ignore"):
            self._require("reward, as float32," if np.isfinite(step.rewards).all() else "reward",
                          step.rewards.astype(np.float32), step.rewards)  # fmt: skip
        self._require("observation", step.obs)
        if step.final_obs is not None:
            truncated = step.truncated.reshape(-1, *[1] * (step.final_obs.ndim - 1))
            self._require("final observation", np.where(truncated, step.final_obs, 0))
        return step

    def _require(self, noun: str, values: NDArray[Any], shown: NDArray[Any] | None = None) -> None:
        """Raise for the first of ``values`` [B, ...] that is not finite."""
        if values.dtype.kind != "f" or np.isfinite(values).all():
            return
        env, *index = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
        space = self.single_observation_space if noun.endswith("observation") else None
        value = float((values if shown is None else shown)[(env, *index)])
        row = self.count if noun == "action" else self.count - 1
        raise FirstNonFiniteError(f"{noun}{place_name(space, index)} of the environment", value, row, env)

    def get_state(self) -> State | None:
        """Return the state of the environments."""
        return self.envs.get_state()

    def set_state(self, state: State) -> None:
        """Set the state of the environments."""
        self.envs.set_state(state)

    def follow(self, order: Order) -> list[Any]:
        """Set an attribute of every environment, or call a method."""
        return self.envs.follow(order)

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()
