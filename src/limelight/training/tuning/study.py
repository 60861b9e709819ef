"""The study of a search in Optuna's database: what to try next, which trials to prune, what matters. Needs Optuna."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

from limelight.errors import CheckpointError, ConfigError
from limelight.settings.values import Search
from limelight.training.tuning.space import Marks, as_label, from_label

DATABASE = "study.db"
_NAME = "tune"
_ERROR = "error"
FEWEST = 6
"""Finished trials from which the importance of settings is estimated, and trials are pruned."""


@dataclass(frozen=True)
class TrialRecord:
    """A trial that has ended."""

    number: int
    settings: dict[str, Any]
    state: str
    """complete, pruned, failed, or lost: interrupted, and tried again."""
    score: float | None
    """Of a complete trial."""
    error: str | None


def require_optuna() -> None:
    """Refuse a search where Optuna is not installed.

    Raises: ConfigError.
    """
    if find_spec("optuna") is None:
        raise ConfigError("tune: needs Optuna, which is not installed; pip install 'limelight-rl[tune]'")


@final
class Study:
    """A study: trials are asked for, report their evaluations, and are told of their end.

    Args:
        folder: of ``study.db``, which is made or continued.
        space: where each setting is searched.
        pruner: median, halving or none.
        seed: of the sampler; a study that is continued takes another stream of it.
    """

    def __init__(self, folder: Path, space: Marks, pruner: str, seed: int) -> None:
        import optuna
        from sqlalchemy.pool import NullPool

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._space = space
        self._asked: dict[int, Any] = {}
        pruners = {
            "median": optuna.pruners.MedianPruner(n_startup_trials=FEWEST, n_warmup_steps=2),
            "halving": optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=3),
            "none": optuna.pruners.NopPruner(),
        }
        try:
            # Without a pool no connection stays open, whatever fails
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{(folder / DATABASE).resolve()}", engine_kwargs={"poolclass": NullPool}
            )
            self._study = optuna.create_study(
                storage=storage, study_name=_NAME, direction="maximize", load_if_exists=True, pruner=pruners[pruner]
            )
            count = len(self._study.trials)
        except Exception as error:  # SQLAlchemy's, of many kinds
            raise CheckpointError(f"{folder / DATABASE}: cannot be used ({_first_line(error)})") from None
        self._study.sampler = optuna.samplers.TPESampler(seed=seed + count, constant_liar=True)

    def enqueue(self, settings: Mapping[str, Any]) -> None:
        """Let a later trial have these settings."""
        labels = {name: as_label(value) for name, value in settings.items()}
        self._study.enqueue_trial(labels, skip_if_exists=True)

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Return the number of a new trial and its settings."""
        trial = self._study.ask()
        settings = {}
        for name, mark in self._space.items():
            if isinstance(mark, Search):
                settings[name] = from_label(mark, trial.suggest_float(name, mark.low, mark.high, log=mark.log))
            else:
                labels = [as_label(value) for value in mark.values]
                settings[name] = from_label(mark, trial.suggest_categorical(name, labels))
        self._asked[trial.number] = trial
        return trial.number, settings

    def report(self, number: int, rung: int, value: float) -> bool:
        """Record the evaluation at a rung of the budget; return whether the trial should be pruned."""
        trial = self._asked[number]
        trial.report(value, rung)
        return bool(trial.should_prune())

    def complete(self, number: int, score: float) -> None:
        """Record the score of a trial."""
        self._study.tell(self._asked.pop(number), score)

    def prune(self, number: int) -> None:
        """Record that a trial was pruned."""
        self._study.tell(self._asked.pop(number), state=self._optuna.trial.TrialState.PRUNED)

    def fail(self, number: int, error: str) -> None:
        """Record that a trial failed, and why."""
        trial = self._asked.pop(number)
        trial.set_user_attr(_ERROR, error)
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def lose_running(self) -> int:
        """Record that the running trials were interrupted, and let them be tried again; return how many they are."""
        state = self._optuna.trial.TrialState
        running = self._study.get_trials(deepcopy=False, states=(state.RUNNING,))
        for trial in running:
            self._study.tell(trial.number, state=state.FAIL)
            self._study.enqueue_trial(dict(trial.params))
        self._asked.clear()
        return len(running)

    def records(self) -> list[TrialRecord]:
        """Return the trials that have ended, in their order."""
        state = self._optuna.trial.TrialState
        names = {state.COMPLETE: "complete", state.PRUNED: "pruned", state.FAIL: "failed"}
        records = []
        for trial in self._study.get_trials(deepcopy=False, states=tuple(names)):
            settings = {n: from_label(self._space[n], v) for n, v in trial.params.items() if n in self._space}
            error = trial.user_attrs.get(_ERROR)
            kind = "lost" if trial.state == state.FAIL and error is None else names[trial.state]
            score = trial.value if trial.state == state.COMPLETE else None
            records.append(TrialRecord(trial.number, settings, kind, score, error))
        return records

    def importances(self) -> dict[str, float]:
        """Return the share of each setting in the differences of scores, largest first; empty for few trials.

        Source: Watanabe, Bansal & Hutter 2023, "PED-ANOVA", https://arxiv.org/abs/2304.10255.
        """
        state = self._optuna.trial.TrialState
        complete = self._study.get_trials(deepcopy=False, states=(state.COMPLETE,))
        if len(complete) < FEWEST or len({trial.value for trial in complete}) < 2:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental in some versions
            evaluator = self._optuna.importance.PedAnovaImportanceEvaluator()
            try:
                return dict(self._optuna.importance.get_param_importances(self._study, evaluator=evaluator))
            except (ValueError, RuntimeError):  # too few differences to tell
                return {}

    def close(self) -> None:
        """Give the database back."""
        storage: Any = getattr(self._study._storage, "_backend", self._study._storage)
        storage.engine.dispose()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
