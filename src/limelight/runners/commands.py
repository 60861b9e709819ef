"""Several command lines run as processes, a few at a time; they exit with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, final

POLL_SECONDS = 0.2
WITH_PARENT = "LIMELIGHT_EXIT_WITH_PARENT"
"""Environment variable of a process whose standard input ends when its parent does."""
GRACE_SECONDS = 1.0
"""Time that such a process has after SIGTERM to save its run."""


class Command(NamedTuple):
    """A command line and the file that its output is appended to."""

    words: Sequence[str]
    log: Path


def run_commands(
    commands: Sequence[Command],
    parallel: int,
    env: Mapping[str, str],
    poll: Callable[[int], bool],
) -> list[int | None]:
    """Run commands, at most ``parallel`` at a time; return their exit statuses, None for those that never started.

    Each is in a process group of its own, so that Ctrl-C reaches this process alone, which passes it on once.

    Args:
        commands: what to run, in this order.
        parallel: most processes at a time.
        env: the environment variables of the processes.
        poll: called several times a second with the number of running processes; false ends all of them by SIGTERM
            and starts no more.
    """
    statuses: list[int | None] = [None] * len(commands)
    waiting = list(range(len(commands)))
    stopping = False
    with closing(Processes(env)) as processes:
        while processes.running or (waiting and not stopping):
            while waiting and len(processes.running) < parallel and not stopping:
                place = waiting.pop(0)
                processes.start(place, commands[place])
            time.sleep(POLL_SECONDS)
            for place, status in processes.take_exited().items():
                statuses[place] = status
            if not poll(len(processes.running)) and not stopping:
                stopping = True
                for place in processes.running:
                    processes.end(place)
    return statuses


@final
class Processes:
    """Command lines that run as processes under numbers, each in a process group of its own.

    ``env``: the environment variables of the processes.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def running(self) -> list[int]:
        """Return the numbers of the processes whose exit was not taken yet."""
        return list(self._processes)

    def start(self, number: int, command: Command) -> None:
        """Start a command under a number that no running process has."""
        self._processes[number] = _start(command, self._env)

    def take_exited(self) -> dict[int, int]:
        """Return the exit statuses of the processes that have exited since the last call, by number."""
        exited = {n: process for n, process in self._processes.items() if process.poll() is not None}
        for number in exited:
            _let_go(self._processes.pop(number))
        return {number: process.returncode for number, process in exited.items()}

    def end(self, number: int) -> None:
        """Ask a process to end, by SIGTERM."""
        self._processes[number].terminate()

    def close(self) -> None:
        """End all processes and wait for them: none outlives this one."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait()
            _let_go(process)
        self._processes.clear()


def _start(command: Command, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with command.log.open("ab") as log:
        return subprocess.Popen(
            command.words,
            stdin=subprocess.PIPE,  # nothing is written: it ends when this process does, however that happens
            stdout=log,
            stderr=log,
            env={**env, WITH_PARENT: "1"},
            start_new_session=True,
        )


def _let_go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def exit_with_parent() -> None:
    """Exit soon after the process that :func:`run_commands` runs in, where this is one of its commands.

    A thread waits for the end of standard input, which code that reads it finds empty. The run is then interrupted as
    by SIGTERM, and ended :data:`GRACE_SECONDS` later.
    """
    if os.environ.pop(WITH_PARENT, None) is None:  # processes of this one watch this one
        return
    watched, empty = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    threading.Thread(target=_wait_for_end, args=(watched,), daemon=True).start()


def _wait_for_end(watched: int) -> None:
    while os.read(watched, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)  # the main thread handles it, also within a call that blocks
    time.sleep(GRACE_SECONDS)
    os._exit(128 + signal.SIGTERM)
