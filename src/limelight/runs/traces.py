"""The steps of the episodes of an evaluation: actions, rewards, values, ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from limelight.algo.collector import Policy
from limelight.envs.base import Step
from limelight.nn.model import ActorCritic
from limelight.runs.rows import Row, forward


@dataclass
class EpisodeTrace:
    """The steps of one episode."""

    seed: int
    """Of its environment."""
    number: int
    """Which episode of its environment it is, from 0."""
    earlier: int
    """Calls of ``step`` on its environment before this episode."""
    all_actions: list[NDArray[Any]]
    """The actions of its environment from the reset with ``seed`` on; those of this episode follow ``earlier``."""
    rewards: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    """V(s) before each step, in the units of the learner; empty: not kept."""
    end: str = "cut"
    """terminated, truncated, or cut by the evaluation."""

    @property
    def actions(self) -> Sequence[NDArray[Any]]:
        """Return the action of each step."""
        return self.all_actions[self.earlier : self.earlier + len(self.rewards)]

    @property
    def total(self) -> float:
        """Return the return."""
        return float(np.sum(self.rewards))

    def rows(self, learnt: Sequence[float] | None = None) -> tuple[list[str], list[list[Any]]]:
        """Return a header and a row per step.

        Args:
            learnt: the rewards that were learnt from, for a column of their own.
        """
        columns: dict[str, Sequence[Any]] = {
            "step": range(1, len(self.rewards) + 1),
            "action": [action.tolist() for action in self.actions],
            "reward": self.rewards,
            **({} if learnt is None else {"reward_as_trained": [float(r) for r in learnt]}),
            "return": np.cumsum(self.rewards).tolist(),
            **({"value": self.values} if self.values else {}),
            "end": [""] * (len(self.rewards) - 1) + [self.end],
        }
        return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


@final
class Tracer:
    """Keeps the steps of the episodes that count in an evaluation; an :class:`~limelight.runs.evaluation.Observer`.

    Args:
        num_envs: B.
        seed: of the evaluation; environment b has seed + b.
        policy: that acts.
        model: for values; None: they are not kept.
    """

    def __init__(self, num_envs: int, seed: int, policy: Policy, model: ActorCritic | None) -> None:
        self.episodes: list[EpisodeTrace] = []
        """In the order in which they end."""
        self._policy = policy
        self._model = model
        self._actions: list[list[NDArray[Any]]] = [[] for _ in range(num_envs)]
        self._running = [EpisodeTrace(seed + b, 0, 0, self._actions[b]) for b in range(num_envs)]
        self._values: NDArray[Any] | None = None

    def before(self, obs: NDArray[Any], episode_start: NDArray[np.float32]) -> None:
        """Compute the values of the observations."""
        if self._model is not None:
            row = Row(obs, self._policy.recurrent_state, episode_start, False)
            self._values = forward(self._model, row).values[0].cpu().numpy()

    def after(self, actions: NDArray[Any], step: Step) -> None:
        """Add the step to the running episode of each environment."""
        for b, running in enumerate(self._running):
            if not step.valid[b]:  # the environment was reset
                self._actions[b].append(np.array(actions[b]))
                number, earlier = running.number + 1, len(self._actions[b])
                self._running[b] = EpisodeTrace(running.seed, number, earlier, self._actions[b])
                continue
            self._actions[b].append(np.array(actions[b]))
            running.rewards.append(float(step.rewards[b]))
            if self._values is not None:
                value = self._values[b]
                running.values.append(float(value if value.ndim == 0 else value[int(actions[b])]))
            if step.terminated[b] or step.truncated[b]:
                running.end = "terminated" if step.terminated[b] else "truncated"

    def episode(self, b: int) -> None:
        """Keep the running episode of environment ``b``."""
        self.episodes.append(self._running[b])
