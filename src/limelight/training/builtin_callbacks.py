"""Callbacks that come with the library; on the command line their names are enough: ``--callback "StopAfter(60)"``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from limelight.errors import ConfigError
from limelight.runs.evaluation import Evaluation
from limelight.settings.values import shown
from limelight.training.callbacks import Run
from limelight.typing import State


@final
class StopWithoutImprovement:
    """Ends the run after ``patience`` evaluations in a row whose mean is not ``min_delta`` above the best before."""

    def __init__(self, patience: int = 10, min_delta: float = 0.0) -> None:
        _require_number("patience", patience, 1)
        if not float(patience).is_integer():
            raise ConfigError(f"patience = {shown(patience)}: must be a whole number")
        _require_number("min_delta", min_delta, 0)
        self.patience = patience
        self.min_delta = min_delta
        self.best: float | None = None
        self.waited = 0

    def on_evaluation(self, run: Run, evaluation: Evaluation) -> bool:
        """Compare with the best."""
        mean = evaluation.mean_return
        if self.best is None or mean > self.best + self.min_delta:
            self.best, self.waited = mean, 0
        else:
            self.waited += 1
        if self.waited >= self.patience:
            run.message(f"stopped at step {run.step:,}: {self.waited} evaluations without a mean above {self.best:g}")
        return self.waited < self.patience

    def get_state(self) -> State:
        """Return the best mean and the evaluations since."""
        return {"best": self.best, "waited": self.waited}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self.best, self.waited = state["best"], int(state["waited"])


@final
class StopAfter:
    """Ends the run after so many seconds of training, without evaluations; those before a resume count."""

    def __init__(self, seconds: float) -> None:
        _require_number("seconds", seconds, 0)
        self.seconds = seconds

    def on_rollout(self, run: Run) -> bool:
        """Look at the time."""
        return run.seconds < self.seconds


@final
class ScheduleEnvAttr:
    """Sets an attribute of the training environments at steps: ``ScheduleEnvAttr("level", {0: 1, 50000: 2})``."""

    def __init__(self, name: str, values: Mapping[int, Any]) -> None:
        if not isinstance(values, Mapping) or not values:
            raise ConfigError(
                f"values = {shown(values)}: must be a mapping of steps to values, e.g. {{0: 1, 50000: 2}}"
            )
        for step in values:
            _require_number("a step of values", step, 0)
        self.name = name
        self.values = dict(sorted(values.items()))
        self._since: int | None = None

    def on_start(self, run: Run) -> None:
        """Set the first value."""
        self.on_rollout(run)

    def on_rollout(self, run: Run) -> None:
        """Set the value of this step, if it is another one."""
        due = [step for step in self.values if step <= run.step]
        if due and due[-1] != self._since:
            self._since = due[-1]
            run.set_env_attr(self.name, self.values[due[-1]])


@final
class ChangeSetting:
    """Changes a step size or the weight of a loss at a step: ``ChangeSetting("ent_coef", 0.0, at=100000)``."""

    def __init__(self, name: str, value: float, at: int) -> None:
        _require_number("at", at, 0)
        self.name = name
        self.value = value
        self.at = at
        self._done = False

    def on_start(self, run: Run) -> None:
        """Change it at once, if its step has passed."""
        self.on_rollout(run)

    def on_rollout(self, run: Run) -> None:
        """Change it, if its step has come."""
        if not self._done and run.step >= self.at:
            self._done = True
            run.change_setting(self.name, self.value)


def _require_number(name: str, value: Any, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
        raise ConfigError(f"{name} = {shown(value)}: must be a number of at least {least}")
