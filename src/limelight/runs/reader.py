"""Reads back what a run folder holds; used by report.py and plots.py."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from limelight.errors import ConfigError
from limelight.settings.io import load_yaml
from limelight.settings.schema import TrainConfig

Floats = NDArray[np.float64]
VIDEOS = "videos"
"""Folder of a run for videos, each with a JSON file of its name."""


class Series(NamedTuple):
    """One metric over the run; the three arrays are of one length."""

    steps: Floats
    """Environment steps."""
    seconds: Floats
    """Training seconds, evaluation not counted."""
    values: Floats
    """nan where the value was not finite."""


@dataclass(frozen=True)
class Video:
    """An MP4 file of a run, and what was played in it."""

    path: Path
    about: dict[str, Any]
    """which (agent), step (of training; None: afterwards), seed, sampled (actions), returns, lengths, cut; empty where
    there is only the video."""


@dataclass(frozen=True)
class RunData:
    """A run as its folder tells it; what has not been written yet is empty."""

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

    def series(self, name: str) -> Series:
        """The rows that carry the metric ``name``."""
        rows = [row for row in self.metrics if name in row]
        data = np.array([(row["step"], row["seconds"], row[name]) for row in rows], np.float64).reshape(-1, 3)
        return Series(*data.T)

    def total(self, name: str) -> int | None:
        """What a counter has come to, one that a resumed run starts anew from 0 included; None without it."""
        values = self.series(name).values
        return int(np.diff(values, prepend=0.0).clip(min=0.0).sum()) if len(values) else None

    def metric_names(self) -> list[str]:
        """Names of all metrics, in the order they first appear."""
        return list(dict.fromkeys(name for row in self.metrics for name in row if name not in ("step", "seconds")))


def read_run(folder: Path) -> RunData:
    """Read a run, finished or not.

    Raises: ConfigError when ``folder`` is not a run folder, or naming the file in it that is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give the folder of a run")
    command = folder / "command.txt"
    return RunData(
        folder=folder,
        config=load_yaml(folder / "config.yaml"),
        summary=_read_json(folder / "summary.json"),
        system=_read_json(folder / "system.json"),
        command=command.read_text(encoding="utf-8").strip() if command.exists() else "",
        episodes=_read_episodes(folder / "monitor.csv"),
        metrics=_read_rows(folder / "metrics.jsonl"),
        videos=_read_videos(folder / VIDEOS),
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: damaged (not a JSON object); remove it to report without it")
    return data


def _read_videos(folder: Path) -> tuple[Video, ...]:
    videos = [Video(path, _read_about(path.with_suffix(".json"))) for path in sorted(folder.glob("[!.]*.mp4"))]
    return tuple(sorted(videos, key=lambda video: video.about.get("step") or math.inf))


def _read_about(path: Path) -> dict[str, Any]:
    about = _read_json(path)
    missing = {"which", "step", "seed", "sampled", "returns", "lengths", "cut"} - about.keys()
    if about and missing:
        raise ConfigError(f"{path}: damaged (no {', '.join(sorted(missing))}); remove it to report without it")
    return about


def _read_lines(path: Path) -> list[str]:
    """The whole lines of a file; the last one may have been cut short by a kill."""
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _read_rows(path: Path) -> tuple[dict[str, Any], ...]:
    rows = []
    for number, line in enumerate(_read_lines(path), 1):
        try:
            row = json.loads(line)
            row["step"], row["seconds"]
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"{path}: line {number} is damaged; remove it") from None
        rows.append(row)
    return tuple(rows)


def _read_episodes(path: Path) -> Series:
    lines = _read_lines(path)[2:]
    if not lines:
        return Series(*np.empty((3, 0)))
    try:
        returns, _, seconds, steps = np.loadtxt(lines, delimiter=",", ndmin=2).T
    except ValueError:
        raise ConfigError(f"{path}: damaged (not lines of r,l,t,step)") from None
    order = np.argsort(steps, kind="stable")  # reports of asynchronous workers may overlap
    returns, seconds, steps = returns[order], seconds[order], steps[order]
    return Series(_spread(steps), _spread(seconds), returns)


def _spread(values: Floats) -> Floats:
    """Place episodes with equal values in a row evenly between these and the values before, [N] → [N]."""
    first = np.flatnonzero(np.diff(values, prepend=np.nan))  # nan differs from everything
    counts = np.diff(first, append=len(values))
    ends = values[first]
    starts = np.concatenate([[0.0], ends[:-1]])
    share = (np.arange(len(values)) - np.repeat(first, counts) + 1) / np.repeat(counts, counts)
    spread: Floats = np.repeat(starts, counts) + np.repeat(ends - starts, counts) * share
    return spread
