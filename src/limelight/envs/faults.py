"""Faults of an environment's own code, in one line each: exceptions, ``sys.exit``, and a ``close`` that fails."""

from __future__ import annotations

import functools
import inspect
import logging
import signal
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Space

import limelight
from limelight.errors import EnvError, LimelightError
from limelight.spaces.describe import describe_space, space_difference
from limelight.spaces.values import NUMBERS, is_masked
from limelight.typing import AnyEnv

_LIBRARIES = tuple(str(Path(file).parent) for file in (gym.__file__, np.__file__, limelight.__file__))
"""Folders whose frames are not the environment's own code."""
_PYTHON = sysconfig.get_paths()["stdlib"]
"""Folder of Python's own modules, in which installed packages may lie too."""
_LOG = logging.getLogger("limelight")


def call_fault(name: str, call: str, error: BaseException, where: str = "") -> EnvError:
    """Return the error of an environment whose code raised or exited, with file and line.

    Args:
        name: the environment's name in messages.
        call: what was called, ``step()``.
        error: the exception; SystemExit is that of ``sys.exit()``.
        where: the environment's number and the step of its episode, as :func:`place_in_run` returns them.
    """
    return own_fault(f"{name}: {call} {what_happened(error)}{_of_old_api(call, error)}{where}; {how_to_fix(name)}")


def own_fault(message: str) -> EnvError:
    """Return an error of an environment's own code: a new copy may not have it."""
    fault = EnvError(message)
    fault.from_env = True
    return fault


def place_in_run(index: int, step: int) -> str:
    """Return `` in environment 3, step 17 of its episode``; step 0 is the reset."""
    return f" in environment {index}, step {step} of its episode" if step else f" in environment {index}"


def stops_the_run(error: BaseException) -> bool:
    """Return whether an exception is Ctrl-C of a user, and none that an environment has raised.

    While a run handles Ctrl-C, or a worker ignores it, Python raises no KeyboardInterrupt for it. A subclass is the
    command line's, for SIGTERM.
    """
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return isinstance(error, KeyboardInterrupt) and (is_default or type(error) is not KeyboardInterrupt)


def how_to_fix(name: str) -> str:
    """Return the end of a message on a fault of an environment's own code."""
    return "fix the environment" if "<" in name else f"fix the environment (limelight check {name})"


def what_happened(error: BaseException) -> str:
    """Return ``raised ZeroDivisionError: division by zero (shop.py, line 12)``, on one line."""
    text = text_of(error)
    raised = f"raised {type(error).__name__}" + (f": {text}" if text else "")
    return ("called sys.exit()" if isinstance(error, SystemExit) else raised) + place_of(error)


def text_of(error: BaseException) -> str:
    """Return the message of an error on one line; nothing where making it fails."""
    try:
        return " ".join(str(error).split())
    except Exception:  # the __str__ of an exception of the environment's own
        return ""


def place_of(error: BaseException) -> str:
    """Return `` (shop.py, line 12)``: the innermost line of the environment's own code, or nothing without one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if is_own(frame.filename)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def place_of_function(function: Any) -> str:
    """Return the place where a function of the environment begins, as :func:`place_of`; nothing for a library's."""
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    if code is None or not is_own(code.co_filename):
        return ""
    return f" ({Path(code.co_filename).name}, line {code.co_firstlineno})"


def is_own(file: str) -> bool:
    """Return whether a file is neither of Python nor of a library that calls environments."""
    of_python = file.startswith(_PYTHON) and "-packages" not in file
    return not of_python and not file.startswith((*_LIBRARIES, "<"))


def _of_old_api(call: str, error: BaseException) -> str:
    """Return a hint if the environment seems to have the methods of gym before 0.26."""
    text = text_of(error)
    if "to unpack" in text and not place_of(error):
        values = "(observation, info)" if call == "reset()" else "(observation, reward, terminated, truncated, info)"
        return f": {call} must return {values}"
    if call == "reset()" and "unexpected keyword argument 'seed'" in text:
        return ": must be reset(self, *, seed=None, options=None)"
    return ""


def seed_spaces(env: AnyEnv, seed: int | None) -> None:
    """Seed the spaces of an environment, from which some draw: an opponent's actions, a start; nothing without seed."""
    if seed is None:
        return
    for owner in (env, env.unwrapped):
        for role in ("action_space", "observation_space"):
            if hasattr(owner, role):  # only a wrapper may have them
                getattr(owner, role).seed(seed)


def spaces_of(env: AnyEnv) -> tuple[Space[Any], Space[Any]]:
    """Return observation and action space."""
    return env.observation_space, env.action_space


