"""Tools of the benchmark scripts: statistics over seeds, the machine, results as JSON, tables as Markdown.

The module imports neither PyTorch nor the heavy parts of Limelight, so every script's ``--help`` is quick.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

import limelight
from limelight.runs.folder import system_info
from limelight.settings.io import all_settings, get_setting
from limelight.settings.schema import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

Array = NDArray[np.float64]


# --------------------------------------------------------------------------- statistics


def iqm(values: Array) -> Array:
    """Return the interquartile mean over the last axis: the mean without the lowest and the highest quarter.

    Raises: ValueError if the last axis is empty.
    """
    count = values.shape[-1]
    if count == 0:
        raise ValueError("the interquartile mean of an empty axis")
    cut = count // 4
    middle: Array = np.sort(np.asarray(values), axis=-1)[..., cut : count - cut].mean(axis=-1)
    return middle


def bootstrap_interval(
    groups: Sequence[Sequence[float]],
    statistic: Callable[[Array], Array] = iqm,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile interval of ``statistic`` over all values, by a stratified bootstrap of equal groups.

    Groups are resampled first, then values within each resampled group, so each group keeps its weight.
    Resampling groups matters, since episodes of one seed resemble each other: without it, an interval over
    seeds × episodes would describe the precision of these seeds, not the spread over seeds.

    Args:
        groups: values by group (seed), each of the same length ≥ 1.
        statistic: maps [..., n] to [...].
        confidence: probability mass between the two ends, 0 to 1.
        resamples: the number of bootstrap samples.
        seed: of the random generator.
    Raises: ValueError if there are no groups, or they differ in length or are empty.
    """
    if not groups or len({len(group) for group in groups}) != 1 or not len(groups[0]):
        raise ValueError(f"groups of {[len(group) for group in groups]} values: must be equally many, at least one")
    values = np.asarray(groups, np.float64)
    num_groups, size = values.shape
    rng = np.random.default_rng(seed)
    results = np.empty(resamples)
    for i in range(resamples):
        chosen = rng.integers(num_groups, size=(num_groups, 1))
        results[i] = statistic(values[chosen, rng.integers(size, size=values.shape)].reshape(-1))
    low, high = np.quantile(results, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    return float(low), float(high)


def median_or_never(values: Sequence[float | None]) -> float | None:
    """Return the median, where None means never and counts as later than all else; None if the median is never."""
    if not values:
        return None
    middle = median(float("inf") if value is None else value for value in values)
    return None if middle == float("inf") else middle


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


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def number(value: float | None, digits: int = 0, missing: str = "–") -> str:
    """Return ``value`` as ``12,345`` or ``12.3``, or ``missing`` for None."""
    return missing if value is None else f"{value:,.{digits}f}"
