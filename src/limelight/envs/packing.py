"""Observations and actions of composite spaces as one array: wrappers, put on by resolve.py as the outermost ones.

And the same for observations that a user brings (agent.py).
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Dict, Space, Tuple
from numpy.typing import NDArray

from limelight.envs.masks import choices, flat_mask, has_legal_action, with_mask
from limelight.envs.minigrid import without_text
from limelight.errors import ConfigError
from limelight.spaces.packed import MASK_KEY, SIMPLE, MaskSource, Packed, part_of, walk
from limelight.typing import AnyEnv


def pack_env(env: AnyEnv, name: str, mask: MaskSource | None = None) -> AnyEnv:
    """``env`` with its Dict and Tuple spaces packed; the same ``env`` if it has none and no mask.

    Spaces that cannot be packed stay as they are: check_spaces says why they are refused.

    Args: ``name`` is what messages call the environment; ``mask`` is where it says which actions are legal.
    """
    if is_composite(env.action_space):
        env = PackActions(env)
    if mask is not None or is_composite(env.observation_space):
        space = with_mask(env.observation_space, env.action_space) if mask == "info" else env.observation_space
        if all(type(part) in SIMPLE for _, part in walk(space)):
            env = PackObservations(env, Packed(space, mask), name)
    return env


def is_composite(space: Space[Any]) -> bool:
    """Whether it is a Dict or Tuple that can be packed."""
    parts = list(walk(space))
    return isinstance(space, Dict | Tuple) and bool(parts) and all(type(part) in SIMPLE for _, part in parts)


class PackActions(gym.ActionWrapper[Any, Any, Any]):
    """Takes packed actions [D]."""

    def __init__(self, env: AnyEnv) -> None:
        super().__init__(env)
        self._packed = Packed(env.action_space)
        self.action_space = self._packed

    def action(self, action: NDArray[Any]) -> Any:
        """The action as the environment takes it."""
        return self._packed.unpack(action)


class PackObservations(gym.Wrapper[Any, Any, Any, Any]):
    """Gives packed observations [D], the mask of ``info`` among them where ``space`` says so.

    Raises: ConfigError naming the step whose observation lacks a part, or whose mask leaves no action.
    """

    def __init__(self, env: AnyEnv, space: Packed, name: str) -> None:
        super().__init__(env)
        self._packed, self._name, self._steps = space, name, 0
        self.observation_space = space
        self._choices = choices(env.action_space)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The first observation, packed."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._steps = 0
        return self._pack(obs, info, False), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """A step, its observation packed."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        return self._pack(obs, info, terminated or truncated), reward, terminated, truncated, info

    def _pack(self, obs: Any, info: dict[str, Any], done: bool) -> NDArray[Any]:
        if self._packed.mask_source == "info":
            obs = {"observation": obs, MASK_KEY: self._mask_of(info, done)}
        try:
            vector = self._packed.pack(obs)
        except ValueError as error:
            raise self._refused(f"observation: {error}") from None
        mask = self._packed.mask
        # At the end of an episode no action follows, and many environments then have no legal one.
        if mask is not None and not done and not has_legal_action(vector[mask.part], self._choices):
            raise self._refused(f"{MASK_KEY} leaves no legal action; at least one must be, or the episode must end")
        return vector

    def _mask_of(self, info: dict[str, Any], done: bool) -> NDArray[Any]:
        if MASK_KEY in info:
            return flat_mask(info[MASK_KEY])
        if not done:
            raise self._refused(f"info has no {MASK_KEY}; give it at every reset and step, or set action_masks to off")
        return np.ones(sum(self._choices), np.int8)

    def _refused(self, what: str) -> ConfigError:
        return ConfigError(f"{self._name}: step {self._steps} of an episode: {what}")


def to_batch(space: Space[Any], obs: Any, action_masks: Any = None) -> tuple[NDArray[Any], bool]:
    """What a user observed as the policy takes it, [B, *shape], and whether it was one observation alone.

    Args:
        space: of the agent's observations.
        obs: of an environment as it is, nested where its space is, or packed; one, or a batch with a leading B.
        action_masks: legal actions, [n] or [B, n], instead of those in ``obs``; without either all are legal.
    Raises: ValueError if ``obs`` or ``action_masks`` does not fit.
    """
    mask = space.mask if isinstance(space, Packed) else None
    if isinstance(space, Packed) and (space.mask_source == "info" or not isinstance(obs, np.ndarray)):
        batch, single = _packed_batch(space, without_text(obs))
    else:
        array, shape = np.asarray(obs), space.shape or ()
        single = array.shape == shape
        batch = array[None] if single else array
        if batch.shape[1:] != shape:
            raise ValueError(f"observation of shape {array.shape}: must be {shape}, or [B, ...] of it")
    if action_masks is None:
        return batch, single
    if mask is None:
        raise ValueError("action_masks: this agent knows of none; its environment gave no action_mask in training")
    masks = np.atleast_2d(np.asarray(action_masks))
    if masks.shape not in {(1, mask.size), (len(batch), mask.size)}:
        raise ValueError(f"action_masks of shape {masks.shape}: must be [{mask.size}] or [{len(batch)}, {mask.size}]")
    batch = batch.copy()
    batch[:, mask.part] = masks
    return batch, single


def _packed_batch(space: Packed, obs: Any) -> tuple[NDArray[Any], bool]:
    nested = {"observation": obs} if space.mask_source == "info" else obs
    first, mask = space.visible[0], space.mask
    seen = np.shape(part_of(nested, first.path))
    single = seen == (first.space.shape or ())
    if space.mask_source == "info" and mask is not None:
        nested[MASK_KEY] = np.ones(mask.size if single else (*seen[:1], mask.size), np.int8)
    return (space.pack(nested)[None] if single else space.pack_batch(nested)), single
