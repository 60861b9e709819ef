"""The contract of reset and step: what they return, checked part by part."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Space, Tuple

from limelight.cli.env_check.findings import BrokenError, Finding
from limelight.envs.faults import (
    StepValueError,
    one_end,
    one_number,
    place_of_function,
    require_same_spaces,
    spaces_of,
    what_happened,
)
from limelight.envs.masks import random_action
from limelight.errors import EnvError, LimelightError
from limelight.spaces.images import is_image
from limelight.spaces.packed import Path, part_of, path_name, walk
from limelight.spaces.values import first_misfit, is_masked, is_share

Env = gym.Env[Any, Any]

SEED = 1


def raised(call: str, error: BaseException) -> str:
    """Return in one line that ``call`` raised ``error``."""
    if isinstance(error, LimelightError):  # its message is complete
        return " ".join(str(error).split())
    return f"{call} {what_happened(error)}"


def call(subject: str, function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a function of the environment; raises BrokenError about ``subject`` where it raises anything."""
    try:
        return function(*args, **kwargs)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's environment may raise anything, and all of it is a finding
        raise BrokenError(subject, raised(f"{subject}()", error)) from None


# --------------------------------------------------------------------------- the contract of reset and step


class Faults:
    """Collects faults, the first one of each subject, so that all are found in one pass.

    Args:
        env: whose methods have the faults; a fault gets file and line of the method, unless it has those of a raise.
    """

    def __init__(self, env: Env) -> None:
        self.found: list[Finding] = []
        self._env = env

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Turn a BrokenError inside into a fault."""
        try:
            yield
        except BrokenError as broken:
            if broken.finding.subject not in [finding.subject for finding in self.found]:
                self.found.append(self._placed(broken.finding))

    def _placed(self, fault: Finding) -> Finding:
        if re.search(r"\(.+, line \d+\)", fault.message):
            return fault
        method = getattr(type(self._env.unwrapped), "reset" if fault.message.startswith("reset") else "step", None)
        return dataclasses.replace(fault, message=fault.message + place_of_function(method))


def bare_env(env: Env) -> Env:
    """Return the environment without its wrappers, unless only these have spaces."""
    return env.unwrapped if hasattr(env.unwrapped, "action_space") else env


def check_contract(env: Env, faults: Faults) -> bool:
    """Check one reset and one step without the wrappers, which would hide a wrong return value or fail on it.

    Returns: whether the environment can be played.
    """
    bare = bare_env(env)
    bare.action_space.seed(SEED)
    was_reset, spaces = False, spaces_of(bare)
    with faults.collect():
        result = call("reset", bare.reset, seed=SEED)
        was_reset = True
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
            must = "must be (observation, info), info a dict"
            raise BrokenError("reset", f"reset() returned {_shape_of(result)}: {must}")
        with faults.collect():
            _require_same_spaces(bare, spaces)
    if not faults.found:
        with faults.collect():
            check_obs(bare.observation_space, result[0], "reset() returned an observation")
        with faults.collect():
            return _check_step(bare, random_action(bare, *result), faults)
    elif was_reset:  # what step returns can be seen all the same
        with faults.collect():
            _check_step(bare, bare.action_space.sample(), faults)
    return False


def _require_same_spaces(env: Env, before: tuple[Space[Any], Space[Any]]) -> None:
    try:
        require_same_spaces(env, before, "the environment")
    except EnvError as error:
        raise BrokenError("reset", str(error).partition(": ")[2].rpartition(";")[0]) from None


def _check_step(bare: Env, action: Any, faults: Faults) -> bool:
    """Check the result of one step; return whether it has all its parts.

    Raises: BrokenError if it has not.
    """
    result = call("step", bare.step, action)
    if not (isinstance(result, tuple) and len(result) == 5):
        must = "must be (observation, reward, terminated, truncated, info)"
        raise BrokenError("step", f"step() returned {_shape_of(result)}: {must}")
    obs, reward, terminated, truncated, info = result
    with faults.collect():
        check_obs(bare.observation_space, obs, "step() returned an observation")
    with faults.collect():
        check_reward(reward, "step() returned")
    check_ends(terminated, truncated, "step() returned", faults)
    if not isinstance(info, dict):
        raise BrokenError("info", f"step() returned info = {info!r}: must be a dict")
    return True


def check_reward(reward: Any, what: str) -> None:
    """Check that a reward is one finite number; raises BrokenError."""
    try:
        number = one_number(reward)
    except StepValueError:
        raise BrokenError("reward", f"{what} the reward {reward!r}: must be a number, e.g. float(reward)") from None
    if not np.isfinite(number):
        raise BrokenError("reward", f"{what} the reward {reward}: must be finite")


def check_ends(terminated: Any, truncated: Any, what: str, faults: Faults) -> tuple[bool, bool]:
    """Return both ends of an episode as training takes them; one that is not true or false is a fault, and False."""
    taken = []
    for name, value in (("terminated", terminated), ("truncated", truncated)):
        taken.append(False)
        with faults.collect():
            try:
                taken[-1] = one_end(name, value)
            except StepValueError:
                raise BrokenError(name, f"{what} {name} = {value!r}: must be True or False") from None
    return taken[0], taken[1]


def odd_form(reward: Any, terminated: Any, truncated: Any, what: str) -> str:
    """Return a warning about a value that training takes, but that is none of Gymnasium's; an empty string if none."""
    if np.ndim(reward) != 0:
        return f"{what} the reward {reward!r}: taken as {one_number(reward):g}; return float(reward)"
    for name, value in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(value, bool | np.bool_):
            return f"{what} {name} = {value!r}: taken as {one_end(name, value)}; return bool({name})"
    return ""


