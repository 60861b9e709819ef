"""Gymnasium environments behind the adapter contract of base.py. make.py builds these; nothing else does.

What a step must do is chosen when a backend is built, so the common stream (NEXT_STEP) asks nothing per step.
"""

from __future__ import annotations

import copy
import os
import signal
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, final

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import CloudpickleWrapper
from numpy.typing import NDArray

from limelight.envs.base import Step
from limelight.envs.snapshot import get_env_state, get_env_states, set_env_state, set_env_states
from limelight.envs.spawn import why_no_workers
from limelight.errors import ConfigError
from limelight.spaces.describe import describe_space
from limelight.typing import State

AutoresetName = Literal["next_step", "same_step", "disabled"]
MODES: dict[AutoresetName, AutoresetMode] = {
    "next_step": AutoresetMode.NEXT_STEP,
    "same_step": AutoresetMode.SAME_STEP,
    "disabled": AutoresetMode.DISABLED,
}
SAME_ENV = "env_id = {}: the callable returned one environment twice; make a new one in every call"
_CLOSE_TIMEOUT = 5.0  # seconds a worker process gets to finish what it is doing


class StepFunction(Protocol):
    """The ``step`` of an EnvBackend."""

    def __call__(self, actions: NDArray[Any]) -> Step:
        """Apply actions [B, *action_shape] to every environment."""


