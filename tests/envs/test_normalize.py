"""Which numbers of observations are standardised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Tuple
from hypothesis import example, given
from hypothesis import strategies as st

import limelight
from composite import ROOM
from in_process import a3c
from limelight.agent import Agent
from limelight.config import ConfigError
from limelight.envs.make import make_envs
from limelight.envs.normalize import ObservationNormalizer, make_normalizer
from limelight.packed import Packed
from limelight.runners.actor import make_actor


def test_real_numbers_alone_are_standardised() -> None:
    packed = Packed(ROOM)
    normalizer = make_normalizer(packed)
    assert normalizer is not None
    assert normalizer.entries is not None
    real = [leaf for leaf in packed.leaves if leaf.path in {("speed",), ("height",)}]
    entries = np.concatenate([np.arange(leaf.start, leaf.start + leaf.size) for leaf in real])
    assert normalizer.entries.tolist() == entries.tolist()
    rows = np.stack([packed.sample() for _ in range(50)])
    normalizer.update(rows)
    result = normalizer(rows)
    assert result.dtype == np.float32
    others = np.delete(np.arange(rows.shape[1]), entries)
    np.testing.assert_array_equal(result[:, others], rows[:, others])
    plain = ObservationNormalizer((3,))
    plain.update(rows[:, entries])
    np.testing.assert_array_equal(result[:, entries], plain(rows[:, entries]))
    np.testing.assert_array_equal(normalizer(rows[0]), result[0])
    again = make_normalizer(packed)
    assert again is not None
    again.set_state(normalizer.get_state())
    np.testing.assert_array_equal(again(rows), result)


def test_a_plain_box_is_standardised_whole() -> None:
    normalizer = make_normalizer(Box(-1, 1, (2, 3)))
    assert normalizer is not None
    assert normalizer.entries is None
    assert normalizer.moments.mean.shape == (2, 3)


@pytest.mark.parametrize(
    "space",
    [
        Discrete(3),
        Box(0, 10, (9, 9, 3), np.uint8),
        Box(0, 255, (9,), np.uint8),
        Box(-3, 3, (2,), np.int64),
        Packed(Tuple([Discrete(3), MultiBinary(2)])),
        Packed(Dict({"action_mask": Box(0.0, 1.0, (2,)), "x": Discrete(2)}), "observation"),
    ],
)
def test_nothing_to_standardise(space: object) -> None:
    assert make_normalizer(space) is None  # type: ignore[arg-type]


def test_it_is_refused_where_there_is_nothing() -> None:
    with pytest.raises(ConfigError, match=r"normalize_obs = true: needs Box observations .* set it to false"):
        make_envs("Blackjack-v1", 1, normalize_obs=True)


# --------------------------------------------------------------------------- images


IMAGE = Box(0, 255, (2, 36, 40), np.uint8)


def image_normalizer(space: Box = IMAGE) -> ObservationNormalizer:
    normalizer = make_normalizer(space)
    assert normalizer is not None
    return normalizer


def frames(seed: int, number: int, highest: int = 255, space: Box = IMAGE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, highest + 1, (number, *space.shape)).astype(np.uint8)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 255)), min_size=1, max_size=5))
@example([(0, 3)])
def test_an_image_has_one_mean_and_variance_of_all_its_pixels(batches: list[tuple[int, int]]) -> None:
    normalizer = image_normalizer()
    seen = [frames(seed, number, highest) for seed, (number, highest) in enumerate(batches)]
    for batch in seen:
        normalizer.update(batch)
    together = np.concatenate(seen).astype(np.float64)
    mean, var, size = normalizer.moments
    assert size == together.size
    if size:
        assert float(mean) == pytest.approx(together.mean(), rel=1e-9, abs=1e-9)
        assert float(var) == pytest.approx(together.var(), rel=1e-9, abs=1e-9)
    obs = frames(9, 3)
    result = normalizer(obs)
    assert (result.dtype, result.shape) == (np.float32, obs.shape)
    expected = np.clip((obs - float(mean)) / np.sqrt(float(var) + 1e-8), -10, 10)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(normalizer(obs[0]), result[0])
    assert np.ptp(obs) > 200  # as they were


def test_images_share_moments_and_save_them() -> None:
    """As workers do, and a checkpoint: all is as if one had seen everything."""
    workers, whole = [image_normalizer(), image_normalizer()], image_normalizer()
    common = whole.moments
    for turn in range(3):
        for i, worker in enumerate(workers):
            common = worker.share(common)
            batch = frames(10 * turn + i, 2, 100 + 50 * i)
            worker.update(batch)
            whole.update(batch)
    for worker in workers:
        common = worker.share(common)
    assert common.size == whole.moments.size
    np.testing.assert_allclose(common[:2], whole.moments[:2], rtol=1e-9)
    again = image_normalizer()
    again.set_state(whole.get_state())
    np.testing.assert_array_equal(again(frames(1, 2)), whole(frames(1, 2)))
    again.update(frames(2, 2))
    whole.update(frames(2, 2))
    assert again.moments == whole.moments


@pytest.mark.parametrize("shape", [(36, 36), (42, 42, 1), (4, 84, 84), (9, 9, 3)])
def test_every_image_of_brightness_can_be_standardised(shape: tuple[int, ...]) -> None:
    assert image_normalizer(Box(0, 255, shape, np.uint8)).moments.mean.shape == ()


def test_images_inside_others_stay(rng: np.random.Generator) -> None:
    space = Packed(Dict({"camera": IMAGE, "speed": Box(-1.0, 1.0, (2,))}))
    normalizer = make_normalizer(space)
    assert normalizer is not None
    rows = np.stack([space.sample() for _ in range(4)])
    normalizer.update(rows)
    camera = space.leaves[0].part
    np.testing.assert_array_equal(normalizer(rows)[:, camera], rows[:, camera])


def test_codes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"normalize_obs = true: needs .* but .* has Box\(7, 7, 3\) uint8; set it to"):
        make_envs(lambda: Shows(Box(0, 10, (7, 7, 3), np.uint8)), 1, normalize_obs=True)


class Shows(gym.Env[Any, Any]):
    """Samples of a space, for ever."""

    def __init__(self, space: Box) -> None:
        self.observation_space, self.action_space = space, Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), 0.0, False, False, {}


def test_a_run_keeps_standardised_frames_and_plays_with_frozen_moments(tmp_path: Path) -> None:
    """From the rollout to evaluation and to an agent that is saved and loaded."""
    config = a3c("a2c", env_id="limelight.envs.toy:Catch", encoder="a3c", normalize_obs=True)
    actor = make_actor(config, None, 0)
    rollout = actor.collect()
    assert rollout.obs.dtype == np.float32
    assert len(np.unique(rollout.obs[-1])) == 3  # black, paddle and ball
    assert actor.normalizer is not None
    spaces = actor.collector.envs.single_observation_space, actor.collector.envs.single_action_space
    agent = Agent(actor.learner.model, actor.normalizer, config, *spaces)
    before = actor.normalizer.moments
    agent.save(tmp_path / "agent")
    loaded = limelight.load(tmp_path / "agent")
    obs = np.random.default_rng(0).integers(0, 256, (20, 36, 36)).astype(np.uint8)
    np.testing.assert_array_equal(loaded.normalize(obs), actor.normalizer(obs))
    np.testing.assert_array_equal(loaded.predict(obs)[0], agent.predict(obs)[0])
    assert limelight.evaluate(loaded, episodes=4).returns == limelight.evaluate(agent, episodes=4).returns
    assert actor.normalizer.moments == before
    actor.close()
