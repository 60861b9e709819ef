"""Cores stand between encoder and heads and may remember: features [T, B, F] → features [T, B, F'], and a state."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Core(Protocol):
    """A memory (or none) unrolled over time."""

    num_features: int
    """F'."""

    def initial_state(self, batch: int) -> Tensor | None:
        """The state before the first observation of ``batch`` episodes; None where there is no memory."""

    def __call__(
        self, features: Tensor, state: Tensor | None, episode_start: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Features after the memory [T, B, F'] and the state after the last row; ``episode_start`` [T, B] resets it."""


class FeedForward:
    """No memory: features pass as they are."""

    def __init__(self, num_features: int) -> None:
        self.num_features = num_features

    def initial_state(self, batch: int) -> None:
        """None: nothing to remember."""
        return

    def __call__(
        self, features: Tensor, state: Tensor | None, episode_start: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The features themselves and the state as given."""
        return features, state
