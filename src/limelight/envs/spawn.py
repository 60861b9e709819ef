"""Whether this program, or a worker process, may start processes."""

from __future__ import annotations

import sys
from multiprocessing import current_process
from pathlib import Path


def why_no_workers() -> str | None:
    """Return why worker processes must not be started from here, and what would help; None if they may be.

    A worker process imports the main script, so a script that trains at its top level would train in every worker.
    """
    if getattr(current_process(), "_inheriting", False):
        return "a worker process is importing a script that trains; put the training under if __name__ == '__main__':"
    if current_process().daemon:
        return "this process is a daemon of multiprocessing, which may start none; start it with daemon=False"
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script is None or not script.endswith(".py") or not Path(script).is_file():
        return None
    if "__main__" in Path(script).read_text(encoding="utf-8", errors="replace"):
        return None
    return f"{Path(script).name} has no if __name__ == '__main__': guard, which worker processes need; add it"


def allow_children() -> None:
    """Let this process start processes of its own, as some environments do; multiprocessing forbids it in daemons."""
    current_process()._config["daemon"] = False  # type: ignore[attr-defined]
