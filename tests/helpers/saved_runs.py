"""A small finished run on CartPole, stored beside the tests, and files with valid digests but any content."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORMATS = Path(__file__).parents[1] / "faults" / "formats"


def copy_of_run(folder: Path, number: int = 2) -> Path:
    """Copy the run of a checkpoint format to ``folder / "run"``."""
    return shutil.copytree(FORMATS / f"format-{number}", folder / "run")


def checkpoint_of(run: Path) -> Path:
    """The folder of the only checkpoint."""
    return next((run / "checkpoints").iterdir())


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the content of a saved state, and make its digest right again, as a stranger would."""
    path = folder / "state.json"
    document = json.loads(path.read_text())
    replaced = change(document["content"])
    content = document["content"] if replaced is None else replaced
    document["content"] = content
    document["sha256"] = hashlib.sha256(dumps(content)).hexdigest()
    path.write_bytes(dumps(document))


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def add_newer(run: Path, step: int = 400) -> Path:
    """Add a copy of the checkpoint under a later step."""
    return shutil.copytree(checkpoint_of(run), run / "checkpoints" / f"step_{step:012d}")
