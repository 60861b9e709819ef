"""Standardisation of observations: floats in rollouts, images inside the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Tuple
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

import limelight
from helpers.composite_envs import ROOM
from helpers.manual_workers import quick_config
from helpers.settings import one_line, train_config
from limelight.algo.normalization import ObservationNormalizer, make_normalizer
from limelight.envs.make import make_envs
from limelight.errors import ConfigError
from limelight.nn.images import ImagePreprocessor
from limelight.nn.numpy_engine.network import NumpyNetwork, _CachedFront
from limelight.runners.actor_learner import make_actor_learner
from limelight.runs.agent import Agent
from limelight.settings.rules import validate
from limelight.spaces.packed import Packed


def test_only_float_boxes_are_standardised() -> None:
    packed = Packed(ROOM)
    normalizer = make_normalizer(packed)
    assert normalizer is not None
    assert normalizer.indices is not None
    real = [leaf for leaf in packed.leaves if leaf.path in {("speed",), ("height",)}]
    entries = np.concatenate([np.arange(leaf.start, leaf.start + leaf.size) for leaf in real])
    assert normalizer.indices.tolist() == entries.tolist()
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


def test_all_numbers_of_a_plain_box_are_standardised() -> None:
    normalizer = make_normalizer(Box(-1, 1, (2, 3)))
    assert normalizer is not None
    assert normalizer.indices is None
    assert normalizer.statistics.moments.mean.shape == (2, 3)


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
def test_spaces_without_a_float_box_are_refused(space: object) -> None:
    with pytest.raises(ConfigError, match="normalize_obs = true: needs Box observations"):
        make_normalizer(space)


def test_environments_without_a_float_box_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"normalize_obs = true: needs Box observations .* set it to false"):
        make_normalizer(make_envs("Blackjack-v1", 1).single_observation_space)


# --------------------------------------------------------------------------- images


IMAGE = Box(0, 255, (2, 36, 40), np.uint8)


def image_normalizer(space: Box = IMAGE, builtin_encoder: bool = False) -> ObservationNormalizer:
    normalizer = make_normalizer(space, builtin_encoder)
    assert normalizer is not None
    return normalizer


def frames(seed: int, number: int, highest: int = 255, space: Box = IMAGE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, highest + 1, (number, *space.shape)).astype(np.uint8)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 255)), min_size=1, max_size=5))
@example([(0, 3)])
def test_an_image_has_a_mean_for_every_pixel_and_one_deviation(batches: list[tuple[int, int]]) -> None:
    """The deviation is that of the differences from each pixel's mean."""
    normalizer = image_normalizer()
    seen = [frames(seed, number, highest) for seed, (number, highest) in enumerate(batches)]
    for batch in seen:
        normalizer.update(batch)
    whole = np.concatenate(seen).astype(np.float64)
    assert normalizer.statistics.moments.size == len(whole)
    mean = whole.mean(0) if len(whole) else np.zeros(IMAGE.shape)
    deviation = np.sqrt(((whole - mean) ** 2).mean() + 1e-8) if len(whole) else 1.0
    obs = frames(9, 3)
    result = normalizer(obs)
    assert (result.dtype, result.shape) == (np.float32, obs.shape)
    # If all images are equal, the deviation is √1e-8, and the rounding of the mean matters
    np.testing.assert_allclose(result, np.clip((obs - mean) / deviation, -10, 10), rtol=2e-4, atol=2e-4)
    np.testing.assert_array_equal(normalizer(obs[0]), result[0])
    assert np.ptp(obs) > 200  # obs are not modified


