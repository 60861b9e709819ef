"""Signs in the logged rows that a run collapses, each with settings to try.

Three kinds are noticed: the entropy is gone before the return rose, the values diverge, the best is lost. All evidence
is in rows of metrics and returns of episodes, so every runner has it. Each kind is reported once, and again only after
it has recovered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from limelight.settings.schema import TrainConfig
from limelight.settings.values import to_text
from limelight.viewing.numbers import compact

if TYPE_CHECKING:
    from gymnasium.spaces import Space

    from limelight.typing import Metrics, State

FIRST_EPISODES = 20
"""Episodes whose returns are those of a policy that has learnt nothing yet."""
ENTROPY_ROWS = 5
"""Rows whose median share of entropy counts: with one-step updates, each is the entropy at a single state."""
ROWS = {"entropy": 1, "values": 3, "best": 3}
"""Rows in a row that must show a kind before it is reported."""
ENTROPY_SHARE = 0.03
"""Share of the greatest entropy below which that of discrete actions is gone."""
STD_SHARE = 0.05
"""Share of the first σ below which that of continuous actions is gone."""
BEYOND = 3.0
"""Multiple of max|r| / (1 − γ) above which values diverge."""
LEAST_VALUE = 10.0
"""Mean |V| below which nothing is said: a network that has learnt nothing yet may have a few units."""
ENTROPY, STD = "train/entropy_share", "train/std_share"
"""Metrics of the share of exploration that is left: of discrete and of continuous actions."""
LOST, RECOVERED = 0.3, 0.6
"""Shares of the way from the first to the best return below which the best is lost, above which it is found again."""


class Notice(NamedTuple):
    """A sign that a run collapses."""

    kind: str
    """entropy, values or best."""
    evidence: str
    remedies: list[tuple[str, Any]]
    """Settings to try, with values."""

    def __str__(self) -> str:
        """Return the line that is shown while a run goes on."""
        return f"{self.evidence}; {advice(self.remedies)}"


@dataclass
class Evidence:
    """The numbers that are kept of a run; plain, so that a checkpoint has them."""

    first: list[float] = field(default_factory=list)
    """Returns of the first episodes."""
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Number, sum and sum of squares of all returns, each less the first return."""
    greatest_entropy: float | None = None
    shares: list[float] = field(default_factory=list)
    """Shares of the entropy in the latest rows."""
    reward_max: float = 0.0
    best: dict[str, float] = field(default_factory=dict)
    """The greatest mean return of training episodes and of evaluations, by the name of the metric."""
    streaks: dict[str, int] = field(default_factory=dict)
    """For how many rows each sign has been there without a break."""
    reported: dict[str, bool] = field(default_factory=dict)
    """Whether each kind was reported and has not recovered since."""


