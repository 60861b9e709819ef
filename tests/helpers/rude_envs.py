"""Environments that break the contract of Gymnasium in one way each; importable, so that processes find them."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import NormalizeObservation, NormalizeReward

from limelight.seeds import Stream, derive_seed


class Plain(gym.Env[Any, Any]):
    """Episodes of 20 steps whose reward is the action."""

    observation_space = Box(-1.0, 1.0, (3,), np.float32)
    action_space = Discrete(2)

    def __init__(self) -> None:
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return np.zeros(3, np.float32), self.reward(action), False, self.steps >= 20, self.info()

    def reward(self, action: Any) -> Any:
        return float(action)

    def info(self) -> dict[str, Any]:
        return {}


class ExitsInStep(Plain):
    def reward(self, action: Any) -> Any:
        return sys.exit() if self.steps == 5 else 0.0


class ExitsInReset(Plain):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        sys.exit("no display")


class ExitsAtOnce(Plain):
    def __init__(self) -> None:
        sys.exit(0)


class RaisesInStep(Plain):
    def reward(self, action: Any) -> Any:
        return 1 / (self.steps - 5)


class Panic(BaseException):
    """An exception that is no Exception, as libraries in Rust and of coroutines raise."""


class PanicsInStep(Plain):
    def reward(self, action: Any) -> Any:
        if self.steps == 5:
            raise Panic("index out of bounds")
        return 0.0


class PanicsInReset(Plain):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        raise asyncio.CancelledError


class PanicsAtOnce(Plain):
    def __init__(self, size: int = 1) -> None:
        raise GeneratorExit


class PanicsInClose(Plain):
    def close(self) -> None:
        raise Panic("the display is gone")


class KilledInStep(Plain):
    def reward(self, action: Any) -> Any:
        return os._exit(7) if self.steps == 5 else 0.0


class OldStep(Plain):
    def step(self, action: Any) -> Any:
        return super().step(action)[:4]


class OldReset(Plain):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(seed=seed)[0]


class ListReset(Plain):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return list(super().reset(seed=seed))


class NoneStep(Plain):
    def step(self, action: Any) -> Any:
        return None


class OldSeed(Plain):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class CannotClose(Plain):
    def close(self) -> None:
        raise ConnectionError("the simulator is gone")


class OddInfos(Plain):
    """Infos that change their shape, hold what cannot be pickled, and repeat Gymnasium's own keys."""

    def info(self) -> dict[str, Any]:
        return {"list": [0] * self.steps, "final_obs": "none", "function": lambda: 0, "_list": self.steps}


class OddRewards(Plain):
    """Rewards in every scalar form."""

    def reward(self, action: Any) -> Any:
        forms = [1, True, np.float32(1), np.array(1.0), np.array([1.0]), np.array([[1]])]
        return forms[self.steps % len(forms)]


class Ninth(Plain):
    """Episodes of nine steps that each give 0.1."""

    def step(self, action: Any) -> Any:
        obs, _, _, _, info = super().step(action)
        return obs, 0.1, self.steps >= 9, False, info


class Money(Plain):
    """Rewards that float32 rounds to 16777216."""

    def reward(self, action: Any) -> Any:
        return 16_777_217.0


class BeyondFloat32(Plain):
    def reward(self, action: Any) -> Any:
        return 1e39 if self.steps == 3 else 0.0


class Sharpe(Plain):
    """The last reward of an episode is 0/0."""

    def reward(self, action: Any) -> Any:
        return float("nan") if self.steps == 20 else 0.0


class Huge(Plain):
    """Rewards whose squares float64 does not hold."""

    def reward(self, action: Any) -> Any:
        return 1e200 * self.np_random.integers(50, 100) / 10


class OneBadReading(Plain):
    """Observations that grow from 0 to 1 in an episode; in environment 1 of four, one number is ``value`` once."""

    action_space = Box(-1.0, 1.0, (1,), np.float32)  # type: ignore[assignment]

    def __init__(self, value: float, at: int = 116) -> None:
        super().__init__()
        self.value = value
        self.at = at
        self.is_bad = False
        self.total = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if seed is not None:
            self.is_bad = seed % 4 == (derive_seed(0, Stream.ENV) + 1) % 4
        _, info = super().reset(seed=seed)
        return self.obs(), info

    def step(self, action: Any) -> Any:
        _, *rest = super().step(0.0)
        return (self.obs(), *rest)

    def obs(self) -> Any:
        self.total += 1
        obs = np.full(3, self.steps / 20, np.float32)
        if self.is_bad and self.total == self.at:
            obs[1] = self.value
        return obs


class Slow(Plain):
    def reward(self, action: Any) -> Any:
        time.sleep(0.001)
        return 0.0


class Endless(Plain):
    """Episodes that never end."""

    def step(self, action: Any) -> Any:
        obs, reward, *_ = super().step(action)
        return obs, reward, False, False, {}


class SignalsInEvaluation(Endless):
    """Sends SIGINT to its process once, in the first evaluation."""

    sent = False

    def reward(self, action: Any) -> Any:
        if self.steps == 200 and not SignalsInEvaluation.sent:  # more steps than a training copy makes
            SignalsInEvaluation.sent = True
            os.kill(os.getpid(), signal.SIGINT)
        return 0.0


class Opponent(Plain):
    """The reward compares the action with one that is drawn from the space."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = Discrete(2)

    def reward(self, action: Any) -> Any:
        return float(int(action) == self.action_space.sample())


class Ten(Plain):
    def __init__(self, worth: float = 0.0) -> None:
        super().__init__()
        self.worth = worth

    def reward(self, action: Any) -> Any:
        return self.worth


class MakesTen:
    """An object that makes an environment; its class, called by name, makes another object of this kind."""

    def __call__(self) -> Ten:
        return Ten(1.0)


class Talks(Plain):
    """Writes to stdout from Python and past it."""

    def reward(self, action: Any) -> Any:
        print("from print")
        os.write(1, b"from the descriptor\n")
        return float(action)


class StartsProcess(Plain):
    """Starts a process in every reset, as a simulator may."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        process = multiprocessing.get_context("spawn").Process(target=len, args=("x",))
        process.start()
        process.join()
        assert process.exitcode == 0
        return super().reset(seed=seed)


@dataclass(frozen=True)
class InDict:
    """Makes a copy whose observations are in a Dict, so that wrappers take the values apart."""

    kind: type[Plain]

    def __call__(self) -> gym.Env[Any, Any]:
        env = self.kind()
        space = gym.spaces.Dict({"x": env.observation_space})
        return gym.wrappers.TransformObservation(env, lambda x: {"x": x}, space)


class Prices(Plain):
    """Holds 12 MiB of data that it only reads."""

    NBYTES = 12 << 20

    def __init__(self) -> None:
        super().__init__()
        self.prices = np.random.default_rng(0).random(self.NBYTES // 8)


def normalised() -> gym.Env[Any, Any]:
    """Normalise by wrappers of Gymnasium, as tutorials do."""
    return NormalizeReward(NormalizeObservation(Plain()))


class FloatCamera(Plain):
    """Pictures of floats in 0 … 1."""

    observation_space = Box(0.0, 1.0, (40, 40, 3), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return self.observation_space.low.copy(), {}

    def step(self, action: Any) -> Any:
        _, *others = super().step(action)
        return self.observation_space.low.copy(), *others


class StackedCamera(FloatCamera):
    """Two pictures of bytes in front of each other."""

    observation_space = Box(0, 255, (2, 40, 40, 3), np.uint8)
