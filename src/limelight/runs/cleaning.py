"""Cleaning of run folders: checkpoints are dropped, results and the best agent stay."""

from __future__ import annotations

import contextlib
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from limelight.errors import CheckpointError
from limelight.files import SUFFIX
from limelight.runs.checkpoint import checkpoint_folders, is_intact, latest_checkpoint
from limelight.runs.folder import SUMMARY, no_process, read_json
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


def clean(folder: Path, include_unfinished: bool = False, is_named: bool = True) -> Cleaned:
    """Remove the checkpoints of a run and what killed writers left; keep results, videos and the agent to evaluate.

    Only folders with the name of a checkpoint are removed, and none through a link: what lies elsewhere stays. A run
    without an intact best agent keeps its newest intact checkpoint. A run that goes on is left as it is, and so is one
    that did not come to its end, unless ``include_unfinished``: it could not be resumed any more. A link to a run is
    followed only where it was named itself, ``is_named``, and not found in a folder of runs.

    Raises: CheckpointError naming a file that cannot be read or removed.
    """
    if folder.is_symlink() and not is_named:
        return Cleaned(folder, 0, None, f"a link to {folder.resolve()}; name that folder")
    with no_process(folder) as is_free:
        if not is_free:
            return Cleaned(folder, 0, None, "a process trains there")
        if not include_unfinished and read_json(folder / SUMMARY).get("status") not in FINISHED:
            return Cleaned(folder, 0, None, "not at its end, and resuming needs the checkpoints; see --unfinished")
        parent = folder / "checkpoints"
        if parent.is_symlink():
            return Cleaned(folder, 0, None, f"checkpoints is a link to {parent.resolve()}, outside the run")
        kept = None if is_intact(folder / "best") else latest_checkpoint(folder)
        removed = [path for path in checkpoint_folders(folder) if path != kept]
        removed += folder.glob(f".*{SUFFIX}")
        freed = sum(_remove(path) for path in removed)
        with contextlib.suppress(OSError):
            parent.rmdir()  # only if it is empty
    return Cleaned(folder, freed, kept)


def _remove(path: Path) -> int:
    """Remove a file or folder; return the bytes it had on the disk that no other checkpoint has too."""
    is_folder = path.is_dir() and not path.is_symlink()
    try:
        statuses = [file.lstat() for file in (path.rglob("*") if is_folder else [path])]
        size = sum(status.st_size for status in statuses if stat.S_ISREG(status.st_mode) and status.st_nlink == 1)
        if is_folder:
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        raise CheckpointError(f"{error.filename or path}: cannot be removed ({error.strerror})") from None
    return size
