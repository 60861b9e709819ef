"""The contract of observations (docs/environments.md), in every backend and at any step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from limelight.envs.base import EnvBackend
from limelight.envs.gymnasium_backend import SyncBackend, VectorBackend, make_async
from limelight.envs.packing import pack_env
from limelight.errors import EnvError

BYTES = Box(0, 255, (2,), np.uint8)
THREE = Box(-1.0, 1.0, (3,), np.float32)
CODES = MultiDiscrete([2, 3])
MAP = Box(0, 5, (4, 4, 3), np.uint8)
"""An image of categories, which become planes."""
STOCK = Dict(stock=Discrete(5), room=THREE)

BAD: dict[str, tuple[Space[Any], Any, Any, str]] = {
    "floats as bytes": (BYTES, [3, 4], [0.5, 4.0], "observation[0] = 0.5: must be Box(2,) uint8"),
    "more than a byte": (BYTES, [3, 4], [3, 300], "observation[1] = 300: must be Box(2,) uint8"),
    "less than a byte": (BYTES, [3, 4], [3, -1], "observation[1] = -1: must be Box(2,) uint8"),
    "NaN as a byte": (BYTES, [3, 4], [3, np.nan], "observation[1] = nan: must be Box(2,) uint8"),
    "infinite as a whole number": (Box(-9, 9, (2,), np.int32), [3, 4], [np.inf, 3], "observation[0] = inf: must be"),
    "below a Discrete": (Discrete(5), 4, -1, "observation = -1: must be Discrete(5), whole numbers 0 … 4"),
    "above a Discrete": (Discrete(5, start=1), 5, 6, "observation = 6: must be Discrete(5, start=1), whole"),
    "a fraction": (Discrete(5), 4, 2.7, "observation = 2.7: must be Discrete(5)"),
    "codes from 1": (CODES, [1, 2], [2, 3], "observation[0] = 2: must be MultiDiscrete([2, 3]), whole numbers 0 … 1"),
    "soft bits": (MultiBinary(2), [1, 0], [1.0, 0.3], "observation[1] = 0.3: must be MultiBinary(2)"),
    "an unknown category": (MAP, np.zeros((4, 4, 3)), np.full((4, 4, 3), 6), "observation[0, 0, 0] = 6"),
    "one number for three": (THREE, [0.0] * 3, [0.5], "observation has shape (1,): must be Box(3,) float32"),
    "a row": (THREE, [0.0] * 3, [[0.0] * 3], "observation has shape (1, 3): must be Box(3,) float32"),
    "a column": (THREE, [0.0] * 3, [[0.0]] * 3, "observation has shape (3, 1): must be Box(3,) float32"),
    "a number": (THREE, [0.0] * 3, 0.5, "observation has shape (): must be Box(3,) float32"),
    "complex numbers": (THREE, [0.0] * 3, [1j] * 3, "observation is of complex128: must be Box(3,) float32"),
    "texts": (THREE, [0.0] * 3, ["1", "2", "3"], "observation is of <U1: must be Box(3,) float32"),
    "nothing": (THREE, [0.0] * 3, None, "observation has shape (): must be Box(3,) float32"),
    "a part below": (STOCK, {"stock": 4, "room": np.zeros(3)}, {"stock": -1, "room": np.zeros(3)}, "['stock'] = -1"),
    "a part of another shape": (
        STOCK, {"stock": 4, "room": np.zeros(3)}, {"stock": 4, "room": np.zeros(1)}, "['room'] has shape (1,)",
    ),
    "another key": (
        STOCK, {"stock": 4, "room": np.zeros(3)}, {"stocks": 4, "room": np.zeros(3)}, "no ['stock']: the value has",
    ),
    "a part of bytes that wraps": (
        Dict(a=BYTES, b=Discrete(9)), {"a": [1, 2], "b": 1}, {"a": [1, 257], "b": 1}, "['a'][1] = 257: must be Box",
    ),
    "beyond integers": (
        Box(-9, 9, (2,), np.int64), [3, 4], [3.0, 2.0**63], "observation[1] = 9.223372036854776e+18: must be Box(2,)",
    ),
    "masked": (THREE, [0.0] * 3, np.ma.masked_array([0.0, 1, 2], [0, 1, 0]), "observation[1] is masked: must be"),
    "masked bytes": (BYTES, [3, 4], np.ma.masked_array([3, 4], [1, 0], np.uint8), "observation[0] is masked"),
    "a masked code": (Discrete(5), 4, np.ma.masked, "observation is masked: must be Discrete(5)"),
    "a masked row": (
        Box(-1.0, 1.0, (2, 2), np.float32), np.zeros((2, 2)), [np.zeros(2), np.ma.masked_array([0.0, 1], [0, 1])],
        "observation[1, 1] is masked",
    ),
    "a masked part": (
        STOCK, {"stock": 4, "room": np.zeros(3)}, {"stock": 4, "room": np.ma.masked_array(np.zeros(3), [0, 0, 1])},
        "observation['room'][2] is masked",
    ),
    "a list too short": (Tuple([Discrete(2), THREE]), (1, np.zeros(3)), (1,), "no [1]: the value is a tuple"),
}  # fmt: skip
GOOD: dict[str, tuple[Space[Any], Any, Any]] = {
    "float64": (THREE, np.zeros(3), np.full(3, 0.5)),
    "a list": (THREE, [0.0] * 3, [0.5, 0, 1]),
    "whole numbers": (THREE, [0.0] * 3, np.array([1, 0, 1])),
    "outside the bounds of floats": (THREE, [0.0] * 3, np.full(3, 7.0)),
    "whole floats as bytes": (BYTES, [3, 4], np.array([3.0, 255.0])),
    "a truth value": (Discrete(2), 0, True),
    "a small integer": (Discrete(200, start=-3), 0, np.int8(-3)),
    "nothing masked": (THREE, [0.0] * 3, np.ma.masked_array([0.5, 0.0, 1.0], [0, 0, 0])),
    "another part": (STOCK, {"stock": 4, "room": np.zeros(3)}, {"stock": np.uint8(1), "room": [1, 0, 1], "more": 1}),
}


class Shows(gym.Env[Any, Any]):
    """Shows ``good``, and after ``at`` steps (0: at the second reset) ``other``; episodes have four steps."""

    def __init__(self, space: Space[Any], good: Any, other: Any, at: int) -> None:
        self.observation_space, self.action_space = space, Discrete(2)
        self.good, self.other, self.at, self.resets = good, other, at, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.resets = 0, self.resets + 1
        return self.other if self.at == 0 and self.resets == 2 else self.good, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.other if self.steps == self.at else self.good, 0.0, self.steps == 4, False, {}


class Factory:
    """Makes packed copies; the second of two is the one that shows something else."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __call__(self) -> gym.Env[Any, Any]:
        return pack_env(Shows(*self.arguments), "Shows")