class CollapseWatch:
    """Takes the rows and episodes of one run; returns a line where it collapses.

    Args:
        config: the settings of the run.
        action_space: of its environment; None: the rows have the shares of entropy already (:meth:`measure`).
        has_mask: observations contain an action mask, so that the greatest entropy is not that of all actions.
    """

    def __init__(self, config: TrainConfig, action_space: Space[Any] | None, has_mask: bool = False) -> None:
        self.config = config
        self.has_mask = has_mask
        self.limit: float | None = None
        self.size = 0
        if action_space is not None:  # a diagnosis of files has none, and need not load Gymnasium
            from limelight.spaces.exploration import greatest_entropy, num_actions

            self.limit, self.size = greatest_entropy(action_space), num_actions(action_space)
        self.evidence = Evidence()

    def episodes(self, returns: Sequence[float]) -> None:
        """Keep the first returns, and the sums of all."""
        first = self.evidence.first
        first.extend(float(r) for r in returns[: FIRST_EPISODES - len(first)])
        count, total, squares = self.evidence.sums
        for r in returns:
            offset = float(r) - first[0]
            total += offset
            squares += offset * offset
        self.evidence.sums = [count + len(returns), total, squares]

    def row(self, step: int, metrics: Metrics) -> list[str]:
        """Return a line for every kind of collapse that this row of metrics completes."""
        return [f"step {step:,}: {notice}" for notice in self.notices(metrics)]

    def notices(self, metrics: Metrics) -> list[Notice]:
        """Return every kind of collapse that this row of metrics completes."""
        found = (
            self._entropy(metrics),
            self._values(metrics),
            self._best(metrics, "rollout/ep_rew_mean", "mean return of the last 100 episodes"),
            self._best(metrics, "eval/mean_reward", "mean return of evaluations"),
        )
        return [notice for notice in found if notice is not None]

    def measure(self, metrics: Metrics) -> Metrics:
        """Return which share of exploration is left, by the name of the metric; nothing for a row without entropy."""
        entropy, evidence = metrics.get("train/entropy"), self.evidence
        if entropy is None or not math.isfinite(entropy) or (self.limit is None and not self.size):
            return {}
        evidence.greatest_entropy = max(entropy, evidence.greatest_entropy or entropy)
        limit = evidence.greatest_entropy if self.has_mask and self.limit is not None else self.limit
        share = entropy_share(entropy, limit, evidence.greatest_entropy, self.size)
        return {ENTROPY if limit is not None else STD: share}

    def _entropy(self, metrics: Metrics) -> Notice | None:
        row = {**metrics, **({} if ENTROPY in metrics or STD in metrics else self.measure(metrics))}
        now, evidence = metrics.get("rollout/ep_rew_mean"), self.evidence
        is_discrete = ENTROPY in row
        share, least = (row.get(ENTROPY), ENTROPY_SHARE) if is_discrete else (row.get(STD), STD_SHARE)
        if share is None:
            return None
        evidence.shares = [*evidence.shares[1 - ENTROPY_ROWS :], share]
        risen = has_risen(evidence.first, now)
        if risen is None or len(evidence.shares) < ENTROPY_ROWS:
            return None
        share = float(np.median(evidence.shares))
        if not self._shows("entropy", "entropy", share < least and not risen, risen or share > 2 * least):
            return None
        what = "entropy" if is_discrete else "σ"
        text = (
            f"the {what} is gone before the return rose ({what} {share:.1%} of "
            f"{'the greatest' if is_discrete else 'the first'}, mean return {compact(now or 0.0)}, at first "
            f"{compact(float(np.mean(evidence.first)))})"
        )
        return Notice("entropy", text, remedies("entropy", self.config))

    def _values(self, metrics: Metrics) -> Notice | None:
        value, gamma = metrics.get("train/value_mean"), self.config.algorithm.gamma
        evidence = self.evidence
        evidence.reward_max = max(evidence.reward_max, metrics.get("train/reward_max", 0.0))
        if value is None or not evidence.reward_max or gamma >= 1.0:
            return None
        bound = evidence.reward_max / (1.0 - gamma)
        beyond = abs(value) > max(BEYOND * bound, LEAST_VALUE)
        if not self._shows("values", "values", beyond, not beyond):
            return None
        text = (
            f"the values diverge (mean V {compact(value)}, where the largest reward learnt from, "
            f"{compact(evidence.reward_max)}, and gamma {gamma:g} allow ±{compact(bound)})"
        )
        return Notice("values", text, remedies("values", self.config))

    def _best(self, metrics: Metrics, name: str, noun: str) -> Notice | None:
        now, evidence = metrics.get(name), self.evidence
        if now is None or not math.isfinite(now) or len(evidence.first) < FIRST_EPISODES:
            return None
        best = evidence.best[name] = max(now, evidence.best.get(name, now))
        first = float(np.mean(evidence.first))
        # A rise by less is luck where few episodes have a reward
        if best - first <= max(float(np.std(evidence.first)), 0.5 * deviation(*evidence.sums)):
            return None
        way = (now - first) / (best - first)
        if not self._shows("best", name, way < LOST, way > RECOVERED):
            return None
        text = f"the best is lost ({noun} {compact(now)}, it was {compact(best)})"
        return Notice("best", text, remedies("best", self.config))

    def _shows(self, kind: str, sign: str, there: bool, recovered: bool) -> bool:
        """Count a sign of a kind; return whether the kind is to be reported now."""
        evidence = self.evidence
        streak = evidence.streaks[sign] = evidence.streaks.get(sign, 0) + 1 if there else 0
        if evidence.reported.get(sign):
            evidence.reported[sign] = not recovered
            return False
        if streak < ROWS[kind]:
            return False
        evidence.reported[sign] = True
        return True

    def get_state(self) -> State:
        """Return the evidence."""
        return asdict(self.evidence)

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self.evidence = Evidence(**state)


def entropy_share(entropy: float, limit: float | None, greatest: float, size: int) -> float:
    """Return which share of exploration is left.

    Discrete actions: the entropy's share of ``limit``. Continuous (``limit`` None): the share of σ, the geometric mean
    over ``size`` actions, as H = Σ log σ + constant. 1 if there is no entropy to lose.
    """
    if limit is not None:
        return entropy / limit if limit > 1e-3 else 1.0
    return math.exp((entropy - greatest) / size)


def deviation(number: float, total: float, squares: float) -> float:
    """Return the standard deviation of ``number`` values from their sum and their sum of squares."""
    return math.sqrt(max(0.0, squares / number - (total / number) ** 2))


def has_risen(first: Sequence[float], now: float | None) -> bool | None:
    """Return whether a mean return is above that of the first episodes by more than its error; None if unknown."""
    if now is None or len(first) < FIRST_EPISODES:
        return None
    return now > float(np.mean(first)) + 2.0 * float(np.std(first)) / math.sqrt(len(first))


def remedies(kind: str, config: TrainConfig) -> list[tuple[str, Any]]:
    """Return settings that help against a kind, with values beside those of the run."""
    algorithm, model = config.algorithm, config.model
    more_entropy = ("ent_coef", max(0.01, 2.0 * algorithm.ent_coef))
    slower = ("learning_rate", float(f"{config.optim.learning_rate / 2.0:.2g}"))
    if config.optim.optimizer == "obgd":  # whose bound, and not the step size, decides
        slower = ("actor_kappa", 2.0 * config.optim.actor_kappa)
    own_critic: list[tuple[str, Any]] = [("critic", "separate")] if model.critic == "shared" else []
    scaled: list[tuple[str, Any]] = [] if algorithm.normalize_rewards else [("normalize_rewards", True)]
    norm = config.optim.max_grad_norm
    clipped: list[tuple[str, Any]] = [("max_grad_norm", norm / 2.0)] if norm else []
    return {
        "entropy": [more_entropy, slower, *scaled],
        "values": [slower, *own_critic, *scaled],
        "best": [slower, *own_critic, *(clipped if not own_critic else []), more_entropy],
    }[kind]


def advice(settings: Sequence[tuple[str, Any]]) -> str:
    """Return ``try …`` with these settings and values."""
    tries = [f"{name} {f'{value:g}' if isinstance(value, float) else to_text(value)}" for name, value in settings]
    return f"try {' or '.join([text for text in (', '.join(tries[:-1]), tries[-1]) if text])}"
