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
from limelight.runners.processes.portable import only_holder
from limelight.runs.checkpoint import fitting
from limelight.runs.folder import CONFIG, CRASH, METRICS, SUMMARY, SYSTEM, read_json, read_lines
from limelight.settings.io import load_yaml

FINISHED = ("completed", "reached_return", "stopped")
"""Values of ``status`` in summary.json of a run that has come to its end."""


@dataclass(frozen=True)
class RunEntry:
    """A run in a list."""

    path: Path
    env: str
    algo: str
    steps: int
    """Environment steps so far."""
    status: str
    """finished, running, stopped, failed, crashed (C code ended the process), or damaged."""
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
    except LimelightError:
        return RunEntry(path, "", "", 0, "damaged", None, None, now - began)


def _read_entry(path: Path, now: float, began: float) -> RunEntry:
    config, summary = load_yaml(path / CONFIG), read_json(path / SUMMARY)
    rows = _rows(path / METRICS)
    with only_holder(path / CONFIG) as is_free:
        status = _status(summary, is_free)
    if status == "stopped" and crash_line(path / CRASH) is not None:
        status = "crashed"
    evaluations = [value for row in rows if (value := row.get("eval/mean_reward")) is not None]
    best = summary.get("best_eval_return")
    return RunEntry(
        path,
        config.env.env_id,
        config.algorithm.algo,
        int(max([summary.get("total_timesteps", 0), *(row["step"] for row in rows[-1:])])),
        status,
        next((value for row in reversed(rows) if (value := row.get("rollout/ep_rew_mean")) is not None), None),
        max(evaluations, default=None) if best is None or status == "running" else best,
        max(0.0, now - began),
    )


def status_in_words(folder: Path, summary: Mapping[str, Any]) -> str:
    """Return how a run ended; for one without an end whether a process of this machine trains there."""
    if "status" in summary:
        return str(summary["status"]).replace("_", " ")
    with only_holder(folder / CONFIG) as is_free:
        if is_free and (crash := crash_line(folder / CRASH)) is not None:
            return f"{crash}; see {CRASH}"
        return "killed (or running on another machine)" if is_free else "running"


def _status(summary: Mapping[str, Any], is_free: bool) -> str:
    """Return the status of a run; a killed one has no summary of its end, and holds no lock."""
    if not is_free:
        return "running"
    status = summary.get("status")
    return "finished" if status in FINISHED else "failed" if status == "failed" else "stopped"


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
