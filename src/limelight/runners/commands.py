"""Several command lines run as processes, a few at a time."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

POLL_SECONDS = 0.2


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
                    del running[place]
            if not poll(len(running)) and not stopping:
                stopping = True
                for process in running.values():
                    process.terminate()
    finally:  # a second signal or an error: none outlives this process
        for process in running.values():
            process.terminate()
            process.wait()
    return statuses


def _start(command: Command, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with command.log.open("ab") as log:
        return subprocess.Popen(
            command.words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(env), start_new_session=True
        )
