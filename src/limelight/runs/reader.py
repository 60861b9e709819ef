"""A run folder read back: configuration, summary, metrics, episodes and videos, of finished and unfinished runs."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from limelight.errors import CheckpointError
from limelight.files import is_regular_within
from limelight.runs.folder import (
    CONFIG,
    METRICS,
    MONITOR,
    MONITOR_COLUMNS,
    SUMMARY,
    SYSTEM,
    VIDEOS,
    VideoInfo,
    read_command,
    read_json,
    read_lines,
)
from limelight.runs.origin import read_parent
from limelight.settings.io import load_yaml
from limelight.settings.schema import TrainConfig

Floats = NDArray[np.float64]
_SHOWN = (
    "env_id", "algorithm", "status", "error", "parent", "seed", "total_timesteps", "total_episodes", "wall_seconds",
    "steps_per_second", "best_eval_return", "final_eval_return", "final_eval_std", "final_eval_episodes",
    "solved_at_step", "solved_at_seconds", "parent_step",
)  # fmt: skip
"""Parts of a summary that are read as text or as numbers."""
_LARGEST = 1e300
"""Numbers of a summary are below it, as they are added and multiplied for tables."""


class Series(NamedTuple):
    """One metric over the run; the three arrays have one length."""

    steps: Floats
    """Environment steps."""
    seconds: Floats
    """Training seconds, evaluation not counted."""
    values: Floats
    """nan where the value was not finite."""


@dataclass(frozen=True)
class Video:
    """An MP4 file of a run."""

    path: Path
    info: VideoInfo | None
    """How it was played; None where there is only the video."""


@dataclass(frozen=True)
class RunData:
    """The content of a run folder; files that do not exist yet give empty values."""

    folder: Path
    config: TrainConfig
    summary: dict[str, Any]
    system: dict[str, Any]
    command: str
    episodes: Series
    """Raw returns of the training episodes, in the order they finished."""
    metrics: tuple[dict[str, Any], ...]
    """Rows of metrics.jsonl."""
    videos: tuple[Video, ...]
    """Those of training by step, then the others by name."""
    parent: dict[str, Any] | None = None
    """The content of parent.json of a branch; its rows and episodes up to that step are the parent's."""

    def series(self, name: str) -> Series:
        """Return the metric ``name`` over the rows that have it."""
        rows = [row for row in self.metrics if name in row]
        data = np.array([(row["step"], row["seconds"], row[name]) for row in rows], np.float64).reshape(-1, 3)
        return Series(*data.T)

    def total(self, name: str) -> int | None:
        """Return the total of a counter, which a resumed run counts from 0 again; None without any row of it."""
        values = self.series(name).values
        return int(np.diff(values, prepend=0.0).clip(min=0.0).sum()) if len(values) else None

    def metric_names(self) -> list[str]:
        """Return the names of all metrics, in the order they first appear."""
        return list(dict.fromkeys(name for row in self.metrics for name in row if name not in ("step", "seconds")))


def read_run(folder: Path) -> RunData:
    """Read a run, finished or not.

    Raises: LimelightError when ``folder`` is not a run folder, or naming the file in it that is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; give the folder of a run")
    return RunData(
        folder=folder,
        config=load_yaml(folder / CONFIG),
        summary=_read_summary(folder / SUMMARY),
        system=read_json(folder / SYSTEM),
        command=read_command(folder),
        episodes=_read_episodes(folder / MONITOR),
        metrics=_read_rows(folder / METRICS),
        videos=_read_videos(folder / VIDEOS),
        parent=read_parent(folder),
    )


def _read_videos(folder: Path) -> tuple[Video, ...]:
    paths = [path for path in sorted(folder.glob("[!.]*.mp4")) if is_regular_within(path, folder.parent)]
    videos = [Video(path, _read_info(path.with_suffix(".json"))) for path in paths]
    return tuple(sorted(videos, key=lambda video: (video.info and video.info.step) or math.inf))


def _read_info(path: Path) -> VideoInfo | None:
    data = read_json(path)
    names = [field.name for field in dataclasses.fields(VideoInfo)]
    missing = [name for name in names if name not in data]
    if data and missing:
        raise CheckpointError(f"{path}: damaged (no {', '.join(missing)}); remove it to go on without it")
    return VideoInfo(**{name: data[name] for name in names}) if data else None


def _read_rows(path: Path) -> tuple[dict[str, Any], ...]:
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            row = json.loads(line)
            _require_numbers(row)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
            raise CheckpointError(f"{path}: line {number} is damaged; remove it") from None
        rows.append(row)
    return tuple(rows)


def _require_numbers(row: dict[str, Any]) -> None:
    """Refuse a row without step and seconds, or with anything but finite numbers and null.

    Raises: ValueError, TypeError or the like.
    """
    for name, value in row.items():
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise ValueError(name)
    if row["step"] is None or row["seconds"] is None:
        raise ValueError("step")


def _read_summary(path: Path) -> dict[str, Any]:
    """Return the summary of a run, after checking the types of what is shown of it."""
    summary = read_json(path)
    for name, value in summary.items():
        is_text = name in ("env_id", "algorithm", "status", "error", "parent")
        is_right = isinstance(value, str) if is_text else isinstance(value, int | float) and abs(value) < _LARGEST
        if name in _SHOWN and value is not None and not is_right:
            raise CheckpointError(f"{path}: damaged ({name} = {str(value)[:100]!r}); remove it to go on without it")
    return summary


def _read_episodes(path: Path) -> Series:
    lines = [line for line in read_lines(path)[2:] if line.strip()]  # after the header and the names of the columns
    if not lines:
        return Series(*np.empty((3, 0)))
    try:
        columns = np.loadtxt(lines, delimiter=",", ndmin=2, usecols=range(len(MONITOR_COLUMNS)), comments=None).T
        if not np.isfinite(columns).all():
            raise ValueError
    except (ValueError, OverflowError):
        raise CheckpointError(f"{path}: damaged (not lines of {','.join(MONITOR_COLUMNS)})") from None
    returns, _, seconds, steps, _, _ = columns
    order = np.argsort(steps, kind="stable")  # reports of asynchronous workers may overlap
    returns, seconds, steps = returns[order], seconds[order], steps[order]
    return Series(spread(steps), spread(seconds), returns)


def spread(values: Floats) -> Floats:
    """Place episodes with equal values in a row evenly between these and the values before, [N] → [N]."""
    first = np.flatnonzero(np.diff(values, prepend=np.nan))  # nan differs from everything
    counts = np.diff(first, append=len(values))
    ends = values[first]
    starts = np.concatenate([[0.0], ends[:-1]])
    share = (np.arange(len(values)) - np.repeat(first, counts) + 1) / np.repeat(counts, counts)
    spread: Floats = np.repeat(starts, counts) + np.repeat(ends - starts, counts) * share
    return spread
