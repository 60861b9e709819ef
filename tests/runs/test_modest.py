"""Bounds on what a saved agent describes: the same for every kind of agent, and refusals before anything is made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Space
from torch import nn

from helpers.export_agents import KINDS, make_agent
from limelight.errors import CheckpointError, LimelightError
from limelight.nn import model
from limelight.runs import modest
from limelight.runs.modest import require_modest
from limelight.settings.io import to_dict
from limelight.settings.schema import TrainConfig
from limelight.spaces.describe import space_to_json
from limelight.spaces.packed import Packed

BOX, WIDE, TWO = Box(-1.0, 1.0, (4,)), Box(-1.0, 1.0, (20_000,)), Discrete(2)
IMAGE = Box(0, 255, (36, 36, 1), np.uint8)


def state_of(observations: Space[Any], actions: Space[Any], count: int = 35, **settings: Any) -> dict[str, Any]:
    config = to_dict(TrainConfig())
    config["model"].update(settings)
    spaces = {"observation_space": space_to_json(observations), "action_space": space_to_json(actions)}
    return {"params": np.zeros(count, np.float32), "config": config, **spaces}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_agent_is_counted_right_without_memory_for_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that are too small to be counted."""
    agent = make_agent(KINDS[kind])
    state = agent.get_state()
    monkeypatch.setattr(modest, "_COUNTED", 0)
    before = torch.get_rng_state()
    require_modest(state)
    with pytest.raises(CheckpointError, match=r"a network of [\d,]+ weights for [\d,]+ saved parameters"):
        require_modest({**state, "params": state["params"][:-1]})
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("observations", "actions", "settings", "words"),
    [
        (BOX, TWO, {"hidden_sizes": [1] * 101}, "hidden_sizes = "),
        (BOX, TWO, {"hidden_sizes": [60_000, 60_000, -60_000, 60_000]}, "hidden_sizes = "),
        (BOX, TWO, {"hidden_sizes": [60_000], "core_size": -60_000}, "core_size = -60000: must be ≥ 1"),
        (BOX, TWO, {"hidden_sizes": [60_000, 60_000]}, "hidden layers of 7,203,840,000 weights"),
        (WIDE, TWO, {"hidden_sizes": [2_000]}, "a network of 40,0"),
        (BOX, Discrete(20_000), {"hidden_sizes": [2_000]}, "a network of 40,0"),
        (BOX, TWO, {"core": "lstm", "core_size": 2_000, "hidden_sizes": [1]}, "a network of 16,0"),
        (WIDE, TWO, {"core": "lstm", "core_size": 2_000, "hidden_sizes": [1]}, "a network of 16,0"),
        (WIDE, Discrete(1_000), {"encoder": "limelight.nn.encoders:FlattenObs"}, "a network of 20,0"),
        (Box(0, 255, (300, 300, 1), np.uint8), TWO, {}, "a network of "),
        (Packed(Dict({f"{i}": IMAGE for i in range(17)})), TWO, {}, "observation_space of 17 parts"),
        (Packed(Dict({f"{i}": MultiBinary(1) for i in range(4_097)})), TWO, {}, "observation_space of 4,097 parts"),
    ],
)  # fmt: skip
def test_what_would_take_far_more_than_the_parameters_is_refused_before_it_is_made(
    observations: Space[Any], actions: Space[Any], settings: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = state_of(observations, actions, **settings)

    def on_meta(*parts: Any) -> model.ActorCritic:
        assert torch.empty(0).device.type == "meta"
        return model.make_model(*parts)

    monkeypatch.setattr(modest, "make_model", on_meta)
    with pytest.raises(LimelightError, match=f"^{words}"):
        require_modest(state)


class NeedsNumbers(nn.Module):
    """Cannot be made without memory for its weights."""

    num_features = 3

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        assert self.linear.weight.detach().numpy().shape == (3, 3)


def test_a_network_of_the_users_own_that_cannot_be_counted_is_accepted() -> None:
    require_modest(state_of(WIDE, TWO, encoder=f"{__name__}:NeedsNumbers"))
