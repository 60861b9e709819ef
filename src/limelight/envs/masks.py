"""Masks of legal actions: where an environment has them, and whether they can be right."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space
from numpy.typing import NDArray

from limelight.envs.faults import env_code
from limelight.errors import ConfigError, EnvError
from limelight.spaces.describe import describe_space
from limelight.spaces.packed import MASK_KEY, Packed
from limelight.spaces.values import is_masked
from limelight.typing import AnyEnv


def choices(space: Space[Any]) -> list[int]:
    """Return the number of actions of each choice: [n] of a Discrete, the nvec; [] if actions cannot be masked."""
    if isinstance(space, Discrete):
        return [int(space.n)]
    return [int(n) for n in space.nvec.reshape(-1)] if isinstance(space, MultiDiscrete) else []


def observes_mask(env: AnyEnv, name: str) -> bool:
    """Return whether observations hold a mask: a top-level key ``action_mask`` with a number for every action.

    Raises: EnvError if the mask has another size.
    """
    space, wanted = env.observation_space, sum(choices(env.action_space))
    if not isinstance(space, Dict) or MASK_KEY not in space.spaces or not wanted:
        return False
    mask = space.spaces[MASK_KEY]
    size = int(np.prod(mask.shape)) if isinstance(mask, Box | MultiBinary | MultiDiscrete) else None
    if size != wanted:
        raise EnvError(
            f"env_id = {name}: its observation {MASK_KEY} is {describe_space(mask)}, but there are {wanted} actions to "
            f"mask; give 0 or 1 for each, or set action_masks to off"
        )
    return True


def informs_mask(env: AnyEnv, name: str) -> bool:
    """Reset ``env`` and tell whether its info holds a mask.

    Raises: EnvError if it cannot be reset.
    """
    if not choices(env.action_space):
        return False
    seed = 0  # what stalls.py tells of a call
    with env_code(name, "reset()"):
        result = env.reset(seed=seed)
    info = result[1] if isinstance(result, tuple) and len(result) == 2 else None  # of another form: a later error
    return isinstance(info, dict) and MASK_KEY in info


def with_mask(space: Space[Any], action_space: Space[Any]) -> Dict:
    """Return the observation space of an environment whose masks come in info."""
    return Dict([("observation", space), (MASK_KEY, MultiBinary(sum(choices(action_space))))])


def flat_mask(mask: Any) -> NDArray[Any]:
    """Return a mask as one array: Gymnasium's masks of MultiDiscrete actions are tuples of arrays.

    What is no array, such as lists of different lengths, gives an empty one, which fits no actions.
    """
    try:
        if isinstance(mask, tuple):
            join = np.ma.concatenate if is_masked(mask) else np.concatenate
            return np.asanyarray(join([np.ravel(part) for part in mask]))
        return np.ravel(mask)
    except Exception:  # objects of other libraries may raise anything
        return np.zeros(0)


def has_legal_action(masks: NDArray[Any], sizes: list[int]) -> NDArray[np.bool_]:
    """Return whether every choice has a legal action, [...] of masks [..., n]."""
    if len(sizes) == 1:
        return np.asarray(np.logical_or.reduce(masks, axis=-1))
    legal: NDArray[np.bool_] = np.logical_or.reduceat(masks != 0, np.cumsum([0, *sizes[:-1]]), axis=-1)
    return np.asarray(np.logical_and.reduce(legal, axis=-1))


def require_legal(masks: NDArray[Any], action_space: Space[Any]) -> None:
    """Refuse masks [B, n] of which one leaves no action.

    Raises: ConfigError.
    """
    has_legal = has_legal_action(masks, choices(action_space))
    if not has_legal.all():
        row = int(np.flatnonzero(~has_legal)[0])
        raise ConfigError(f"{MASK_KEY} of observation {row}: leaves no legal action; at least one must be")


def random_action(env: AnyEnv, obs: Any, info: dict[str, Any]) -> Any:
    """Draw a random action that is legal after this observation: environments may raise at any other."""
    space, observation_space = env.action_space, env.observation_space
    mask = info.get(MASK_KEY)
    if isinstance(observation_space, Packed) and observation_space.mask is not None:
        mask = obs[observation_space.mask.part]
    elif isinstance(obs, dict):
        mask = obs.get(MASK_KEY, mask)
    if mask is None or not isinstance(space, Discrete | MultiDiscrete):
        return space.sample()
    legal, sizes = flat_mask(mask), choices(space)
    if len(legal) != sum(sizes) or not has_legal_action(legal, sizes):  # reported elsewhere
        return space.sample()
    parts = np.split(legal, np.cumsum(sizes)[:-1])
    picks = [space.np_random.choice(np.flatnonzero(part)) for part in parts]
    return space.start + np.array(picks).reshape(space.shape)[()]
