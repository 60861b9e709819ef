"""Several command lines run as processes, a few at a time; they exit with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

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
    waiting, running = list(range(len(commands))), dict[int, subprocess.Popen[bytes]]()
    stopping = False
    try:
        while running or (waiting and not stopping):
            while waiting and len(running) < parallel and not stopping:
                place = waiting.pop(0)
                running[place] = _start(commands[place], env)
            time.sleep(POLL_SECONDS)
            for place, process in list(running.items()):
                if process.poll() is not None:
                    statuses[place] = process.returncode
                    _let_go(running.pop(place))
            if not poll(len(running)) and not stopping:
                stopping = True
                for process in running.values():
                    process.terminate()
    finally:  # a second signal or an error: none outlives this process
        for process in running.values():
            process.terminate()
            process.wait()
            _let_go(process)
    return statuses


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
