"""Configurations from plain names of settings."""

from __future__ import annotations

from typing import Any

from limelight.settings.io import with_settings
from limelight.settings.schema import EnvConfig, TrainConfig


def env_config(env_id: str = "CartPole-v1", **settings: Any) -> EnvConfig:
    """Settings of an environment, those of Atari games among them, by plain name."""
    return with_settings(TrainConfig(), {"env_id": env_id, **settings}).env
