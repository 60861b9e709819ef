"""What the benchmark scripts share: statistics over seeds, the machine, results as JSON, tables as Markdown.

Imports neither torch nor limelight's heavy parts, so that every script's ``--help`` is quick.
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

from limelight.config import TrainConfig, field_sections, get_setting
from limelight.run_folder import system_info

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

Array = NDArray[np.float64]


# --------------------------------------------------------------------------- statistics


def iqm(values: Array) -> Array:
    """Interquartile mean over the last axis: the mean of what is left without the lowest and highest quarter.

    Raises: ValueError if the last axis is empty.
    """
    count = values.shape[-1]
    if count == 0:
        raise ValueError("the interquartile mean of nothing")
    cut = count // 4
    middle: Array = np.sort(values, axis=-1)[..., cut : count - cut].mean(axis=-1)
    return middle


def bootstrap_interval(
    groups: Sequence[Sequence[float]],
    statistic: Callable[[Array], Array] = iqm,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    resample_groups: bool = True,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of ``statistic`` over all values, by a stratified bootstrap of equally large groups.

    Values are drawn anew within their own group, so that each group keeps its weight. Episodes of one seed resemble
    each other, so by default the groups are drawn anew first: without that, an interval over seeds × episodes would
    tell how well these seeds were measured, not what the next seed will do.

    Args:
        groups: values by group (seed), each of the same length ≥ 1.
        statistic: takes [..., n] to [...].
        confidence: probability mass between the two ends, 0 to 1.
        resamples: how many times everything is drawn anew.
        resample_groups: False for groups that are all there is (fixed tasks) and no sample of more.
        seed: of the draws.
    Raises: ValueError if there are no groups, or they differ in length or are empty.
    """
    if not groups or len({len(group) for group in groups}) != 1 or not len(groups[0]):
        raise ValueError(f"groups of {[len(group) for group in groups]} values: must be equally many, at least one")
    values = np.asarray(groups, np.float64)
    num_groups, size = values.shape
    rng = np.random.default_rng(seed)
    results = np.empty(resamples)
    for i in range(resamples):
        chosen = rng.integers(num_groups, size=num_groups) if resample_groups else np.arange(num_groups)
        drawn = values[chosen[:, None], rng.integers(size, size=(num_groups, size))]
        results[i] = statistic(drawn.reshape(-1))
    low, high = np.quantile(results, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    return float(low), float(high)


def median_or_never(values: Sequence[float | None]) -> float | None:
    """The median, where None is "never" and so later than everything; None if the median is never (or empty)."""
    if not values:
        return None
    middle = median(float("inf") if value is None else value for value in values)
    return None if middle == float("inf") else middle


# --------------------------------------------------------------------------- provenance


def machine() -> dict[str, Any]:
    """Processor, cores and versions, with those of the peers that are compared with."""
    info = system_info()
    try:
        info["stable-baselines3"] = version("stable-baselines3")
    except PackageNotFoundError:
        info["stable-baselines3"] = "not installed"
    return info


def machine_slug() -> str:
    """The machine as part of a file name: ``amd-epyc-9b14-2-cores``."""
    info = system_info()
    words = re.findall(r"[a-z0-9]+", re.sub(r"\((r|tm)\)", " ", info["processor"].lower()))
    return "-".join([*(w for w in words if w not in ("cpu", "processor")), str(info["cpu_count"]), "cores"])


def git_commit() -> str:
    """The commit of the measured sources, with ``-dirty`` behind it if they differ from it; ``unknown`` without git."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        sources = git("status", "--porcelain", "--", "src", "benchmarks", ":!benchmarks/results")
        return git("rev-parse", "HEAD") + ("-dirty" if sources else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def provenance(benchmark: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The head of a results file: what was measured, from which sources, on what."""
    return {"benchmark": benchmark, "commit": git_commit(), "settings": settings, "machine": machine()}


def flat_settings(config: TrainConfig) -> dict[str, Any]:
    """Every setting of a run by its plain name, as JSON gives it back."""
    values = {name: get_setting(config, name) for name in field_sections()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def results_path(benchmark: str, output: Path | None) -> Path:
    """``output``, or this benchmark's file for this machine."""
    return output or RESULTS / f"{benchmark}-{machine_slug()}.json"


# --------------------------------------------------------------------------- output


def save_json(path: Path, data: dict[str, Any]) -> None:
    """Write ``data`` indented, lists of plain values on one line, so that a reader sees the old file or the new one."""
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    one_line = re.sub(
        r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda found: "[" + re.sub(r"\n\s*", " ", found[1]) + "]", text
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(one_line + "\n", encoding="utf-8")
    temporary.replace(path)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def number(value: float | None, digits: int = 0, missing: str = "–") -> str:
    """``12,345`` or ``12.3``, or ``missing`` for None."""
    return missing if value is None else f"{value:,.{digits}f}"
