"""The layer of the operating system: memory and locks of both kinds, and Windows by stand-ins for its modules."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from helpers.manual_workers import quick_config
from helpers.settings import one_line
from limelight.errors import ConfigError
from limelight.runners.processes import portable
from limelight.runs.folder import only_process
from limelight.training.prepare import prepare

TESTS = Path(__file__).parents[2]
SRC = Path(portable.__file__).parents[3]
fcntl = pytest.importorskip("fcntl", reason="stands in for msvcrt, and is one of the two kinds of locks")


class Msvcrt:
    """Python's module of Windows: ``locking`` on POSIX record locks, which refuse at once as LK_NBLCK does."""

    LK_NBLCK, LK_UNLCK = 2, 0

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, int]] = []

    def locking(self, fd: int, mode: int, nbytes: int) -> None:
        self.calls.append((os.lseek(fd, 0, os.SEEK_CUR), mode, nbytes))
        command = fcntl.LOCK_UN if mode == self.LK_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB
        fcntl.lockf(fd, command, nbytes, 0, os.SEEK_CUR)


HOLD = """
import fcntl, sys, time
{enter}
print("held", flush=True)
time.sleep(60)
"""
# Without site-packages and torch, to start quickly: only the kernel's lock is tested.
PYTHON = [sys.executable, "-I", "-S", "-c"]


def holds_in_another_process(take: str, fds: list[int], lock: Any, is_free: Callable[[], bool]) -> None:
    """Let another process take the lock and be killed: until then the lock is not free, and then at once it is."""
    code = HOLD.format(enter=textwrap.dedent(take))
    with subprocess.Popen([*PYTHON, code], stdout=subprocess.PIPE, text=True, pass_fds=fds) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert not is_free()
        holder.kill()
        start = time.monotonic()
        with lock:
            assert time.monotonic() - start < 1.0
            assert not is_free()
        assert is_free()


def runs(take: str, fds: list[int]) -> bool:
    return subprocess.run([*PYTHON, take], pass_fds=fds, stderr=subprocess.DEVNULL).returncode == 0


def test_an_inherited_lock_excludes_others_and_is_released_when_its_holder_exits() -> None:
    lock = portable.InheritedLock()
    take = f"import fcntl; fcntl.lockf({lock._fd}, fcntl.LOCK_EX{{}})"
    no_wait = take.format(" | fcntl.LOCK_NB")
    holds_in_another_process(take.format(""), [lock._fd], lock, lambda: runs(no_wait, [lock._fd]))
    lock.remove()


