"""Evaluations during training: the best agent so far, and whether the target return is reached."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from limelight.envs.base import EnvBackend
from limelight.envs.source import resolve_env
from limelight.errors import EnvError
from limelight.runs.agent import Agent
from limelight.runs.evaluation import Evaluation, Limits, make_eval_envs, max_steps, play
from limelight.seeds import Stream, derive_seed
from limelight.settings.schema import TrainConfig
from limelight.typing import State

LONGEST_SECONDS = 60.0
"""An evaluation of episodes without a declared limit is cut then; the length becomes that of all later ones."""
MOST_OF_TRAINING = 3.0
"""Evaluations of such episodes are left out while they have taken this many times the time of training."""


def is_reached(mean: float, threshold: float) -> bool:
    """Return whether a mean return has reached ``threshold``, but for rounding: nine times 0.1 is 0.9 − 1e-16."""
    return mean >= threshold - 1e-9 * max(1.0, abs(threshold))


class Evaluator:
    """Evaluates the agent in separate environments, saves the best one, and confirms that a return is reached.

    Args:
        agent: the agent that trains.
        config: the configuration of the run.
        best_dir: the folder of the best agent.
        threshold: the return that counts as solved: ``stop_at_return``, or the one of the environment itself.
        check: called at every step of an evaluation; it may raise, to end the evaluation without a result.
    """

    def __init__(
        self,
        agent: Agent,
        config: TrainConfig,
        best_dir: Path,
        threshold: float | None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.agent = agent
        self.config = config
        self.best_dir = best_dir
        self.threshold = threshold
        self.best_return: float | None = None
        self.solved_at: tuple[int, float] | None = None
        """(environment steps, training seconds) when the threshold was first reached (confirmed, where it stops)."""
        self.is_best = False
        """The last evaluation was the best so far, or equal to it."""
        self.writing: Callable[[str], AbstractContextManager[None]] = lambda what: nullcontext()
        """The context in which the best agent is saved."""
        self._reached_in_a_row = 0
        self._check = check
        self._source = resolve_env(config.env, agent.env_factory)
        self._envs: EnvBackend | None = None
        self._asked = 0  # episodes that the present environments were made for
        self._seconds = 0.0  # of all evaluations
        self._cut_after: int | None = None  # steps, once an evaluation took too long

    def evaluate(self, step: int, seconds: float) -> Evaluation:
        """Evaluate the agent as it is now; save it if it is the best so far (or equal to the best)."""
        settings = self.config.eval
        seed = derive_seed(self.config.seed, Stream.EVALUATION, step)
        evaluation = self._run_episodes(settings.eval_episodes, not settings.eval_stochastic, seed)
        mean = evaluation.mean_return
        self.is_best = self.best_return is None or mean >= self.best_return
        if self.is_best:
            self._save_best(mean)
        reached = self.threshold is not None and is_reached(mean, self.threshold)
        self._reached_in_a_row = self._reached_in_a_row + 1 if reached else 0
        if reached and self.solved_at is None and settings.stop_at_return is None:
            self.solved_at = (step, seconds)
        return evaluation

    def should_confirm(self) -> bool:
        """Return whether enough evaluations in a row have reached ``stop_at_return``."""
        settings = self.config.eval
        return settings.stop_at_return is not None and self._reached_in_a_row >= settings.stop_patience

    def confirm(self, step: int, seconds: float) -> tuple[Evaluation, bool]:
        """Run fresh greedy episodes; return them, and whether they reach ``stop_at_return``, as the best agent must."""
        settings = self.config.eval
        assert settings.stop_at_return is not None
        seed = derive_seed(self.config.seed, Stream.CONFIRMATION, step)
        evaluation = self._run_episodes(settings.confirm_episodes, True, seed)
        confirmed = is_reached(evaluation.mean_return, settings.stop_at_return)
        if confirmed:
            self._save_best(evaluation.mean_return)
            self.solved_at = (step, seconds)
        self._reached_in_a_row = 0
        return evaluation, confirmed

    def final(self, agent: Agent) -> Evaluation:
        """Return the final evaluation of ``agent``: ``final_episodes`` fresh greedy episodes."""
        seed = derive_seed(self.config.seed, Stream.FINAL)
        return self._run_episodes(self.config.eval.final_episodes, True, seed, agent)

    def _save_best(self, mean: float) -> None:
        """Save the agent; the best return stays that of the saved one where the disk refuses it."""
        with self.writing("the best agent"):
            self.agent.save(self.best_dir)
            self.best_return = mean

    def _run_episodes(self, episodes: int, deterministic: bool, seed: int, agent: Agent | None = None) -> Evaluation:
        agent = agent or self.agent
        envs = self._make_envs(episodes)
        rng = None if deterministic else np.random.default_rng(seed)
        name, started = self.config.env.env_id, time.monotonic()
        limits = self._limits(started)
        try:
            evaluation = play(envs, agent.policy(rng), agent.normalize, episodes, seed, name=name, limits=limits)
        except EnvError as error:
            error.args = (f"in an evaluation: {error}",)
            raise
        self._seconds += time.monotonic() - started
        if evaluation.cut and max(evaluation.lengths) < limits.max_steps:
            self._cut_after = max(evaluation.lengths)
        return evaluation

    def _make_envs(self, episodes: int) -> EnvBackend:
        """Return the environments for a number of episodes; others are closed before new ones are made."""
        if self._envs is None or self._asked != episodes:
            self.close()
            self._envs = make_eval_envs(self._source, episodes, self.config.eval)
            self._asked = episodes
        return self._envs

    def _limits(self, started: float) -> Limits:
        """Return when episodes are cut: where no limit is declared, also once an evaluation takes too long."""
        longest = max_steps(self._source) if self._cut_after is None else self._cut_after
        is_bounded = self._source.time_limit() is None and self._cut_after is None

        def is_over() -> bool:
            self._check()
            return is_bounded and time.monotonic() - started > LONGEST_SECONDS

        return Limits(longest, is_over)

    def is_too_slow(self, training_seconds: float) -> bool:
        """Return whether evaluations of episodes without a limit have taken their share of the time."""
        is_bounded = self._source.time_limit() is None
        return is_bounded and self._seconds > LONGEST_SECONDS + MOST_OF_TRAINING * training_seconds

    def close(self) -> None:
        """Close the environments."""
        if self._envs is not None:
            self._envs.close()
            self._envs = None

    def get_state(self) -> State:
        """Return the results so far."""
        return {
            "best_return": self.best_return,
            "solved_at": list(self.solved_at) if self.solved_at else None,
            "reached_in_a_row": self._reached_in_a_row,
            "cut_after": self._cut_after,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self.best_return = state["best_return"]
        self.solved_at = (int(state["solved_at"][0]), float(state["solved_at"][1])) if state["solved_at"] else None
        self._reached_in_a_row = int(state["reached_in_a_row"])
        self._cut_after = state.get("cut_after")
