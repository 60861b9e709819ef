"""Cleaning of run folders: checkpoints are dropped, results and the best agent stay."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from limelight.errors import CheckpointError
from limelight.runners.processes.portable import only_holder
from limelight.runs.checkpoint import is_intact, latest_checkpoint
from limelight.runs.folder import CONFIG, SUMMARY, read_json
from limelight.runs.listing import FINISHED


@dataclass(frozen=True)
class Cleaned:
    """The outcome for a run folder."""

    path: Path
    freed: int
    """Bytes of the files that were removed."""
    kept: Path | None
    """The checkpoint that stays because it is the run's only agent; None where the best agent is intact."""
    reason: str | None = None
    """Why nothing was removed; None if the folder was cleaned."""


def clean(folder: Path, include_unfinished: bool = False) -> Cleaned:
    """Remove the checkpoints of a run and what killed writers left; keep results, videos and the agent to evaluate.

    A run without an intact best agent keeps its newest intact checkpoint. A run that goes on is left as it is, and so
    is one that did not come to its end, unless ``include_unfinished``: it could not be resumed any more.

    Raises: CheckpointError naming a file that cannot be read or removed.
    """
    with only_holder(folder / CONFIG) as is_free:
        if not is_free:
            return Cleaned(folder, 0, None, "a process trains there")
        if not include_unfinished and read_json(folder / SUMMARY).get("status") not in FINISHED:
            return Cleaned(folder, 0, None, "not at its end, and resuming needs the checkpoints; see --unfinished")
        kept = None if is_intact(folder / "best") else latest_checkpoint(folder)
        parent = folder / "checkpoints"
        removed = [path for path in parent.iterdir() if path != kept] if parent.is_dir() else []
        removed += folder.glob(".*.tmp")
        freed = sum(_remove(path) for path in removed)
        with contextlib.suppress(OSError):
            parent.rmdir()  # only if it is empty
    return Cleaned(folder, freed, kept)


def _remove(path: Path) -> int:
    """Remove a file or folder; return the bytes it had on the disk that no other checkpoint has too."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    try:
        size = sum(file.stat().st_size for file in files if file.stat().st_nlink == 1)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        raise CheckpointError(f"{error.filename or path}: cannot be removed ({error.strerror})") from None
    return size
