"""The evidence of a run that rules look at, and the findings that they return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from limelight.runs.reader import Floats, RunData
from limelight.settings.io import get_setting
from limelight.settings.schema import TrainConfig
from limelight.settings.values import to_text
from limelight.viewing.collapse import FIRST_EPISODES, CollapseWatch, Notice, has_risen
from limelight.viewing.smoothing import WINDOW


class Finding(NamedTuple):
    """One thing that is wrong with a run, or that would make it better."""

    rule: str
    """Name of the rule, as in docs/explain.md."""
    evidence: str
    """Figures, and the steps at which they were."""
    cause: str
    """The likely cause."""
    setting: str | None
    """Plain name of the setting to try; None: a command helps."""
    value: Any
    """The value to try, or the command."""

    def try_text(self) -> str:
        """Return the setting as the command line takes it, ``--ent-coef 0.02``, or the command."""
        if self.setting is None:
            return str(self.value)
        value = f"{self.value:g}" if isinstance(self.value, float) else to_text(self.value)
        return f"--{self.setting.replace('_', '-')} {value}"


Rule = Callable[["Evidence"], Finding | None]
"""Returns what it finds; None: nothing, or the run lacks the metrics it needs."""


@dataclass(frozen=True)
class Collapse:
    """A sign of collapse in the rows of a run."""

    step: int
    notice: Notice
    lasts: bool
    """It was there to the last row."""


@dataclass(frozen=True)
class Evidence:
    """A run's numbers as rules need them."""

    run: RunData

    @property
    def config(self) -> TrainConfig:
        """Return the settings."""
        return self.run.config

    def setting(self, name: str) -> Any:
        """Return a setting by its plain name."""
        return get_setting(self.run.config, name)

    @property
    def returns(self) -> Floats:
        """Return the raw returns of all training episodes."""
        return self.run.episodes.values

    @cached_property
    def last_step(self) -> int:
        """Return the last step that anything was written at."""
        steps = [int(row["step"]) for row in self.run.metrics[-1:]]
        return max([*steps, *(int(step) for step in self.run.episodes.steps[-1:])], default=0)

    @cached_property
    def progress(self) -> float:
        """Return the share of the budget that is used, of steps or of episodes."""
        share, episodes = self.last_step / self.config.total_timesteps, self.config.total_episodes
        return share if episodes is None else max(share, len(self.returns) / episodes)

    @cached_property
    def num_envs(self) -> int:
        """Return the number of environments over all workers."""
        return self.config.env.num_envs * (self.config.workers.num_workers or 1)

    @cached_property
    def first_mean(self) -> float:
        """Return the mean return of the first episodes."""
        return float(np.mean(self.returns[:FIRST_EPISODES]))

    @cached_property
    def last_mean(self) -> float:
        """Return the mean return of the last episodes that are none of the first."""
        return float(np.mean(self.returns[FIRST_EPISODES:][-WINDOW:]))

    @cached_property
    def has_not_risen(self) -> bool:
        """Return whether the mean return is known not to be above that of the first episodes by more than its error."""
        if len(self.returns) < 2 * FIRST_EPISODES:
            return False
        return has_risen(self.returns[:FIRST_EPISODES].tolist(), self.last_mean) is False

    def flat_text(self) -> str:
        """Return the mean returns of the first and the last episodes, for a run that has not risen."""
        return f"mean return {short(self.last_mean)}, of the first {FIRST_EPISODES} episodes {short(self.first_mean)}"

    def values(self, name: str, after: float = 0.0) -> tuple[Floats, Floats]:
        """Return steps and finite values of a metric, from a share of the run on."""
        series = self.run.series(name)
        chosen = np.isfinite(series.values) & (series.steps >= after * self.last_step)
        return series.steps[chosen], series.values[chosen]

    @cached_property
    def collapses(self) -> dict[str, Collapse]:
        """Return the signs of collapse by kind, as they are found while a run goes on; the latest of each kind."""
        watch, found, place = CollapseWatch(self.config, None), dict[str, Collapse](), 0
        for row in self.run.metrics:
            known = {name: value for name, value in row.items() if value is not None}
            end = int(np.searchsorted(self.run.episodes.steps, row["step"], side="right"))
            watch.episodes(self.returns[place:end].tolist())
            place = max(place, end)
            for notice in watch.notices(known):
                found[notice.kind] = Collapse(int(row["step"]), notice, False)
        reported = watch.evidence.reported
        still = {
            "entropy": reported.get("entropy", False),
            "values": reported.get("values", False),
            "best": any(reported.get(name, False) for name in ("rollout/ep_rew_mean", "eval/mean_reward")),
        }
        return {kind: Collapse(c.step, c.notice, still[kind]) for kind, c in found.items()}


def short(value: float) -> str:
    """Return a number with three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def span(steps: Floats) -> str:
    """Return ``at steps 2,000 to 20,000``."""
    return f"at steps {steps[0]:,.0f} to {steps[-1]:,.0f}" if len(steps) > 1 else f"at step {steps[0]:,.0f}"


def times(value: float, factor: float) -> float:
    """Return a multiple of a setting with two significant digits."""
    return float(f"{value * factor:.2g}")


def more_entropy(run: Evidence) -> tuple[str, float]:
    """Return the setting of the entropy bonus, and a value for more exploration."""
    return "ent_coef", max(0.03, times(run.setting("ent_coef"), 3.0))


def larger_steps(run: Evidence) -> tuple[str, float]:
    """Return the setting of the step size, and a larger value."""
    return "learning_rate", min(10.0, times(run.setting("learning_rate"), 3.0))
