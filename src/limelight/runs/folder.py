"""The files of a run folder, apart from its checkpoints: their names, formats and safe writing, and a new folder."""

from __future__ import annotations

import io
import json
import math
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

from limelight.errors import CheckpointError, ConfigError
from limelight.files import read_regular, write_text
from limelight.settings.io import save_yaml
from limelight.settings.schema import TrainConfig
from limelight.settings.values import require_short

CONFIG, COMMAND, SYSTEM, SUMMARY = "config.yaml", "command.txt", "system.json", "summary.json"
METRICS, MONITOR = "metrics.jsonl", "monitor.csv"
CRASH, CRASH_BEFORE = "crash.txt", "crash-before.txt"
"""The traceback of C code that has ended the process, and its name after a resume.

The first is empty while a run goes on, and absent after any other end.
"""
LOCK = "lock"
"""An empty file that the process that trains in a folder keeps locked; the other files are replaced by new ones."""
FINAL_EVAL_INTERRUPTED = "final_eval_interrupted"
"""The key of a summary, with the value true, where a signal has cut the final evaluation; absent elsewhere."""
MOST_JSON, _MOST_LINES = 64 << 20, 4 << 30
"""Bytes of a file of JSON or text, and of one with a record per line, above which it is not read."""
VIDEOS = "videos"
"""The folder of MP4 files, each with a JSON file of the same name that holds its :class:`VideoInfo`."""
EVALUATIONS = Path("runs") / "evaluations"
"""The folder of the files of evaluations of agents that belong to no run, a folder for each."""
MONITOR_COLUMNS = ("r", "l", "t", "step", "env", "worker")
"""Return, length, training seconds, the environment step at which the end of the episode was seen, and who ran it."""


@dataclass(frozen=True)
class VideoInfo:
    """How the episodes of a video were played, and their results."""

    which: str
    """The agent: best or last."""
    step: int | None
    """Environment steps of training before the video; None: it was made after training."""
    seed: int
    sampled: bool
    """The actions were sampled, not greedy."""
    returns: list[float]
    lengths: list[int]
    cut: bool
    """The last episode was cut."""


# --------------------------------------------------------------------------- a new run


def as_folder(run_dir: Any) -> Path:
    """Return the path that a user gave as the folder of a run.

    Raises: ConfigError for anything else, with a line that says what to pass.
    """
    if isinstance(run_dir, str | os.PathLike):
        if "\0" in os.fspath(run_dir):
            raise ConfigError(f"run_dir = {os.fspath(run_dir)!r}: holds a null character, which no path has")
        require_short("run_dir", os.fspath(run_dir))
        return Path(run_dir)
    instead = "its folder, result.run_dir" if hasattr(run_dir, "run_dir") else "the path of a run's folder"
    raise ConfigError(f"run_dir: is a {type(run_dir).__name__}; pass {instead}")


def require_empty(config: TrainConfig) -> None:
    """Refuse a ``run_dir`` that holds anything: no run is ever overwritten.

    Raises: ConfigError.
    """
    folder = as_folder(config.run_dir) if config.run_dir is not None else None
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"run_dir = {folder}: is not empty; name a new folder, or use --resume {folder}")


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Keep other processes from training in a run's folder meanwhile, by a lock that the kernel frees at any exit.

    Raises: ConfigError if another process holds it.
    """
    (folder / LOCK).touch()
    with no_process(folder) as is_free:
        if not is_free:
            raise ConfigError(f"resume = {folder}: another process trains there; wait for it or end it")
        yield


@contextmanager
def no_process(folder: Path) -> Iterator[bool]:
    """Yield whether no other process trains in a run's folder, and keep them from it meanwhile."""
    from limelight.runners.processes.portable import only_holder  # here, as the command line loads this module

    if not (folder / LOCK).exists():  # of an earlier version
        yield True
        return
    with only_holder(folder / LOCK) as is_free:
        yield is_free


def create_run_folder(config: TrainConfig, command: str) -> Path:
    """Make the run's folder and write ``config.yaml``, ``command.txt`` and ``system.json``.

    Raises: ConfigError if the folder is not empty or cannot be made.
    """
    folder = new_folder(config, f"{config.algorithm.algo}-{config.seed}")
    write_settings(folder, config, command)
    return folder