def require_same_spaces(env: AnyEnv, before: tuple[Space[Any], Space[Any]], name: str) -> None:
    """Refuse an environment whose reset has set other spaces, which its agent would not learn of.

    Raises: EnvError.
    """
    for role, space, new in zip(("observation_space", "action_space"), before, spaces_of(env), strict=True):
        if new is space:
            continue
        difference = space_difference(space, new) if isinstance(new, Space) else f"now {type(new).__name__}"
        if difference is not None:
            raise EnvError(f"{name}: reset() changed {role}, {difference}: must stay as it is; {how_to_fix(name)}")


def first_observation(name: str, result: Any) -> Any:
    """Return the observation of what ``reset()`` returned.

    Raises: EnvError if that is not (observation, info).
    """
    if isinstance(result, tuple) and len(result) == 2:
        return result[0]
    given = f"{len(result)} values" if isinstance(result, tuple) else f"one {type(result).__name__}"
    raise EnvError(f"{name}: reset() returned {given}: must be (observation, info); {how_to_fix(name)}")


class StepValueError(ValueError):
    """A reward that is not one number, or an end of an episode that is not true or false."""


PLAIN_NUMBERS = frozenset({float, int, bool, np.float64, np.float32, np.float16, np.int64, np.int32, np.bool_})
"""Types whose values an array of floats takes as they are. Of others it also takes texts, dates, None and the like."""


def one_number(reward: Any) -> float:
    """Return a reward as a float: any real number, or an array or a list of one.

    Raises: StepValueError.
    """
    try:
        array = np.zeros(0) if is_masked(reward) else np.asarray(reward)
        if array.size == 1 and array.dtype.kind in NUMBERS:
            return float(array.reshape(()))
        if array.dtype.kind == "O" and isinstance(reward, Real | Decimal):
            return float(reward)
    except Exception:  # ragged lists, numbers beyond float64; objects of other libraries may raise anything
        pass
    raise StepValueError(f"the reward {_shown(reward)} is not one number")


def end_flags(terminated: Any, truncated: Any) -> tuple[bool, bool]:
    """Return both as bools: truth values, or 0 and 1 in any form of one number.

    Raises: StepValueError: what is true for Python, such as the text "no", need not be meant so.
    """
    return one_end("terminated", terminated), one_end("truncated", truncated)


def one_end(name: str, value: Any) -> bool:
    """Return one of the two of :func:`end_flags`."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    try:
        number = one_number(value)
    except StepValueError:
        number = np.nan
    if number not in (0.0, 1.0):
        raise StepValueError(f"{name} = {_shown(value)} is not true or false")
    return number == 1.0


def _shown(value: Any) -> str:
    return " ".join(repr(value).split())[:60]


def step_misfit(name: str, step: str, index: int, space: Space[Any], error: BaseException) -> EnvError:
    """Return the error of a step whose values are not those of Gymnasium, as ``error`` says.

    Args:
        name: the environment's name in messages.
        step: the step of the episode, or nothing.
        index: number of the environment.
        space: of its observations.
        error: the exception of taking the values apart.
    """
    return EnvError(
        f"env_id = {name}: step{step} of an episode returned values in environment {index} that do not fit "
        f"({' '.join(str(error).split())}): must be an observation of {describe_space(space)}, reward, terminated, "
        "truncated, info"
    )


@contextmanager
def env_code(name: str, call: str, where: str = "") -> Iterator[None]:
    """Turn an exception or ``sys.exit`` of an environment inside this context into :func:`call_fault`."""
    try:
        yield
    except LimelightError:
        raise
    except BaseException as error:
        if stops_the_run(error):
            raise
        raise call_fault(name, call, error, where) from error


def close_env(env: AnyEnv, name: str) -> None:
    """Close an environment; a ``close`` that fails is a note, as all else is done by then."""
    close_all([env], name)


def close_all(envs: Iterable[AnyEnv], name: str) -> None:
    """Close every environment, with one note if some fail to close."""
    faults: list[BaseException] = []
    for env in envs:
        try:
            env.close()
        except BaseException as error:
            if stops_the_run(error):
                raise
            faults.append(error)
    if faults:
        note_close_fault(name, faults[0])


def note_close_fault(name: str, error: BaseException) -> None:
    """Log that ``close`` failed, for people to read; nothing depends on it."""
    _log_once(f"limelight: note: {name}: close() {what_happened(error)}; the run is not affected")


@functools.cache
def _log_once(note: str) -> None:
    """Log a note, unless it was logged before: each copy of an environment may have the same fault."""
    _LOG.warning("%s", note)


def process_exit(name: str, exit_codes: Iterable[int | None]) -> EnvError:
    """Return the error of an environment whose worker process has exited; ``exit_codes`` are those of all of them."""
    gone = [(i, code) for i, code in enumerate(exit_codes) if code is not None]
    which = ", ".join(f"{i} with status {code}" if code >= 0 else f"{i} by signal {-code}" for i, code in gone)
    return own_fault(f"{name}: the process of environment {which or '?'} exited; {how_to_fix(name)}")
