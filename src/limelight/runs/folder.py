"""What a run leaves on disk, apart from its checkpoints and logs: folder, config, command, system, summary."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from limelight.errors import ConfigError
from limelight.settings.io import save_yaml
from limelight.settings.schema import TrainConfig


def require_empty(config: TrainConfig) -> None:
    """Raises: ConfigError if ``run_dir`` is given and something is in it: no run is ever overwritten."""
    folder = Path(config.run_dir) if config.run_dir is not None else None
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"run_dir = {folder}: is not empty; name a new folder, or use --resume {folder}")


def create_run_folder(config: TrainConfig, command: str) -> Path:
    """Make the run's folder and write ``config.yaml``, ``command.txt`` and ``system.json``.

    Raises: ConfigError if the folder is not empty or cannot be made.
    """
    require_empty(config)
    folder = Path(config.run_dir) if config.run_dir is not None else _default_folder(config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"run_dir = {folder}: cannot be made ({error.strerror})") from None
    save_yaml(config, folder / "config.yaml")
    (folder / "command.txt").write_text(command + "\n", encoding="utf-8")
    write_json(folder / "system.json", system_info())
    return folder


def _default_folder(config: TrainConfig) -> Path:
    """``runs/<env>/<algo>-<seed>-<time>``, with a number behind it if two runs start in the same second."""
    env = re.sub(r"[^\w.-]+", "_", config.env.env_id)
    stem = f"{config.algorithm.algo}-{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, n = Path("runs") / env / stem, 2
    while folder.exists():
        folder, n = folder.with_name(f"{stem}-{n}"), n + 1
    return folder


def system_info() -> dict[str, Any]:
    """Versions and machine, flat."""
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


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write ``data`` so that a reader sees the old file or the new one, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
