"""Copies of an environment in the processes of ``AsyncVectorEnv``, and how their faults reach the main process.

The contract is that of the backend sync: rewards in any scalar form, infos of any content, of which only the numbers at
the end of an episode are sent, and faults that are raised as one EnvError. Gymnasium would print the traceback of each
and end the process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Space
from numpy.typing import NDArray

from limelight.envs.attributes import Order, follow
from limelight.envs.episode_info import Ends, EpisodeInfo, read_info
from limelight.envs.faults import (
    close_env,
    end_flags,
    env_code,
    first_observation,
    one_number,
    place_in_run,
    require_same_spaces,
    seed_spaces,
    spaces_of,
    step_misfit,
)
from limelight.envs.guards import EnvGuard, tried
from limelight.envs.packing import PackObservations
from limelight.envs.spawn import allow_children
from limelight.envs.stalls import start_watch
from limelight.errors import EnvError, LimelightError
from limelight.typing import AnyEnv, EnvFactory

_FAULT = "limelight_fault"
_EPISODE = "limelight_episode"
_RESTARTED = "limelight_restarted"


@dataclass(frozen=True)
class Restarted:
    """Tells the main process that a copy was replaced."""

    messages: tuple[str, ...]
    failed: bool
    """The episode was truncated for it."""

    def as_info(self) -> dict[str, Any]:
        """Return it in the form in which it is sent."""
        return {_RESTARTED: self}


def restarted(infos: dict[str, Any]) -> dict[int, Restarted]:
    """Return what copies have sent on being replaced, by their numbers."""
    for found in (infos, infos.get("final_info", {})):
        if _RESTARTED in found:
            return {i: sent for i, sent in enumerate(found[_RESTARTED]) if isinstance(sent, Restarted)}
    return {}


def raise_fault(infos: dict[str, Any]) -> None:
    """Raise the first fault that a copy has sent in its info."""
    if _FAULT in infos:
        raise next(fault for fault in infos[_FAULT] if isinstance(fault, EnvError))


def raise_first(results: Iterable[Any]) -> list[Any]:
    """Return the results of the copies; raise the first fault among them."""
    results = list(results)
    for result in results:
        if isinstance(result, LimelightError):
            raise result
    return results


def sent_ends(infos: dict[str, Any], done: NDArray[np.bool_], valid: NDArray[np.bool_]) -> Ends | None:
    """Return the numbers that the copies have sent of the episodes that ended in this step."""
    infos = infos.get("final_info", infos)
    if _EPISODE not in infos:
        return None
    return {i: found for i, found in enumerate(infos[_EPISODE]) if done[i] and isinstance(found, EpisodeInfo)}


@dataclass(frozen=True)
class AsyncCopy:
    """Makes the environment in a worker process, which first leaves Ctrl-C to its parent, and checks observations.

    The check is in the worker, because ``AsyncVectorEnv`` casts observations when it copies them to the parent.
    The parent itself gets a stand-in with the same spaces, if these are known: ``AsyncVectorEnv`` makes an environment
    there only to read them.
    """

    factory: EnvFactory
    name: str
    index: int = 0
    """Number of the environment."""
    spaces: tuple[Space[Any], Space[Any]] | None = None
    info_keys: tuple[str, ...] = ()
    replaces: bool = False
    """A copy that fails is replaced by a new one, in the same process."""
    step_timeout: float | None = None
    restarts: int = 0
    """Processes that this environment has had before."""
    seed: int | None = None
    """Of the process before, where there was one."""
    orders: Mapping[str, Order] = field(default_factory=dict)
    """Attributes that were set in the processes before, by name."""
    parent: int = field(default_factory=os.getpid)

    def __call__(self) -> AnyEnv:
        """Make the copy; in the parent, the stand-in."""
        if os.getpid() != self.parent:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            allow_children()
            start_watch(self.step_timeout)
            return self._contained()
        return self.factory() if self.spaces is None else _StandIn(*self.spaces)

    def _contained(self) -> AnyEnv:
        fault: EnvError | None = None
        try:
            env = tried(self.replaces and self.restarts == 0, self._copy)  # in later processes a guard does
        except EnvError as error:
            if self.spaces is None:
                raise
            env, fault = _StandIn(*self.spaces), error
        contained = _Contained(env, self.name, self.index, fault, self.info_keys)
        if self.replaces or (self.step_timeout is not None and fault is None):
            guard = EnvGuard(self._copy, env, self.name, self.index, self.replaces, contained.put, set())
            contained.guard_by(guard)
            if self.restarts:
                contained.begin_anew(self.seed, self.restarts)
        return contained

    def _copy(self) -> AnyEnv:
        """Make one environment. Raises: EnvError."""
        with env_code(self.name, "making it"):
            env = self.factory()
            if not isinstance(env, PackObservations):
                env = PackObservations(env, env.observation_space, self.name)
            env.index = self.index
        for order in self.orders.values():
            follow(env, order, self.name)
        return env


@final
class _StandIn(gym.Env[Any, Any]):
    """Has the spaces of an environment and nothing else."""

    def __init__(self, observation_space: Space[Any], action_space: Space[Any]) -> None:
        self.observation_space = observation_space
        self.action_space = action_space


@final
class _Contained(gym.Wrapper[Any, Any, Any, Any]):
    """A copy whose faults are sent in the place of its info, and of whose info only the numbers at the end are sent."""

    def __init__(
        self, env: AnyEnv, name: str, index: int, fault: EnvError | None = None, info_keys: tuple[str, ...] = ()
    ) -> None:
        super().__init__(env)
        self._name = name
        self._index = index
        self._fault = fault
        self._info_keys = info_keys
        space = env.observation_space
        self._nothing = np.zeros(space.shape or (), space.dtype)
        self._inner = env.env if isinstance(env, PackObservations) else env
        self._spaces = spaces_of(self._inner)
        self._steps = 0
        self._guard: EnvGuard | None = None
        self._calls: Any = env
        self._begins_anew = False

    def put(self, index: int, env: AnyEnv) -> AnyEnv:
        """Put a new copy in the place of the environment; return the one that is stepped."""
        self.env = env
        self._inner = env.env if isinstance(env, PackObservations) else env
        if self._fault is not None:  # those before were of a stand-in
            self._spaces = spaces_of(self._inner)
        return env

    def guard_by(self, guard: EnvGuard) -> None:
        """Step the environment through a guard."""
        self._guard = self._calls = guard

    def begin_anew(self, seed: int | None, restarts: int) -> None:
        """Take the place of an environment whose process has exited: the first step begins an episode.

        Where making it has failed, that is tried again as a reset is.
        """
        assert self._guard is not None
        state = {"first_seed": seed, "seed": seed, "restarts": restarts, "in_a_row": 0, "is_new": True}
        self._guard.set_state(state)
        self._begins_anew = True
        if self._fault is not None:  # another copy was made before, so that this one may be later
            try:
                self._guard.replace(self._fault)
                self._fault = None
            except EnvError as fault:
                self._fault = fault

    def _sent(self) -> dict[str, Any]:
        """Return what the main process is told of new copies, in the form of an info."""
        guard = self._guard
        if guard is None or not (guard.messages or guard.has_failed):
            return {}
        sent = Restarted(tuple(guard.messages), guard.has_failed)
        guard.messages.clear()
        guard.has_failed = False
        return sent.as_info()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment."""
        try:
            if self._fault is not None:
                raise self._fault
            self._steps, self._begins_anew = 0, False
            with env_code(self._name, "reset()", place_in_run(self._index, 0)):
                seed_spaces(self.env, seed)
                result = self._calls.reset(seed=seed, options=options)
            require_same_spaces(self._inner, self._spaces, self._name)
            return first_observation(self._name, result), self._sent()
        except EnvError as fault:
            return self._nothing, {_FAULT: fault}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the environment."""
        if self._begins_anew:
            obs, info = self.reset()
            return obs, 0.0, False, False, info
        try:
            self._steps += 1
            with env_code(self._name, "step()", place_in_run(self._index, self._steps)):
                result = self._calls.step(action)
            try:
                obs, reward, terminated, truncated, info = result
                number, ends = one_number(reward), end_flags(terminated, truncated)
            except (ValueError, TypeError) as error:
                raise step_misfit(self._name, "", self._index, self.observation_space, error) from error
            found = read_info(info, self._info_keys) if any(ends) else None
            return obs, number, *ends, {**self._sent(), **({} if found is None else {_EPISODE: found})}
        except EnvError as fault:
            return self._nothing, 0.0, False, False, {_FAULT: fault}

    def limelight_follow(self, order: Order) -> Any:
        """Set an attribute or call a method of the environment; return the result, or the fault."""
        try:
            result = follow(self.env, order, self._name)
        except LimelightError as fault:
            return fault
        if self._guard is not None:
            self._guard.keep(order)
        return result

    def close(self) -> None:
        """Close the environment."""
        close_env(self.env, self._name)
