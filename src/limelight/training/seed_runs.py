"""Runs of one configuration with several seeds: a folder each, in processes of their own, resumable one by one.

The folder has ``settings.yaml`` (the settings of all), ``seeds.json`` and, for each seed, ``seed-<n>`` and a log.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limelight.envs.make import num_cores
from limelight.errors import ConfigError
from limelight.files import write_text
from limelight.runners.base import budget_of
from limelight.runners.commands import Command, run_commands
from limelight.runs.checkpoint import latest_checkpoint
from limelight.runs.folder import COMMAND, CONFIG, SUMMARY, new_folder, read_json, write_json
from limelight.settings.io import for_resume, save_yaml
from limelight.settings.rules import load_valid, validate
from limelight.settings.schema import TrainConfig
from limelight.settings.values import to_text
from limelight.training.callbacks import load_callbacks
from limelight.training.loop import catch_signals
from limelight.viewing.clients.client_logger import load_loggers
from limelight.viewing.seeds_progress import SeedsProgress

SEEDS, SETTINGS = "seeds.json", "settings.yaml"


@dataclass(frozen=True)
class SeedRuns:
    """The runs of several seeds, to be started or continued."""

    folder: Path
    config: TrainConfig
    """The settings of all runs; the seed is that of the first."""
    num_seeds: int
    parallel: int
    changes: Mapping[str, Any]
    """Settings that have changed since the first start, by plain name: given to each run that is continued."""

    def seeds(self) -> range:
        """Return the seeds."""
        return range(self.config.seed, self.config.seed + self.num_seeds)

    def run_dir(self, seed: int) -> Path:
        """Return the folder of a seed's run."""
        return self.folder / f"seed-{seed}"

    def log(self, seed: int) -> Path:
        """Return the file of the output of a seed's run."""
        return self.folder / f"seed-{seed}.log"


@dataclass(frozen=True)
class SeedsResult:
    """The end of the runs of several seeds."""

    runs: SeedRuns
    failed: dict[int, str]
    """The last line of output of each run that failed, by seed."""
    report: Path | None
    signal_number: int | None


def is_seeds_folder(folder: Path) -> bool:
    """Return whether a folder has the runs of several seeds."""
    return (folder / SEEDS).exists()


def new_seed_runs(config: TrainConfig, num_seeds: int, parallel: int | None, command: str) -> SeedRuns:
    """Make the folder of new runs; seeds count up from that of ``config``.

    Raises: ConfigError if the folder is not empty or cannot be made, or a callback or logger cannot be.
    """
    if config.seed + num_seeds > 2**31:
        raise ConfigError(f"seeds = {num_seeds}: seed {config.seed} leaves no room for so many below {2**31}")
    require_named(config)
    parallel = parallel or most_parallel(config)
    config = shared_out(config, parallel)
    name = f"{config.algorithm.algo}-{config.seed}to{config.seed + num_seeds - 1}"
    folder = new_folder(config, name)
    runs = SeedRuns(folder, dataclasses.replace(config, run_dir=None), num_seeds, parallel, {})
    save(runs)
    write_text(folder / COMMAND, command + "\n", errors="surrogateescape")
    return runs


def require_named(config: TrainConfig) -> None:
    """Refuse callbacks and loggers that no run could make, before there is a folder.

    Raises: ConfigError.
    """
    load_callbacks(config, ())
    load_loggers(config, ())


def resumed_seed_runs(folder: Path, settings: dict[str, Any], num_seeds: int | None, parallel: int | None) -> SeedRuns:
    """Return the runs of a folder, to be continued with changed settings or with more seeds.

    Raises: ConfigError for a setting that cannot change, or fewer seeds than there are.
    """
    saved = read_json(folder / SEEDS)
    if not isinstance(saved.get("seeds"), int) or not isinstance(saved.get("parallel"), int):
        raise ConfigError(f"resume = {folder}: {SEEDS} is damaged (no seeds or parallel); resume each run by itself")
    config = validate(for_resume(load_valid(folder / SETTINGS), settings))
    require_named(config)
    if num_seeds is not None and num_seeds < saved["seeds"]:
        raise ConfigError(f"seeds = {num_seeds}: the folder has {saved['seeds']} already; give as many or more")
    changes = {**saved.get("changes", {}), **settings}
    return SeedRuns(folder, config, num_seeds or saved["seeds"], parallel or saved["parallel"], changes)


