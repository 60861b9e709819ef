"""Environments that are replaced by new copies where their code fails: ``on_env_error = restart``.

An episode in which ``step`` fails is truncated after its last observation. A guard also keeps what a message on a step
that does not return needs: seed, step and last actions (``step_timeout``).
"""

from __future__ import annotations

import itertools
import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, final

import numpy as np
from gymnasium.spaces import Dict, Space, Tuple
from numpy.typing import NDArray

from limelight.envs.attributes import Order, follow
from limelight.envs.base import EnvBackend
from limelight.envs.faults import (
    call_fault,
    close_env,
    env_code,
    first_observation,
    own_fault,
    place_in_run,
    seed_spaces,
    stops_the_run,
)
from limelight.envs.last_call import LAST_ACTIONS, CallRecord
from limelight.errors import EnvError, LimelightError
from limelight.seeds import Stream, derive_seed
from limelight.typing import AnyEnv, EnvFactory, State

MOST_IN_A_ROW = 10
"""Failures of one environment without an episode that ends by itself, after which the run ends."""
FIRST_DELAY = 0.1
"""Seconds before the second new copy in a row; each further one waits twice as long."""
MOST_DELAY = 5.0
_TOLD_AFTER = 5
"""Failures in a row after which a note says so: the waits get long."""
_LOG = logging.getLogger("limelight")
T = TypeVar("T")


