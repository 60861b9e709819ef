"""MiniGrid: registered on demand, its missions in numbers."""

from __future__ import annotations

import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, MultiBinary

from limelight.envs import minigrid
from limelight.envs.make import make_envs
from limelight.errors import EnvError
from limelight.nn.images import ImagePreprocessor
from limelight.spaces.packed import Packed


def words_of(bag: np.ndarray) -> set[str]:
    return {word for word, is_in in zip([*minigrid.VOCABULARY, "?"], bag, strict=True) if is_in}


def test_a_mission_is_its_words() -> None:
    bag = minigrid.bag_of_words("Pick up the red ball, then go to the grey door behind you")
    assert words_of(bag) == {"pick", "up", "the", "red", "ball", "then", "go", "to", "grey", "door", "behind", "you"}
    assert words_of(minigrid.bag_of_words("sing the song")) == {"the", "?"}
    assert minigrid.bag_of_words("").sum() == 0
    assert len(set(minigrid.VOCABULARY)) == len(minigrid.VOCABULARY)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = {key: spec for key, spec in gym.registry.items() if not key.startswith("MiniGrid-")}
    monkeypatch.setattr(gym, "registry", registry)
    monkeypatch.setitem(sys.modules, "minigrid", None)
    with pytest.raises(EnvError, match=r"env_id = MiniGrid-Empty-5x5-v0: .*; pip install"):
        minigrid.register("MiniGrid-Empty-5x5-v0")
    minigrid.register("CartPole-v1")


def test_observations_are_packed_numbers() -> None:
    pytest.importorskip("minigrid")
    envs = make_envs("MiniGrid-Empty-5x5-v0", 2, seed=0, backend="sync")
    space = envs.single_observation_space
    assert isinstance(space, Packed)
    assert isinstance(space.original, Dict)
    assert list(space.original.spaces) == ["direction", "image", "mission"]
    assert space.dtype == np.uint8
    obs = space.unpack(envs.reset(0))
    assert words_of(obs["mission"][0]) == {"get", "to", "the", "green", "goal", "square"}
    raw, _ = gym.make("MiniGrid-Empty-5x5-v0").reset(seed=0)
    np.testing.assert_array_equal(obs["image"][0], raw["image"])
    assert isinstance(space.original["mission"], MultiBinary)
    image = space.original["image"]
    assert isinstance(image, Box)
    assert image.high[0, 0].tolist() == [10, 5, 3]
    assert ImagePreprocessor(image).num_planes == 11 + 6 + 4


def test_the_bounds_of_codes_are_minigrids() -> None:
    constants = pytest.importorskip("minigrid.core.constants")
    highest = [max(table.values()) for table in (constants.OBJECT_TO_IDX, constants.COLOR_TO_IDX)]
    assert highest == [10, 5]
    assert max(constants.STATE_TO_IDX.values()) <= 3


def test_images_drawn_by_wrappers_keep_their_bounds() -> None:
    pytest.importorskip("minigrid")
    from minigrid.wrappers import FullyObsWrapper, RGBImgPartialObsWrapper

    for wrapper, coded in ((RGBImgPartialObsWrapper, False), (FullyObsWrapper, True)):
        env = minigrid.BagOfWords(wrapper(gym.make("MiniGrid-Empty-5x5-v0")))
        assert (env.observation_space["image"].high.max() == 10) == coded  # type: ignore[index]
        obs, _ = env.reset(seed=0)
        assert obs in env.observation_space
        env.close()
