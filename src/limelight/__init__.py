"""Limelight: actor-critic reinforcement learning. ``import limelight`` loads nothing heavy."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from limelight.agent import Agent, load
    from limelight.config import TrainConfig
    from limelight.envs.make import make_envs
    from limelight.evaluate import evaluate
    from limelight.train import resume, train

_HOMES = {
    "train": "limelight.train",
    "resume": "limelight.train",
    "load": "limelight.agent",
    "evaluate": "limelight.evaluate",
    "make_envs": "limelight.envs.make",
    "Agent": "limelight.agent",
    "TrainConfig": "limelight.config",
}
__all__ = ["Agent", "TrainConfig", "__version__", "evaluate", "load", "make_envs", "resume", "train"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562), so that ``import limelight`` stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'limelight' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """Keeps ``limelight.train`` the function: importing the submodule of that name would put the module there."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
