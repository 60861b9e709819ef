"""Attributes and methods of environments by name: through wrappers, of vectorised classes, and what is refused."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest

from helpers.informing_envs import Informs, InformsVector
from helpers.settings import one_line
from limelight.envs.attributes import Order, follow, refuse_orders
from limelight.envs.gymnasium_backend import VectorBackend
from limelight.errors import ConfigError, EnvError


def test_orders_reach_the_layer_that_has_the_attribute() -> None:
    env = gym.wrappers.TimeLimit(Informs(), 10)
    follow(env, Order("set_env_attr", "level", 4.0), "x")
    assert env.unwrapped.level == 4.0  # type: ignore[attr-defined]
    assert "level" not in vars(env), "the wrapper stays as it is"
    assert follow(env, Order("call_env", "raise_level", args=(1.5,)), "x") == 5.5
    follow(env, Order("set_env_attr", "_max_episode_steps", 3), "x")
    assert env._max_episode_steps == 3


def test_a_vectorised_class_is_one_environment() -> None:
    envs = InformsVector()
    backend = VectorBackend(envs, "x")
    assert backend.follow(Order("set_env_attr", "masks", False)) == [None]
    assert not envs.masks


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (Order("set_env_attr", "levle", 1), "set_env_attr = levle: x has no such attribute; did you mean level?"),
        (Order("call_env", "level"), "call_env = level: of x is a float, not a method; use set_env_attr"),
        (Order("call_env", "reset"), "call_env = reset: training itself calls it; name another method"),
    ],
)
def test_what_cannot_be_done_is_one_line(order: Order, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        follow(Informs(), order, "x")
    assert one_line(error) == message


def test_a_read_only_attribute_is_a_fault_of_the_environment() -> None:
    class Fixed(Informs):
        @property
        def level(self) -> float:
            return 1.0

        @level.setter
        def level(self, value: Any) -> None:
            if value != 1.0:
                raise AttributeError("level is fixed")

    with pytest.raises(EnvError, match="level is fixed"):
        follow(Fixed(), Order("set_env_attr", "level", 2.0), "x")


@pytest.mark.parametrize("backend", ["envpool", "ale"])
def test_environments_without_attributes_are_named_with_a_backend_that_has_them(backend: str) -> None:
    with pytest.raises(ConfigError) as error:
        refuse_orders(Order("call_env", "level"), backend)
    assert one_line(error) == f"call_env = level: the environments of backend {backend} have no attributes; use sync"