class Vector(VectorEnv[Any, Any, Any]):
    """A vectorised class that stacks the observations of copies with NumPy, and leaves them as they are."""

    def __init__(self, envs: list[gym.Env[Any, Any]]) -> None:
        self.envs, self.num_envs = envs, len(envs)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space, self.single_action_space = envs[0].observation_space, envs[0].action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.done = False
        return np.array([env.reset()[0] for env in self.envs]), {}

    def step(self, actions: Any) -> Any:
        zeros = np.zeros(self.num_envs)
        if self.done:
            return (*self.reset()[:1], zeros, zeros > 0, zeros > 0, {})
        steps = [env.step(0) for env in self.envs]
        self.done = steps[0][2]
        return np.array([step[0] for step in steps]), zeros, np.array([step[2] for step in steps]), zeros > 0, {}


def sync(mode: Any) -> Callable[[Factory, Factory], EnvBackend]:
    return lambda first, second: SyncBackend([first(), second()], mode, "Shows")


BACKENDS: dict[str, Callable[[Factory, Factory], EnvBackend]] = {
    "sync": sync("next_step"),
    "sync, same step": sync("same_step"),
    "vector": lambda first, second: VectorBackend(Vector([first(), second()]), "Shows"),
}


def play(envs: EnvBackend, steps: int) -> None:
    for _ in range(steps):
        envs.step(np.zeros(2, np.int64))


