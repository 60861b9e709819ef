"""A search without training: runs whose evaluations are a formula of their settings."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from limelight.runners.commands import Command
from limelight.settings.io import load_yaml, save_yaml, with_settings
from limelight.settings.schema import TrainConfig
from limelight.training.tuning import ranking, search

EVALUATIONS = 4
FIXED = {
    "num_envs": 8, "normalize_obs": False, "normalize_advantages": "none", "ent_coef": 0.01, "vf_coef": 0.5,
    "normalize_rewards": False, "critic": "shared", "hidden_sizes": (64, 64), "activation": "tanh",
    "lr_schedule": "linear", "max_grad_norm": 0.5,
}  # fmt: skip
"""Settings that are given, so that few are searched: a trial then takes less time in the database."""


def objective(config: TrainConfig) -> float:
    """Best at gamma 0.95; every seed has its own small bonus."""
    return 100.0 - 1000.0 * abs(config.algorithm.gamma - 0.95) + config.seed % 7 * 0.1


def words_of(command: Command) -> dict[str, str]:
    """The values of the flags of a command."""
    words = [*command.words]
    return {word: value for word, value in itertools.pairwise(words) if word.startswith("--")}


class FakeRun:
    """A run that writes an evaluation at a time."""

    def __init__(self, command: Command, score: Callable[[TrainConfig], float] = objective) -> None:
        flags = words_of(command)
        config = load_yaml(Path(flags["--config"]))
        self.config = with_settings(config, {"seed": int(flags.get("--seed", config.seed))})
        self.folder = Path(flags["--run-dir"])
        self.folder.mkdir(parents=True)
        self.value = score(self.config)
        self.done = 0
        command.log.write_text("")

    def advance(self) -> bool:
        """Write an evaluation; whether there are more."""
        self.done += 1
        step = self.config.total_timesteps * self.done // EVALUATIONS
        row = {"step": step, "seconds": self.done / EVALUATIONS, "eval/mean_reward": self.value * self.done}
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        return self.done < EVALUATIONS

    def finish(self) -> None:
        """Write the files of a run that has come to its end."""
        while self.done < EVALUATIONS and self.advance():
            pass
        save_yaml(self.config, self.folder / "config.yaml")
        summary = {"status": "completed", "total_timesteps": self.config.total_timesteps}
        (self.folder / "summary.json").write_text(json.dumps(summary))


class FakeProcesses:
    """Stands for the processes of a search; every look at them advances each by an evaluation."""

    most = 0
    """Most runs at the same time so far."""
    fails: Callable[[TrainConfig], str | None] = staticmethod(lambda config: None)
    on_start: Callable[[int], None] = staticmethod(lambda number: None)

    def __init__(self, env: Mapping[str, str]) -> None:
        assert "OMP_NUM_THREADS" in env
        self.runs: dict[int, FakeRun] = {}
        self.exited: dict[int, int] = {}

    def start(self, number: int, command: Command) -> None:
        type(self).on_start(number)
        run = FakeRun(command)
        error = type(self).fails(run.config)
        if error is None:
            self.runs[number] = run
        else:
            command.log.write_text(f"limelight: error: {error}\n")
            self.exited[number] = 2
        type(self).most = max(type(self).most, len(self.runs))

    def take_exited(self) -> dict[int, int]:
        for number, run in [*self.runs.items()]:
            if not run.advance():
                del self.runs[number]
                self.exited[number] = 0
        exited, self.exited = self.exited, {}
        return exited

    def end(self, number: int) -> None:
        del self.runs[number]
        self.exited[number] = 143

    def close(self) -> None:
        self.runs.clear()


def without_training(monkeypatch: pytest.MonkeyPatch) -> type[FakeProcesses]:
    """Let the runs of searches and rankings be formulas; return the class of the search's processes."""

    class Fresh(FakeProcesses):
        pass

    def run_here(
        commands: Sequence[Command], parallel: int, env: Mapping[str, str], poll: Callable[[int], bool]
    ) -> list[int | None]:
        statuses: list[int | None] = []
        for command in commands:
            if not poll(1):
                return [*statuses, *[None] * (len(commands) - len(statuses))]
            FakeRun(command).finish()
            statuses.append(0)
        poll(0)
        return statuses

    monkeypatch.setattr(search, "Processes", Fresh)
    monkeypatch.setattr(search, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(ranking, "run_commands", run_here)
    return Fresh
