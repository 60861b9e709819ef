"""Settings: the dataclasses, their text forms, and the rules between them."""

from limelight.settings.schema import AlgorithmConfig, ModelConfig, OptimConfig, TrainConfig

__all__ = ["AlgorithmConfig", "ModelConfig", "OptimConfig", "TrainConfig"]
