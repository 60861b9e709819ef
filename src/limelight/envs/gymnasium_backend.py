"""Gymnasium environments behind the adapter contract of base.py.

The step function is chosen when a backend is built, so that the common stream (NEXT_STEP) branches on no mode.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol, final

import numpy as np
from gymnasium.spaces import Space
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.async_vector_env import AsyncState
from gymnasium.vector.utils import CloudpickleWrapper
from numpy.typing import NDArray

from limelight.envs.async_copies import AsyncCopy, raise_fault, raise_first, restarted, sent_ends
from limelight.envs.attributes import Order, follow
from limelight.envs.base import Step
from limelight.envs.episode_info import Ends, VectorInfo, read_info
from limelight.envs.faults import (
    PLAIN_NUMBERS,
    StepValueError,
    call_fault,
    close_all,
    end_flags,
    env_code,
    first_observation,
    one_number,
    place_in_run,
    process_exit,
    require_same_spaces,
    seed_spaces,
    spaces_of,
    step_misfit,
    stops_the_run,
)
from limelight.envs.guards import EnvGuard, pop_failed, tried
from limelight.envs.packing import PackObservations, StreamReader
from limelight.envs.renewed import Processes, RenewedProcesses
from limelight.envs.snapshot import get_env_state, get_env_states, set_env_state, set_env_states
from limelight.envs.spawn import why_no_workers
from limelight.envs.vector_values import checked_result
from limelight.errors import ConfigError, EnvError, LimelightError
from limelight.spaces.describe import space_difference
from limelight.spaces.reading import LeafReader, MisfitError, whole
from limelight.typing import AnyEnv, EnvFactory, State

AutoresetName = Literal["next_step", "same_step", "disabled"]
MODES: dict[AutoresetName, AutoresetMode] = {
    "next_step": AutoresetMode.NEXT_STEP,
    "same_step": AutoresetMode.SAME_STEP,
    "disabled": AutoresetMode.DISABLED,
}
SAME_ENV = "env_id = {}: the callable returned one environment twice; make a new one in every call"
_SPACES = ("single_action_space", "single_observation_space", "action_space", "observation_space")
_CLOSE_TIMEOUT = 5.0  # seconds that a worker process gets to finish its step
MakeGuard = Callable[[AnyEnv, int, Callable[[int, AnyEnv], AnyEnv]], EnvGuard]
"""Guards an environment of a number; the last argument puts new copies in its place."""


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
        info_keys: Sequence[str] = (),
        make_guard: MakeGuard | None = None,
    ) -> None:
        """``info_keys``: read at the end of every episode; ``make_guard``: guards environments, if they are guarded."""
        self.envs = list(envs)
        self.num_envs = len(envs)
        self._env_id = env_id
        self._info_keys = tuple(info_keys)
        self._closed = False
        _check_alike(self.envs, env_id)
        space = self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        # Observations are packed and checked here, for all environments at once
        inner = [env.env if isinstance(env, PackObservations) else env for env in self.envs]
        self._resets = [env.reset for env in inner]
        self._steps = [env.step for env in inner]
        actions = inner[0].action_space
        self._spaces = [spaces_of(env) for env in inner]
        self._inner = inner
        self._seed: int | None = None
        self.restarts: list[str] = []
        """Messages on environments that were replaced."""
        self.guards = [] if make_guard is None else [make_guard(env, i, self._put) for i, env in enumerate(self.envs)]
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
        if self.guards:
            self._resets, self._steps = [g.reset for g in self.guards], [g.step for g in self.guards]
            self.step = _marked(self.step, functools.partial(pop_failed, self.guards, self.restarts))

    def _put(self, i: int, env: AnyEnv) -> AnyEnv:
        """Put an environment in the place of number ``i``; return the one that is stepped."""
        self.envs[i] = env
        self._inner[i] = env.env if isinstance(env, PackObservations) else env
        return self._inner[i]

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start an episode in each environment, the i-th with ``seed + i``; return observations [B, *obs_shape].

        Raises: EnvError if an observation is not in its space.
        """
        self._seed = seed
        self._running = [True] * self.num_envs
        self._valid = self._all
        for i in range(self.num_envs):
            self._restart(i, None if seed is None else seed + i)
        return self._read()

    def _next_step(self, actions: NDArray[Any]) -> Step:
        observations, infos, running = self._observations, self._infos, self._running
        valid, done = self._valid, False
        rewards, terminated, truncated = np.zeros(self.num_envs), self._none, self._none
        ends: Ends | None = None
        self._clock += 1
        try:
            for i, step in enumerate(self._steps):
                if running[i]:
                    observations[i], reward, term, trunc, infos[i] = step(actions[i])
                    rewards[i] = reward if type(reward) in PLAIN_NUMBERS else one_number(reward)
                    if term is not False or trunc is not False:
                        term, trunc = end_flags(term, trunc)
                    if term or trunc:
                        if not done:
                            terminated, truncated, done = terminated.copy(), truncated.copy(), True
                        terminated[i], truncated[i], running[i] = term, trunc, False
                        ends = self._noted(ends, i)
                else:
                    self._restart(i)
                    running[i] = True
        except BaseException as error:
            self._explain(error, i)
            raise
        self._valid = np.array(running) if done else self._all
        return Step(self._read(), rewards, terminated, truncated, valid, ends=ends)

    def _same_step(self, actions: NDArray[Any]) -> Step:
        observations, infos = self._observations, self._infos
        rewards, terminated, truncated = np.zeros(self.num_envs), self._none, self._none
        final_obs: NDArray[Any] | None = None
        ends: Ends | None = None
        self._clock += 1
        try:
            for i, step in enumerate(self._steps):
                observations[i], reward, term, trunc, infos[i] = step(actions[i])
                rewards[i] = reward if type(reward) in PLAIN_NUMBERS else one_number(reward)
                if term is not False or trunc is not False:
                    term, trunc = end_flags(term, trunc)
                if term or trunc:
                    final = self._read_final(i)
                    if final_obs is None:
                        terminated, truncated = terminated.copy(), truncated.copy()
                        final_obs = np.zeros((self.num_envs, *final.shape), final.dtype)
                    terminated[i], truncated[i], final_obs[i] = term, trunc, final
                    ends = self._noted(ends, i)
                    self._restart(i)
        except BaseException as error:
            self._explain(error, i)
            raise
        return Step(self._read(), rewards, terminated, truncated, self._all, final_obs, ends=ends)

    def _noted(self, ends: Ends | None, i: int) -> Ends | None:
        """Return ``ends`` with the numbers of environment ``i``, whose episode has ended, if it has any."""
        found = read_info(self._infos[i], self._info_keys)
        return ends if found is None else {**(ends or {}), i: found}

    def _restart(self, i: int, seed: int | None = None) -> None:
        """Start the next episode of environment ``i``."""
        with env_code(self._env_id, "reset()", place_in_run(i, 0)):
            seed_spaces(self.envs[i], seed)
            result = self._resets[i](seed=seed)
        require_same_spaces(self._inner[i], self._spaces[i], self._env_id)
        self._observations[i], self._infos[i] = first_observation(self._env_id, result), result[1]
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

    def _explain(self, error: BaseException, i: int) -> None:
        """Raise EnvError: environment ``i`` raised ``error``, or the values that its step returned do not fit."""
        if isinstance(error, LimelightError) or stops_the_run(error):
            return
        inside = error.__traceback__ is not None and error.__traceback__.tb_next is not None
        if inside and not isinstance(error, StepValueError):  # raised inside the environment
            where = place_in_run(i, self._clock - self._began[i])
            raise call_fault(self._env_id, "step()", error, where) from error
        count = f" {self._clock - self._began[i]}"
        raise step_misfit(self._env_id, count, i, self.single_observation_space, error) from error

    def get_state(self) -> State | None:
        """Return the environments' states and which are due for a reset; None if one holds more than plain data."""
        states = get_env_states(self.envs)
        if states is None:
            return None
        steps = [self._clock - began for began in self._began]
        state: State = {"envs": states, "alive": np.array(self._running), "steps": np.array(steps)}
        return {**state, "guards": [guard.get_state() for guard in self.guards]} if self.guards else state

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`.

        Raises: CheckpointError if the state belongs to other environments.
        """
        set_env_states(self.envs, state["envs"])
        self._running = [bool(running) for running in state["alive"]]
        self._began = [self._clock - int(steps) for steps in state["steps"]]
        self._valid = self._all if all(self._running) else np.array(self._running)
        for guard, saved in zip(self.guards, state.get("guards", ()), strict=False):  # the run may have had none
            guard.set_state(saved)

    def follow(self, order: Order) -> list[Any]:
        """See :class:`limelight.envs.base.EnvBackend`."""
        results = [follow(env, order, self._env_id) for env in self.envs]
        for guard in self.guards:
            guard.keep(order)
        return results

    def close(self) -> None:
        """Close every environment; a second call does nothing."""
        if not self._closed:
            self._closed = True
            close_all(self.envs, self._env_id)


@final
class VectorBackend:
    """Steps any Gymnasium ``VectorEnv`` in the autoreset mode it was made with; ``Step.obs`` may be its own buffer.

    Raises: EnvError if the vector environment does not state its autoreset mode.
    """

    step: StepFunction

    def __init__(self, envs: VectorEnv[Any, Any, Any], env_id: str = "env", info_keys: Sequence[str] = ()) -> None:
        is_async = isinstance(envs.unwrapped, AsyncVectorEnv)
        mode = envs.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise EnvError(f"env_id = {env_id}: its vectorised class states no autoreset_mode; use backend sync")
        self.name = "async" if is_async else "sync" if type(envs.unwrapped) is SyncVectorEnv else "vector"
        self.envs = envs
        self.num_envs = envs.num_envs
        self.single_observation_space = envs.single_observation_space
        self.single_action_space = envs.single_action_space
        self._all = _mask(self.num_envs, True)
        self._valid = self._all
        self._env_id = env_id
        self._info = VectorInfo(info_keys, self.num_envs)
        self._ends = sent_ends if self.name == "async" else self._info.read
        self._clock = 0
        self._check = LeafReader(whole(self.single_observation_space), self.num_envs).check
        self._read_final = LeafReader(whole(self.single_observation_space), 1).read
        # Gymnasium's own classes return arrays [B], zeros on invalid rows; a third party's need not.
        own = is_async or all(type(layer).__module__.startswith("gymnasium.") for layer in (envs, envs.unwrapped))
        self._vector_step = self._guarded_step if own else self._checked_step
        if own and self.name == "vector":
            _trust_actions(envs.unwrapped)
            self._vector_step = envs.step
        self.step = {
            AutoresetMode.NEXT_STEP: self._next_step if own else self._next_step_masked,
            AutoresetMode.SAME_STEP: self._same_step,
            AutoresetMode.DISABLED: self._step_then_reset,
        }[mode]
        self.restarts: list[str] = []
        """Messages on environments that were replaced."""
        self._failed: list[int] = []
        if isinstance(envs, RenewedProcesses):
            self.step = _marked(self.step, functools.partial(_pop_mask, self._failed, self.num_envs))

    def _take_sent(self, infos: dict[str, Any]) -> None:
        """Raise the fault that a process has sent, and note which environments were replaced."""
        raise_fault(infos)
        for i, sent in restarted(infos).items():
            self.restarts += sent.messages
            self._failed += [i] * sent.failed

    def reset(self, seed: int | None = None) -> NDArray[Any]:
        """Start an episode in every environment; return the first observations, [B, *obs_shape]."""
        if seed is not None and self.name != "async":  # processes seed their own
            for name in _SPACES:  # an environment may draw from its spaces
                getattr(self.envs, name).seed(seed)
        obs = self._reset(seed=seed)
        self._info.reset()
        self._valid = self._all
        self._clock = 0
        return self._checked(obs)

    def _checked(self, obs: Any) -> NDArray[Any]:
        """Return observations [B, *obs_shape] in the dtype of their space.

        Raises: EnvError if one is not in the space.
        """
        self._clock += 1
        return self._in_space(obs)

    def _in_space(self, obs: Any) -> NDArray[Any]:
        try:
            return self._check(obs)
        except MisfitError as error:
            when = f"step {self._clock - 1} after the reset" if self._clock > 1 else "reset"
            raise EnvError(f"{self._env_id}: {when}, environment {error.row}: {error}") from None

    def _reset(self, **how: Any) -> NDArray[Any]:
        with self._env_code("reset()"):
            result = self.envs.reset(**how)
            obs = first_observation(self._env_id, result)
        if self.name == "async":
            self._take_sent(result[1])
        return obs

    def _guarded_step(self, actions: NDArray[Any]) -> Any:
        with self._env_code("step()"):
            result = self.envs.step(actions)
        if self.name == "async":
            self._take_sent(result[4])
        return result

    def _checked_step(self, actions: NDArray[Any]) -> Any:
        return checked_result(self._guarded_step(actions), self.num_envs, self._env_id)

    @contextmanager
    def _env_code(self, call: str) -> Iterator[None]:
        """Turn an exception of the environments, and the exit of a process of theirs, into an EnvError."""
        try:
            with env_code(self._env_id, call):
                yield
        except EnvError as error:
            processes = getattr(self.envs.unwrapped, "processes", [])
            if isinstance(error.__cause__, EOFError | ConnectionError) and processes:
                processes[0].join(1.0)  # their exit may be seen before their status
                raise process_exit(self._env_id, [process.exitcode for process in processes]) from error
            raise

    def _next_step(self, actions: NDArray[Any]) -> Step:
        obs, rewards, terminated, truncated, infos = self._vector_step(actions)
        valid, done = self._valid, terminated | truncated
        self._valid = ~done
        ends = self._ends(infos, done, valid) if infos or self._info.keys else None
        return Step(self._checked(obs), np.asarray(rewards, np.float64), terminated, truncated, valid, ends=ends)

    def _next_step_masked(self, actions: NDArray[Any]) -> Step:
        obs, rewards, terminated, truncated, infos = self._vector_step(actions)
        valid = self._valid
        rewards = np.where(valid, rewards, 0.0)
        terminated, truncated = terminated & valid, truncated & valid
        done = terminated | truncated
        self._valid = ~done
        ends = self._ends(infos, done, valid)
        return Step(self._checked(obs), np.asarray(rewards, np.float64), terminated, truncated, valid, ends=ends)

    def _same_step(self, actions: NDArray[Any]) -> Step:
        obs, rewards, terminated, truncated, infos = self._vector_step(actions)
        final_obs: NDArray[Any] | None = None
        done = terminated | truncated
        if done.any():
            space = self.single_observation_space
            final_obs = np.zeros((self.num_envs, *(space.shape or ())), space.dtype)
            for i in np.flatnonzero(done):
                final_obs[i] = self._final_row(infos, int(i))
        ends = self._ends(infos, done, self._all)
        rewards = np.asarray(rewards, np.float64)
        return Step(self._checked(obs), rewards, terminated, truncated, self._all, final_obs, ends=ends)

    def _final_row(self, infos: Any, i: int) -> NDArray[Any]:
        """Return the final observation of environment ``i``.

        Raises: EnvError if infos have none, or it is not in its space.
        """
        try:
            return self._read_final([infos["final_obs"][i]])[0]
        except MisfitError as error:
            raise EnvError(f"{self._env_id}: final_obs, environment {i}: {error}") from None
        except (KeyError, IndexError, TypeError):
            raise EnvError(
                f"{self._env_id}: infos of its vectorised class have no final_obs for environment {i}, whose episode "
                "ended; same_step needs it: set autoreset_mode to next_step, or backend to sync"
            ) from None

    def _step_then_reset(self, actions: NDArray[Any]) -> Step:
        obs, rewards, terminated, truncated, infos = self._vector_step(actions)
        final_obs: NDArray[Any] | None = None
        done = terminated | truncated
        ends = self._ends(infos, done, self._all)
        if done.any():
            final_obs = np.array(self._in_space(obs))  # a copy: the reset may write into the same buffer
            obs = self._reset(options={"reset_mask": done})
        rewards = np.asarray(rewards, np.float64)
        return Step(self._checked(obs), rewards, terminated, truncated, self._all, final_obs, ends=ends)

    def get_state(self) -> State | None:
        """Return the vector environment's state and which rows are due for a reset; None if it is not plain data."""
        state, rows = get_env_state(self.envs), {"valid": self._valid.copy(), "totals": self._info.totals.copy()}
        return None if state is None else {"env": state, **rows}

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`.

        Raises: CheckpointError if the state belongs to another environment.
        """
        set_env_state(self.envs, state["env"])
        self._valid = np.array(state["valid"], np.bool_)
        self._info.totals = np.array(state["totals"], np.float64)

    def follow(self, order: Order) -> list[Any]:
        """See :class:`limelight.envs.base.EnvBackend`."""
        if isinstance(self.envs, AsyncVectorEnv):
            with self._env_code(f"{order.kind}({order.name!r})"):
                results = raise_first(self.envs.call("limelight_follow", order))
            if isinstance(self.envs, RenewedProcesses):
                self.envs.keep(order)
            return results
        return [follow(env, order, self._env_id) for env in getattr(self.envs.unwrapped, "envs", [self.envs])]

    def close(self) -> None:
        """Close the environments and their processes; a second call does nothing."""
        if not isinstance(self.envs.unwrapped, AsyncVectorEnv):
            close_all([self.envs], self._env_id)  # type: ignore[list-item]  # a VectorEnv has close() as well
            return
        try:
            with warnings.catch_warnings():  # an interrupted step is pending, and is waited for
                warnings.filterwarnings("ignore", ".*waiting for a pending call", UserWarning)
                self.envs.close(timeout=_CLOSE_TIMEOUT)
        except (OSError, EOFError):  # a worker is already gone
            self.envs.unwrapped._state = AsyncState.DEFAULT  # nothing is pending, as the answer cannot come
            self.envs.close(terminate=True)


def make_async(
    factory: EnvFactory,
    num_envs: int,
    autoreset_mode: AutoresetName = "next_step",
    env_id: str = "env",
    spaces: tuple[Space[Any], Space[Any]] | None = None,
    info_keys: Sequence[str] = (),
    replaces: bool = False,
    step_timeout: float | None = None,
) -> VectorBackend:
    """Start one process per environment, by ``spawn``: for environments whose steps are expensive.

    Args:
        factory: makes an environment.
        num_envs: B.
        autoreset_mode: when a finished episode restarts.
        env_id: the environment's name in messages.
        spaces: of observations and actions; without them, an environment is made to read them.
        info_keys: read at the end of every episode.
        replaces: replace an environment that fails, and a process that exits.
        step_timeout: seconds that a step may take.
    Raises: ConfigError if ``factory`` cannot be sent to another process.
    """
    obstacle = why_no_workers()
    if obstacle is not None:
        raise ConfigError(f"backend = async: {obstacle}; or use backend sync")
    worker = AsyncCopy(factory, env_id, 0, spaces, tuple(info_keys), replaces, step_timeout)
    try:
        CloudpickleWrapper(worker).__getstate__()
    except Exception as error:  # the __reduce__ of a user's object may raise anything
        raise ConfigError(
            f"backend = async: what makes {env_id} cannot be sent to a process ({error}); use backend sync"
        ) from error
    mode, workers = MODES[autoreset_mode], [dataclasses.replace(worker, index=i) for i in range(num_envs)]
    if replaces:
        return VectorBackend(tried(True, lambda: RenewedProcesses(workers, mode)), env_id)
    return VectorBackend(Processes(workers, mode), env_id)


def _pop_mask(failed: list[int], num_envs: int) -> NDArray[np.bool_] | None:
    """Return which environments a list names, and empty it; None if it names none."""
    if not failed:
        return None
    mask = np.isin(np.arange(num_envs), failed)
    failed.clear()
    return mask


def _marked(step: StepFunction, pop_failed: Callable[[], NDArray[np.bool_] | None]) -> StepFunction:
    """Return ``step`` with ``Step.failed`` in its result, where an environment has failed."""

    def marked(actions: NDArray[Any]) -> Step:
        try:
            result = step(actions)
        finally:  # a step that fails for good tells of the copies that were tried as well
            failed = pop_failed()
        return result if failed is None else result._replace(failed=failed)

    return marked


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
            difference = None if first == other else space_difference(first, other)
            if difference is not None:
                raise EnvError(
                    f"env_id = {env_id}: its environments differ in {role}, {difference}; "
                    "the callable must return environments of one kind"
                )


def _trust_actions(envs: VectorEnv[Any, Any, Any]) -> None:
    """Skip a vectorised environment's check of every action; our actions are always in the space."""
    space = copy.copy(envs.action_space)
    space.contains = lambda x: True  # type: ignore[method-assign]
    envs.action_space = space