@final
class EnvGuard:
    """Steps one environment; with ``replaces``, a new copy takes its place where ``step`` or ``reset`` fails.

    Args:
        make: makes a copy.
        env: the first copy.
        name: the environment's name in messages.
        index: its number.
        replaces: False only keeps what messages need.
        on_replaced: called with each copy; it returns the one that is stepped.
        shown: kinds of exceptions whose traceback was shown, of all environments of this process.
    """

    def __init__(
        self,
        make: EnvFactory,
        env: AnyEnv,
        name: str,
        index: int,
        replaces: bool,
        on_replaced: Callable[[int, AnyEnv], AnyEnv],
        shown: set[str],
    ) -> None:
        self.name = name
        self.index = index
        self.seed: int | None = None
        """Of the last reset that had one."""
        self._first_seed: int | None = None  # from which those of new copies are derived
        self.steps = 0
        """Of the running episode."""
        self.actions: deque[Any] = deque(maxlen=LAST_ACTIONS)
        """The last ones, oldest first."""
        self.restarts = 0
        """New copies so far."""
        self.has_failed = False
        """The episode was truncated by a failure since the flag was last cleared."""
        self.messages: list[str] = []
        self._make = make
        self._whole = env
        self._env = on_replaced(index, env)
        self._replaces = replaces
        self._on_replaced = on_replaced
        self._is_new = False
        self._in_a_row = 0
        self._obs: Any = None
        self._shown = shown
        self._record: CallRecord | None = None
        self._orders: dict[str, Order] = {}

    def keep(self, order: Order) -> None:
        """Set the attribute of an order in new copies too; nothing for other orders."""
        if order.kind == "set_env_attr":
            self._orders[order.name] = order

    def record_into(self, calls: NDArray[np.float64]) -> None:
        """Record every call from here on in ``calls`` (last_call.py)."""
        self._record = CallRecord(calls, self.index, self._env.action_space, self.seed, self.steps)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, in a new copy where that fails.

        Raises: EnvError where no copy works.
        """
        if seed is not None:
            self._first_seed = seed
        if not self._is_new:
            self._in_a_row = 0
        self.steps = 0
        self.actions.clear()
        while True:
            if self._is_new and seed is None:
                seed = derive_seed(self._first_seed or 0, Stream.ENV, self.restarts)
            self.seed = self.seed if seed is None else seed
            try:
                result = self._reset(seed, options)
            except EnvError as error:
                self.replace(error)
                seed = None
            else:
                self._is_new = False
                return result

    def _reset(self, seed: int | None, options: dict[str, Any] | None) -> Any:
        """Try it once, in a frame of its own, by which stalls.py knows one try from the next."""
        if self._record is not None:
            self._record.reset(self.seed)
        with env_code(self.name, "reset()", place_in_run(self.index, 0)):
            seed_spaces(self._whole, seed)
            result = self._env.reset(seed=seed, **({} if options is None else {"options": options}))
        if self._record is not None:
            self._record.end()
        self._obs = first_observation(self.name, result)
        return result

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the environment; where that fails, truncate the episode at its last observation.

        Raises: EnvError where no copy works.
        """
        self.steps += 1
        self.actions.append(action)
        if self._record is not None:
            self._record.step(self.steps, action)
        try:
            result = self._env.step(action)
        except BaseException as error:
            if stops_the_run(error) or not self._replaces:
                raise
            own = error if isinstance(error, LimelightError) else self._fault(error)
            self.replace(own)
            self.has_failed = True
            return self._obs, 0.0, False, True, {}
        if self._record is not None:
            self._record.end()
        if isinstance(result, tuple) and result:
            self._obs = result[0]
        return result

    def _fault(self, error: BaseException) -> EnvError:
        fault = call_fault(self.name, "step()", error, place_in_run(self.index, self.steps))
        fault.__cause__ = error
        return fault

    def replace(self, error: LimelightError) -> None:
        """Put a new copy in the place of the environment, after waiting longer from failure to failure.

        Raises: ``error`` where it is none of the environment's own code, or too many came in a row.
        """
        if self._record is not None:
            self._record.end()
        while True:
            if not self._replaces or not (isinstance(error, EnvError) and error.from_env):
                raise error
            self._in_a_row += 1
            if self._in_a_row > MOST_IN_A_ROW:
                last = f"{MOST_IN_A_ROW} new copies in a row have failed without a whole episode, so the run ends"
                raise own_fault(f"{error}; {last}") from error
            self.restarts += 1
            self.messages.append(self._message(error))
            if self._in_a_row == _TOLD_AFTER:  # the messages come after the last of them
                _LOG.warning("limelight: note: %s; tried again, up to %d times in a row", error, MOST_IN_A_ROW)
            close_env(self._whole, self.name)
            pause(self._in_a_row)
            try:
                with env_code(self.name, "making it"):
                    self._whole = self._make()
                for order in self._orders.values():
                    follow(self._whole, order, self.name)
            except EnvError as refusal:
                error = refusal
                continue
            self._env = self._on_replaced(self.index, self._whole)
            self._is_new = True
            return

    def _message(self, error: LimelightError) -> str:
        """Return the line on a failure; the first of its kind is followed by its traceback."""
        kind = type(error.__cause__).__name__
        line = f"{error}; a new copy goes on (restart {self.restarts} of this environment)"
        if kind in self._shown or error.__cause__ is None:
            return line
        self._shown.add(kind)
        return f"{line}\n{''.join(traceback.format_exception(error.__cause__)).rstrip()}"

    def get_state(self) -> State:
        """Return what new copies depend on."""
        counts = {"restarts": self.restarts, "in_a_row": self._in_a_row, "is_new": self._is_new}
        return {"first_seed": self._first_seed, "seed": self.seed, "obs": _plain(self._obs), **counts}

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`."""
        self._first_seed = state["first_seed"]
        self.seed = state["seed"]
        self.restarts = int(state["restarts"])
        self._in_a_row = int(state["in_a_row"])
        self._is_new = bool(state["is_new"])
        if state.get("obs") is not None:
            self._obs = _as_of(self._env.observation_space, state["obs"])


def _plain(obs: Any) -> Any:
    """Return a raw observation as arrays in dicts and lists."""
    if isinstance(obs, dict):
        return {key: _plain(part) for key, part in obs.items()}
    if isinstance(obs, tuple):
        return [_plain(part) for part in obs]
    return None if obs is None else np.array(obs)


def _as_of(space: Space[Any], plain: Any) -> Any:
    """Return an observation of a space from :func:`_plain`."""
    if isinstance(space, Dict):
        return {key: _as_of(space[key], part) for key, part in plain.items()}
    if isinstance(space, Tuple):
        return tuple(map(_as_of, space.spaces, plain))
    return np.array(plain)  # a copy, as other environments may have the same array of a checkpoint


def pause(failures: int) -> None:
    """Wait before the next new copy; ``failures``: in a row. stalls.py knows this wait by the function's name."""
    if failures > 1:
        time.sleep(min(FIRST_DELAY * 2 ** (failures - 2), MOST_DELAY))


def tried(replaces: bool, attempt: Callable[[], T]) -> T:
    """Return what ``attempt`` returns, which makes or resets a copy that no guard looks after.

    With ``replaces`` it is tried again where the environment's code fails, after growing waits.
    Raises: EnvError where that is not wanted, or too many tries have failed.
    """
    for failures in itertools.count(1):
        try:
            return attempt()
        except EnvError as error:
            if not replaces or not error.from_env:
                raise
            if failures > MOST_IN_A_ROW:
                raise own_fault(f"{error}; {MOST_IN_A_ROW} new copies in a row have failed") from error
            _LOG.warning("limelight: note: %s; a new copy is made", error)
        pause(failures)
    raise AssertionError


def record_calls(envs: EnvBackend, calls: NDArray[np.float64]) -> None:
    """Let the guards of environments record their calls; nothing where environments are not guarded.

    ``calls``: [1 + B, COLUMNS] (last_call.py).
    """
    for guard in getattr(envs, "guards", ()):
        guard.record_into(calls)


def pop_failed(guards: Sequence[EnvGuard], messages: list[str]) -> NDArray[np.bool_] | None:
    """Return which environments have failed in a step, None if none has; move their messages to ``messages``."""
    for guard in guards:
        messages += guard.messages
        guard.messages.clear()
    if not any(guard.has_failed for guard in guards):
        return None
    failed = np.array([guard.has_failed for guard in guards])
    for guard in guards:
        guard.has_failed = False
    return failed


def pop_restarts(envs: EnvBackend) -> list[str]:
    """Return a message for each environment that was replaced since the last call."""
    messages: list[str] | None = getattr(envs, "restarts", None)
    if not messages:
        return []
    taken = messages.copy()
    messages.clear()
    return taken