@final
class SyncBackend:
    """Steps a list of environments one after the other, in this process.

    Yields the stream of Gymnasium's ``SyncVectorEnv``, seeds included, at a fraction of its overhead (one
    CartPole: 13 µs instead of 30, eight: 85 instead of 112). ``Step.obs`` is a buffer that the next step
    overwrites. In mode ``disabled`` it resets finished environments itself right after the step,
    which is what partial resets come to: the stream is that of ``same_step``.

    Raises: ConfigError when two environments are one object or differ in their spaces.
    """

    name = "sync"
    step: StepFunction

    def __init__(
        self,
        envs: Sequence[gym.Env[Any, Any]],
        autoreset_mode: AutoresetName = "next_step",
        env_id: str = "env",
    ) -> None:
        self.envs, self.num_envs, self._env_id, self._closed = list(envs), len(envs), env_id, False
        _check_alike(self.envs, env_id)
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self._shape = self.single_observation_space.shape or ()
        self._obs = np.zeros((self.num_envs, *self._shape), self.single_observation_space.dtype)
        self._steps = [env.step for env in self.envs]
        self._none, self._all = _mask(self.num_envs, False), _mask(self.num_envs, True)
        self._alive = [True] * self.num_envs  # a list: reading one of its items is a third of an array's price
        self._valid = self._all
        self.step = self._next_step if autoreset_mode == "next_step" else self._same_step

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start an episode in each environment, the i-th with ``seed + i``; observations [B, *obs_shape].

        Raises: ConfigError when an observation has not the shape of its space.
        """
        for i, env in enumerate(self.envs):
            obs, _ = env.reset(seed=None if seed is None else seed + i)
            if np.shape(obs) != self._shape:
                raise ConfigError(
                    f"env_id = {self._env_id}: reset gave an observation of shape {np.shape(obs)}, but the "
                    f"observation space is {describe_space(self.single_observation_space)}; make them agree"
                )
            self._obs[i] = obs
        self._alive, self._valid = [True] * self.num_envs, self._all
        return self._obs

    def _next_step(self, actions: NDArray[Any]) -> Step:
        obs, alive, valid, done = self._obs, self._alive, self._valid, False
        rewards, terminated, truncated = np.zeros(self.num_envs, np.float32), self._none, self._none
        try:
            for i, step in enumerate(self._steps):
                if alive[i]:
                    obs[i], rewards[i], term, trunc, _ = step(actions[i])
                    if term or trunc:
                        if not done:
                            terminated, truncated, done = terminated.copy(), truncated.copy(), True
                        terminated[i], truncated[i], alive[i] = term, trunc, False
                else:
                    obs[i], _ = self.envs[i].reset()
                    alive[i] = True
        except (ValueError, TypeError) as error:
            self._explain(error, i)
            raise
        self._valid = np.array(alive) if done else self._all
        return Step(obs, rewards, terminated, truncated, valid)

    def _same_step(self, actions: NDArray[Any]) -> Step:
        obs = self._obs
        rewards, terminated, truncated = np.zeros(self.num_envs, np.float32), self._none, self._none
        final_obs: NDArray[Any] | None = None
        try:
            for i, step in enumerate(self._steps):
                obs[i], rewards[i], term, trunc, _ = step(actions[i])
                if term or trunc:
                    if final_obs is None:
                        terminated, truncated, final_obs = terminated.copy(), truncated.copy(), np.zeros_like(obs)
                    terminated[i], truncated[i], final_obs[i] = term, trunc, obs[i]
                    obs[i], _ = self.envs[i].reset()
        except (ValueError, TypeError) as error:
            self._explain(error, i)
            raise
        return Step(obs, rewards, terminated, truncated, self._all, final_obs)

    def _explain(self, error: Exception, i: int) -> None:
        """Raise a line about an error of environment ``i``, where its step did not fail but does not fit."""
        if error.__traceback__ is None or error.__traceback__.tb_next is not None:  # raised inside the environment
            return
        env = self.envs[i]
        count = f" {env.get_wrapper_attr('_elapsed_steps')}" if env.has_wrapper_attr("_elapsed_steps") else ""
        raise ConfigError(
            f"env_id = {self._env_id}: what step{count} of an episode returned in environment {i} does not fit "
            f"({' '.join(str(error).split())}): must be an observation of "
            f"{describe_space(self.single_observation_space)}, reward, terminated, truncated, info"
        ) from error

    def get_state(self) -> State | None:
        """All environments' states and who is due for a reset; None where one holds more than plain data."""
        states = get_env_states(self.envs)
        return None if states is None else {"envs": states, "alive": np.array(self._alive)}

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`.

        Raises: ConfigError when the state belongs to other environments.
        """
        set_env_states(self.envs, state["envs"])
        self._alive = [bool(alive) for alive in state["alive"]]
        self._valid = self._all if all(self._alive) else np.array(self._alive)

    def close(self) -> None:
        """Close every environment; a second call does nothing."""
        if not self._closed:
            self._closed = True
            for env in self.envs:
                env.close()


@final
class VectorBackend:
    """Any Gymnasium ``VectorEnv`` in the autoreset mode it was made with; ``Step.obs`` may be its own buffer.

    Raises: ConfigError when the vector env does not state its autoreset mode.
    """

    step: StepFunction

    def __init__(self, envs: VectorEnv[Any, Any, Any], env_id: str = "env") -> None:
        mode = envs.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise ConfigError(f"env_id = {env_id}: its vectorised class states no autoreset_mode; use backend sync")
        self.name = {AsyncVectorEnv: "async", SyncVectorEnv: "sync"}.get(type(envs.unwrapped), "vector")
        self.envs, self.num_envs = envs, envs.num_envs
        self.single_observation_space = envs.single_observation_space
        self.single_action_space = envs.single_action_space
        self._all = _mask(self.num_envs, True)
        self._valid = self._all
        self._vector_step = envs.step
        # Gymnasium's own classes have zeros on invalid rows; whether a third party's has, only it knows.
        own = all(type(layer).__module__.startswith("gymnasium.") for layer in (envs, envs.unwrapped))
        if own and self.name == "vector":
            _trust_actions(envs.unwrapped)
        self.step = {
            AutoresetMode.NEXT_STEP: self._next_step if own else self._next_step_masked,
            AutoresetMode.SAME_STEP: self._same_step,
            AutoresetMode.DISABLED: self._step_then_reset,
        }[mode]

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start an episode in every environment; first observations [B, *obs_shape]."""
        obs, _ = self.envs.reset(seed=seed)
        self._valid = self._all
        return np.asarray(obs)

    def _next_step(self, actions: NDArray[Any]) -> Step:
        obs, rewards, terminated, truncated, _ = self._vector_step(actions)
        valid = self._valid
        self._valid = ~(terminated | truncated)
        return Step(obs, np.asarray(rewards, np.float32), terminated, truncated, valid)

    def _next_step_masked(self, actions: NDArray[Any]) -> Step:
        obs, rewards, terminated, truncated, _ = self._vector_step(actions)
        valid = self._valid
        rewards = np.where(valid, rewards, np.float32(0.0))
        terminated, truncated = terminated & valid, truncated & valid
        self._valid = ~(terminated | truncated)
        return Step(obs, np.asarray(rewards, np.float32), terminated, truncated, valid)

    def _same_step(self, actions: NDArray[Any]) -> Step:
        obs, rewards, terminated, truncated, infos = self._vector_step(actions)
        final_obs: NDArray[Any] | None = None
        done = np.flatnonzero(terminated | truncated)
        if done.size:
            final_obs = np.zeros_like(obs)
            for i in done:
                final_obs[i] = infos["final_obs"][i]
        return Step(obs, np.asarray(rewards, np.float32), terminated, truncated, self._all, final_obs)

    def _step_then_reset(self, actions: NDArray[Any]) -> Step:
        obs, rewards, terminated, truncated, _ = self._vector_step(actions)
        final_obs: NDArray[Any] | None = None
        done = terminated | truncated
        if done.any():
            final_obs = np.array(obs)  # a copy: the reset may write into the same buffer
            obs, _ = self.envs.reset(options={"reset_mask": done})
        return Step(obs, np.asarray(rewards, np.float32), terminated, truncated, self._all, final_obs)

    def get_state(self) -> State | None:
        """The vector env's state and who is due for a reset; None where it holds more than plain data."""
        state = get_env_state(self.envs)
        return None if state is None else {"env": state, "valid": self._valid.copy()}

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`.

        Raises: ConfigError when the state belongs to another environment.
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
    factory: Callable[[], gym.Env[Any, Any]],
    num_envs: int,
    autoreset_mode: AutoresetName = "next_step",
    env_id: str = "env",
) -> VectorBackend:
    """One process per environment, each started by ``spawn``: for environments whose steps are expensive.

    Raises: ConfigError when ``factory`` cannot be sent to another process.
    """
    obstacle = why_no_workers()
    if obstacle is not None:
        raise ConfigError(f"backend = async: {obstacle}; or use backend sync")
    worker = _WorkerEnv(factory)
    try:
        CloudpickleWrapper(worker).__getstate__()
    except Exception as error:  # whatever the __reduce__ of a user's object raises
        raise ConfigError(
            f"backend = async: what makes {env_id} cannot be sent to a process ({error}); use backend sync"
        ) from error
    mode = MODES[autoreset_mode]
    envs = AsyncVectorEnv([worker] * num_envs, copy=False, context="spawn", autoreset_mode=mode)
    return VectorBackend(envs, env_id)


