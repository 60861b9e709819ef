"""Does ``limelight tune`` find settings that are better than the rules, on seeds that its search never saw?

python benchmarks/tune.py [--jobs pendulum cartpole taxi] [--folder FOLDER] [--parallel 3]

Each job is one command of ``limelight tune``, run into a folder of its own; one that has a ``preset.yaml`` already is
only read, and one that was interrupted is continued. The figures are the ranking on fresh seeds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import stats

from limelight.training.preset_file import read_preset
from limelight.viewing.numbers import compact

COMMON = ["--best", "2", "--fresh-seeds", "10"]
JOBS: dict[str, list[str]] = {
    "pendulum": ["Pendulum-v1", "--preset", "none", "--total-timesteps", "20000", "--trials", "16", *COMMON],
    "cartpole": [
        "CartPole-v1", "--preset", "plain", "--algo", "a2c", "--total-timesteps", "20000", "--trials", "16", *COMMON,
    ],
    "taxi": ["Taxi-v4", "--preset", "none", "--total-timesteps", "30000", "--trials", "40", *COMMON],
}  # fmt: skip


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS), help="what to search")
    parser.add_argument("--folder", type=Path, default=Path("runs/tune-benchmark"), help="folder of the searches")
    parser.add_argument("--parallel", type=int, default=3, help="runs at the same time")
    parser.add_argument("--output", type=Path, help="the JSON file; default: in benchmarks/results")
    return parser.parse_args(argv)


def words_of(job: str, folder: Path, parallel: int) -> list[str]:
    """The words of the command that begins a job, or continues it."""
    if (folder / "tune.json").exists():
        return ["--resume", str(folder), "--parallel", str(parallel)]
    return [*JOBS[job], "--parallel", str(parallel), "--run-dir", str(folder)]


def result_of(folder: Path) -> dict[str, Any]:
    """What a finished search has found."""
    preset = read_preset(str(folder / "preset.yaml"))
    return {
        "env_id": preset.env_id,
        "algo": preset.algo,
        "over": preset.base,
        "settings": preset.settings,
        **preset.found,
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """The rankings as Markdown."""
    lines = ["| environment | settings | IQM | 95 % interval | score in the search |", "|---|---|---|---|---|"]
    for result in results.values():
        for row in result["ranking"]:
            low, high = row["interval"]
            searched = "–" if row["score_in_search"] is None else compact(row["score_in_search"])
            cells = [result["env_id"], row["name"], compact(row["iqm"]), f"{compact(low)} to {compact(high)}", searched]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    asked = parse(argv)
    results = {}
    for job in asked.jobs:
        folder = asked.folder / job
        if not (folder / "preset.yaml").exists():
            words = words_of(job, folder, asked.parallel)
            subprocess.run([sys.executable, "-m", "limelight", "tune", *words], check=True)
        results[job] = result_of(folder)
    data = {**stats.provenance("tune", {"jobs": JOBS}), "results": results}
    path = stats.results_path("tune", asked.output)
    stats.save_json(path, data)
    print(f"{table(results)}\n\n{path}")


if __name__ == "__main__":
    main(sys.argv[1:])
