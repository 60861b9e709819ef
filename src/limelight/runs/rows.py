"""Observations of a user as the network takes them, and its outputs for them: values, probabilities, log π."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.spaces import Dict, MultiDiscrete, Space, Tuple
from numpy.typing import ArrayLike, NDArray

from limelight.envs.masks import require_legal
from limelight.envs.packing import to_batch
from limelight.errors import ConfigError
from limelight.nn.bounds import as_sampled
from limelight.nn.distributions import probabilities
from limelight.nn.model import ActorCritic, Output
from limelight.settings.values import shown
from limelight.spaces.describe import describe_space
from limelight.spaces.packed import Packed
from limelight.spaces.reading import leaves_of
from limelight.spaces.values import NUMBERS, is_masked
from limelight.threads import one_torch_thread

_FEW = 32
"""Observations, at most, that are computed on one thread: more threads would only wait for each other."""
RecurrentState = NDArray[np.float32]
"""Recurrent state of a policy in B episodes, [B, S]."""


class Row(NamedTuple):
    """Observations as the network takes them, and the recurrent state before them."""

    obs: NDArray[Any]
    """[B, *obs_shape]."""
    state: RecurrentState | None
    episode_start: NDArray[np.float32]
    """[B]."""
    single: bool
    """One observation was given, not a batch: B = 1."""


def read_row(
    space: Space[Any],
    action_space: Space[Any],
    state_size: int,
    obs: Any,
    state: RecurrentState | None,
    episode_start: ArrayLike | None,
    action_masks: ArrayLike | None,
) -> Row:
    """Return the arguments of :meth:`limelight.Agent.predict`, checked.

    Args:
        space: of the observations.
        action_space: of the actions.
        state_size: S, 0 without a recurrent core.
        obs: one observation or a batch.
        state: before them; it may belong to another batch if all episodes begin here.
        episode_start: [B].
        action_masks: of legal actions.
    Raises: ConfigError, which is a ValueError, for an argument that does not fit.
    """
    try:
        _require_observation(space, obs)
        batch, single = to_batch(space, obs, action_masks)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if isinstance(space, Packed) and space.mask is not None:
        require_legal(batch[:, space.mask.part], action_space)
    start = np.zeros(len(batch), np.float32) if episode_start is None else _starts(episode_start, len(batch))
    return Row(batch, None if start.all() else _checked(state, len(batch), state_size), start, single)


def _starts(episode_start: ArrayLike, batch: int) -> NDArray[np.float32]:
    """Return where episodes begin as an array [batch]."""
    start = _numbers("episode_start", episode_start)
    if start.size != batch:
        raise ConfigError(f"episode_start of shape {start.shape}: must be [{batch}], one for each observation")
    if not np.isin(start, (0.0, 1.0)).all():
        raise ConfigError(f"episode_start = {shown(episode_start)}: must be true or false for each observation")
    return start.reshape(-1)


def _checked(state: RecurrentState | None, batch: int, width: int) -> RecurrentState | None:
    """Return a state [B, S] as an array for ``batch`` observations; None without a recurrent core."""
    if state is None or width == 0:
        return None
    array = _numbers("state", state)
    if array.shape != (batch, width):
        raise ConfigError(
            f"state of shape {array.shape}: must be [{batch}, {width}]; reset() or episode_start clears it"
        )
    return array


def _numbers(name: str, values: Any) -> NDArray[np.float32]:
    """Return finite numbers as a new array.

    Raises: ConfigError that names the argument.
    """
    try:
        array = np.array(values, np.float32)
        is_numbers = np.asarray(values).dtype.kind in NUMBERS and not is_masked(values)
    except Exception:  # ragged lists; objects of other libraries may raise anything
        is_numbers = False
    array = array if is_numbers else np.full((), np.nan, np.float32)
    if not np.isfinite(array).all():
        raise ConfigError(f"{name} = {shown(values)}: must be an array of finite numbers")
    return array


def _may_end_so(space: Space[Any]) -> bool:
    """Return whether an observation may be a tuple whose last part is a dict, as the result of a reset is."""
    return isinstance(space, Tuple) and isinstance(space.spaces[-1], Dict)


def _require_observation(space: Space[Any], obs: Any) -> None:
    """Refuse the result of ``reset()`` or ``step()`` as a whole, and a dict where none is expected.

    Raises: ValueError.
    """
    original = space.original if isinstance(space, Packed) else space
    if isinstance(space, Packed) and space.mask_source == "info":
        original = space.original["observation"]  # type: ignore[index]
    if isinstance(obs, tuple) and len(obs) in (2, 5) and isinstance(obs[-1], dict) and not _may_end_so(original):
        call = "reset()" if len(obs) == 2 else "step()"
        raise ValueError(f"obs: is all that {call} returned; pass its first part, the observation")
    if isinstance(obs, dict) and not isinstance(space, Packed):
        raise ValueError(f"obs: is a dict, but the agent was trained on {describe_space(space)}; pass an array")
    if obs is None:
        raise ValueError(f"obs: is None; the agent was trained on {describe_space(space)}")


def threads_for(row: Row) -> AbstractContextManager[None]:
    """Return a context with as many threads of PyTorch as are of use for these observations."""
    return one_torch_thread() if len(row.obs) <= _FEW else nullcontext()


def forward(model: ActorCritic, row: Row) -> Output:
    """Return the outputs of the network for B normalised observations, with T = 1."""
    device = next(model.parameters()).device
    obs = row.obs.astype(np.float32) if row.obs.dtype == np.float64 else row.obs
    with threads_for(row), torch.inference_mode():
        state = None if row.state is None else torch.from_numpy(row.state).to(device)
        start = torch.from_numpy(row.episode_start).to(device)[None]
        output: Output = model(torch.from_numpy(obs).to(device)[None], state, start)
    return output


def log_prob_of(model: ActorCritic, space: Space[Any], row: Row, action: Any) -> Any:
    """Return log π(action|s): a number for one observation, [B] for a batch; ``space`` is that of the actions.

    Raises: ConfigError where the action is not in the space, or there is not one for each observation.
    """
    try:
        actions, single = to_batch(space, action, noun="action")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if (single, len(actions)) != (row.single, len(row.obs)):
        raise ConfigError(f"action of shape {np.shape(action)}: must be one for each of {len(row.obs)} observations")
    sampled = torch.from_numpy(as_sampled(space, model.config.action_bounds, actions))
    params = forward(model, row).params[0]
    with torch.inference_mode():
        log_probs = model.distribution.log_prob(params, sampled.to(params.device)).cpu().numpy()
    return log_probs[0] if row.single else log_probs


def probabilities_of(model: ActorCritic, space: Space[Any], row: Row) -> Any:
    """Return π(·|s) in the form of the action space.

    Raises: ConfigError where actions are continuous.
    """
    found = probabilities(model.distribution, forward(model, row).params[0])
    return _nested(space, [(p[0] if row.single else p).cpu().numpy() for p in found])


def _nested(space: Space[Any], arrays: list[Any]) -> Any:
    """Return the probabilities of all factors in the form of an action space."""
    remaining = iter(arrays)

    def of(leaf: Space[Any]) -> Any:
        count = leaf.nvec.size if isinstance(leaf, MultiDiscrete) else 1
        found = tuple(next(remaining) for _ in range(count))
        return found if isinstance(leaf, MultiDiscrete) else found[0]

    values = [of(leaf.space) for leaf in leaves_of(space)]
    return space.nest(values) if isinstance(space, Packed) else values[0]
