"""A watch over steps and resets of environments that do not return.

A thread looks at the stack of the thread that steps environments. A call in which it finds that thread again and again
has not returned: a note says so after :data:`NOTE_AFTER` seconds. With ``step_timeout`` an exception is raised in the
call after that time, as if the environment had raised it. Code that no exception can interrupt ends the process.
Stepping itself costs nothing more.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol, final

import numpy as np

from limelight.envs.faults import is_own, own_fault
from limelight.envs.guards import pause

NOTE_AFTER = 30.0
"""Seconds after which a note says that a call has not returned, where there is no ``step_timeout``."""
LOOK_EVERY = 5.0
"""Seconds between two looks at most; a quarter of ``step_timeout`` where that is less."""
GRACE = 5.0
"""Seconds, at least, in which the exception must have ended the call; the process is ended then."""
_LONGEST = 1e8
"""Seconds: more than a timer can take is as good as never."""
_HERE = str(Path(__file__).parent)
_PACKAGE = str(Path(__file__).parents[1])
_WHAT = {"close": "close()", "make": "making it", "create": "making it", "step": "step()", "reset": "reset()"}
_WHAT |= {"restart": "reset()", "informs_mask": "reset()", "<lambda>": "making it", "__init__": "making it"}
"""Parts of the names of functions here → what they call."""
_LOG = logging.getLogger("limelight")
_SIGNAL = getattr(signal, "SIGURG", None)
"""The signal in whose handler the exception is raised; a process that has no handler ignores it."""


class HasFileno(Protocol):
    """A file with a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""


class Call(NamedTuple):
    """A step or reset in which a thread is."""

    frame: FrameType
    """The innermost frame of this library, which called the environment."""
    number: int | None
    """Of the environment, where the frame steps several."""

    def is_same(self, other: Call | None) -> bool:
        """Return whether both are one call."""
        return other is not None and self.frame is other.frame and self.number == other.number


def find_call(frame: FrameType | None) -> Call | None:
    """Return the call of an environment's code that a stack is in, or None."""
    while frame is not None and not frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    if frame is None or not frame.f_code.co_filename.startswith(_HERE) or frame.f_code.co_name == pause.__name__:
        return None
    index = frame.f_locals.get("i")
    return Call(frame, index if isinstance(index, int) else None)


def describe(call: Call, top: FrameType | None = None) -> str:
    """Return the environment, its seed, step and last actions, as far as the frames of a call tell them.

    ``top``: the innermost frame of the thread; Gymnasium's own frames have the process that is waited for.
    """
    found: dict[str, Any] = {}
    while top is not None and top is not call.frame:
        found.setdefault("waits for", top.f_locals.get("env_idx"))
        found = {name: value for name, value in found.items() if value is not None}
        top = top.f_back
    first = int(found.pop("waits for", 0))
    frame: FrameType | None = call.frame
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        for name, value in _facts(frame.f_locals, first).items():
            found.setdefault(name, value)
        frame = frame.f_back
    by_name = next((what for part, what in _WHAT.items() if part in call.frame.f_code.co_name), "step()")
    what = found.get("call", by_name)
    alone = "a copy" if "inspects" in found else "environments"
    which = alone if found.get("index") is None else f"environment {found['index']}"
    facts = [f"{name} {found[name]}" for name in ("seed", "step", "last actions", "no answer of") if name in found]
    doing = f"making {which}" if what == "making it" else f"{what} of {which}"
    return f"{found.get('name', 'the environment')}: {doing}" + (f" ({', '.join(facts)})" if facts else "")


def _facts(values: dict[str, Any], first: int) -> dict[str, Any]:
    """Return what the local variables of one frame tell; the answers of processes before ``first`` have arrived."""
    owner, facts = values.get("self", values.get("source")), dict[str, Any]()
    inspects = hasattr(owner, "inspection")
    name = getattr(owner, "name", None) if hasattr(owner, "restarts") or inspects else None
    name = getattr(owner, "_env_id", name)
    index = getattr(owner, "index", values.get("i"))
    if inspects:
        facts["inspects"] = True
    calls = values.get("calls")
    if isinstance(calls, list):  # random play
        facts["call"] = calls[-1]
        if "step" in values:
            facts["step"] = values["step"]
    if isinstance(name, str):
        facts["name"] = name
    if isinstance(index, int):
        facts["index"] = index
    if isinstance(getattr(owner, "steps", None), int):
        facts["step"] = owner.steps  # type: ignore[union-attr]
    if getattr(owner, "actions", None):
        facts["last actions"] = _shown(list(owner.actions))  # type: ignore[union-attr]
    elif isinstance(actions := values.get("actions"), np.ndarray | list | deque) and len(actions):
        facts["last actions"] = _shown(actions[index] if isinstance(index, int) else actions)
    seed = getattr(owner, "seed", values.get("seed"))
    of_first = getattr(owner, "_seed", None)
    if isinstance(seed, int):
        facts["seed"] = seed
    elif isinstance(of_first, int) and isinstance(index, int):
        facts["seed"] = of_first + index
    pipes = getattr(getattr(owner, "envs", None), "parent_pipes", None)
    if pipes is not None and (late := [i for i in _late(pipes) if i >= first]):
        facts["no answer of"] = ", ".join(map(str, late))
    return facts


