"""The layer under worker processes in which operating systems differ: shared memory, a lock, signals.

On POSIX, memory and lock are nameless files whose descriptors spawned processes inherit, and signals are blocked while
a process starts. Elsewhere descriptors are not inherited: memory and lock have names, by which a process opens them,
and processes that start ignore the console's Ctrl-C. ``LIMELIGHT_PORTABLE=1`` takes the named kind on POSIX too, for
tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import reduction, resource_tracker
from multiprocessing.context import SpawnContext
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, Protocol

from limelight.files import open_regular

FORCED = "LIMELIGHT_PORTABLE"
"""The environment variable that takes the named kind everywhere, where it is 1."""
MAX_WINDOWS_WORKERS = 31
"""Workers of which Windows can wait for messages and exits: 63 handles, two for each and one more."""
_BYTE = 1 << 30
"""Place of the byte that is locked on Windows: beyond the end of any file here, as others may not read it meanwhile."""
_LONGEST_PAUSE = 0.001
"""Seconds between two attempts to take a lock that has no queue, at most; the first is 1/100 of it."""

_fcntl: Any = import_module("fcntl") if os.name == "posix" else None
_msvcrt: Any = import_module("msvcrt") if os.name == "nt" else None


def uses_names() -> bool:
    """Return whether processes open memory and lock by their names."""
    return os.name != "posix" or os.environ.get(FORCED) == "1"


def run_if_worker() -> None:
    """Run the worker that this process was started as, and exit; nothing in any other process.

    A frozen program (PyInstaller and the like) is its own interpreter, so its workers begin where it begins.
    """
    multiprocessing.freeze_support()


def max_workers() -> int | None:
    """Return the most workers that one process can supervise here; None: no limit of the operating system."""
    return MAX_WINDOWS_WORKERS if os.name == "nt" else None


# --------------------------------------------------------------------------- memory


class Block(Protocol):
    """A block of memory that spawned processes share when they receive it."""

    array: Any
    """The bytes, a ctypes array; all 0 at first."""

    def close(self) -> None:
        """Remove the name of the block, if it has one; processes that have it keep it."""


class InheritedBlock:
    """An unlinked file in /dev/shm, or in the temporary folder where that is too small; see :class:`Block`."""

    def __init__(self, context: SpawnContext, nbytes: int) -> None:
        self.array: Any = context.RawArray(ctypes.c_byte, nbytes)

    def close(self) -> None:
        """Do nothing: there is no name."""


class NamedBlock:
    """Memory with a name, which the system frees with the last process that has it; see :class:`Block`."""

    def __init__(self, nbytes: int) -> None:
        self._open(SharedMemory(create=True, size=nbytes))

    def _open(self, memory: SharedMemory) -> None:
        self._memory = memory
        # By its address: a view of the buffer would have to be released before the memory is.
        buffer: Any = memory.buf
        array: Any = (ctypes.c_byte * memory.size).from_address(ctypes.addressof(ctypes.c_byte.from_buffer(buffer)))
        array.memory = memory  # which lives as long as its last array
        self.array = array

    def close(self) -> None:
        """Remove the name."""
        with contextlib.suppress(FileNotFoundError):
            self._memory.unlink()

    def __reduce__(self) -> tuple[Any, ...]:
        return _received_block, (self._memory.name,)


def _received_block(name: str) -> NamedBlock:
    """Open the block in the spawned process."""
    block = NamedBlock.__new__(NamedBlock)
    block._open(SharedMemory(name))
    return block


def make_block(context: SpawnContext, nbytes: int) -> Block:
    """Make a block of shared memory."""
    return NamedBlock(nbytes) if uses_names() else InheritedBlock(context, nbytes)


# --------------------------------------------------------------------------- lock


class Lock(Protocol):
    """A lock between processes that the system releases if its holder exits. Not reentrant, not for threads."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None:
        """Close its file; a second call does nothing."""

    def remove(self) -> None:
        """Close its file and remove its name, if it has one."""


