"""The module that is exported, before it is a file, equals ``predict`` for every kind of agent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from helpers.export_agents import KINDS, RECURRENT, eager, make_agent, parity
from limelight.nn.bounds import make_to_env
from limelight.runs.export.module import PolicyModule, to_env
from limelight.runs.export.parity import LARGEST_DIFFERENCE
from limelight.runs.export.ports import ports_of
from limelight.runs.export.recording import random_recording

FAST = sorted(KINDS.keys() - RECURRENT)
OTHERS = sorted(RECURRENT - {"lstm"})


@pytest.mark.parametrize("deterministic", [True, False], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", FAST)
def test_the_module_equals_predict(name: str, deterministic: bool) -> None:
    found = parity(make_agent(KINDS[name]), deterministic)
    assert found.difference < LARGEST_DIFFERENCE, found
    assert found.observations == 120
    assert found.ties <= 1


# --------------------------------------------------------------------------- what exports of others left out


def without_normalizer(module: PolicyModule) -> None:
    module.normalize = torch.nn.Identity()


def with_zeroed_normalizer(module: PolicyModule) -> None:
    module.normalize.mean.zero_()
    module.normalize.std.fill_(1.0)


def without_clipping_of_observations(module: PolicyModule) -> None:
    module.normalize.limit.fill_(np.inf)


def without_bounds(module: PolicyModule) -> None:
    module._to_env = lambda sampled: [sampled]  # type: ignore[method-assign]


def with_the_bounds(bounds: str) -> Callable[[PolicyModule], None]:
    def spoil(module: PolicyModule) -> None:
        module.model.config = dataclasses.replace(module.model.config, action_bounds=bounds)

    return spoil


def without_start(module: PolicyModule) -> None:
    module.model.distribution.start = 0


def without_masks(module: PolicyModule) -> None:
    module.model.distribution_params = module.model._all_params


def without_scale_of_images(module: PolicyModule) -> None:
    module.model.encoder.planes.one_scale = 1.0


@pytest.mark.parametrize(
    ("name", "spoil", "output"),
    [
        ("discrete", without_normalizer, "params"),
        ("discrete", with_zeroed_normalizer, "params"),
        ("sensors", without_normalizer, "params"),
        ("clipped", without_bounds, "action"),
        ("rescaled", without_bounds, "action"),
        ("rescaled", with_the_bounds("clip"), "action"),
        ("squashed", with_the_bounds("rescale"), "action"),
        ("discrete", without_start, "action"),
        ("masked", without_masks, "params"),
        ("images", without_scale_of_images, "params"),
    ],
)
def test_a_part_that_is_left_out_is_found(name: str, spoil: Callable[[PolicyModule], None], output: str) -> None:
    found = parity(make_agent(KINDS[name]), deterministic=True, spoil=spoil)
    assert found.difference > 100 * LARGEST_DIFFERENCE
    assert found.output == output or found.output.startswith("action")


def test_observations_far_from_the_mean_are_clipped() -> None:
    agent = make_agent(KINDS["discrete"])
    far = random_recording(agent, 10, 1, "")._replace(obs=np.full((10, 4, 3), 1e5, np.float32))
    assert parity(agent, True, recording=far).difference < LARGEST_DIFFERENCE
    assert parity(agent, True, without_clipping_of_observations, far).difference > 0.1


def test_images_that_are_normalised_have_the_mean_of_the_agent() -> None:
    agent = make_agent(KINDS["normalized-images"])

    def spoil(module: PolicyModule) -> None:
        module.model.encoder.planes.mean = torch.zeros(1)

    assert parity(agent, True).difference < LARGEST_DIFFERENCE
    assert parity(agent, True, spoil).difference > 100 * LARGEST_DIFFERENCE


def test_illegal_actions_are_never_taken() -> None:
    agent = make_agent(KINDS["masked"])
    ports = ports_of(agent, deterministic=False)
    assert [port.name for port in ports.inputs] == ["obs", "action_mask", "noise"]
    obs = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    mask = np.tile(np.int8([0, 1, 1, 0, 0]), (50, 1))
    noise = np.linspace(0.0, 0.999, 100, dtype=np.float32).reshape(50, 2)
    found = eager(agent, ports)({"obs": obs, "action_mask": mask, "noise": noise})
    np.testing.assert_array_equal(found["action"], np.tile([1, 0], (50, 1)))


def test_actions_that_are_no_number_become_the_lower_bound() -> None:
    space = Box(np.float32([-2, 5]), np.float32([3, 50]))
    actions = torch.tensor([[[np.nan, np.inf]]])
    np.testing.assert_array_equal(to_env(space, "rescale", actions)[0, 0], [-2.0, 50.0])
    np.testing.assert_array_equal(
        to_env(space, "rescale", actions)[0], make_to_env(space, "rescale")(actions[0].numpy())
    )


def test_bfloat16_is_left_for_float32() -> None:
    agent = make_agent(KINDS["images"])
    agent.model.encoder.dtype = torch.bfloat16
    assert parity(agent, True).difference < LARGEST_DIFFERENCE
    assert agent.model.encoder.dtype == torch.bfloat16


# --------------------------------------------------------------------------- memory


@pytest.mark.parametrize("name", ["lstm", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_a_policy_with_memory_equals_predict_over_time(name: str) -> None:
    agent = make_agent(KINDS[name])
    found = parity(agent, deterministic=name != "gru", recording=random_recording(agent, 8, 1, ""))
    assert found.difference < LARGEST_DIFFERENCE, found


def test_one_step_of_memory_is_enough_to_compare() -> None:
    agent = make_agent(KINDS["lstm"])
    assert parity(agent, True, recording=random_recording(agent, 1, 1, "")).difference < LARGEST_DIFFERENCE


def test_a_memory_with_zeroed_statistics_is_found() -> None:
    agent = make_agent(KINDS["lstm"])
    recording = random_recording(agent, 8, 1, "")
    assert parity(agent, True, with_zeroed_normalizer, recording).difference > 100 * LARGEST_DIFFERENCE
