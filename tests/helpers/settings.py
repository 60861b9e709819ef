"""Configurations from plain names of settings, and their errors."""

from __future__ import annotations

from typing import Any

import pytest

from limelight.errors import LimelightError
from limelight.settings.io import with_settings
from limelight.settings.schema import EnvConfig, TrainConfig


def train_config(**settings: Any) -> TrainConfig:
    """The default settings of a run with others instead, by plain name."""
    return with_settings(TrainConfig(), settings)


def env_config(env_id: str = "CartPole-v1", **settings: Any) -> EnvConfig:
    """Settings of an environment, those of Atari games among them, by plain name."""
    return train_config(env_id=env_id, **settings).env


def one_line(error: pytest.ExceptionInfo[LimelightError]) -> str:
    """The message of an error, which must be one line."""
    text = str(error.value)
    assert "\n" not in text
    return text