@dataclass(frozen=True)
class _WorkerEnv:
    """Makes the environment; a worker process first leaves Ctrl-C to the parent, which shuts it down."""

    factory: Callable[[], gym.Env[Any, Any]]
    parent: int = field(default_factory=os.getpid)

    def __call__(self) -> gym.Env[Any, Any]:
        if os.getpid() != self.parent:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return self.factory()


def _mask(num_envs: int, value: bool) -> NDArray[np.bool_]:
    """A mask that many steps share, so nobody may write into it."""
    mask = np.full(num_envs, value)
    mask.flags.writeable = False
    return mask


def _check_alike(envs: list[gym.Env[Any, Any]], env_id: str) -> None:
    """Several environments of one kind, not one environment several times."""
    if len({id(env.unwrapped) for env in envs}) < len(envs):
        raise ConfigError(SAME_ENV.format(env_id))
    for env in envs[1:]:
        for role in ("observation_space", "action_space"):
            first, other = getattr(envs[0], role), getattr(env, role)
            if first != other:
                raise ConfigError(
                    f"env_id = {env_id}: its environments differ in {role}, {describe_space(first)} and "
                    f"{describe_space(other)}; the callable must return environments of one kind"
                )


def _trust_actions(envs: VectorEnv[Any, Any, Any]) -> None:
    """Spare a vectorised environment its own look at every action, a tenth of its step: ours are in the space."""
    space = copy.copy(envs.action_space)
    space.contains = lambda x: True  # type: ignore[method-assign]
    envs.action_space = space
