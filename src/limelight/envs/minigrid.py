"""MiniGrid and BabyAI: registered on demand, their observations as numbers. Used by resolve.py.

The image is codes (what, colour, state), which its space then says; the mission, a text, becomes a bag of words.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, MultiBinary, Space
from numpy.typing import NDArray

from limelight.errors import ConfigError
from limelight.typing import AnyEnv

PREFIXES = ("MiniGrid-", "BabyAI-")
_WORDS = (
    # those of minigrid.wrappers.DictObservationSpaceWrapper
    "red green blue yellow purple grey unseen empty wall floor box key ball door goal agent lava "
    "pick avoid get find put use open go fetch reach unlock traverse up the a at square and then to of rooms near "
    "opening must you matching end hallway object from room maze "
    # and of BabyAI's instructions
    "after behind front in left next on right your"
)
VOCABULARY = tuple(_WORDS.split())
"""The words of missions: their places in the bag, after which comes one for all others."""
_PLACES = {word: i for i, word in enumerate(VOCABULARY)}
_HIGHEST = np.array([10, 5, 3], np.uint8)  # of objects, colours, and states (of an agent: its direction)
_SMALLEST_PICTURE = 36  # sides of what wrappers draw of the grid; what they encode is as large as the grid


def register(env_id: str) -> None:
    """Import minigrid, which registers its environments, where ``env_id`` is one of them.

    Raises: ConfigError if it is not installed.
    """
    if not env_id.startswith(PREFIXES) or env_id in gym.registry:
        return
    try:
        import_module("minigrid")
    except ImportError as error:
        raise ConfigError(f"env_id = {env_id}: needs more than is installed ({error}); pip install minigrid") from None


def has_mission(space: Space[Any]) -> bool:
    """Whether these are MiniGrid's observations, with a mission in words."""
    return isinstance(space, Dict) and type(space.spaces.get("mission")).__module__.startswith("minigrid.")


class BagOfWords(gym.ObservationWrapper[Any, Any, Any]):
    """Dict(direction, image, mission) with the mission as MultiBinary: which words are in it, in whatever order."""

    def __init__(self, env: AnyEnv) -> None:
        super().__init__(env)
        assert isinstance(env.observation_space, Dict)
        spaces = dict(env.observation_space.spaces)
        spaces["mission"] = MultiBinary(len(VOCABULARY) + 1)
        image = spaces.get("image")
        if isinstance(image, Box) and image.shape[2:] == (3,) and max(image.shape) < _SMALLEST_PICTURE:
            spaces["image"] = Box(np.zeros_like(image.low), image.low + _HIGHEST, dtype=image.dtype.type)
        self.observation_space = Dict(list(spaces.items()))

    def observation(self, observation: Any) -> Any:
        """The observation with its mission in numbers."""
        return without_text(observation)


def without_text(obs: Any) -> Any:
    """An observation (or a batch) whose mission, if that is in words, is in numbers; any other as it is."""
    mission = obs.get("mission") if isinstance(obs, dict) else None
    if isinstance(mission, str):
        return {**obs, "mission": bag_of_words(mission)}
    if isinstance(mission, list | tuple) and all(isinstance(text, str) for text in mission):
        return {**obs, "mission": np.array([bag_of_words(text) for text in mission])}
    return obs


@lru_cache(maxsize=1024)
def bag_of_words(mission: str) -> NDArray[np.int8]:
    """1 for every word of :data:`VOCABULARY` in ``mission``, and last if there is another word; read-only."""
    bag = np.zeros(len(VOCABULARY) + 1, np.int8)
    bag[[_PLACES.get(word, len(VOCABULARY)) for word in re.findall(r"\w+", mission.lower())]] = 1
    bag.flags.writeable = False
    return bag
