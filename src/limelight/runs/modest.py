"""Bounds on the network and the spaces that a saved agent describes: a small file must not fill the memory."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import torch

from limelight.errors import CheckpointError
from limelight.nn.encoders import is_builtin
from limelight.nn.model import make_model
from limelight.settings.io import all_settings, from_dict
from limelight.settings.rules import check_hidden_sizes
from limelight.spaces.describe import leaves_of_json, size_of_json, space_from_json
from limelight.typing import State

_SMALL = 1 << 22
"""Numbers that any computer has memory for."""
_COUNTED = 1 << 22
"""Weights by a rough estimate from above, beyond which they are counted exactly."""
_MOST_LEAVES = 4_096
"""Parts of an observation or action, each with objects of its own."""
_FEW_IMAGES, _PER_IMAGE = 16, 1_000
"""Images of an observation that are never too many, and the weights that a built-in network has at least for each."""
_WIDEST_OF_IMAGES = 512
"""Units of the hidden layer of a convolutional network."""


def require_modest(state: State) -> None:
    """Refuse a network or spaces far larger than the parameters, before they are made.

    Raises: CheckpointError or ConfigError.
    """
    count = len(state["params"])
    model = state["config"]["model"]
    core_size, limits = model["core_size"] or 1, all_settings()["core_size"].range
    check_hidden_sizes(model["hidden_sizes"])
    if limits is not None:
        limits.check("core_size", core_size)
    widths = [*model["hidden_sizes"], core_size]
    weights = sum(a * b for a, b in pairwise([widths[0], *widths]))
    if weights > max(2 * count, _SMALL):
        raise CheckpointError(f"hidden layers of {weights:,} weights in a network of {count:,} parameters")
    weights += 0 if model["core"] == "feedforward" else 4 * core_size**2
    for name in ("observation_space", "action_space"):
        size, (leaves, images) = size_of_json(state[name]), leaves_of_json(state[name])
        if size > max(64 * count, _SMALL):
            raise CheckpointError(f"{name} of {size:,} numbers for a network of {count:,} parameters")
        if leaves > _MOST_LEAVES or images > max(count // _PER_IMAGE, _FEW_IMAGES):
            raise CheckpointError(f"{name} of {leaves:,} parts for a network of {count:,} parameters")
        weights += size * max(*widths, _WIDEST_OF_IMAGES)
    if weights > _COUNTED:
        _require_count(state, count)


def _require_count(state: State, count: int) -> None:
    """Refuse a network of more weights than were saved; it is built without memory for them.

    Raises: CheckpointError.
    """
    spaces = space_from_json(state["observation_space"]), space_from_json(state["action_space"])
    config = from_dict(state["config"])
    plain = dataclasses.replace(config.model, sparse_init=0.0, orthogonal_init=False)  # initial weights take time
    try:
        with torch.device("meta"):
            model = make_model(*spaces, plain, config.seed)
    except Exception:  # a class of the user's own may need real numbers
        if is_builtin(config.model.encoder):
            raise
        return
    weights = sum(parameter.numel() for parameter in model.parameters())
    if weights > count:
        raise CheckpointError(f"a network of {weights:,} weights for {count:,} saved parameters")
