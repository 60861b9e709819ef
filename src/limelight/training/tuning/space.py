"""Which settings of a run are searched, and where: the marks beside the fields, for the kind of run that it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from limelight.settings.io import Setting, all_settings, get_setting
from limelight.settings.rules import settings_without_effect, unused_settings
from limelight.settings.schema import TrainConfig
from limelight.settings.values import Choices, Search, coerce, to_text
from limelight.training.structure import has_images

if TYPE_CHECKING:
    from gymnasium.spaces import Space

Marks = Mapping[str, Search | Choices]
"""Where each setting is searched, by its plain name."""


def kinds_of(config: TrainConfig, observations: Space[Any], actions: Space[Any]) -> set[str]:
    """Return the kinds that a run is of, as the marks of ``settings/schema.py`` name them."""
    from limelight.envs.probe import real_parts

    a = config.algorithm
    images = has_images(observations)
    kinds = {
        "rollouts" if a.num_steps > 1 else "single_steps",
        "epochs" if max(a.num_epochs, a.num_minibatches) > 1 else "one_update",
        "traces" if config.optim.optimizer == "obgd" else "gradients",
        "images" if images else "vectors",
        "feedforward" if config.model.core == "feedforward" else "recurrent",
        "continuous" if any(real_parts(actions)) else "discrete",
    }
    return kinds | ({"reals"} if not images and any(real_parts(observations)) else set())


def search_space(
    config: TrainConfig, observations: Space[Any], actions: Space[Any], given: Mapping[str, Any]
) -> dict[str, Search | Choices]:
    """Return where each setting is searched that the run uses and that is not ``given``.

    The value of ``config``, from which the search begins, always lies in the space.
    """
    kinds = kinds_of(config, observations, actions)
    unused = {name for _, _, names in unused_settings(config) for name in names} | {*settings_without_effect(config)}
    found = {}
    for name, setting in all_settings().items():
        fitting = next((mark for mark in setting.search if kinds >= {*mark.only.split()}), None)
        if fitting is not None and name not in unused and name not in given:
            found[name] = _with_value(fitting, get_setting(config, name))
    return found


def _with_value(mark: Search | Choices, value: Any) -> Search | Choices:
    """Return a mark whose space holds a value: a wider interval, or one choice more, in order where it has one."""
    if isinstance(mark, Search):
        return dataclasses.replace(mark, low=min(mark.low, value), high=max(mark.high, value))
    if value in mark.values:
        return mark
    values = (*mark.values, value)
    ordered = all(isinstance(v, int | float) or (isinstance(v, tuple) and v) for v in values)
    return dataclasses.replace(mark, values=tuple(sorted(values)) if ordered else values)


def as_label(value: Any) -> Any:
    """Return a value as Optuna stores it: numbers, truths and texts as they are, lists as text."""
    return to_text(value) if isinstance(value, tuple) else value


def from_label(mark: Search | Choices, label: Any) -> Any:
    """Return the value that a label of :func:`as_label` stands for; a number that was drawn has four digits."""
    if isinstance(mark, Search):
        return float(f"{label:.4g}")
    return next(value for value in mark.values if as_label(value) == label and type(as_label(value)) is type(label))


def to_json(space: Marks) -> dict[str, Any]:
    """Return a search space as plain data."""
    return {name: {"kind": type(mark).__name__, **dataclasses.asdict(mark)} for name, mark in space.items()}


def from_json(data: Mapping[str, Any]) -> dict[str, Search | Choices]:
    """Return the search space of plain data; the inverse of :func:`to_json`."""
    return {name: _mark(all_settings()[name], dict(entry)) for name, entry in data.items()}


def _mark(setting: Setting, entry: dict[str, Any]) -> Search | Choices:
    if entry.pop("kind") == "Search":
        return Search(**entry)
    return Choices(tuple(coerce(setting.name, value, setting.annotation) for value in entry["values"]), entry["only"])
