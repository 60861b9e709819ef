"""Gymnasium environments behind the adapter contract of base.py.

The step function is chosen when a backend is built, so that the common stream (NEXT_STEP) branches on no mode.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import signal
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, final

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Space
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import CloudpickleWrapper
from numpy.typing import NDArray

from limelight.envs.base import Step
from limelight.envs.packing import PackObservations, StreamReader
from limelight.envs.snapshot import get_env_state, get_env_states, set_env_state, set_env_states
from limelight.envs.spawn import why_no_workers
from limelight.errors import ConfigError, EnvError
from limelight.spaces.describe import describe_space
from limelight.spaces.reading import LeafReader, MisfitError, whole
from limelight.typing import AnyEnv, EnvFactory, State

AutoresetName = Literal["next_step", "same_step", "disabled"]
MODES: dict[AutoresetName, AutoresetMode] = {
    "next_step": AutoresetMode.NEXT_STEP,
    "same_step": AutoresetMode.SAME_STEP,
    "disabled": AutoresetMode.DISABLED,
}
SAME_ENV = "env_id = {}: the callable returned one environment twice; make a new one in every call"
_CLOSE_TIMEOUT = 5.0  # seconds that a worker process gets to finish its step


class StepFunction(Protocol):
    """The ``step`` of an EnvBackend."""

    def __call__(self, actions: NDArray[Any]) -> Step:
        """Apply actions [B, *action_shape] to every environment."""


@final
class SyncBackend:
    """Steps a list of environments one after the other, in this process.

    The stream is that of Gymnasium's ``SyncVectorEnv``, seeds included, with less overhead. ``Step.obs`` is a buffer
    that the next step overwrites. In mode ``disabled``, finished environments are reset right after the step, which is
    equivalent to partial resets: the stream is that of ``same_step``.

    Raises: EnvError if two environments are one object or differ in their spaces.
    """

    name = "sync"
    step: StepFunction

    def __init__(
        self,
        envs: Sequence[AnyEnv],
        autoreset_mode: AutoresetName = "next_step",
        env_id: str = "env",
    ) -> None:
        self.envs = list(envs)
        self.num_envs = len(envs)
        self._env_id = env_id
        self._closed = False
        _check_alike(self.envs, env_id)
        space = self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        # Observations are packed and checked here, for all environments at once
        inner = [env.env if isinstance(env, PackObservations) else env for env in self.envs]
        self._resets = [env.reset for env in inner]
        self._steps = [env.step for env in inner]
        actions = inner[0].action_space
        self._reader = StreamReader(space, actions, env_id, self.num_envs)
        self._final_reader = StreamReader(space, actions, env_id, 1)
        self._observations: list[Any] = [None] * self.num_envs  # of the last step, as the environments returned them
        self._infos: list[dict[str, Any]] = [{}] * self.num_envs
        self._none = _mask(self.num_envs, False)
        self._all = _mask(self.num_envs, True)
        self._running = [True] * self.num_envs  # a list, whose items are read faster than those of an array
        self._valid = self._all
        self._clock = 0
        """Steps taken, and in ``_began`` those before each episode: their difference is the step of the episode."""
        self._began = [0] * self.num_envs
        self.step = self._next_step if autoreset_mode == "next_step" else self._same_step

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start an episode in each environment, the i-th with ``seed + i``; return observations [B, *obs_shape].

        Raises: EnvError if an observation is not in its space.
        """
        self._running = [True] * self.num_envs
        self._valid = self._all
        for i in range(self.num_envs):
            self._restart(i, None if seed is None else seed + i)
        return self._read()

    def _next_step(self, actions: NDArray[Any]) -> Step:
        observations, infos, running = self._observations, self._infos, self._running
        valid, done = self._valid, False
        rewards, terminated, truncated = np.zeros(self.num_envs, np.float32), self._none, self._none
        self._clock += 1
        try:
            for i, step in enumerate(self._steps):
                if running[i]:
                    observations[i], rewards[i], term, trunc, infos[i] = step(actions[i])
                    if term or trunc:
                        if not done:
                            terminated, truncated, done = terminated.copy(), truncated.copy(), True
                        terminated[i], truncated[i], running[i] = term, trunc, False
                else:
                    self._restart(i)
                    running[i] = True
        except (ValueError, TypeError) as error:
            self._explain(error, i)
            raise
        self._valid = np.array(running) if done else self._all
        return Step(self._read(), rewards, terminated, truncated, valid)

    def _same_step(self, actions: NDArray[Any]) -> Step:
        observations, infos = self._observations, self._infos
        rewards, terminated, truncated = np.zeros(self.num_envs, np.float32), self._none, self._none
        final_obs: NDArray[Any] | None = None
        self._clock += 1
        try:
            for i, step in enumerate(self._steps):
                observations[i], rewards[i], term, trunc, infos[i] = step(actions[i])
                if term or trunc:
                    final = self._read_final(i)
                    if final_obs is None:
                        terminated, truncated = terminated.copy(), truncated.copy()
                        final_obs = np.zeros((self.num_envs, *final.shape), final.dtype)
                    terminated[i], truncated[i], final_obs[i] = term, trunc, final
                    self._restart(i)
        except (ValueError, TypeError) as error:
            self._explain(error, i)
            raise
        return Step(self._read(), rewards, terminated, truncated, self._all, final_obs)

    def _restart(self, i: int, seed: int | None = None) -> None:
        """Start the next episode of environment ``i``."""
        self._observations[i], self._infos[i] = self._resets[i](seed=seed)
        self._began[i] = self._clock

    def _read(self) -> NDArray[Any]:
        """Return the observations of the last step, [B, *obs_shape], in a buffer that the next step overwrites."""
        try:
            return self._reader.read(self._observations, self._infos, self._running)
        except MisfitError as error:
            raise self._reader.error(error, self._clock - self._began[error.row], error.row) from None

    def _read_final(self, i: int) -> NDArray[Any]:
        """Return the final observation of environment ``i``, before its reset may write into it."""
        try:
            return self._final_reader.read([self._observations[i]], [self._infos[i]], [False])[0]
        except MisfitError as error:
            raise self._reader.error(error, self._clock - self._began[i], i) from None

    def _explain(self, error: Exception, i: int) -> None:
        """Raise EnvError if ``error`` arose outside environment ``i``: the values that its step returned do not fit."""
        if error.__traceback__ is None or error.__traceback__.tb_next is not None:  # raised inside the environment
            return
        step = self._clock - self._began[i]
        raise EnvError(
            f"env_id = {self._env_id}: step {step} of an episode returned values in environment {i} that do not fit "
            f"({' '.join(str(error).split())}): must be an observation of "
            f"{describe_space(self.single_observation_space)}, reward, terminated, truncated, info"
        ) from error

    def get_state(self) -> State | None:
        """Return the environments' states and which are due for a reset; None if one holds more than plain data."""
        states = get_env_states(self.envs)
        if states is None:
            return None
        steps = [self._clock - began for began in self._began]
        return {"envs": states, "alive": np.array(self._running), "steps": np.array(steps)}

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`.

        Raises: CheckpointError if the state belongs to other environments.
        """
        set_env_states(self.envs, state["envs"])
        self._running = [bool(running) for running in state["alive"]]
        self._began = [self._clock - int(steps) for steps in state["steps"]]
        self._valid = self._all if all(self._running) else np.array(self._running)

    def close(self) -> None:
        """Close every environment; a second call does nothing."""
        if not self._closed:
            self._closed = True
            for env in self.envs:
                env.close()


@final
class VectorBackend:
    """Steps any Gymnasium ``VectorEnv`` in the autoreset mode it was made with; ``Step.obs`` may be its own buffer.

    Raises: EnvError if the vector environment does not state its autoreset mode.
    """

    step: StepFunction

    def __init__(self, envs: VectorEnv[Any, Any, Any], env_id: str = "env") -> None:
        mode = envs.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise EnvError(f"env_id = {env_id}: its vectorised class states no autoreset_mode; use backend sync")
        self.name = {AsyncVectorEnv: "async", SyncVectorEnv: "sync"}.get(type(envs.unwrapped), "vector")
        self.envs = envs
        self.num_envs = envs.num_envs
        self.single_observation_space = envs.single_observation_space
        self.single_action_space = envs.single_action_space
        self._all = _mask(self.num_envs, True)
        self._valid = self._all
        self._vector_step = envs.step
        self._env_id = env_id
        self._clock = 0
        self._check = LeafReader(whole(self.single_observation_space), self.num_envs).check
        # Gymnasium's own classes have zeros on invalid rows; a third party's need not.
        own = all(type(layer).__module__.startswith("gymnasium.") for layer in (envs, envs.unwrapped))
        if own and self.name == "vector":
            _trust_actions(envs.unwrapped)
        self.step = {
            AutoresetMode.NEXT_STEP: self._next_step if own else self._next_step_masked,
            AutoresetMode.SAME_STEP: self._same_step,
            AutoresetMode.DISABLED: self._step_then_reset,
        }[mode]

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start an episode in every environment; return the first observations, [B, *obs_shape]."""
        obs, _ = self.envs.reset(seed=seed)
        self._valid = self._all
        self._clock = 0
        return self._checked(obs)

    def _checked(self, obs: Any) -> NDArray[Any]:
        """Return observations [B, *obs_shape] in the dtype of their space.

        Raises: EnvError if one is not in the space.
        """
        self._clock += 1
        try:
            return self._check(obs)
        except MisfitError as error:
            when = f"step {self._clock - 1} after the reset" if self._clock > 1 else "reset"
            raise EnvError(f"{self._env_id}: {when}, environment {error.row}: {error}") from None

    def _next_step(self, actions: NDArray[Any]) -> Step:
        obs, rewards, terminated, truncated, _ = self._vector_step(actions)
        valid = self._valid
        self._valid = ~(terminated | truncated)
        return Step(self._checked(obs), np.asarray(rewards, np.float32), terminated, truncated, valid)

    def _next_step_masked(self, actions: NDArray[Any]) -> Step:
        obs, rewards, terminated, truncated, _ = self._vector_step(actions)
        valid = self._valid
        rewards = np.where(valid, rewards, np.float32(0.0))
        terminated, truncated = terminated & valid, truncated & valid
        self._valid = ~(terminated | truncated)
        return Step(self._checked(obs), np.asarray(rewards, np.float32), terminated, truncated, valid)

    def _same_step(self, actions: NDArray[Any]) -> Step:
        obs, rewards, terminated, truncated, infos = self._vector_step(actions)
        final_obs: NDArray[Any] | None = None
        done = np.flatnonzero(terminated | truncated)
        if done.size:
            final_obs = np.zeros_like(obs)
            for i in done:
                final_obs[i] = infos["final_obs"][i]
        return Step(self._checked(obs), np.asarray(rewards, np.float32), terminated, truncated, self._all, final_obs)

    def _step_then_reset(self, actions: NDArray[Any]) -> Step:
        obs, rewards, terminated, truncated, _ = self._vector_step(actions)
        final_obs: NDArray[Any] | None = None
        done = terminated | truncated
        if done.any():
            final_obs = np.array(obs)  # a copy: the reset may write into the same buffer
            obs, _ = self.envs.reset(options={"reset_mask": done})
        return Step(self._checked(obs), np.asarray(rewards, np.float32), terminated, truncated, self._all, final_obs)

    def get_state(self) -> State | None:
        """Return the vector environment's state and which rows are due for a reset; None if it is not plain data."""
        state = get_env_state(self.envs)
        return None if state is None else {"env": state, "valid": self._valid.copy()}

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`.

        Raises: CheckpointError if the state belongs to another environment.
        """
        set_env_state(self.envs, state["env"])
        self._valid = np.array(state["valid"], np.bool_)

    def close(self) -> None:
        """Close the environments and their processes; a second call does nothing."""
        if not isinstance(self.envs.unwrapped, AsyncVectorEnv):
            self.envs.close()
            return
        try:
            with warnings.catch_warnings():  # an interrupted step is pending, and is waited for
                warnings.filterwarnings("ignore", ".*waiting for a pending call", UserWarning)
                self.envs.close(timeout=_CLOSE_TIMEOUT)
        except (OSError, EOFError):  # a worker is already gone
            self.envs.close(terminate=True)


def make_async(
    factory: EnvFactory,
    num_envs: int,
    autoreset_mode: AutoresetName = "next_step",
    env_id: str = "env",
    spaces: tuple[Space[Any], Space[Any]] | None = None,
) -> VectorBackend:
    """Start one process per environment, by ``spawn``: for environments whose steps are expensive.

    Args:
        factory: makes an environment.
        num_envs: B.
        autoreset_mode: when a finished episode restarts.
        env_id: the environment's name in messages.
        spaces: of observations and actions; without them, an environment is made to read them.
    Raises: ConfigError if ``factory`` cannot be sent to another process.
    """
    obstacle = why_no_workers()
    if obstacle is not None:
        raise ConfigError(f"backend = async: {obstacle}; or use backend sync")
    worker = _WorkerEnv(factory, env_id, spaces)
    try:
        CloudpickleWrapper(worker).__getstate__()
    except Exception as error:  # the __reduce__ of a user's object may raise anything
        raise ConfigError(
            f"backend = async: what makes {env_id} cannot be sent to a process ({error}); use backend sync"
        ) from error
    mode = MODES[autoreset_mode]
    workers = [dataclasses.replace(worker, index=i) for i in range(num_envs)]
    envs = AsyncVectorEnv(workers, copy=False, context="spawn", autoreset_mode=mode)
    return VectorBackend(envs, env_id)


@dataclass(frozen=True)
class _WorkerEnv:
    """Makes the environment in a worker process, which first leaves Ctrl-C to its parent, and checks observations.

    The check is in the worker, because ``AsyncVectorEnv`` casts observations when it copies them to the parent.

    The parent itself gets a stand-in with the same spaces, if these are known: ``AsyncVectorEnv`` makes an environment
    there only to read them.
    """

    factory: EnvFactory
    env_id: str = "env"
    spaces: tuple[Space[Any], Space[Any]] | None = None
    index: int = 0
    parent: int = field(default_factory=os.getpid)

    def __call__(self) -> AnyEnv:
        if os.getpid() != self.parent:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        elif self.spaces is not None:
            return _StandIn(*self.spaces)
        env = self.factory()
        if not isinstance(env, PackObservations):
            env = PackObservations(env, env.observation_space, self.env_id)
        env.index = self.index
        return env


@final
class _StandIn(gym.Env[Any, Any]):
    """Has the spaces of an environment and nothing else."""

    def __init__(self, observation_space: Space[Any], action_space: Space[Any]) -> None:
        self.observation_space = observation_space
        self.action_space = action_space


def _mask(num_envs: int, value: bool) -> NDArray[np.bool_]:
    """Return a read-only mask, which many steps share."""
    mask = np.full(num_envs, value)
    mask.flags.writeable = False
    return mask


def _check_alike(envs: list[AnyEnv], env_id: str) -> None:
    """Refuse one environment several times, and environments of different spaces."""
    if len({id(env.unwrapped) for env in envs}) < len(envs):
        raise EnvError(SAME_ENV.format(env_id))
    for env in envs[1:]:
        for role in ("observation_space", "action_space"):
            first, other = getattr(envs[0], role), getattr(env, role)
            if first != other:
                raise EnvError(
                    f"env_id = {env_id}: its environments differ in {role}, {describe_space(first)} and "
                    f"{describe_space(other)}; the callable must return environments of one kind"
                )


def _trust_actions(envs: VectorEnv[Any, Any, Any]) -> None:
    """Skip a vectorised environment's check of every action; our actions are always in the space."""
    space = copy.copy(envs.action_space)
    space.contains = lambda x: True  # type: ignore[method-assign]
    envs.action_space = space
