"""Runs commands of limelight in forked processes, and ends each at a random moment. Run as a script.

All of limelight is imported once, before the forks, so that a run takes a fraction of a second. Arguments: JSON with
``argv`` of the run, ``folder``, ``seed``, ``moments``, ``signal``, and ``resume``. Prints one line of JSON per moment.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # not in workers, which load a script before they know their parent
    from limelight.cli import main as cli

    TRAINING = importlib.import_module("limelight.training.run")


def fork(argv: list[str], output: Path) -> int:
    """Run a command line in a forked process of its own group; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    status = 1
    try:
        status = cli.main(argv)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def children_of(group: int) -> list[int]:
    """Return the processes of a session that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == group and fields[0] not in "ZX":
                found.append(int(stat.parent.name))
    return found


def left_behind(names: set[str]) -> list[str]:
    """Return which files of shared memory no process uses: those of others on this machine are in use."""
    names = {name for name in names if name.startswith(("pym", "psm", "sem", "torch"))}
    used = ""
    for maps in Path("/proc").glob("[0-9]*/maps") if names else ():
        with contextlib.suppress(OSError):
            used += maps.read_text()
    return sorted(name for name in names if name not in used and Path("/dev/shm", name).exists())


def one(plan: dict, number: int, moment: float, rng: random.Random) -> dict:
    folder, output = Path(plan["folder"]) / f"r{number}", Path(plan["folder"]) / f"r{number}.txt"
    shm = set(os.listdir("/dev/shm"))
    pid = fork([*plan["argv"], "--run-dir", str(folder)], output)
    time.sleep(moment)
    number_of_signal = rng.choice(plan["signals"])
    began = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number_of_signal)
    if plan.get("twice"):
        time.sleep(rng.uniform(0.0, 0.05))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number_of_signal)
    status = wait(pid)
    ended = time.monotonic() - began
    while children_of(pid) and time.monotonic() < began + ended + 5.0:
        time.sleep(0.02)
    row = {
        "folder": str(folder), "moment": moment, "signal": number_of_signal, "status": status, "ended": ended,
        "children_gone": time.monotonic() - began - ended, "left": len(children_of(pid)),
        "shm": left_behind(set(os.listdir("/dev/shm")) - shm),
        "output": output.read_text()[-2000:],
    }  # fmt: skip
    checkpoints = folder / "checkpoints"
    if plan["resume"] and checkpoints.is_dir() and any(checkpoints.glob("step_*")):
        row["resumed"] = wait(fork(["train", "--resume", str(folder), "--quiet"], Path(f"{output}.resumed")))
    return row


def main(plan: dict) -> None:
    if not plan["report"]:
        TRAINING.draw_report = lambda run_dir: None
    rng = random.Random(plan["seed"])
    first = Path(plan["folder"]) / "whole"
    began = time.monotonic()
    status = wait(fork([*plan["argv"], "--run-dir", str(first)], Path(f"{first}.txt")))
    seconds = time.monotonic() - began
    print(json.dumps({"folder": str(first), "status": status, "seconds": seconds}), flush=True)
    for number in range(plan["moments"]):
        moment = seconds * rng.uniform(0.0, 1.0 if not plan["early"] else 0.3)
        print(json.dumps(one(plan, number, moment, rng)), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
