"""A trial: the process of its run, its evaluations as they come, and its score."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from limelight.runners.commands import Command
from limelight.runs.folder import METRICS, read_lines
from limelight.settings.io import save_yaml
from limelight.settings.schema import TrainConfig
from limelight.viewing.seeds_progress import Tail

RUNGS = 10
"""Parts of the budget at whose ends trials are compared for pruning."""
SCORED = 2 / 3
"""Share of the budget after which evaluations count for the score."""
SCORE_IN_WORDS = "mean evaluation return over the last third of the budget"


class Evaluation(NamedTuple):
    """An evaluation of a trial."""

    share: float
    """Share of the budget of steps or seconds that was used, 0 to 1."""
    mean_return: float


class Limit(NamedTuple):
    """The budget of a trial."""

    amount: float
    unit: str
    """The column of metrics.jsonl that counts it: step or seconds."""


def evaluations_of(lines: Sequence[str], limit: Limit) -> list[Evaluation]:
    """Return the evaluations in lines of metrics.jsonl."""
    found = []
    for line in lines:
        row = json.loads(line)
        if row.get("eval/mean_reward") is not None:
            found.append(Evaluation(min(1.0, row[limit.unit] / limit.amount), float(row["eval/mean_reward"])))
    return found


def score(evaluations: Sequence[Evaluation]) -> float | None:
    """Return the mean return of the evaluations in the last third of the budget; None if there are none."""
    late = [e.mean_return for e in evaluations if e.share > SCORED]
    return sum(late) / len(late) if late else None


def score_of_run(run_dir: Path, limit: Limit) -> float | None:
    """Return the score of a run that has ended."""
    return score(evaluations_of(read_lines(run_dir / METRICS), limit))


@dataclass
class RunningTrial:
    """A trial whose process runs."""

    run_dir: Path
    limit: Limit
    evaluations: list[Evaluation] = field(default_factory=list)
    pruned: bool = False
    _rung: int = 0

    def __post_init__(self) -> None:
        self._tail = Tail(self.run_dir / METRICS)

    def read(self) -> list[tuple[int, float]]:
        """Read the evaluations since the last call; return the first one of each rung that was reached."""
        new = evaluations_of(self._tail.lines(), self.limit)
        self.evaluations += new
        reached = []
        for evaluation in new:
            rung = int(evaluation.share * RUNGS + 1e-9)
            if rung > self._rung:
                self._rung = rung
                reached.append((rung, evaluation.mean_return))
        return reached

    @property
    def share(self) -> float:
        """Return the share of the budget at the last evaluation."""
        return self.evaluations[-1].share if self.evaluations else 0.0


def trial_command(config: TrainConfig, run_dir: Path) -> Command:
    """Write the settings of a trial beside its folder, and return the command that trains it."""
    settings, log = run_dir.with_suffix(".yaml"), run_dir.with_suffix(".log")
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    save_yaml(config, settings)
    train = [sys.executable, "-m", "limelight", "train", "--quiet"]
    return Command([*train, "--config", str(settings), "--run-dir", str(run_dir)], log)
