"""MiniGrid and BabyAI: registered on demand, with observations in numbers.

The image holds codes (object, colour, state), and its space gets their bounds; the mission, a text, becomes a bag of
words.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, MultiBinary, Space
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from limelight.errors import EnvError
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
"""The words of missions, by their places in the bag; one more place, the last, is for all others."""
_PLACES = {word: i for i, word in enumerate(VOCABULARY)}
_HIGHEST = np.array([10, 5, 3], np.uint8)  # of objects, colours, and states (of an agent: its direction)
_MIN_RENDERED_SIZE = 36  # sides of the images that wrappers draw of the grid; encoded ones are as large as the grid


def register(env_id: str) -> None:
    """Import minigrid, which registers its environments, if ``env_id`` is one of them.

    Raises: EnvError if it is not installed.
    """
    if not env_id.startswith(PREFIXES) or env_id in gym.registry:
        return
    try:
        import_module("minigrid")
    except ImportError as error:
        raise EnvError(f"env_id = {env_id}: needs more than is installed ({error}); pip install minigrid") from None


def has_mission(space: Space[Any]) -> bool:
    """Return whether ``space`` is of MiniGrid's observations, with a mission in words."""
    return isinstance(space, Dict) and type(space.spaces.get("mission")).__module__.startswith("minigrid.")


class BagOfWords(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Makes the mission of Dict(direction, image, mission) a MultiBinary: the words in it, regardless of order."""

    def __init__(self, env: AnyEnv) -> None:
        RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        assert isinstance(env.observation_space, Dict)
        spaces = dict(env.observation_space.spaces)
        spaces["mission"] = MultiBinary(len(VOCABULARY) + 1)
        image = spaces.get("image")
        if isinstance(image, Box) and image.shape[2:] == (3,) and max(image.shape) < _MIN_RENDERED_SIZE:
            spaces["image"] = Box(np.zeros_like(image.low), image.low + _HIGHEST, dtype=image.dtype.type)
        self.observation_space = Dict(list(spaces.items()))

    def observation(self, observation: Any) -> Any:
        """Return the observation with its mission in numbers."""
        return without_text(observation)


def without_text(obs: Any) -> Any:
    """Return an observation (or a batch) with its mission in numbers; one without a text is returned as it is."""
    mission = obs.get("mission") if isinstance(obs, dict) else None
    if isinstance(mission, str):
        return {**obs, "mission": bag_of_words(mission)}
    if isinstance(mission, list | tuple) and all(isinstance(text, str) for text in mission):
        return {**obs, "mission": np.array([bag_of_words(text) for text in mission])}
    return obs


@lru_cache(maxsize=1024)
def bag_of_words(mission: str) -> NDArray[np.int8]:
    """Return 1 for every word of :data:`VOCABULARY` in ``mission``, and last 1 for any other word; read-only."""
    bag = np.zeros(len(VOCABULARY) + 1, np.int8)
    bag[[_PLACES.get(word, len(VOCABULARY)) for word in re.findall(r"\w+", mission.lower())]] = 1
    bag.flags.writeable = False
    return bag