@pytest.mark.parametrize("windows", [False, True])
def test_a_named_lock_excludes_others_and_is_released_when_its_holder_exits(
    windows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if windows:
        monkeypatch.setattr(portable, "_msvcrt", Msvcrt())
    lock = portable.NamedLock()
    start = portable._BYTE if windows else 0
    take = f"import fcntl; f = open({lock.path!r}, 'rb+'); fcntl.lockf(f, fcntl.LOCK_EX{{}}, {int(windows)}, {start})"
    no_wait = take.format(" | fcntl.LOCK_NB")
    holds_in_another_process(take.format(""), [], lock, lambda: runs(no_wait, []))
    lock.remove()
    assert not Path(lock.path).exists()
    lock.remove()


def test_windows_locks_a_byte_that_no_reader_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Msvcrt()
    monkeypatch.setattr(portable, "_msvcrt", fake)
    lock = portable.NamedLock()
    with lock:
        pass
    lock.remove()
    assert fake.calls == [(portable._BYTE, Msvcrt.LK_NBLCK, 1), (portable._BYTE, Msvcrt.LK_UNLCK, 1)]


def test_windows_waits_for_a_lock_in_short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """LK_LOCK would try once a second, ten times."""
    refused = [True] * 12 + [False]

    def locking(fd: int, mode: int, nbytes: int) -> None:
        if mode == Msvcrt.LK_NBLCK and refused.pop(0):
            raise OSError(36, "Resource deadlock avoided")

    pauses: list[float] = []
    monkeypatch.setattr(portable, "_msvcrt", SimpleNamespace(LK_NBLCK=2, LK_UNLCK=0, locking=locking))
    monkeypatch.setattr("limelight.runners.processes.portable.time.sleep", pauses.append)
    lock = portable.NamedLock()
    with lock:
        assert not refused
    lock.remove()
    assert len(pauses) == 12
    assert max(pauses) == 0.001 == pauses[-1]
    assert pauses[0] == pytest.approx(1e-5)


@pytest.mark.parametrize("windows", [False, True])
def test_a_run_folder_has_one_process_on_windows_too(
    windows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    if windows:  # record locks do not exclude the process that has them, so another one is played
        fake = Msvcrt()
        fake.locking = lambda fd, mode, nbytes: (_ for _ in ()).throw(OSError(13, "denied"))  # type: ignore[method-assign]
        monkeypatch.setattr(portable, "_msvcrt", fake)
        with pytest.raises(ConfigError) as error, only_process(tmp_path):
            pass
        monkeypatch.setattr(portable, "_msvcrt", SimpleNamespace(LK_NBLCK=2, LK_UNLCK=0, locking=lambda *_: None))
        with only_process(tmp_path):
            assert (tmp_path / "config.yaml").read_text() == "seed: 1\n"
    else:
        with only_process(tmp_path), pytest.raises(ConfigError) as error, only_process(tmp_path):
            pass
    assert one_line(error) == f"resume = {tmp_path}: another process trains there; wait for it or end it"


def test_a_named_block_is_the_same_memory_in_a_spawned_process_and_lives_as_long_as_its_arrays() -> None:
    block = portable.NamedBlock(64)
    view = np.frombuffer(memoryview(block.array).cast("B"), np.float32, 3)
    assert not view.any()
    other = pickle.loads(pickle.dumps(block))
    np.frombuffer(memoryview(other.array).cast("B"), np.float32, 3)[:] = 1.0
    assert (view == 1.0).all()
    name = block._memory.name
    block.close()
    block.close()
    with pytest.raises(FileNotFoundError):
        SharedMemory(name)
    del block, other
    gc.collect()
    view += 1.0  # the memory is freed with the last array
    assert (view == 2.0).all()


def test_the_kind_is_chosen_by_the_system_or_by_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("spawn")
    monkeypatch.delenv(portable.FORCED, raising=False)
    lock, block = portable.make_lock(), portable.make_block(context, 8)
    assert (type(lock), type(block)) == (portable.InheritedLock, portable.InheritedBlock)
    lock.remove()
    monkeypatch.setattr(portable.os, "name", "nt")
    assert portable.uses_names()
    monkeypatch.undo()
    monkeypatch.setenv(portable.FORCED, "1")
    named, memory = portable.make_lock(), portable.make_block(context, 8)
    assert (type(named), type(memory)) == (portable.NamedLock, portable.NamedBlock)
    named.remove()
    memory.close()


def without_masks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, bool]]:
    """Let signals and the console be those of Windows; return the calls of the console."""
    calls: list[tuple[object, bool]] = []
    kernel = SimpleNamespace(SetConsoleCtrlHandler=lambda handler, add: calls.append((handler, add)))
    monkeypatch.delattr(signal, "pthread_sigmask")
    monkeypatch.setattr(portable.ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    monkeypatch.setattr(
        resource_tracker, "ensure_running", lambda: pytest.fail("there is no resource tracker on Windows")
    )
    return calls


def test_processes_ignore_ctrl_c_of_a_windows_console_from_their_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The console hands the setting on to processes that are made while it is set."""
    calls = without_masks(monkeypatch)
    with portable.stop_signals_held():
        assert calls == [(None, True)]
    assert calls == [(None, True), (None, False)]
    with contextlib.suppress(ValueError), portable.stop_signals_held():
        raise ValueError
    assert calls[2:] == [(None, True), (None, False)]


def test_a_worker_of_windows_ignores_all_its_stop_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    without_masks(monkeypatch)
    ignored: list[tuple[int, object]] = []
    monkeypatch.setattr(signal, "SIGBREAK", 21, raising=False)
    monkeypatch.setattr(signal, "signal", lambda number, handler: ignored.append((int(number), handler)))
    assert [int(number) for number in portable.stop_signals()] == [signal.SIGINT, signal.SIGTERM, 21]
    portable.ignore_stop_signals()
    assert ignored == [(number, signal.SIG_IGN) for number in (2, 15, 21)]


def test_a3c_and_ray_are_not_refused_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portable, "max_workers", lambda: portable.MAX_WINDOWS_WORKERS)
    monkeypatch.setattr("limelight.training.prepare.max_workers", lambda: portable.MAX_WINDOWS_WORKERS)
    assert prepare(quick_config(num_workers=31), None).workers.num_workers == 31
    monkeypatch.setattr("limelight.training.prepare.num_cores", lambda: 64)
    assert prepare(quick_config(num_workers=None), None).workers.num_workers == 31
    with pytest.raises(ConfigError) as error:
        prepare(quick_config(num_workers=32), None)
    assert one_line(error) == (
        "num_workers = 32: Windows can supervise 31 processes at most; use fewer workers, with more environments each "
        "(num_envs), or runner ray"
    )
    if "ray" in sys.modules or pytest.importorskip("ray"):
        assert prepare(quick_config(num_workers=64, runner="ray"), None).workers.num_workers == 64


SUITE = (
    "tests/runners/processes", "tests/equivalence/test_a3c.py", "tests/faults/test_workers_exit.py",
    "tests/faults/test_main_exits.py", "tests/faults/test_main_modules.py",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get(portable.FORCED) == "1", reason="is the run itself")
def test_the_whole_suite_of_a3c_passes_with_named_memory_and_locks() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "--no-cov", "-p", "no:cacheprovider", "-m", "", *SUITE],
        cwd=TESTS.parent, env={**os.environ, portable.FORCED: "1"}, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