def test_statistics_of_images_are_shared_and_saved() -> None:
    """Workers that share statistics have those of one normalizer that received all images."""
    workers, whole = [image_normalizer(), image_normalizer()], image_normalizer()
    common = whole.statistics.moments
    for turn in range(3):
        for i, worker in enumerate(workers):
            common = worker.statistics.share(common)
            batch = frames(10 * turn + i, 2, 100 + 50 * i)
            worker.update(batch)
            whole.update(batch)
    for worker in workers:
        common = worker.statistics.share(common)
    assert common.size == whole.statistics.moments.size
    np.testing.assert_allclose(common[:2], whole.statistics.moments[:2], rtol=1e-9)
    again = image_normalizer()
    again.set_state(whole.get_state())
    np.testing.assert_array_equal(again(frames(1, 2)), whole(frames(1, 2)))
    again.update(frames(2, 2))
    whole.update(frames(2, 2))
    for ours, theirs in zip(again.statistics.moments, whole.statistics.moments, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shape", [(36, 36), (42, 42, 1), (4, 84, 84), (9, 9, 3)])
def test_every_image_of_brightness_can_be_standardised(shape: tuple[int, ...]) -> None:
    space = Box(0, 255, shape, np.uint8)
    assert image_normalizer(space).statistics.moments.mean.shape == shape
    in_network = image_normalizer(space, builtin_encoder=True)
    obs = frames(0, 2, space=space)
    in_network.update(obs)
    assert in_network(obs) is obs  # the network standardises them
    assert in_network.statistics.moments.size == 2


def test_a_state_with_one_mean_of_all_pixels_can_be_continued() -> None:
    """Older saved agents have such a state."""
    normalizer = image_normalizer()
    normalizer.set_state({"mean": np.float64(100.0), "var": np.float64(25.0), "count": 1000})
    obs = frames(3, 2)
    np.testing.assert_allclose(normalizer(obs), np.clip((obs - 100.0) / 5.0, -10, 10), rtol=1e-5)
    normalizer.update(obs)
    assert normalizer.statistics.moments.mean.shape == IMAGE.shape


def test_images_in_packed_observations_are_unchanged(rng: np.random.Generator) -> None:
    space = Packed(Dict({"camera": IMAGE, "speed": Box(-1.0, 1.0, (2,))}))
    normalizer = make_normalizer(space)
    assert normalizer is not None
    rows = np.stack([space.sample() for _ in range(4)])
    normalizer.update(rows)
    camera = space.leaves[0].part
    np.testing.assert_array_equal(normalizer(rows)[:, camera], rows[:, camera])


def test_images_of_categories_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"normalize_obs = true: needs .* but .* is Box\(7, 7, 3\) uint8; set it to"):
        make_normalizer(Box(0, 10, (7, 7, 3), np.uint8))


def test_rollouts_store_bytes_and_agents_freeze_the_statistics(tmp_path: Path) -> None:
    """Also in evaluation, and in an agent that is saved and loaded."""
    config = quick_config("a2c", env_id="limelight.envs.toy:Catch", encoder="a3c", critic="target", normalize_obs=True)
    actor = make_actor_learner(config, None, 0)
    rollout = actor.collect()
    assert rollout.obs.dtype == np.uint8
    assert actor.normalizer is not None
    B = rollout.rewards.shape[1]
    valid = int(rollout.valid[-1].sum())
    assert actor.normalizer.statistics.moments.size == B + valid  # of the first observations and of the last row
    spaces = actor.collector.envs.single_observation_space, actor.collector.envs.single_action_space
    agent = Agent(actor.learner.model, actor.normalizer, config, *spaces)
    before = actor.normalizer.statistics.moments
    agent.save(tmp_path / "agent")
    loaded = limelight.load(tmp_path / "agent")
    obs = np.random.default_rng(0).integers(0, 256, (20, 36, 36)).astype(np.uint8)
    np.testing.assert_array_equal(loaded.predict(obs)[0], agent.predict(obs)[0])
    assert limelight.evaluate(loaded, episodes=4).returns == limelight.evaluate(agent, episodes=4).returns
    assert actor.normalizer.statistics.moments is before
    for module in (loaded.model, agent.model):
        (planes,) = [module for module in module.encoder.modules() if isinstance(module, ImagePreprocessor)]
        assert planes.mean is not None
        np.testing.assert_array_equal(planes.mean[0, 0].numpy(), before.mean.astype(np.float32))
    actor.close()


def test_all_networks_use_the_statistics_from_before_the_rollout() -> None:
    """These are acting, learning and the target critic; the next rollout uses the statistics that this one adds."""
    config = quick_config("a2c", env_id="limelight.envs.toy:Catch", encoder="a3c", critic="target", normalize_obs=True)
    actor = make_actor_learner(config, None, 0)
    learner, normalizer = actor.learner, actor.normalizer
    assert normalizer is not None
    assert learner.network.target_critic is not None
    for _ in range(3):
        scale = normalizer.image_scale()
        rollout = actor.collect()
        found = [
            m
            for net in (learner.model, learner.network.target_critic)
            for m in net.modules()
            if isinstance(m, ImagePreprocessor)
        ]
        assert len(found) == 3
        for planes in found:
            assert planes.mean is not None
            np.testing.assert_array_equal(planes.mean[0, 0].numpy(), scale.mean)
            assert planes.factor == scale.factor
        learner.update(rollout, 0.0)
    actor.close()


