"""Where the time of a run went: its shares over the whole run, and a line of advice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from limelight.runners.time_shares import ACTING, ENVIRONMENT, EVALUATION, KINDS, LEARNING, WAITING, WALL
from limelight.settings.schema import TrainConfig

EVAL_SECONDS = "time/eval_seconds"
MUCH = 0.5
"""Share of the time from which a line of advice is given."""


def spent(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the seconds of each kind over rows of metrics; empty where none has shares.

    Those of evaluations are exact. Where they ran beside workers, they are not part of the other kinds.
    """
    seconds: dict[str, float] = {}
    for row in rows:
        add_spent(seconds, row)
    return seconds if LEARNING in seconds else {}


def add_spent(seconds: dict[str, float], row: Mapping[str, Any]) -> None:
    """Add the seconds of a row to those of the rows before it."""
    wall = row.get(WALL)
    if wall is not None:
        for name in KINDS:
            if name != EVALUATION:
                seconds[name] = seconds.get(name, 0.0) + wall * (row.get(name) or 0.0)
    if (evaluation := row.get(EVAL_SECONDS)) is not None:
        seconds[EVALUATION] = seconds.get(EVALUATION, 0.0) + evaluation


def shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the share of each kind in the sum of them all; empty where training was not measured."""
    total = sum(seconds.values())
    if LEARNING not in seconds or total <= 0.0:
        return {}
    return {name: seconds.get(name, 0.0) / total for name in KINDS}


def label(name: str) -> str:
    """Return ``environment`` for ``time/environment``."""
    return name.removeprefix("time/")


def in_words(found: Mapping[str, float]) -> str:
    """Return ``environment 62%  acting 11%  learning 25%  evaluation 2%``; kinds under half a percent are left out."""
    return "  ".join(f"{label(name)} {found[name]:.0%}" for name in KINDS if found.get(name, 0.0) >= 0.005)


def advice(found: Mapping[str, float], config: TrainConfig) -> str | None:
    """Return what would make most of the time shorter, in one line; None where no kind takes half of it."""
    if not found:
        return None
    name = max(found, key=lambda kind: found[kind])
    if found[name] < MUCH:
        return None
    workers = config.workers.asynchronous or config.workers.runner == "ray"
    measure = f"limelight check {config.env.env_id} --throughput measures what is faster"
    texts = {
        ENVIRONMENT: _for_environment(config, workers, measure),
        ACTING: f"--num-envs {2 * config.env.num_envs}: one pass of the network serves all environments; {measure}",
        LEARNING: f"--num-envs {2 * config.env.num_envs}: an update of more rows costs less per step; {measure}",
        EVALUATION: f"--eval-every {4 * config.eval.eval_every}, or fewer --eval-episodes",
        WAITING: "fewer --num-workers" if workers else "rarer checkpoints (--checkpoint-every) and videos",
    }
    return f"{label(name)} takes {found[name]:.0%} of the time; try {texts[name]}"


def _for_environment(config: TrainConfig, workers: bool, measure: str) -> str:
    if workers:
        return f"more --num-workers, if there are cores for them; {measure}"
    if config.env.backend == "sync" and config.env.num_envs > 1:
        return f"--backend async, a process per environment, or --algo a3c, a process per worker; {measure}"
    return measure
