"""Which recurrent models the NumPy engine acts with; tests/equivalence/test_engine_copies.py compares the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space

from limelight.nn.model import ActorCritic
from limelight.nn.numpy_engine.cells import supports
from limelight.nn.numpy_engine.layers import MAX_WIDTH

BOX = Box(-1.0, 1.0, (2, 3))


@pytest.mark.parametrize(
    ("space", "settings", "expected"),
    [
        (BOX, {"core": "lstm"}, True),
        (BOX, {"core": "gru", "critic": "target", "activation": "relu"}, True),
        (Discrete(4, start=1), {"core": "gru", "core_size": MAX_WIDTH}, True),
        (BOX, {"core": "gru", "core_size": MAX_WIDTH + 1}, False),
        (BOX, {"core": "gru", "activation": "elu"}, False),
        (BOX, {"core": "lstm", "hidden_sizes": (MAX_WIDTH + 1,)}, False),
        (MultiDiscrete([2, 2]), {"core": "lstm"}, True),
        (BOX, {}, False),
    ],
)
def test_small_recurrent_models_are_supported(
    make_actor_critic: Callable[..., ActorCritic], space: Space[Any], settings: dict[str, Any], expected: bool
) -> None:
    assert supports(make_actor_critic(space, **settings)) is expected