def _late(pipes: list[Any]) -> list[int]:
    """Return the numbers of the processes that have not answered."""
    with contextlib.suppress(OSError, ValueError):
        return [i for i, pipe in enumerate(pipes) if pipe is not None and not pipe.closed and not pipe.poll()]
    return []


def _shown(value: Any) -> str:
    parts = isinstance(value, list | deque)
    plain = [part.tolist() if hasattr(part, "tolist") else part for part in value] if parts else value
    return " ".join(str(plain.tolist() if hasattr(plain, "tolist") else plain).split())[:200]


@final
class StallWatch:
    """Watches the thread that makes it.

    Args:
        timeout: ``step_timeout``; None: only notes.
        output: the file for the traceback of a process that is ended; None: standard error.
    """

    def __init__(self, timeout: float | None, output: HasFileno | None = None) -> None:
        self._thread_id = threading.get_ident()
        self._timeout = timeout
        self._output: Any = sys.__stderr__ if output is None else output
        self._limit = NOTE_AFTER if timeout is None else timeout
        self._every = min(LOOK_EVERY, self._limit / 4)
        self._stopped = threading.Event()
        self._pending: tuple[Call, str] | None = None  # a call to end, and the message
        self._before: Any = None
        self._raises = timeout is not None and _SIGNAL is not None and _is_main_thread()
        self._thread = threading.Thread(target=self._look, name="limelight-stalls", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        if self._raises:
            assert _SIGNAL is not None
            self._before = signal.signal(_SIGNAL, self._raise_in_call)
        self._thread.start()

    def stop(self) -> None:
        """End watching."""
        self._stopped.set()
        self._thread.join()
        if self._raises:
            assert _SIGNAL is not None
            signal.signal(_SIGNAL, self._before)

    def _look(self) -> None:
        try:
            self._look_until_stopped()
        finally:
            if self._raises:
                faulthandler.cancel_dump_traceback_later()

    def _look_until_stopped(self) -> None:
        self._exit_in(self._limit + max(GRACE, self._limit))
        seen: Call | None = None
        since, said = 0.0, False
        while not self._stopped.wait(self._every):
            top = sys._current_frames().get(self._thread_id)
            call, now = find_call(top), time.monotonic()
            if call is None or not call.is_same(seen):
                seen, since, said = call, now, False
            elif not said and now - since >= self._limit_of(call):
                said = True
                self._exit_in(max(GRACE, self._limit))
                self._end(call, now - since, top)
            if not said:
                limit = self._limit if call is None else self._limit_of(call)
                self._exit_in(limit + max(GRACE, self._limit))
            del call, top  # a frame keeps its variables

    def _limit_of(self, call: Call) -> float:
        """Return the seconds for a call: processes of environments watch themselves, and have more time."""
        owner = call.frame.f_locals.get("self")
        has_processes = hasattr(owner, "parent_pipes") or hasattr(getattr(owner, "envs", None), "parent_pipes")
        return 2 * self._limit + GRACE if has_processes and self._timeout is not None else self._limit

    def _end(self, call: Call, seconds: float, top: FrameType | None) -> None:
        """Say that a call has not returned; raise an exception in it, with ``step_timeout``."""
        own = top is not None and top is not call.frame and is_own(top.f_code.co_filename)
        place = f" ({Path(top.f_code.co_filename).name}, line {top.f_lineno})" if top is not None and own else ""
        text = f"{describe(call, top)} has not returned for {seconds:.0f} s{place}"
        if not self._raises:
            hint = "" if self._timeout is not None else "; step_timeout ends such a call"
            _LOG.warning("limelight: note: %s%s", text, hint)
            return
        assert _SIGNAL is not None
        self._pending = call, f"{text}; step_timeout = {self._timeout:g}"
        signal.pthread_kill(self._thread_id, _SIGNAL)

    def _raise_in_call(self, number: int, frame: FrameType | None) -> None:
        """Raise the exception, if the thread is still in the call; the handler of the signal."""
        pending, self._pending = self._pending, None
        while pending is not None and frame is not None:
            if frame is pending[0].frame and pending[0].is_same(find_call(frame)):
                raise own_fault(pending[1])
            frame = frame.f_back

    def _exit_in(self, seconds: float) -> None:
        """End the process in some seconds, unless this is called again.

        Code that holds Python's lock for so long keeps this thread from calling it, but does not stop the timer.
        """
        if self._raises:
            with contextlib.suppress(OSError, ValueError, AttributeError):  # there is no standard error
                faulthandler.dump_traceback_later(min(seconds, _LONGEST), exit=True, file=self._output)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def watched(timeout: float | None) -> Iterator[None]:
    """Watch the calls of environments that this thread makes inside this context."""
    watch = StallWatch(timeout)
    watch.start()
    try:
        yield
    finally:
        watch.stop()


def start_watch(timeout: float | None) -> None:
    """Watch this thread to the end of its process, with a timeout only: the main process notes all else."""
    if timeout is not None:
        StallWatch(timeout).start()
