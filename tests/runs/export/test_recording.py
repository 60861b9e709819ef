"""Observations to compare a file on: of the agent's episodes, or random ones with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import limelight
from helpers.composite_envs import Doors
from helpers.export_agents import KINDS, make_agent
from limelight.runs.export.recording import NUM_ENVS, record
from limelight.spaces.packed import Packed


def test_episodes_are_those_of_the_environment_and_every_mask_leaves_an_action(tmp_path: Path) -> None:
    agent = limelight.train(
        Doors, algo="a2c", num_envs=2, total_timesteps=40, eval_every=0, final_episodes=0, quiet=True, backend="sync",
        run_dir=str(tmp_path / "run"), tensorboard=False,
    ).agent  # fmt: skip
    first, second = record(agent, 100, 3), record(agent, 100, 3)
    np.testing.assert_array_equal(first.obs, second.obs)
    T, B = first.episode_start.shape
    assert B == NUM_ENVS
    assert T * B >= 100
    assert first.episode_start[0].all()
    assert 0 < first.episode_start[1:].sum() < T * B / 2
    assert first.origin.startswith("episodes of ")
    space = agent.observation_space
    assert isinstance(space, Packed)
    assert space.mask is not None
    assert first.obs[..., space.mask.part].any(-1).all()


def test_without_its_environment_observations_are_random_and_the_reason_is_given() -> None:
    agent = make_agent(KINDS["sensors"])
    recording = record(agent, 10, 3)
    assert recording.obs.shape == (3, NUM_ENVS, *agent.observation_space.shape)
    assert recording.origin.startswith("random ones, as no episode can be played here (env_id = ")
    assert "\n" not in recording.origin
    assert len(np.unique(recording.obs.reshape(12, -1), axis=0)) == 12
