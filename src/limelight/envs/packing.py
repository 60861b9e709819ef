"""Composite observations and actions as one array: wrappers of environments, and the same for a user's observations."""

from __future__ import annotations

from typing import Any, final

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Dict, MultiBinary, Space, Tuple
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from limelight.envs.faults import first_observation, step_misfit
from limelight.envs.masks import choices, flat_mask, has_legal_action, with_mask
from limelight.envs.minigrid import without_text
from limelight.errors import EnvError
from limelight.spaces.packed import MASK_KEY, SIMPLE, MaskSource, Packed, part_of, path_name, place_name, walk
from limelight.spaces.reading import MisfitError, ObservationReader, leaves_of
from limelight.spaces.values import is_masked, misfit
from limelight.typing import AnyEnv


def pack_env(env: AnyEnv, name: str, mask: MaskSource | None = None) -> AnyEnv:
    """Pack the Dict and Tuple spaces of ``env``; return the same ``env`` if it has none and no mask.

    Spaces that cannot be packed stay as they are: check_spaces refuses them with a reason.

    Args:
        env: any environment.
        name: the environment's name in messages.
        mask: where its mask of legal actions comes from.
    """
    if is_composite(env.action_space):
        env = PackActions(env)
    if mask is not None or is_composite(env.observation_space):
        space = with_mask(env.observation_space, env.action_space) if mask == "info" else env.observation_space
        if all(isinstance(part, SIMPLE) for _, part in walk(space)):
            env = PackObservations(env, Packed(space, mask), name)
    return env


def is_composite(space: Space[Any]) -> bool:
    """Return whether ``space`` is a Dict or Tuple that can be packed."""
    parts = list(walk(space))
    return isinstance(space, Dict | Tuple) and bool(parts) and all(isinstance(part, SIMPLE) for _, part in parts)


class PackActions(gym.ActionWrapper[Any, Any, Any], RecordConstructorArgs):
    """Takes packed actions [D]."""

    def __init__(self, env: AnyEnv) -> None:
        RecordConstructorArgs.__init__(self)
        gym.ActionWrapper.__init__(self, env)
        self._packed = Packed(env.action_space)
        self.action_space = self._packed

    def action(self, action: NDArray[Any]) -> Any:
        """Return the action as the environment takes it."""
        return self._packed.unpack(action)


@final
class StreamReader:
    """Turns what B environments return at a step into observations [B, *shape], with masks of actions among them.

    Args:
        space: simple or packed.
        action_space: of the environments, for the masks.
        name: the environment's name in messages.
        batch: B.
    """

    def __init__(self, space: Space[Any], action_space: Space[Any], name: str, batch: int) -> None:
        self.name = name
        self._read = ObservationReader(space, batch).read
        self._mask = space.mask if isinstance(space, Packed) else None
        self._from_info = isinstance(space, Packed) and space.mask_source == "info"
        self._choices = choices(action_space)
        self._is_binary = self._mask is None or isinstance(self._mask.space, MultiBinary)

    def read(self, observations: list[Any], infos: list[dict[str, Any]], running: list[bool]) -> NDArray[Any]:
        """Return [B, *shape], which the next call overwrites.

        Args:
            observations: of each environment, as it returned them.
            infos: of each environment.
            running: False where the observation is the last of its episode.
        Raises: MisfitError if an observation is outside its space, a mask is missing, or a mask leaves no action.
        """
        if self._from_info:
            observations = [
                {"observation": obs, MASK_KEY: self._mask_of(i, info, running[i])}
                for i, (obs, info) in enumerate(zip(observations, infos, strict=True))
            ]
        array = self._read(observations)
        if self._mask is not None:
            self._require_legal(array[:, self._mask.part], running)
        return array

    def _mask_of(self, row: int, info: dict[str, Any], running: bool) -> NDArray[Any]:
        if isinstance(info, dict) and MASK_KEY in info:
            return flat_mask(info[MASK_KEY])
        if running:
            raise MisfitError(
                row, f"info has no {MASK_KEY}; give it at every reset and step, or set action_masks to off"
            )
        return np.ones(sum(self._choices), np.int8)

    def _require_legal(self, masks: NDArray[Any], running: list[bool]) -> None:
        """Refuse masks [B, n] without a legal action.

        At the end of an episode no action follows, and many environments then have no legal one.
        """
        if not self._is_binary:  # a Box or MultiDiscrete, which takes other numbers too
            self._require_binary(masks)
        has_legal = has_legal_action(masks, self._choices)
        if np.logical_and.reduce(has_legal):
            return
        for row in np.flatnonzero(~has_legal):
            if running[row]:
                raise MisfitError(
                    int(row), f"{MASK_KEY} leaves no legal action; at least one must be, or the episode must end"
                )

    def _require_binary(self, masks: NDArray[Any]) -> None:
        other = (masks != 0) & (masks != 1)
        if np.logical_or.reduce(other, axis=None):
            row, column = np.argwhere(other)[0].tolist()
            raise MisfitError(
                row, f"observation[{MASK_KEY!r}] holds {masks[row, column]}: must be 0 or 1 for each action"
            )

    def error(self, error: MisfitError, step: int, index: int | None) -> EnvError:
        """Return the error for a user: environment, step of its episode (0: the reset) and index among B."""
        when = f"step {step} of an episode" if step else "reset"
        where = "" if index is None else f", environment {index}"
        return EnvError(f"{self.name}: {when}{where}: {error}")