def write_settings(folder: Path, config: TrainConfig, command: str) -> None:
    """Write ``config.yaml``, ``command.txt`` and ``system.json``; the folder is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    save_yaml(config, folder / CONFIG)
    write_text(folder / COMMAND, command + "\n", errors="surrogateescape")
    write_json(folder / SYSTEM, system_info())


def read_command(folder: Path) -> str:
    """Return the command line of a run; an empty text where its file is missing."""
    path = folder / COMMAND
    return read_regular(path, MOST_JSON).decode("utf-8", "replace").strip() if path.is_file() else ""


def new_folder(config: TrainConfig, name: str) -> Path:
    """Make the folder ``run_dir``, or ``runs/<env>/<name>-<time>`` where that is not set.

    Raises: ConfigError if the folder is not empty or cannot be made.
    """
    require_empty(config)
    folder = Path(config.run_dir) if config.run_dir is not None else _default_folder(config, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"run_dir = {folder}: cannot be made ({error.strerror})") from None
    return folder


def empty_folder(path: Path, name: str) -> Path:
    """Make a folder that a user gave as the argument ``name``, or take it if it is empty; return it.

    Raises: ConfigError.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise ConfigError(f"{name} = {path}: is not empty; give a new folder")
    except OSError as error:
        raise ConfigError(f"{name} = {path}: cannot be made ({error.strerror})") from None
    return path


def _default_folder(config: TrainConfig, name: str) -> Path:
    """Return ``runs/<env>/<name>-<time>``, with a number appended if two runs start in the same second."""
    env = re.sub(r"[^\w.-]+", "_", config.env.env_id)
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path("runs") / env / stem
    n = 2
    while folder.exists():
        folder = folder.with_name(f"{stem}-{n}")
        n += 1
    return folder


def system_info() -> dict[str, Any]:
    """Return the versions of the packages and a description of the machine, flat."""
    info: dict[str, Any] = {
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    for package in ("limelight-rl", "torch", "numpy", "gymnasium"):
        try:
            info[package] = version(package)
        except PackageNotFoundError:
            info[package] = "not installed"
    return info


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# --------------------------------------------------------------------------- JSON


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write ``data`` as valid JSON (NaN and ±inf become null); a reader sees the old file or the new one, whole."""
    text = json.dumps(as_json(data), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", durable=True)


def as_json(value: Any) -> Any:
    """Return plain data as JSON has it: NaN and ±inf are None, tuples are lists."""
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return finite_or_none(value) if isinstance(value, float) else value


def finite_or_none(value: float) -> float | None:
    """Return ``value``; None for NaN and ±inf, which JSON does not have."""
    return value if math.isfinite(value) else None


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file; an empty one if there is no file.

    Raises: CheckpointError if the file holds anything else, or is no regular file of at most 64 MiB.
    """
    if not path.exists():
        return {}
    try:
        data = json.loads(read_regular(path, MOST_JSON).decode("utf-8"))
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: damaged (not a JSON object); remove it to go on without it")
    return data


# --------------------------------------------------------------------------- one record per line


def open_lines(path: Path, keep: Callable[[str], bool] | None) -> TextIO:
    """Open a file to write lines to: a new one; with ``keep``, the existing one with only the lines it accepts.

    A last line that was cut short is never kept.

    Raises: OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if keep is not None and path.exists():
        kept = [line for line in read_lines(path) if keep(line)]
        write_text(path, "".join(kept))
        return path.open("a", encoding="utf-8", newline="\n")
    return path.open("w", encoding="utf-8", newline="\n")


def read_lines(path: Path) -> list[str]:
    """Return the whole lines of a file, each with its line break; the last one may have been cut short by a kill.

    Raises: CheckpointError if it is no regular file of at most 4 GiB.
    """
    if not path.exists():
        return []
    lines = io.BytesIO(read_regular(path, _MOST_LINES))
    return [line.decode("utf-8", "replace") for line in lines if line.endswith(b"\n")]
