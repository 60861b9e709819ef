"""Gymnasium environments behind the adapter contract of base.py. make.py builds these; nothing else does.

What a step must do is chosen when a backend is built, so the common stream (NEXT_STEP) asks nothing per step.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, final

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from limelight.config import ConfigError
from limelight.envs.base import State, Step
from limelight.envs.snapshot import get_env_state, get_env_states, set_env_state, set_env_states
from limelight.envs.spaces import describe_space

AutoresetName = Literal["next_step", "same_step", "disabled"]
MODES: dict[AutoresetName, AutoresetMode] = {
    "next_step": AutoresetMode.NEXT_STEP,
    "same_step": AutoresetMode.SAME_STEP,
    "disabled": AutoresetMode.DISABLED,
}
_CLOSE_TIMEOUT = 5.0  # seconds a worker process gets to finish what it is doing


class StepFunction(Protocol):
    """The ``step`` of an EnvBackend."""

    def __call__(self, actions: NDArray[Any]) -> Step:
        """Apply actions [B, *action_shape] to every environment."""


@final
class SyncBackend:
    """Steps a list of environments one after the other, in this process.

    Yields the stream of Gymnasium's ``SyncVectorEnv``, seeds included, without its per-step overhead (on CartPole
    13 µs instead of 30 for one environment, 85 instead of 112 for eight). ``Step.obs`` is a buffer that the next
    step overwrites. A backend in mode ``disabled`` resets finished environments itself, right after the step,
    which is what a partial reset comes to: its stream is that of ``same_step``.

    Raises: ConfigError when the environments are the same object or differ in their spaces.
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
        _check_distinct(self.envs, env_id)
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self._shape = self.single_observation_space.shape or ()
        self._obs = np.zeros((self.num_envs, *self._shape), self.single_observation_space.dtype)
        self._steps = [env.step for env in self.envs]
        self._all_valid = _all_true(self.num_envs)
        self._valid = self._all_valid
        self._alive = [
            True
        ] * self.num_envs  # a list: reading one of its items is a third of an array's price
        self.step = self._next_step if autoreset_mode == "next_step" else self._same_step

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start an episode in every environment, the i-th with ``seed + i``; first observations, [B, *obs_shape].

        Raises: ConfigError when an observation has not the shape of its space.
        """
        for i, env in enumerate(self.envs):
            obs, _ = env.reset(seed=None if seed is None else seed + i)
            if np.shape(obs) != self._shape:
                raise ConfigError(
                    f"env_id = {self._env_id}: reset returned an observation of shape {np.shape(obs)}, but its "
                    f"observation space is {describe_space(self.single_observation_space)}; make them agree"
                )
            self._obs[i] = obs
        self._alive, self._valid = [True] * self.num_envs, self._all_valid
        return self._obs

    def _next_step(self, actions: NDArray[Any]) -> Step:
        obs, alive, valid, done = self._obs, self._alive, self._valid, False
        rewards = np.zeros(self.num_envs, np.float32)
        terminated, truncated = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        for i, step in enumerate(self._steps):
            if alive[i]:
                obs[i], rewards[i], term, trunc, _ = step(actions[i])
                if term or trunc:
                    terminated[i], truncated[i], alive[i], done = term, trunc, False, True
            else:
                obs[i], _ = self.envs[i].reset()
                alive[i] = True
        self._valid = np.array(alive) if done else self._all_valid
        return Step(obs, rewards, terminated, truncated, valid)

    def _same_step(self, actions: NDArray[Any]) -> Step:
        obs = self._obs
        final_obs: NDArray[Any] | None = None
        rewards = np.zeros(self.num_envs, np.float32)
        terminated, truncated = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        for i, step in enumerate(self._steps):
            obs[i], rewards[i], term, trunc, _ = step(actions[i])
            if term or trunc:
                final_obs = np.zeros_like(obs) if final_obs is None else final_obs
                terminated[i], truncated[i], final_obs[i] = term, trunc, obs[i]
                obs[i], _ = self.envs[i].reset()
        return Step(obs, rewards, terminated, truncated, self._all_valid, final_obs)

    def get_state(self) -> State | None:
        """Every environment's state and who is due for a reset; None where an environment holds more than data."""
        states = get_env_states(self.envs)
        return None if states is None else {"envs": states, "alive": np.array(self._alive)}

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`.

        Raises: ConfigError when the state belongs to other environments.
        """
        set_env_states(self.envs, state["envs"])
        self._alive = [bool(alive) for alive in state["alive"]]
        self._valid = self._all_valid if all(self._alive) else np.array(self._alive)

    def close(self) -> None:
        """Close every environment; a second call does nothing."""
        if not self._closed:
            self._closed = True
            for env in self.envs:
                env.close()


@final
class VectorBackend:
    """Any Gymnasium ``VectorEnv`` in the autoreset mode it was made with; ``Step.obs`` may be its own buffer.

    Raises: ConfigError when the vector env does not say its autoreset mode.
    """

    step: StepFunction

    def __init__(self, envs: VectorEnv[Any, Any, Any], env_id: str = "env") -> None:
        mode = envs.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise ConfigError(
                f"env_id = {env_id}: its vectorised class does not state an autoreset_mode in its metadata; "
                "use backend sync"
            )
        self.name = {AsyncVectorEnv: "async", SyncVectorEnv: "sync"}.get(type(envs.unwrapped), "vector")
        self.envs, self.num_envs = envs, envs.num_envs
        self.single_observation_space = envs.single_observation_space
        self.single_action_space = envs.single_action_space
        self._venv_step = envs.step
        self._all_valid = _all_true(self.num_envs)
        self._valid = self._all_valid
        self.step = {
            AutoresetMode.NEXT_STEP: self._next_step,
            AutoresetMode.SAME_STEP: self._same_step,
            AutoresetMode.DISABLED: self._reset_after_step,
        }[mode]

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start an episode in every environment; first observations, [B, *obs_shape]."""
        obs, _ = self.envs.reset(seed=seed)
        self._valid = self._all_valid
        return np.asarray(obs)

    def _next_step(self, actions: NDArray[Any]) -> Step:
        obs, rewards, terminated, truncated, _ = self._venv_step(actions)
        valid, done = self._valid, terminated | truncated
        if valid is not self._all_valid:  # Gymnasium's own classes have zeros here; a third party's may not
            rewards, terminated, truncated = rewards * valid, terminated & valid, truncated & valid
            done &= valid
        self._valid = ~done if np.count_nonzero(done) else self._all_valid
        return Step(obs, np.asarray(rewards, np.float32), terminated, truncated, valid)

    def _same_step(self, actions: NDArray[Any]) -> Step:
        obs, rewards, terminated, truncated, infos = self._venv_step(actions)
        final_obs: NDArray[Any] | None = None
        done = np.flatnonzero(terminated | truncated)
        if done.size:
            final_obs = np.zeros_like(obs)
            for i in done:
                final_obs[i] = infos["final_obs"][i]
        return Step(obs, np.asarray(rewards, np.float32), terminated, truncated, self._all_valid, final_obs)

    def _reset_after_step(self, actions: NDArray[Any]) -> Step:
        obs, rewards, terminated, truncated, _ = self._venv_step(actions)
        final_obs: NDArray[Any] | None = None
        done = terminated | truncated
        if np.count_nonzero(done):
            final_obs = np.array(obs)  # the reset may write into the same buffer
            obs, _ = self.envs.reset(options={"reset_mask": done})
        return Step(obs, np.asarray(rewards, np.float32), terminated, truncated, self._all_valid, final_obs)

    def get_state(self) -> State | None:
        """The vector env's state and who is due for a reset; None where it holds more than data (or processes)."""
        state = get_env_state(self.envs)
        return None if state is None else {"env": state, "valid": self._valid.copy()}

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`.

        Raises: ConfigError when the state belongs to another environment.
        """
        set_env_state(self.envs, state["env"])
        valid = np.asarray(state["valid"], np.bool_)
        self._valid = self._all_valid if valid.all() else valid

    def close(self) -> None:
        """Close the environments and their processes; a second call does nothing."""
        if not isinstance(self.envs.unwrapped, AsyncVectorEnv):
            self.envs.close()
            return
        try:
            self.envs.close(timeout=_CLOSE_TIMEOUT)
        except (OSError, EOFError):  # a worker is already gone
            self.envs.close(terminate=True)


def make_async(
    factory: Callable[[], gym.Env[Any, Any]],
    num_envs: int,
    autoreset_mode: AutoresetName,
    env_id: str = "env",
) -> VectorBackend:
    """One process per environment, each started by ``spawn``: for environments whose steps are expensive."""
    worker = _WorkerEnv(factory)
    return VectorBackend(
        AsyncVectorEnv(
            [worker] * num_envs, copy=False, context="spawn", autoreset_mode=MODES[autoreset_mode]
        ),
        env_id,
    )


@dataclass(frozen=True)
class _WorkerEnv:
    """Makes the environment; in a worker process, first leaves Ctrl-C to the process that shuts the workers down."""

    factory: Callable[[], gym.Env[Any, Any]]
    parent: int = field(default_factory=os.getpid)

    def __call__(self) -> gym.Env[Any, Any]:
        if os.getpid() != self.parent:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return self.factory()


def _all_true(num_envs: int) -> NDArray[np.bool_]:
    """A mask that every step without resets shares, so nobody may write into it."""
    mask = np.ones(num_envs, np.bool_)
    mask.flags.writeable = False
    return mask


def _check_distinct(envs: list[gym.Env[Any, Any]], env_id: str) -> None:
    if len({id(env.unwrapped) for env in envs}) < len(envs):
        raise ConfigError(
            f"env_id = {env_id}: the callable returned the same environment twice; make a new one in every call"
        )
    for env in envs[1:]:
        for role in ("observation_space", "action_space"):
            first, other = getattr(envs[0], role), getattr(env, role)
            if first != other:
                raise ConfigError(
                    f"env_id = {env_id}: its environments differ in {role}, {describe_space(first)} and "
                    f"{describe_space(other)}; the callable must return like environments"
                )