def run_seeds(runs: SeedRuns, quiet: bool) -> SeedsResult:
    """Start or continue the run of every seed that is not finished; draw the report of all."""
    save(runs)
    open_seeds = [seed for seed in runs.seeds() if not is_finished(runs, seed)]
    commands = [Command(words_of(runs, seed), runs.log(seed)) for seed in open_seeds]
    display = SeedsProgress([runs.run_dir(s) for s in runs.seeds()], budget_of(runs.config), quiet)
    env = variables(runs.parallel)
    with catch_signals() as interrupt:

        def poll(running: int) -> bool:
            finished = sum(is_finished(runs, seed) for seed in runs.seeds())
            display.poll(f"seeds: {finished} of {runs.num_seeds} finished, {running} running")
            return interrupt.signal_number is None

        try:
            statuses = run_commands(commands, runs.parallel, env, poll)
        finally:
            display.close()
        report = _draw(runs)
    failed = {
        seed: last_line(runs.log(seed))
        for seed, status in zip(open_seeds, statuses, strict=True)
        if status and interrupt.signal_number is None
    }
    return SeedsResult(runs, failed, report, interrupt.signal_number)


def variables(parallel: int) -> dict[str, str]:
    """Return the environment variables of processes of which so many share the cores."""
    threads = str(max(1, num_cores() // parallel))
    return {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}


def most_parallel(config: TrainConfig) -> int:
    """Return how many runs fill the cores: one, where its workers or processes take all of them."""
    workers = config.workers
    if workers.runner == "ray" or (workers.asynchronous and workers.num_workers is None):
        return 1
    return max(1, num_cores() // (workers.num_workers or 1))


def shared_out(config: TrainConfig, parallel: int) -> TrainConfig:
    """Return the settings with each run's share of the cores as its number of workers, where it is open."""
    workers = config.workers
    if not workers.asynchronous or workers.runner == "ray" or workers.num_workers is not None:
        return config
    workers = dataclasses.replace(workers, num_workers=max(1, num_cores() // parallel))
    return dataclasses.replace(config, workers=workers)


def save(runs: SeedRuns) -> None:
    """Write the settings of all runs, and how many there are."""
    save_yaml(runs.config, runs.folder / SETTINGS)
    state = {"seeds": runs.num_seeds, "parallel": runs.parallel, "changes": dict(runs.changes)}
    write_json(runs.folder / SEEDS, state)


def is_finished(runs: SeedRuns, seed: int) -> bool:
    """Return whether a run has come to its end, and no larger budget is asked for."""
    summary = read_json(runs.run_dir(seed) / SUMMARY)
    if summary.get("status") in ("reached_return", "stopped"):
        return True
    done = summary.get("total_timesteps", 0), summary.get("total_episodes", 0)
    return summary.get("status") == "completed" and budget_of(runs.config).is_used_up(*done)


def words_of(runs: SeedRuns, seed: int) -> list[str]:
    """Return the command that starts or continues a seed's run; one without a checkpoint is put aside first."""
    folder = runs.run_dir(seed)
    train = [sys.executable, "-m", "limelight", "train", "--quiet"]
    if latest_checkpoint(folder) is not None:
        changes: list[str] = []
        for name, value in runs.changes.items():
            values = value if isinstance(value, list | tuple) else [value]
            changes += ["--" + name.replace("_", "-"), *map(to_text, values)]
        return [*train, "--resume", str(folder), *changes]
    if (folder / CONFIG).exists():
        folder.rename(_unused(folder))
    settings = str(runs.folder / SETTINGS)
    return [*train, "--config", settings, "--seed", str(seed), "--run-dir", str(folder)]


def _unused(folder: Path) -> Path:
    """Return where to put a run without a checkpoint: a folder deeper, where it is no run of this set any more."""
    parent, n = folder.parent / "without-checkpoint", 1
    while (aside := parent / f"{folder.name}-{n}").exists():
        n += 1
    parent.mkdir(exist_ok=True)
    return aside


def last_line(log: Path) -> str:
    """Return the last line of the output of a run, such as its error."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return next((line for line in reversed(lines) if line.strip()), f"see {log}")


def _draw(runs: SeedRuns) -> Path | None:
    """Draw the report of the runs there are; Matplotlib is loaded only here."""
    from limelight.viewing.report import write_report

    existing: Sequence[int] = [seed for seed in runs.seeds() if (runs.run_dir(seed) / CONFIG).exists()]
    return write_report([runs.run_dir(seed) for seed in existing], runs.folder) if existing else None