class CustomEncoder(nn.Module):
    """A custom encoder without a conversion of observations."""

    num_features = 3

    def __init__(self, space: Box) -> None:
        super().__init__()
        self.linear = nn.Linear(36 * 36, 3)

    def forward(self, obs: Tensor) -> Tensor:
        assert obs.dtype == torch.float32
        features: Tensor = self.linear(obs.flatten(-2))
        return features


def test_a_custom_encoder_receives_standardised_observations(tmp_path: Path) -> None:
    config = quick_config(
        "a2c",
        env_id="limelight.envs.toy:Catch",
        encoder=f"{__name__}:CustomEncoder",
        normalize_obs=True,
        backend="sync",
    )
    actor = make_actor_learner(config, None, 0)
    rollout = actor.collect()
    assert rollout.obs.dtype == np.float32
    assert np.abs(rollout.obs).max() > 1.0
    actor.learner.update(rollout, 0.0)
    spaces = actor.collector.envs.single_observation_space, actor.collector.envs.single_action_space
    agent = Agent(actor.learner.model, actor.normalizer, config, *spaces)
    agent.save(tmp_path / "agent")
    obs = frames(0, 5, space=Box(0, 255, (36, 36), np.uint8))
    np.testing.assert_array_equal(limelight.load(tmp_path / "agent").predict(obs)[0], agent.predict(obs)[0])
    actor.close()


def test_cached_activations_of_standardised_images_in_bfloat16_equal_the_encoders() -> None:
    """From the second rollout on they are written into existing buffers."""
    settings = {"encoder": "a3c", "precision": "bfloat16", "normalize_obs": True}
    actor = make_actor_learner(quick_config("a2c", env_id="limelight.envs.toy:Catch", **settings), None, 0)
    learner = actor.learner
    assert isinstance(learner.network, NumpyNetwork)
    assert isinstance(learner.network._front, _CachedFront)
    encoder = learner.network._front.encoder
    for _ in range(3):
        rollout = actor.collect()
        cached, computed = encoder.unroll(rollout.obs), learner.model.encoder(torch.from_numpy(rollout.obs))
        assert float(computed.detach().abs().max()) > 0.0
        torch.testing.assert_close(cached.detach(), computed.detach(), rtol=2e-2, atol=2e-2)
        learner.update(rollout, 0.0)
    actor.close()


@pytest.mark.parametrize("builtin_encoder", [True, False])
def test_one_mean_and_one_deviation_of_whole_frames(builtin_encoder: bool) -> None:
    """As if all pixels of all frames were samples of one number; over any division into batches."""
    frames = np.random.default_rng(0).integers(0, 256, (30, 40, 40), np.uint8)
    frames[:, :10] //= 9  # means of pixels differ
    normalizer = make_normalizer(Box(0, 255, (40, 40), np.uint8), builtin_encoder, per_frame=True)
    for batch in np.split(frames, [3, 4, 20]):
        normalizer.update(batch)
    scale = normalizer.image_scale()
    np.testing.assert_allclose(scale.mean, frames.mean(), rtol=1e-6)
    assert 1.0 / scale.factor == pytest.approx(frames.std(), rel=1e-6)
    if not builtin_encoder:
        np.testing.assert_allclose(normalizer(frames).std(), 1.0, rtol=1e-4)


def test_whole_frames_need_an_image() -> None:
    with pytest.raises(ConfigError) as error:
        make_normalizer(Box(-1, 1, (4,)), per_frame=True)
    assert one_line(error).startswith("image_statistics = frame: only where observations are one image of brightness")
    with pytest.raises(ConfigError) as error:
        validate(train_config(image_statistics="frame"))
    assert one_line(error) == (
        "image_statistics = frame: only normalize_obs uses it; set that to true, or leave this out"
    )