def _shape_of(result: Any) -> str:
    if isinstance(result, tuple):
        return f"{len(result)} values ({', '.join(type(value).__name__ for value in result)})"
    return f"a {type(result).__name__}"


def check_obs(space: Space[Any], obs: Any, what: str) -> str:
    """Check an observation part by part; return a warning about one that can be trained on, or an empty string.

    Raises: BrokenError about one that cannot be trained on.
    """
    problems: list[str] = []
    for path, part in walk(space):
        try:
            value = part_of(obs, path)
        except ValueError as error:
            raise BrokenError("observation", f"{what}: {error}") from None
        at = f"{what} at {path_name(path)}" if path else what
        if isinstance(part, Box):
            problems.append(_check_box(part, value, at))
        elif first_misfit(part, [value]) is not None:
            raise BrokenError("observation", f"{at} {value!r}: not in {part}")
        elif not part.contains(value):
            problems.append(f"{at} {value!r}: taken as a value of {part}; return it in dtype {part.dtype}")
    return next(filter(None, problems), "") or _unknown_part(space, obs, what)


def _check_box(space: Box, value: Any, what: str) -> str:
    if is_masked(value):
        raise BrokenError("observation", f"{what} with masked numbers: return its numbers, observation.filled(0)")
    try:
        array = np.asarray(value)
    except Exception as error:  # ragged lists, and what other libraries raise
        raise BrokenError("observation", f"{what} that is no array ({type(error).__name__}: {error})") from None
    if array.shape != space.shape:
        raise BrokenError("observation", f"{what} of shape {array.shape}: observation_space has {space.shape}")
    if array.dtype.kind not in "biuf":
        raise BrokenError("observation", f"{what} of dtype {array.dtype}: observation_space has {space.dtype}")
    if not np.isfinite(array).all():
        where = _first(~np.isfinite(array))
        raise BrokenError("observation", f"{what} with {array[where]} at {where}: must be finite")
    hint = f"return obs.astype(np.{space.dtype})"
    if space.dtype.kind in "biu" and array.dtype.kind == "f" and (array % 1 != 0).any():
        where = _first(array % 1 != 0)
        is_dim = is_share(array) and is_image(space)
        instead = "return (255 * obs).astype(np.uint8)" if is_dim else "make it a float32 Box"
        cut = f"observation_space has {space.dtype}, which would cut it to {int(array[where])}; {instead}"
        raise BrokenError("observation", f"{what} with {array[where]:g} at {where}: {cut}")
    outside = (array < space.low) | (array > space.high)
    if outside.any():
        where = _first(outside)
        bounds = f"[{space.low[where]:g}, {space.high[where]:g}]"
        return f"{what} with {array[where]:g} at {where}: observation_space says {bounds}; widen it"
    if array.dtype != space.dtype:
        return f"{what} of dtype {array.dtype}: observation_space has {space.dtype}; {hint}"
    return ""


def _first(wrong: Any) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(wrong)[0])


def _unknown_part(space: Space[Any], obs: Any, what: str, path: Path = ()) -> str:
    """Return a warning about the first part of an observation that its space lacks; agents do not receive it."""
    if isinstance(space, Dict):
        parts: list[tuple[str | int, Space[Any]]] = list(space.spaces.items())
        extra: list[str | int] = [key for key in obs if key not in space.spaces]
    elif isinstance(space, Tuple):
        parts, extra = list(enumerate(space.spaces)), list(range(len(space.spaces), len(obs)))
    else:
        return ""
    if extra:
        return f"{what} with {path_name((*path, extra[0]))}: not in observation_space, so it is left out; add it there"
    inner = (_unknown_part(part, obs[key], what, (*path, key)) for key, part in parts)
    return next(filter(None, inner), "")
