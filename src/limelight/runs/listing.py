"""The runs in a folder: what each trained on, how far it came, whether it goes on, and its returns."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from limelight.envs.crashes import crash_line
from limelight.errors import CheckpointError, LimelightError
from limelight.runs.checkpoint import checkpoints, fitting
from limelight.runs.folder import CONFIG, CRASH, METRICS, SUMMARY, SYSTEM, no_process, read_json, read_lines
from limelight.settings.io import load_yaml

FINISHED = ("completed", "reached_return", "stopped")
"""Values of ``status`` in summary.json of a run that has come to its end."""
ENDED = (*FINISHED, "interrupted", "failed")
"""All values of ``status`` in summary.json."""


@dataclass(frozen=True)
class RunEntry:
    """A run in a list."""

    path: Path
    env: str
    algo: str
    steps: int
    """Environment steps so far."""
    status: str
    """As :func:`status_of`, or damaged."""
    last_return: float | None
    """Mean return of the last 100 training episodes; None before the first has ended."""
    best_return: float | None
    """Best evaluation; None without any."""
    age: float
    """Seconds since the run began."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "path": str(self.path)}


def list_runs(folder: Path) -> list[RunEntry]:
    """Return the runs in a folder and in its folders at any depth, the newest first.

    Raises: CheckpointError if there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; give a folder of runs, such as the default runs")
    now = time.time()
    entries = sorted((_entry(path, now) for path in _run_folders(folder)), key=lambda entry: entry.age)
    if not entries:
        raise CheckpointError(f"{folder}: no run in it; limelight train writes its runs to runs")
    return entries


def _run_folders(folder: Path) -> Iterator[Path]:
    """Yield the folders of runs; those inside a run are not searched, nor hidden ones."""
    for path, folders, files in os.walk(folder):
        if CONFIG in files:
            folders.clear()
            yield Path(path)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _entry(path: Path, now: float) -> RunEntry:
    """Read the files of a run; one that cannot be read is listed as damaged."""
    began = _began(path)
    try:
        with fitting(path):
            return _read_entry(path, now, began)
    except (LimelightError, OSError):
        return RunEntry(path, "", "", 0, "damaged", None, None, now - began)


def _read_entry(path: Path, now: float, began: float) -> RunEntry:
    config, summary = load_yaml(path / CONFIG), read_json(path / SUMMARY)
    rows = _rows(path / METRICS)
    status = status_of(path, summary)
    evaluations = [value for row in rows if (value := row.get("eval/mean_reward")) is not None]
    best = summary.get("best_eval_return")
    saved = [int(folder.name.removeprefix("step_")) for folder in checkpoints(path)[-1:]]
    return RunEntry(
        path,
        config.env.env_id,
        config.algorithm.algo,
        int(max([summary.get("total_timesteps", 0), *saved, *(row["step"] for row in rows[-1:])])),
        status,
        next((value for row in reversed(rows) if (value := row.get("rollout/ep_rew_mean")) is not None), None),
        max(evaluations, default=None) if best is None or status == "running" else best,
        max(0.0, now - began),
    )


def status_of(folder: Path, summary: Mapping[str, Any]) -> str:
    """Return ``running``, the status of the summary, ``crashed`` (by C code), or ``broken_off`` without any of these.

    A run that was killed leaves no summary; one on another machine cannot be told from it.
    """
    with no_process(folder) as is_free:
        if not is_free:
            return "running"
    if summary.get("status") in ENDED:
        return str(summary["status"])
    return "broken_off" if crash_line(folder / CRASH) is None else "crashed"


def status_in_words(folder: Path, summary: Mapping[str, Any]) -> str:
    """Return :func:`status_of` with what is known of it."""
    status = status_of(folder, summary)
    if status == "crashed":
        return f"{crash_line(folder / CRASH)}; see {CRASH}"
    return "broken off (killed, or running on another machine)" if status == "broken_off" else in_words(status)


def in_words(status: str) -> str:
    """Return a status as it is shown: ``reached return``."""
    return status.replace("_", " ")


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl that can be read."""
    rows = []
    for line in read_lines(path):
        try:
            row = json.loads(line)
            if math.isfinite(row["step"]):
                rows.append(row)
        except (
            ValueError,
            KeyError,
            TypeError,
            OverflowError,
            RecursionError,
        ):  # a list leaves a damaged line out; a report names it
            continue
    return rows


def _began(path: Path) -> float:
    """Return the Unix time at which a run began."""
    try:
        return datetime.fromisoformat(read_json(path / SYSTEM)["started"]).timestamp()
    except (LimelightError, KeyError, TypeError, ValueError, OverflowError):
        return (path / CONFIG).stat().st_mtime