PLAIN = [name for name, row in BAD.items() if not isinstance(row[0], Dict | Tuple)]
CAN_STACK = [
    name
    for name in PLAIN
    if "masked" not in name
    and np.shape(BAD[name][1]) == np.shape(BAD[name][2])
    and np.asarray(BAD[name][2]).dtype.kind in "biuf"
]
"""Cases that a vectorised class could hand over as one array in which one row is at fault."""


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("at", [0, 1, 3, 4])
def test_an_observation_outside_its_space_is_named(case: str, backend: str, at: int) -> None:
    """At steps, at the last step of an episode and at the second reset; only the second environment is at fault."""
    space, good, bad, words = BAD[case]
    if backend == "vector" and case not in CAN_STACK:
        pytest.skip("no array could hold these observations")
    envs = BACKENDS[backend](Factory(space, good, good, at), Factory(space, good, bad, at))
    envs.reset(0)
    with pytest.raises(EnvError) as error:
        play(envs, 12)
    text = str(error.value)
    assert words in text
    assert "Shows: " in text
    assert "environment 1: observation" in text
    if backend != "vector":
        assert (f"step {at} of an episode" if at else "reset") in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "case", ["floats as bytes", "below a Discrete", "a row", "a part below", "another key", "masked"]
)
def test_worker_processes_name_it_too(case: str) -> None:
    space, good, bad, words = BAD[case]
    envs = make_async(Factory(space, good, bad, 2), 2, env_id="Shows")
    try:
        envs.reset(0)
        envs.step(np.zeros(2, np.int64))
        with pytest.raises(EnvError) as error:
            envs.step(np.zeros(2, np.int64))
        assert words in str(error.value)
        assert "Shows: step 2 of an episode, environment" in str(error.value)
    finally:
        envs.close()


@pytest.mark.parametrize("case", GOOD)
@pytest.mark.parametrize("backend", ["sync", "sync, same step"])
def test_another_dtype_of_the_same_value_is_taken(case: str, backend: str) -> None:
    space, good, other = GOOD[case]
    envs = BACKENDS[backend](Factory(space, good, good, 2), Factory(space, good, other, 2))
    envs.reset(0)
    envs.step(np.zeros(2, np.int64))
    seen = envs.step(np.zeros(2, np.int64)).obs[1]
    packed = isinstance(space, Dict)
    flat = [other["stock"], *np.ravel(other["room"])] if packed else np.ravel(other)
    np.testing.assert_array_equal(np.ravel(seen), np.asarray(flat, seen.dtype))
    assert seen.dtype == envs.single_observation_space.dtype


def test_arrays_whose_lengths_add_up_are_not_mixed() -> None:
    """Two and four numbers are as many as two times three."""
    envs = SyncBackend([Shows(THREE, np.zeros(3), np.zeros(n), 1) for n in (2, 4)], env_id="Shows")
    envs.reset(0)
    with pytest.raises(EnvError, match=r"environment 0: observation has shape \(2,\)"):
        envs.step(np.zeros(2, np.int64))


def test_a_final_observation_is_read_before_the_reset_writes_into_it() -> None:
    class InPlace(Shows):
        def step(self, action: Any) -> Any:
            self.good[:] = self.steps + 1
            return super().step(action)

        def reset(self, **kwargs: Any) -> Any:
            self.good[:] = 0.0
            return super().reset(**kwargs)

    envs = SyncBackend([InPlace(THREE, np.zeros(3, np.float32), None, 9) for _ in range(2)], "same_step")
    envs.reset(0)
    steps = [envs.step(np.zeros(2, np.int64)) for _ in range(4)]
    final = steps[-1].final_obs
    assert final is not None
    assert final.tolist() == [[4.0] * 3] * 2
    assert steps[-1].obs.tolist() == [[0.0] * 3] * 2
