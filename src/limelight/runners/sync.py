"""The synchronous runner: collect and learn in turn, in one process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from limelight.algo.episodes import Episode
from limelight.algo.rollout import Rollout
from limelight.envs.attributes import Order
from limelight.runners.actor_learner import ActorLearner
from limelight.runners.base import ENV_STATE_NOT_RESTORED, Budget, lasting, loaded_orders, saved_orders, stamp_episodes
from limelight.runners.nonfinite import Skips
from limelight.runners.time_shares import ShareMeter
from limelight.runners.worker_metrics import ENV_RESTARTS
from limelight.typing import Metrics, State


class SyncRunner:
    """Collects every rollout with the newest parameters, and learns from it before the next (AC and A2C).

    ``skips``: leaves out rollouts and updates in which a number is not finite; None: such a number is an error.
    """

    def __init__(
        self, actor_learner: ActorLearner, total_timesteps: int, total_episodes: int | None = None,
        skips: Skips | None = None,
    ) -> None:  # fmt: skip
        self.actor_learner = actor_learner
        self.skips = skips
        self.budget = Budget(total_timesteps, total_episodes)
        self.num_steps = 0
        self.num_episodes = 0
        self.seconds = 0.0
        self._episodes: list[Episode] = []
        self._shares = ShareMeter(actor_learner)
        self._orders: dict[tuple[str, str], Order] = {}
        self._messages: list[str] = []
        self._env_restarts: int | None = None  # None: the run does not replace environments, or has not yet

    def advance(self, until: int, seconds: float) -> Metrics:
        """See :class:`limelight.runners.base.Runner`."""
        collector = self.actor_learner.collector
        learner = self.actor_learner.learner
        budget, skips = self.budget, self.skips
        collect: Callable[[], Rollout] = self.actor_learner.collect
        update: Callable[[Rollout, float], None] = learner.update
        if skips is not None:
            collect, update = partial(skips.collect, self.actor_learner), partial(skips.update, learner)
        most_episodes = math.inf if budget.episodes is None else budget.episodes
        if self.num_steps >= until or self.num_episodes >= most_episodes:
            return {}
        start = now = time.perf_counter()
        while self.num_steps < until and self.num_episodes < most_episodes and now < start + seconds:
            # Collect
            rollout = collect()

            # Learn
            update(rollout, budget.progress(self.num_steps, self.num_episodes))

            # Count
            self.num_steps += rollout.num_valid
            if finished := collector.pop_episodes():
                self.num_episodes += len(finished)
                self._episodes += stamp_episodes(finished, self.num_steps)
            now = time.perf_counter()
        self.seconds += now - start
        if restarts := self.actor_learner.pop_restarts():
            self._messages += restarts
            self._env_restarts = (self._env_restarts or 0) + len(restarts)
        is_due = self.num_steps >= until or self.num_episodes >= most_episodes
        if not is_due:
            return {}
        counts: Metrics = {} if self._env_restarts is None else {ENV_RESTARTS: self._env_restarts}
        if skips is not None:
            counts["train/skipped_updates"] = float(skips.count)
        return {**self.actor_learner.metrics(), **counts, **self._shares.metrics(self.seconds)}

    def pop_episodes(self) -> list[Episode]:
        """See :class:`limelight.runners.base.Runner`."""
        episodes = self._episodes
        self._episodes = []
        return episodes

    def pop_messages(self) -> list[str]:
        """Return the messages on environments that were replaced, and on the first update that was skipped."""
        messages, self._messages = self._messages, []
        if self.skips is not None:
            messages += self.skips.messages
            self.skips.messages = []
        return messages

    def get_state(self) -> State:
        """See :class:`limelight.runners.base.Runner`."""
        return {
            "num_steps": self.num_steps,
            "num_episodes": self.num_episodes,
            "seconds": self.seconds,
            "train_state": self.actor_learner.learner.train_state.get_state(),
            "actor": self.actor_learner.get_state(),
            "orders": saved_orders(self._orders),
            "env_restarts": self._env_restarts,
        }

    def set_state(self, state: Mapping[str, Any], seed: int) -> str | None:
        """See :class:`limelight.runners.base.Runner`."""
        self.actor_learner.collector.pop_episodes()
        self._episodes = []
        self.num_steps = int(state["num_steps"])
        self.num_episodes = int(state["num_episodes"])
        self.seconds = float(state["seconds"])
        self._shares.start(self.seconds)
        self.actor_learner.learner.train_state.set_state(state["train_state"])
        exact = self.actor_learner.set_state(state["actor"], seed if self.num_steps else None)
        self._orders = loaded_orders(state["orders"])
        self._env_restarts = state.get("env_restarts")
        self.actor_learner.follow_all(self._orders.values())
        return None if exact else ENV_STATE_NOT_RESTORED

    def follow(self, order: Order) -> list[Any]:
        """See :class:`limelight.runners.base.Runner`."""
        results = self.actor_learner.follow(order)
        self._orders = lasting(self._orders, order)
        return results

    def close(self) -> None:
        """See :class:`limelight.runners.base.Runner`."""
        self.actor_learner.close()
