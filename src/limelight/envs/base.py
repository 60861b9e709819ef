"""The adapter contract of the environment backends.

The canonical stream is Gymnasium's NEXT_STEP: the observation of a done step is the final one of its episode; the step
after it only resets, its observation is the first one of the next episode, and its row is marked invalid.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium.spaces import Space
from numpy.typing import NDArray

from limelight.envs.attributes import Order
from limelight.envs.episode_info import Ends
from limelight.typing import State

OTHER_BACKEND = "backend = {}: the checkpoint's episodes are of another backend; resume with that one"
"""The error of ``set_state`` in backends whose episodes cannot be saved."""


class Step(NamedTuple):
    """The result of one step of B environments."""

    obs: NDArray[Any]
    """Observation after the step, [B, *obs_shape]."""
    rewards: NDArray[np.float64]
    """Raw reward, [B]; 0 on invalid rows."""
    terminated: NDArray[np.bool_]
    """The episode ended in a terminal state, [B]; False on invalid rows."""
    truncated: NDArray[np.bool_]
    """The episode was truncated (time limit) in a state that has a value, [B]; False on invalid rows."""
    valid: NDArray[np.bool_]
    """False if the step made no transition of an episode: after a done row, until the environment is reset, [B]."""
    final_obs: NDArray[Any] | None = None
    """Last observation of the rows done in this step, if ``obs`` already holds the first one of the next episode
    (SAME_STEP and DISABLED streams); other rows are undefined. None if ``obs`` is the final observation."""
    life_lost: NDArray[np.bool_] | None = None
    """A life was lost and the game continues, which the learner treats as an end, [B]; None if lives do not count."""
    failed: NDArray[np.bool_] | None = None
    """The row is truncated because the environment failed and was replaced, [B]; None where none did."""
    ends: Ends | None = None
    """The environment's own numbers of the episodes that ended in this step; None where there are none."""


class EnvBackend(Protocol):
    """Steps B environments together.

    Observations may be buffers that the next step overwrites. A backend without one of the autoreset modes is named in
    ``settings.rules``, which refuses the others for it.
    """

    name: str
    """The name of the backend, one of ``envs.make.Backend``."""
    num_envs: int
    single_observation_space: Space[Any]
    single_action_space: Space[Any]

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start an episode in every environment; return the first observations, [B, *obs_shape].

        ``seed``: the same seed gives the same episodes; environments of one backend get different ones.
        """

    def step(self, actions: NDArray[Any]) -> Step:
        """Apply actions [B, *action_shape] to every environment."""

    def get_state(self) -> State | None:
        """Return all that is needed to continue the episodes and their random streams exactly; None if impossible."""

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state` of a backend made with the same settings."""

    def follow(self, order: Order) -> list[Any]:
        """Set an attribute of every environment, or call a method; return the results, [B].

        A class that is vectorised by itself counts as one environment.

        Raises: ConfigError if there is none of that name, or the environments have no attributes.
        """

    def close(self) -> None:
        """Close the environments; may be called twice."""
