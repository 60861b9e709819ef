"""The public ``make_envs``: every backend returns observations as arrays of their own."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from gymnasium.spaces import Space
from numpy.typing import NDArray

from limelight.envs import make
from limelight.envs.base import EnvBackend, Step
from limelight.envs.packing import to_batch
from limelight.errors import ConfigError
from limelight.settings.schema import EnvConfig
from limelight.typing import EnvFactory, State


def make_envs(
    config: EnvConfig | str | EnvFactory,
    num_envs: int | None = None,
    seed: int | None = None,
    factory: EnvFactory | None = None,
    **settings: Any,
) -> FreshArrays:
    """Make environments that are stepped together; see :func:`limelight.envs.make.make_envs` for the arguments.

    Arrays stay as they are when the environments step again, so that transitions can be collected.
    """
    return FreshArrays(make.make_envs(config, num_envs, seed, factory, **settings))


@final
class FreshArrays:
    """A backend whose arrays are copies that may be changed; the training itself does without."""

    def __init__(self, envs: EnvBackend) -> None:
        self.envs = envs
        self.name = envs.name
        self.num_envs = envs.num_envs
        self.single_observation_space: Space[Any] = envs.single_observation_space
        self.single_action_space: Space[Any] = envs.single_action_space

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start an episode in every environment; return the first observations, [B, *obs_shape]."""
        return np.array(self.envs.reset(None if seed is None else make.whole_seed(seed)))

    def step(self, actions: NDArray[Any]) -> Step:
        """Apply actions [B, *action_shape] to every environment.

        Raises: ConfigError for actions of another form.
        """
        step = self.envs.step(self._read_actions(actions))
        copies: dict[str, Any] = {
            name: np.array(part) for name, part in step._asdict().items() if isinstance(part, np.ndarray)
        }
        return step._replace(**copies)

    def _read_actions(self, actions: Any) -> NDArray[Any]:
        space = self.single_action_space
        try:
            batch, single = to_batch(space, actions, noun="actions")
            if single or len(batch) != self.num_envs:
                shape = [self.num_envs, *(space.shape or ())]
                raise ValueError(f"actions of shape {np.shape(actions)}: must be {shape}, one of each environment")
        except ValueError as error:
            raise ConfigError(str(error)) from None
        return np.asarray(batch, space.dtype)

    def get_state(self) -> State | None:
        """Return all that is needed to continue the episodes exactly; None if impossible."""
        return self.envs.get_state()

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`."""
        self.envs.set_state(state)

    def close(self) -> None:
        """Close the environments; may be called twice."""
        self.envs.close()
