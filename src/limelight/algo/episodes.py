"""Finished episodes and the running ones they come from."""

from __future__ import annotations

from typing import NamedTuple


class Episode(NamedTuple):
    """A finished episode, in raw rewards."""

    env: int
    episode_return: float
    length: int
    terminated: bool
    step: int = 0
    """Environment steps of the run at the end of the rollout in which the episode ended; set by the runner."""
