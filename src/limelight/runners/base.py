"""The interface of a runner, and the messages and limits that runners share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from limelight.algo.episodes import Episode
from limelight.envs.attributes import Order
from limelight.settings.schema import NO_STEP_BUDGET, TrainConfig
from limelight.typing import Metrics, State

ENV_STATE_NOT_RESTORED = "this environment cannot be restored, so its episodes restart (all else continues)"
NOT_REPRODUCIBLE = (
    "the order of asynchronous updates is not reproducible, so this continues the run but does not repeat it"
)
MAX_CONSECUTIVE_SKIPS = 100
"""Asynchronous updates in a row without a finite gradient after which the run ends: its parameters have diverged."""


@dataclass(frozen=True)
class Budget:
    """Environment steps and finished episodes of a run; it ends where the first of the two is used up."""

    timesteps: int
    episodes: int | None = None
    """None: only the steps end the run."""

    @property
    def has_step_limit(self) -> bool:
        """Return whether steps may end the run."""
        return self.timesteps < NO_STEP_BUDGET

    def is_used_up(self, steps: int, episodes: int) -> bool:
        """Return whether the run ends after these steps and episodes."""
        return steps >= self.timesteps or (self.episodes is not None and episodes >= self.episodes)

    def has_reached(self, until: int, steps: int, episodes: int) -> bool:
        """Return whether the run has taken ``until`` steps, or ends earlier."""
        return steps >= until or self.is_used_up(steps, episodes)

    def progress(self, steps: int, episodes: int) -> float:
        """Return the share that is used, 0 to about 1: of the one of which more is used."""
        share = steps / self.timesteps
        return share if self.episodes is None else max(share, episodes / self.episodes)


def budget_of(config: TrainConfig) -> Budget:
    """Return the budget of a run."""
    return Budget(config.total_timesteps, config.total_episodes)


class Runner(Protocol):
    """Collects rollouts and learns from them."""

    num_steps: int
    """Environment steps up to the last :meth:`advance`, over all environments; invalid rows do not count."""
    num_episodes: int
    """Episodes that have finished in these steps."""
    seconds: float
    """Seconds of training. Evaluations count only where training continues during them."""

    def advance(self, until: int, seconds: float) -> Metrics:
        """Train until ``num_steps`` ≥ ``until``, or for about ``seconds``; return the metrics of the last update.

        It ends earlier where the run's budget is used up. Where neither is reached, metrics are empty.
        Afterwards, the agent that shares the runner's model acts with the parameters of ``num_steps``.

        Raises: WorkerError if the run cannot continue without a worker that has exited.
        """

    def pop_episodes(self) -> list[Episode]:
        """Return the training episodes that have finished since the last call, with :attr:`Episode.step` set."""

    def pop_messages(self) -> list[str]:
        """Return messages for the user on workers since the last call."""

    def get_state(self) -> State:
        """Return everything needed to continue, but for the episodes that :meth:`pop_episodes` returns."""

    def set_state(self, state: Mapping[str, Any], seed: int) -> str | None:
        """Continue from :meth:`get_state`; episodes that must restart are seeded by ``seed``.

        Return None, or a sentence on why the run does not continue exactly.
        """

    def follow(self, order: Order) -> list[Any]:
        """Carry out an order in every environment, or for every learner; return the results of all environments.

        Attributes and settings stay as they were set: they are in the state, and new workers have them too.

        Raises: ConfigError for an order that cannot be carried out here.
        """

    def close(self) -> None:
        """Free environments and workers."""


def lasting(orders: Mapping[tuple[str, str], Order], order: Order) -> dict[tuple[str, str], Order]:
    """Return the orders that still hold after a further one: the last of each attribute and setting."""
    return {**orders, **({} if order.kind == "call_env" else {(order.kind, order.name): order})}


def saved_orders(orders: Mapping[tuple[str, str], Order]) -> list[list[Any]]:
    """Return lasting orders as plain data."""
    return [[order.kind, order.name, order.value] for order in orders.values()]


def loaded_orders(saved: Iterable[Any]) -> dict[tuple[str, str], Order]:
    """Return lasting orders from :func:`saved_orders`."""
    return {(kind, name): Order(kind, name, value) for kind, name, value in saved}


def stamp_episodes(episodes: Iterable[Episode], step: int, worker: int = 0, num_envs: int = 0) -> list[Episode]:
    """Return the episodes that ended in one rollout with step, worker and number of the environment in the run.

    Args:
        episodes: from the collector, which knows neither the run's step count nor other workers.
        step: environment steps of the run, over all workers, at the end of the rollout.
        worker: index of the collector's worker.
        num_envs: environments of each worker.
    """
    first_env = worker * num_envs
    return [
        Episode(first_env + e.env, e.episode_return, e.length, e.terminated, step, worker, e.info) for e in episodes
    ]
