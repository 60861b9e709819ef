"""The environment's own numbers over the episodes of an evaluation: their means, and the rate of success."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from limelight.envs.episode_info import SUCCESS_KEYS, EpisodeInfo
from limelight.runs.statistics import wilson_interval

Numbers = Mapping[str, Sequence[float | None]]
"""By key, a number for each episode; None where the episode's info has none."""


class Success(NamedTuple):
    """The share of episodes that succeeded, with its 95 % interval (Wilson)."""

    key: str
    """The key of info that told it."""
    rate: float
    low: float
    high: float
    episodes: int
    """Episodes that told it."""


def by_key(infos: Sequence[EpisodeInfo]) -> dict[str, list[float | None]]:
    """Return the numbers of episodes by key, in the order of the episodes."""
    keys = dict.fromkeys(key for info in infos for key in info.numbers)
    return {key: [info.numbers.get(key) for info in infos] for key in keys}


def means_of(numbers: Numbers) -> dict[str, float]:
    """Return the mean of each key over the episodes that have it."""
    known = {key: [value for value in values if value is not None] for key, values in numbers.items()}
    return {key: math.fsum(values) / len(values) for key, values in known.items() if values}


def success_of(numbers: Numbers) -> Success | None:
    """Return the rate of success; None where no info tells it, or by other numbers than 0 and 1."""
    for key in SUCCESS_KEYS:
        told = [value for value in numbers.get(key, ()) if value is not None]
        if told and {*told} <= {0.0, 1.0}:
            count = int(sum(told))
            return Success(key, count / len(told), *wilson_interval(count, len(told)), len(told))
    return None


def to_json(numbers: Numbers) -> dict[str, Any]:
    """Return rate, interval, means and the numbers themselves; nothing where there are none."""
    if not numbers:
        return {}
    success = success_of(numbers)
    rate = {"success_rate": success.rate, "success_interval": [success.low, success.high],
            "success_episodes": success.episodes} if success else {}  # fmt: skip
    return {**rate, "env_means": means_of(numbers), "env": {key: list(values) for key, values in numbers.items()}}


def to_summary(numbers: Numbers) -> dict[str, Any]:
    """Return rate, interval and means by the names of ``summary.json``."""
    return {f"final_eval_{key}": value for key, value in to_json(numbers).items() if key != "env"}


def to_metrics(numbers: Numbers) -> dict[str, float]:
    """Return rate and means by the names of logged metrics."""
    success = success_of(numbers)
    rate = {"eval/success_rate": success.rate} if success else {}
    return {**rate, **{f"eval/env/{key}": mean for key, mean in means_of(numbers).items()}}


def describe(numbers: Numbers, episodes: int) -> str:
    """Return rate and means in words, each with the number of episodes that have it if not all do."""
    success, parts = success_of(numbers), []
    if success:
        interval = f"95 % interval {100 * success.low:.1f}–{100 * success.high:.1f} %"
        parts.append(f"success rate {100 * success.rate:.1f} % ({interval}){_of(success.episodes, episodes)}")
    for key, mean in means_of(numbers).items():
        if success is None or key != success.key:
            count = sum(value is not None for value in numbers[key])
            parts.append(f"{key} {mean:.4g}{_of(count, episodes)}")
    return ", ".join(parts)


def _of(count: int, episodes: int) -> str:
    return "" if count == episodes else f" over the {count} of {episodes} episodes that tell it"
