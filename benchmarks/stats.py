"""Tools of the benchmark scripts: the machine, results as JSON, tables as Markdown.

The module imports neither PyTorch nor the heavy parts of Limelight, so every script's ``--help`` is quick.
"""

from __future__ import annotations

import json
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import limelight
from limelight.runs.folder import system_info
from limelight.settings.io import all_settings, get_setting
from limelight.settings.schema import TrainConfig
from limelight.viewing.tables import markdown_table as markdown_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


# --------------------------------------------------------------------------- provenance


def machine() -> dict[str, Any]:
    """Return processor, cores and versions, Stable-Baselines3's among them."""
    info = system_info()
    try:
        info["stable-baselines3"] = version("stable-baselines3")
    except PackageNotFoundError:
        info["stable-baselines3"] = "not installed"
    return info


def machine_slug() -> str:
    """Return the machine as part of a file name, such as ``amd-epyc-9b14-2-cores``."""
    info = system_info()
    words = re.findall(r"[a-z0-9]+", re.sub(r"\((r|tm)\)", " ", info["processor"].lower()))
    return "-".join([*(w for w in words if w not in ("cpu", "processor")), str(info["cpu_count"]), "cores"])


def git_commit() -> str:
    """Return the commit of the measured sources, followed by ``-dirty`` if the sources differ from it.

    The result is ``unknown`` without git, or if the imported limelight is not the one of this checkout.
    """

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    if not Path(limelight.__file__).resolve().is_relative_to(ROOT / "src"):
        return "unknown"
    try:
        changed = git("status", "--porcelain", "--", "src", "benchmarks", ":!benchmarks/results")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def short_commit(commit: str) -> str:
    """Return the result of :func:`git_commit` with 12 digits, such as ``30871ec27ae6-dirty``."""
    sha, dash, dirty = commit.partition("-")
    return sha[:12] + dash + dirty


def provenance(benchmark: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the head of a results file: benchmark, commit, settings and machine."""
    return {"benchmark": benchmark, "commit": git_commit(), "settings": settings, "machine": machine()}


def flat_settings(config: TrainConfig) -> dict[str, Any]:
    """Return every setting of a run by its plain name, with tuples as lists, as in JSON."""
    values = {name: get_setting(config, name) for name in all_settings()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def results_path(benchmark: str, output: Path | None) -> Path:
    """Return ``output``, or the default file of this benchmark for this machine."""
    return output or RESULTS / f"{benchmark}-{machine_slug()}.json"


# --------------------------------------------------------------------------- output


def save_json(path: Path, data: dict[str, Any]) -> None:
    """Write ``data`` atomically, indented, with plain lists on one line."""
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    one_line = re.sub(r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda found: "[" + re.sub(r"\n\s*", " ", found[1]) + "]", text)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(one_line + "\n", encoding="utf-8")
    temporary.replace(path)


def number(value: float | None, digits: int = 0, missing: str = "–") -> str:
    """Return ``value`` as ``12,345`` or ``12.3``, or ``missing`` for None."""
    return missing if value is None else f"{value:,.{digits}f}"