class InheritedLock:
    """A record lock on a nameless file; see :class:`Lock`."""

    def __init__(self) -> None:
        self._file: Any = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the lock)
        self._fd = self._file.fileno()

    def __enter__(self) -> None:
        _fcntl.lockf(self._fd, _fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        _fcntl.lockf(self._fd, _fcntl.LOCK_UN)

    def close(self) -> None:
        """See :class:`Lock`."""
        self._file.close()

    remove = close

    def __reduce__(self) -> tuple[Any, ...]:
        return _received_lock, (reduction.DupFd(self._fd),)


def _received_lock(fd: Any) -> InheritedLock:
    """Make the lock in the spawned process from an inherited descriptor."""
    lock = InheritedLock.__new__(InheritedLock)
    lock._file = os.fdopen(fd.detach(), "rb+")
    lock._fd = lock._file.fileno()
    return lock


class NamedLock:
    """A lock on a file that every process opens by its path; see :class:`Lock`."""

    def __init__(self, path: str | None = None) -> None:
        if path is None:
            descriptor, path = tempfile.mkstemp(prefix="limelight-", suffix=".lock")
            os.close(descriptor)
        self.path = path
        self._file: Any = open(path, "rb+")  # noqa: SIM115  (lives as long as the lock)
        self._fd = self._file.fileno()

    def __enter__(self) -> None:
        if _msvcrt is None:
            _fcntl.lockf(self._fd, _fcntl.LOCK_EX)
            return
        pause = _LONGEST_PAUSE / 100
        while not _lock_byte(self._fd):  # LK_LOCK would wait a whole second between two attempts
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def __exit__(self, *_: object) -> None:
        if _msvcrt is None:
            _fcntl.lockf(self._fd, _fcntl.LOCK_UN)
        else:
            _unlock_byte(self._fd)

    def close(self) -> None:
        """See :class:`Lock`."""
        self._file.close()

    def remove(self) -> None:
        """See :class:`Lock`; Windows leaves the name to the last process that has the file open."""
        self.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        return NamedLock, (self.path,)


def make_lock() -> Lock:
    """Make a lock between processes."""
    return NamedLock() if uses_names() else InheritedLock()


def _lock_byte(fd: int) -> bool:
    """Lock one byte for this process, by Windows's means; return False while another process has it."""
    os.lseek(fd, _BYTE, os.SEEK_SET)
    try:
        _msvcrt.locking(fd, _msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True


def _unlock_byte(fd: int) -> None:
    os.lseek(fd, _BYTE, os.SEEK_SET)
    _msvcrt.locking(fd, _msvcrt.LK_UNLCK, 1)


@contextmanager
def only_holder(path: Path) -> Iterator[bool]:
    """Lock a file without waiting; yield False where another process holds it. The system frees it at any exit."""
    with open_regular(path) as (file, _):
        if _msvcrt is not None:
            is_held = not _lock_byte(file.fileno())
        else:
            try:
                _fcntl.flock(file, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
                is_held = False
            except BlockingIOError:
                is_held = True
            except OSError:  # a file system without locks
                is_held = False
        try:
            yield not is_held
        finally:
            if _msvcrt is not None and not is_held:
                _unlock_byte(file.fileno())


# --------------------------------------------------------------------------- signals


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask a run to stop: Ctrl-C, termination, and Ctrl-Break of a Windows console."""
    names = ("SIGINT", "SIGTERM", "SIGBREAK")
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


@contextmanager
def stop_signals_held() -> Iterator[None]:
    """Keep the stop signals from the processes that are started inside this context, until their own code decides.

    Ctrl-C reaches all processes of a terminal, and a process can ignore it only after its imports.
    """
    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # first: if start() had to start it, that would unblock the signals
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return
    ignore = _console().SetConsoleCtrlHandler  # without a handler: whether Ctrl-C is ignored, which children inherit
    ignore(None, True)
    try:
        yield
    finally:
        ignore(None, False)


def _console() -> Any:
    """Return the functions of a Windows console."""
    return ctypes.windll.kernel32  # type: ignore[attr-defined]


def ignore_stop_signals() -> None:
    """Ignore the stop signals in a worker: they may reach all processes, and the main process decides.

    They were held until here, and arrive from now on, because environments may start processes that need them.
    """
    for number in stop_signals():
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stop_signals())
