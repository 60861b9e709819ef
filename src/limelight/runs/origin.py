"""The checkpoint of another run from which a run begins, and the record of it in the new run's folder."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from limelight.errors import CheckpointError, ConfigError
from limelight.runs.checkpoint import checkpoints, fitting, has_state, latest_checkpoint, newest_state, read_state
from limelight.runs.folder import CONFIG, METRICS, MONITOR, read_json, read_lines, write_json
from limelight.settings.io import from_dict
from limelight.settings.rules import validate
from limelight.settings.schema import TrainConfig
from limelight.settings.values import require_short, to_text

PARENT = "parent.json"
"""Run, checkpoint and step that a run was branched from, and the settings that changed."""


@dataclass(frozen=True)
class Origin:
    """A checkpoint to begin a new run from."""

    run_dir: Path
    name: str
    """As it is written: RUN:best."""
    state: dict[str, Any]
    """The content of the checkpoint."""
    step: int
    config: TrainConfig
    """The settings of the run at the checkpoint."""
    agent_only: bool = False
    """``state`` has parameters and normalisation of that step; the rest of it is of another."""


def read_origin(text: str) -> Origin:
    """Read the checkpoint that ``RUN``, ``RUN:last``, ``RUN:best`` or ``RUN:STEP`` names.

    Raises: CheckpointError or ConfigError with a line on what there is instead.
    """
    run_dir, which = _parts(text)
    require_short("from", run_dir)
    if not (run_dir / CONFIG).is_file():
        raise CheckpointError(
            f"from = {text}: {run_dir} is no folder of a run; give RUN, RUN:best, RUN:last or RUN:STEP"
        )
    if which == "best":
        with fitting(text):
            return _best(run_dir, text)
    if which != "last":
        found = {int(folder.name.removeprefix("step_")): folder for folder in checkpoints(run_dir)}
        if int(which) not in found:
            there = ", ".join(map(str, found)) or "none"
            raise CheckpointError(
                f"from = {text}: no checkpoint at step {which}; there are {there} (--keep-last keeps more)"
            )
        return _origin(run_dir, text, read_state(found[int(which)]))
    if not checkpoints(run_dir):
        raise CheckpointError(f"from = {text}: no checkpoint in {run_dir / 'checkpoints'}")
    try:
        return _origin(run_dir, text, newest_state(run_dir, fallback=False)[1])
    except CheckpointError as error:
        intact = latest_checkpoint(run_dir)
        if intact is None:
            raise
        reason = str(error).partition("; with fallback")[0]
        step = int(intact.name.removeprefix("step_"))
        raise CheckpointError(f"from = {text}: {reason}; give {run_dir}:{step}, which is intact") from None


def _parts(text: str) -> tuple[Path, str]:
    """Return the folder of a run and best, last or a number of steps."""
    found = re.fullmatch(r"(?P<run>.+):(?P<which>best|last|[\d_,]+)", text)
    if found:
        return Path(found["run"]), found["which"].replace("_", "").replace(",", "") or "last"
    run, colon, which = text.rpartition(":")
    if colon and run and not Path(text).exists() and Path(run).exists():
        raise ConfigError(
            f"from = {text}: {which or 'nothing'} is no checkpoint; give {run}, {run}:best, {run}:last or {run}:STEP"
        )
    return Path(text), "last"


def _origin(run_dir: Path, name: str, state: dict[str, Any]) -> Origin:
    with fitting(name):
        step = int(state["training"]["runner"]["num_steps"])
        return Origin(run_dir, name, state, step, validate(from_dict(state["config"])))


def _best(run_dir: Path, text: str) -> Origin:
    """Return the checkpoint of the best agent; of its parameters and normalisation alone where none was saved then."""
    if not has_state(run_dir / "best"):
        raise CheckpointError(f"from = {text}: no evaluation has saved a best agent; give {run_dir}:last")
    best, row = read_state(run_dir / "best"), _best_row(run_dir / METRICS)
    newest = latest_checkpoint(run_dir)
    if row is None or newest is None:
        raise CheckpointError(f"from = {text}: nothing tells the step of the best agent; use --init-agent {run_dir}")
    step = int(row["step"])
    for folder in checkpoints(run_dir):
        if folder.name == f"step_{step:012d}":
            state = read_state(folder)
            if np.array_equal(state["params"], best["params"]):
                return _origin(run_dir, text, state)
    state = {**read_state(newest), **{key: best[key] for key in ("params", "normalizer", "config")}}
    training = state["training"]
    episodes = {"recent": [], "count": _episodes_until(run_dir / MONITOR, step), "largest_return": None, "surplus": []}
    counts = {"num_steps": step, "num_episodes": episodes["count"], "seconds": float(row["seconds"])}
    state["training"] = {
        **training, "runner": {**training["runner"], **counts}, "episodes": episodes, "evaluated_at": step
    }  # fmt: skip
    return Origin(run_dir, text, state, step, validate(from_dict(state["config"])), agent_only=True)


def _best_row(path: Path) -> dict[str, Any] | None:
    """Return the row of the best evaluation, the later of equal ones; None without any."""
    rows = [json.loads(line) for line in read_lines(path)]
    evaluated = [row for row in rows if row.get("eval/mean_reward") is not None]
    return max(reversed(evaluated), key=lambda row: float(row["eval/mean_reward"]), default=None)


def _episodes_until(path: Path, step: int) -> int:
    return sum(int(line.split(",")[3]) <= step for line in read_lines(path)[2:])


# --------------------------------------------------------------------------- the record


def write_parent(folder: Path, origin: Origin, changed: dict[str, list[Any]]) -> None:
    """Record the parent of a run in its folder, and begin its curves with those of the parent.

    ``changed``: the settings that differ, by name: before and after.
    """
    write_json(
        folder / PARENT,
        {"run": str(origin.run_dir.resolve()), "from": origin.name, "step": origin.step, "changed": changed},
    )
    for name in (METRICS, MONITOR):
        if (origin.run_dir / name).is_file():
            shutil.copyfile(origin.run_dir / name, folder / name)


def read_parent(folder: Path) -> dict[str, Any] | None:
    """Return the content of ``parent.json``; None for a run that began by itself.

    Raises: CheckpointError if the file is damaged.
    """
    parent = read_json(folder / PARENT)
    changed = parent.get("changed")
    is_whole = isinstance(parent.get("step"), int) and isinstance(parent.get("from"), str)
    is_whole = is_whole and isinstance(changed, dict) and all(_is_pair(pair) for pair in changed.values())
    if parent and not is_whole:
        raise CheckpointError(f"{folder / PARENT}: damaged (no step, from or changed); remove it to go on without it")
    return parent or None


def describe_parent(parent: Mapping[str, Any]) -> str:
    """Return a line on the parent of a run, from :func:`read_parent`."""
    return "; ".join(
        [f"branched from {parent['from']} at step {parent['step']:,}", *describe_changes(parent["changed"])]
    )


def describe_changes(changed: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return ``name before → after`` for each setting that changed."""
    return [f"{name} {_value(before)} → {_value(after)}" for name, (before, after) in changed.items()]


def _value(value: Any) -> str:
    return "none" if value is None else to_text(value) or "none"


def has_other_env(parent: Mapping[str, Any]) -> bool:
    """Return whether a run learns in another environment than its parent, whose evaluations then say little of it."""
    return any(name in parent["changed"] for name in ("env_id", "env_kwargs", "max_episode_steps"))


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2
