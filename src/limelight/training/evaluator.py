"""Judges the agent while it trains: evaluations, the best agent so far, and when the goal is reached. For train.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from limelight.envs.base import EnvBackend
from limelight.runs.agent import Agent
from limelight.runs.evaluation import Evaluation, make_eval_envs, play
from limelight.seeds import Stream, derive_seed
from limelight.settings.schema import TrainConfig
from limelight.typing import State


class Evaluator:
    """Evaluates in environments of its own, keeps the best agent in ``best/``, confirms that a return is reached."""

    def __init__(self, agent: Agent, config: TrainConfig, best_dir: Path, threshold: float | None) -> None:
        self.agent, self.config, self.best_dir = agent, config, best_dir
        self.threshold = threshold
        """The return that counts as solved: ``stop_at_return``, or what the environment itself names."""
        self.best_return: float | None = None
        self.solved_at: tuple[int, float] | None = None
        """(environment steps, training seconds) when the threshold was first reached (confirmed, where it stops)."""
        self._reached_in_a_row = 0
        self._envs: dict[int, EnvBackend] = {}

    def evaluate(self, step: int, seconds: float) -> Evaluation:
        """One evaluation of the agent as it is now; the best so far is kept (the later of equals)."""
        settings = self.config.eval
        evaluation = self._play(
            settings.eval_episodes,
            not settings.eval_stochastic,
            derive_seed(self.config.seed, Stream.EVALUATION, step),
        )
        mean = evaluation.mean_return
        if self.best_return is None or mean >= self.best_return:
            self._keep_best(mean)
        reached = self.threshold is not None and mean >= self.threshold
        self._reached_in_a_row = self._reached_in_a_row + 1 if reached else 0
        if reached and self.solved_at is None and settings.stop_at_return is None:
            self.solved_at = (step, seconds)
        return evaluation

    def should_confirm(self) -> bool:
        """Whether enough evaluations in a row have reached ``stop_at_return``."""
        settings = self.config.eval
        return settings.stop_at_return is not None and self._reached_in_a_row >= settings.stop_patience

    def confirm(self, step: int, seconds: float) -> tuple[Evaluation, bool]:
        """Fresh greedy episodes; True if they reach ``stop_at_return``, and the agent is then the best one."""
        settings = self.config.eval
        assert settings.stop_at_return is not None
        evaluation = self._play(
            settings.confirm_episodes, True, derive_seed(self.config.seed, Stream.CONFIRMATION, step)
        )
        confirmed = evaluation.mean_return >= settings.stop_at_return
        if confirmed:
            self._keep_best(evaluation.mean_return)
            self.solved_at = (step, seconds)
        self._reached_in_a_row = 0
        return evaluation, confirmed

    def final(self, agent: Agent) -> Evaluation:
        """The last word on ``agent``: ``final_episodes`` fresh greedy episodes."""
        return self._play(self.config.eval.final_episodes, True, derive_seed(self.config.seed, Stream.FINAL), agent)

    def _keep_best(self, mean: float) -> None:
        self.best_return = mean
        self.agent.save(self.best_dir)

    def _play(self, episodes: int, deterministic: bool, seed: int, agent: Agent | None = None) -> Evaluation:
        agent = agent or self.agent
        envs = self._envs.get(episodes)
        if envs is None:
            envs = self._envs[episodes] = make_eval_envs(self.config.env, episodes, self.agent.env_factory)
        rng = None if deterministic else np.random.default_rng(seed)
        return play(envs, agent.policy(rng), agent.normalize, episodes, seed)

    def close(self) -> None:
        """Close the environments."""
        for envs in self._envs.values():
            envs.close()

    def get_state(self) -> State:
        """What was judged so far."""
        return {
            "best_return": self.best_return,
            "solved_at": list(self.solved_at) if self.solved_at else None,
            "reached_in_a_row": self._reached_in_a_row,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self.best_return = state["best_return"]
        self.solved_at = (int(state["solved_at"][0]), float(state["solved_at"][1])) if state["solved_at"] else None
        self._reached_in_a_row = int(state["reached_in_a_row"])
