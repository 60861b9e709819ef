"""Asynchronous workers without processes: tests call the steps of every worker, in any order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from typing import Any, cast

import numpy as np
import pytest
import torch

from limelight.runners.actor_learner import ActorLearner, make_actor_learner, running_statistics
from limelight.runners.processes.shared import Command, Control, SharedState
from limelight.runners.processes.worker import Worker, WorkerSpec
from limelight.seeds import worker_seed
from limelight.settings.schema import TrainConfig
from limelight.training.presets import resolve_config
from limelight.typing import EnvFactory


@dataclass
class Channel:
    """Records the messages that a worker sends."""

    sent: list[Any] = field(default_factory=list)

    def send(self, message: object) -> None:
        self.sent.append(message)


@dataclass
class WorkerGroup:
    """The workers of a run and their shared state; ``main`` is the actor-learner of the main process."""

    shared: SharedState
    main: ActorLearner
    workers: list[Worker]


def quick_config(algo: str = "a3c", **settings: Any) -> TrainConfig:
    """Return the configuration of a quick run, with no setting left at ``auto``."""
    quick: dict[str, Any] = {
        "num_envs": 2, "num_steps": 5, "backend": "sync", "device": "cpu", "eval_every": 0, "final_episodes": 0,
        "tensorboard": False, "checkpoint_every": 0, "hidden_sizes": (16,),
    }  # fmt: skip
    if algo == "a3c":
        quick["num_workers"] = 1
    return resolve_config(settings.pop("env_id", "CartPole-v1"), algo, "plain", {**quick, **settings})


def draw_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs end without drawing ``report.html``, which takes longer than they do."""
    monkeypatch.setattr(import_module("limelight.training.run"), "draw_report", lambda run_dir: None)


def assert_same(a: object, b: object) -> None:
    """Assert that two nested states are equal in every number; tensors count as arrays."""
    np.testing.assert_equal(_plain(a), _plain(b))


def _plain(state: object) -> object:
    if isinstance(state, Mapping):
        return {key: _plain(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_plain(value) for value in state]
    return state.numpy() if isinstance(state, torch.Tensor) else state


@contextmanager
def worker_group(config: TrainConfig, factory: EnvFactory | None = None) -> Iterator[WorkerGroup]:
    """Make all workers of ``config``, with the command RUN."""
    with ExitStack() as stack:

        def make(*args: Any) -> ActorLearner:
            actor_learner = make_actor_learner(config, factory, *args)
            stack.callback(actor_learner.close)
            return actor_learner

        main = make(config.seed)
        named = running_statistics(main.normalizer, main.learner)
        moments = {name: statistics.moments for name, statistics in named.items()}
        shared = SharedState(get_context("spawn"), config, main.learner.train_state, moments)
        stack.callback(shared.close)
        shared.arrays["control"][Control.LIMIT] = config.total_timesteps
        shared.arrays["control"][Control.COMMAND] = Command.RUN
        workers = []
        for index in range(shared.num_workers):
            actor_learner = make(worker_seed(config.seed, index), shared.train_state(index))
            spec = WorkerSpec(index, 0, config, None, 0)
            workers.append(Worker(spec, actor_learner, shared, cast(Any, Channel())))
        yield WorkerGroup(shared, main, workers)
