"""Limelight: actor-critic reinforcement learning. ``import limelight`` loads nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from limelight.envs.fresh import make_envs
    from limelight.errors import CheckpointError, ConfigError, EnvError, LimelightError, NonFiniteError, WorkerError
    from limelight.runs.agent import Agent, load
    from limelight.runs.datasets import record_dataset
    from limelight.runs.evaluation import evaluate
    from limelight.runs.export.export import export
    from limelight.runs.full_evaluation import evaluate_in_full
    from limelight.settings.schema import TrainConfig
    from limelight.training.run import branch, resume, train

_HOMES = {
    "Agent": "runs.agent",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "EnvError": "errors",
    "LimelightError": "errors",
    "NonFiniteError": "errors",
    "TrainConfig": "settings.schema",
    "WorkerError": "errors",
    "branch": "training.run",
    "evaluate": "runs.evaluation",
    "evaluate_in_full": "runs.full_evaluation",
    "export": "runs.export.export",
    "load": "runs.agent",
    "make_envs": "envs.fresh",
    "record_dataset": "runs.datasets",
    "resume": "training.run",
    "train": "training.run",
}
__all__ = [
    "Agent", "CheckpointError", "ConfigError", "EnvError", "LimelightError", "NonFiniteError", "TrainConfig",
    "WorkerError", "__version__", "branch", "evaluate", "evaluate_in_full", "export", "load", "make_envs",
    "record_dataset", "resume", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562), so that ``import limelight`` stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'limelight' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"limelight.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
