"""Commands that train on Ray, whose processes are known by a mark in their environment."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class RayCommands:
    """Starts commands and clusters; ``processes`` finds all that belong to them, workers and Ray's own."""

    def __init__(self) -> None:
        self.mark = f"LIMELIGHT_MARK_{uuid.uuid4().hex}"
        path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
        self.env = {**os.environ, self.mark: "1", "PYTHONPATH": path}
        self.env |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        self.env.pop("RAY_ADDRESS", None)

    def processes(self) -> dict[int, str]:
        """Return the command lines of all processes, by number."""
        found = {}
        for folder in Path("/proc").iterdir():
            try:
                if self.mark.encode() in (folder / "environ").read_bytes():
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(folder.name)] = line
            except OSError:
                continue
        return {number: line for number, line in found.items() if line}

    def kill(self, program: str) -> int:
        """Kill the processes that run a program; return how many."""
        numbers = [n for n, line in self.processes().items() if line.split(" ")[0].endswith(f"/{program}")]
        for number in numbers:
            os.kill(number, signal.SIGKILL)
        return len(numbers)

    def start_head(self, cpus: int = 3) -> str:
        """Start a cluster of one node; return its address."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={port}"]
        command += [f"--num-cpus={cpus}", "--include-dashboard=false", "--disable-usage-stats"]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return f"127.0.0.1:{port}"

    def train(self, folder: Path, *arguments: str) -> subprocess.Popen[str]:
        """Start a command in a session of its own; ``folder``: where it writes."""
        command = [
            sys.executable, "-m", "limelight", "train", *arguments, "--run-dir", str(folder), "--runner", "ray",
        ]  # fmt: skip
        return self.run(command)

    def run(self, command: list[str]) -> subprocess.Popen[str]:
        """Start a command in a session of its own, with Python's handler of Ctrl-C."""
        return subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip

    def wait_until_none_is_left(self, seconds: float = 60.0) -> None:
        """Raise AssertionError, with those that are left, after some seconds; agents of Ray take ten and more."""
        deadline = time.monotonic() + seconds
        while left := self.processes():
            assert time.monotonic() < deadline, left
            time.sleep(0.1)


@contextmanager
def ray_commands() -> Iterator[RayCommands]:
    """End all processes at the end, and remove the note on the cluster that other commands would join."""
    commands = RayCommands()
    try:
        yield commands
    finally:
        for _ in range(20):
            for number in commands.processes():
                try:
                    os.kill(number, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if not commands.processes():
                break
            time.sleep(0.1)
        note = Path("/tmp/ray/ray_current_cluster")
        try:
            host, _, port = note.read_text().rpartition(":")
            socket.create_connection((host, int(port)), timeout=1.0).close()
        except ConnectionRefusedError:
            note.unlink(missing_ok=True)
        except (OSError, ValueError):
            pass


def wait_for_training(process: subprocess.Popen[str], folder: Path, seconds: float = 180.0) -> None:
    """Return once the run has written a row of metrics."""
    metrics, deadline = folder / "metrics.jsonl", time.monotonic() + seconds
    while not (metrics.exists() and metrics.stat().st_size):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