class PackObservations(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Returns observations that are in ``space``, packed ones [D] if it is packed.

    The mask of ``info`` is among them if ``space`` has one from there.

    Raises: EnvError naming the step whose observation is outside its space, or whose mask leaves no action.
    """

    def __init__(self, env: AnyEnv, space: Space[Any], name: str) -> None:
        RecordConstructorArgs.__init__(self, space=space, name=name)
        gym.Wrapper.__init__(self, env)
        self.index: int | None = None
        """The environment's number among others, for messages."""
        self._limelight_reader = StreamReader(space, env.action_space, name, 1)
        self._steps = 0
        self.observation_space = space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and pack its first observation."""
        result = self.env.reset(seed=seed, options=options)
        obs, info = first_observation(self._limelight_reader.name, result), result[1]
        self._steps = 0
        return self._read(obs, info, False), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment and pack its observation."""
        result = self.env.step(action)
        self._steps += 1
        try:
            obs, reward, terminated, truncated, info = result
        except (ValueError, TypeError) as error:
            space = self.env.observation_space
            raise step_misfit(self._limelight_reader.name, f" {self._steps}", self.index or 0, space, error) from error
        return self._read(obs, info, terminated or truncated), reward, terminated, truncated, info

    def _read(self, obs: Any, info: dict[str, Any], done: bool) -> Any:
        try:
            row = self._limelight_reader.read([obs], [info], [not done])[0]
        except MisfitError as error:
            raise self._limelight_reader.error(error, self._steps, self.index) from None
        return row.copy()


def to_batch(
    space: Space[Any], obs: Any, action_masks: Any = None, noun: str = "observation"
) -> tuple[NDArray[Any], bool]:
    """Return a user's observations as the policy takes them, [B, *shape], and whether they were a single one.

    Args:
        space: the agent's observation space.
        obs: an observation of the environment as it is, nested if its space is, or packed; one, or a batch [B, ...].
        action_masks: legal actions, [n] or [B, n], instead of those in ``obs``; without either, all are legal.
        noun: the value in messages; actions are read as observations are.
    Raises: ValueError if ``obs`` or ``action_masks`` does not fit. Whether a mask leaves an action is not checked.
    """
    mask = space.mask if isinstance(space, Packed) else None
    if isinstance(space, Packed) and (space.mask_source == "info" or not isinstance(obs, np.ndarray)):
        batch, single = _packed_batch(space, without_text(obs), noun)
    else:
        array, shape = _as_array(noun, obs), space.shape or ()
        single = array.shape == shape
        batch = array[None] if single else array
        if batch.shape[1:] != shape:
            raise ValueError(f"{noun} of shape {array.shape}: must be {shape}, or [B, ...] of it")
        for leaf in leaves_of(space):
            part = batch[:, leaf.part].reshape(-1, *(leaf.space.shape or ())) if isinstance(space, Packed) else batch
            found = misfit(leaf.space, part, len(batch))
            if found is not None:
                raise ValueError(f"{noun}{path_name(leaf.path)}{found.words}")
    if not len(batch):
        raise ValueError(f"{noun} of shape {np.shape(obs)}: holds none")
    _require_finite(space, batch, noun)
    if action_masks is None:
        return batch, single
    if mask is None:
        raise ValueError("action_masks: this agent takes none; its environment gave no action_mask in training")
    masks = np.atleast_2d(_as_array("action_masks", action_masks))
    if masks.shape not in {(1, mask.size), (len(batch), mask.size)}:
        raise ValueError(f"action_masks of shape {masks.shape}: must be [{mask.size}] or [{len(batch)}, {mask.size}]")
    found = misfit(MultiBinary(mask.size), masks, len(masks))
    if found is not None:
        raise ValueError(f"action_masks{found.words}")
    batch = batch.copy()
    batch[:, mask.part] = masks
    return batch, single


def _as_array(name: str, values: Any) -> NDArray[Any]:
    """Return an argument as an array. Raises: ValueError that names it, for ragged lists and what libraries raise."""
    if is_masked(values):
        raise ValueError(f"{name}: holds masked numbers; pass its numbers, e.g. obs.filled(0)")
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(f"{name}: is no array, as its parts have different lengths") from None
    except Exception as error:  # a tensor that needs gradients; objects of other libraries may raise anything
        raise ValueError(f"{name}: is no array ({' '.join(str(error).split())})") from None


def _require_finite(space: Space[Any], batch: NDArray[Any], noun: str) -> None:
    """Raise ValueError for the first number [B, *shape] that is not finite, or not in the float32 of networks."""
    if batch.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        finite = np.isfinite(batch.astype(np.float32, copy=False))
    if not finite.all():
        row, *index = np.argwhere(~finite)[0].tolist()
        number = batch[(row, *index)]
        must = "of float32, as networks compute" if np.isfinite(number) else "a finite number"
        raise ValueError(f"{noun}{place_name(space, index)} = {number}: must be {must}")


def _packed_batch(space: Packed, obs: Any, noun: str) -> tuple[NDArray[Any], bool]:
    nested = {"observation": obs} if space.mask_source == "info" else obs
    try:
        return _packed_parts(space, nested)
    except ValueError as error:
        raise ValueError(f"{noun}{'' if str(error).startswith('[') else ': '}{error}") from None


def _packed_parts(space: Packed, nested: Any) -> tuple[NDArray[Any], bool]:
    first, mask = space.visible[0], space.mask
    part = part_of(nested, first.path)
    shape = np.shape(part if hasattr(part, "shape") else _as_array(path_name(first.path), part))
    single = shape == (first.space.shape or ())
    if space.mask_source == "info" and mask is not None:
        nested[MASK_KEY] = np.ones(mask.size if single else (*shape[:1], mask.size), np.int8)
    return (space.pack(nested)[None] if single else space.pack_batch(nested)), single
