"""Arguments of processes: one that takes long to be read, and a function that registers its last words."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from limelight.runners.processes.child import before_exit


def _read(folder: str) -> str:
    part = Path(folder, "part")
    part.write_text(str(os.getpid()))
    part.replace(Path(folder, "reading"))
    time.sleep(60)
    return folder


class SlowToRead:
    """Takes a minute to be read by another process."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return _read, (self.folder,)


def registers(folder: str) -> None:
    before_exit(Path(folder, "last").touch)
    Path(folder, "registered").touch()
    time.sleep(60)
