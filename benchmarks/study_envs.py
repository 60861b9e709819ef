"""Environments of the study of default settings (defaults.py): small tasks of many kinds, and which ids beside them.

Only Gymnasium and NumPy are imported, so that other libraries can be measured on the same tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

Result = tuple[Any, float, bool, bool, dict[str, Any]]


class Task(gym.Env[Any, Any]):
    """An episode of ``length`` steps; subclasses say how it starts, what is observed and what a step pays."""

    length = 20

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        self.steps = 0
        self.start()
        return self.observe(), self.info()

    def step(self, action: Any) -> Result:
        """Pay for an action; the task ends after ``length`` steps."""
        reward = float(self.act(action))
        self.steps += 1
        return self.observe(), reward, self.steps >= self.length, False, self.info()

    def start(self) -> None:
        """Draw the initial state."""

    def info(self) -> dict[str, Any]:
        """Return the info of a step."""
        return {}

    def act(self, action: Any) -> float:
        """Change the state, and return the reward."""
        raise NotImplementedError(type(self))

    def observe(self) -> Any:
        """Return the observation."""
        raise NotImplementedError(type(self))


class TwoActions(Task):
    """The right one of two actions pays 1 and the other 0; the first of four random numbers tells which (20)."""

    observation_space: Space[Any] = Box(0.0, 1.0, (4,))
    action_space: Space[Any] = Discrete(2)

    def observe(self) -> Any:
        self.x = self.np_random.random(4).astype(np.float32)
        return self.x

    def act(self, action: Any) -> float:
        return float(int(action) == int(self.x[0] > 0.5))


class ContextualBandit(Task):
    """Episodes of one step: five actions, the context says which one pays 1."""

    length = 1
    observation_space: Space[Any] = Box(-3.0, 3.0, (5,))
    action_space: Space[Any] = Discrete(5)

    def observe(self) -> Any:
        self.x = self.np_random.normal(size=5).astype(np.float32).clip(-3, 3)
        return self.x

    def act(self, action: Any) -> float:
        return float(int(action) == int(self.x.argmax()))


class Inventory(Task):
    """Order 0 to 12 units a day for 30 days; sales pay 3, units cost 2, storage .1 a unit and day."""

    length = 30
    observation_space: Space[Any] = Dict(
        {"stock": Box(0.0, 60.0, (1,)), "day": Discrete(31), "last_demand": Box(0.0, 40.0, (2,))}
    )
    action_space: Space[Any] = Discrete(13)

    def start(self) -> None:
        self.stock, self.demands = 5.0, [5.0, 5.0]

    def observe(self) -> Any:
        return {
            "stock": np.array([self.stock], np.float32),
            "day": self.steps,
            "last_demand": np.array(self.demands, np.float32),
        }

    def act(self, action: Any) -> float:
        self.stock = min(self.stock + int(action), 60.0)
        demand = float(self.np_random.poisson(5 + 3 * np.sin(self.steps / 4)))
        sold = min(demand, self.stock)
        self.stock -= sold
        self.demands = [self.demands[1], min(demand, 40.0)]
        return 3 * sold - 2 * int(action) - 0.1 * self.stock


class Trading(Task):
    """Hold, buy or sell one unit of a mean-reverting price; a trade costs .05 % and rewards are a thousandth."""

    length = 200
    observation_space: Space[Any] = Box(-np.inf, np.inf, (3,))
    action_space: Space[Any] = Discrete(3)

    def start(self) -> None:
        self.log_price, self.position, self.change = float(self.np_random.normal(0, 0.03)), 0, 0.0

    def observe(self) -> Any:
        return np.array([100 * np.exp(self.log_price), self.position, self.change], np.float32)

    def act(self, action: Any) -> float:
        wanted = (0, 1, -1)[int(action)] or self.position
        cost = 0.0005 * abs(wanted - self.position)
        self.position = wanted
        self.change = -0.1 * self.log_price + float(self.np_random.normal(0, 0.01))
        self.log_price += self.change
        return self.position * self.change - cost


class Masked(Task):
    """Take one of twelve items, each once: legal ones by the mask; it pays its value, falling with time (masked)."""

    length = 8
    observation_space: Space[Any] = Dict({"worth": Box(0.0, 1.0, (12,)), "action_mask": MultiBinary(12)})
    action_space: Space[Any] = Discrete(12)

    def start(self) -> None:
        self.values = self.np_random.random(12).astype(np.float32)
        self.legal = np.ones(12, np.int8)
        self.legal[self.np_random.choice(12, 3, replace=False)] = 0

    def observe(self) -> Any:
        return {"worth": self.values, "action_mask": self.legal.copy()}

    def act(self, action: Any) -> float:
        if not self.legal[int(action)]:
            return 0.0
        self.legal[int(action)] = 0
        return float(self.values[int(action)]) * 0.9**self.steps


class TupleKeys(Task):
    """The right of six actions depends on a code of six and on the sign of a number: a Tuple observation (25)."""

    length = 25
    observation_space: Space[Any] = Tuple((Discrete(6), Box(-10.0, 10.0, (2,))))
    action_space: Space[Any] = Discrete(6)

    def observe(self) -> Any:
        self.code = int(self.np_random.integers(6))
        self.x = self.np_random.uniform(-10, 10, 2).astype(np.float32)
        return self.code, self.x

    def act(self, action: Any) -> float:
        return float(int(action) == (self.code + (3 if self.x[0] > 0 else 0)) % 6)


class Machines(Task):
    """Three machines at speed 0, 1 or 2 (MultiDiscrete): output pays, heat above 10 costs."""

    length = 50
    observation_space: Space[Any] = Box(0.0, 100.0, (3,))
    action_space: Space[Any] = MultiDiscrete([3, 3, 3])

    def start(self) -> None:
        self.heat = self.np_random.uniform(0, 10, 3)

    def observe(self) -> Any:
        return self.heat.astype(np.float32)

    def act(self, action: Any) -> float:
        speed = np.asarray(action)
        self.heat = np.clip(self.heat + 3.0 * speed - 2.5, 0, 100)
        return float(speed.sum() - 2.0 * (self.heat > 10).sum())


class Chain(Task):
    """A corridor of 10 places: the only reward, 1, is at the right end; half of the steps to the right slip."""

    length = 60
    observation_space: Space[Any] = Discrete(10)
    action_space: Space[Any] = Discrete(3)

    def start(self) -> None:
        self.place = 0

    def observe(self) -> Any:
        return self.place

    def act(self, action: Any) -> float:
        if int(action) == 2 and self.np_random.random() < 0.7:
            self.place = min(self.place + 1, 9)
        elif int(action) == 0:
            self.place = max(self.place - 1, 0)
        return float(self.place == 9)

    def step(self, action: Any) -> Result:
        obs, reward, ended, _, info = super().step(action)
        return obs, reward, reward > 0, ended and not reward, info


class Reservoir(Task):
    """A level to be held near 500 for 1,000 steps with five outflows: large numbers, every reward negative."""

    length = 1000
    observation_space: Space[Any] = Box(0.0, 1000.0, (2,))
    action_space: Space[Any] = Discrete(5)

    def start(self) -> None:
        self.level, self.inflow = float(self.np_random.uniform(200, 800)), 20.0

    def observe(self) -> Any:
        return np.array([self.level, self.inflow], np.float32)

    def act(self, action: Any) -> float:
        self.inflow = float(np.clip(self.inflow + self.np_random.normal(0, 2), 0, 40))
        self.level = float(np.clip(self.level + self.inflow - 10.0 * int(action), 0, 1000))
        return -abs(self.level - 500) / 10


class Queues(Task):
    """Serve one of four queues of different cost: rewards down to −100 a step."""

    length = 100
    observation_space: Space[Any] = Box(0.0, 50.0, (4,))
    action_space: Space[Any] = Discrete(4)

    def start(self) -> None:
        self.queues = self.np_random.integers(0, 10, 4).astype(np.float64)

    def observe(self) -> Any:
        return self.queues.astype(np.float32)

    def act(self, action: Any) -> float:
        self.queues[int(action)] = max(self.queues[int(action)] - 3, 0)
        self.queues = np.minimum(self.queues + self.np_random.poisson((0.3, 0.6, 0.9, 0.9)), 50)
        return -float(self.queues @ (3.0, 1.0, 1.0, 0.5))


class Reach(Task):
    """Move a point to a target by steps of up to 50 (Dict observation, bounds of ±50)."""

    length = 30
    observation_space: Space[Any] = Dict({"place": Box(-200.0, 200.0, (2,)), "target": Box(-200.0, 200.0, (2,))})
    action_space: Space[Any] = Box(-50.0, 50.0, (2,))

    def start(self) -> None:
        self.place, self.target = self.np_random.uniform(-200, 200, (2, 2))

    def observe(self) -> Any:
        return {"place": self.place.astype(np.float32), "target": self.target.astype(np.float32)}

    def act(self, action: Any) -> float:
        self.place = np.clip(self.place + np.clip(action, -50, 50), -200, 200)
        return -float(np.linalg.norm(self.place - self.target)) / 100


class Thermostat(Task):
    """Heat a room that loses warmth: temperatures in kelvin, the action is a power between 0 and 1."""

    length = 150
    observation_space: Space[Any] = Box(200.0, 350.0, (2,))
    action_space: Space[Any] = Box(0.0, 1.0, (1,))

    def start(self) -> None:
        self.room, self.outside = 285.0, float(self.np_random.uniform(265, 285))

    def observe(self) -> Any:
        return np.array([self.room, self.outside], np.float32)

    def act(self, action: Any) -> float:
        power = float(np.clip(action, 0, 1)[0])
        self.outside += float(self.np_random.normal(0, 0.2))
        self.room += 0.1 * (self.outside - self.room) + 4.0 * power
        return -abs(self.room - 294.0) - power


class ContinuousBandit(Task):
    """Episodes of one step: three numbers that should equal a function of the context."""

    length = 1
    observation_space: Space[Any] = Box(-1.0, 1.0, (3,))
    action_space: Space[Any] = Box(-1.0, 1.0, (3,))

    def observe(self) -> Any:
        self.x = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return self.x

    def act(self, action: Any) -> float:
        return 1.0 - float(np.sum((np.clip(action, -1, 1) - 0.8 * np.roll(self.x, 1)) ** 2))


class Elevator(Task):
    """Held back: answer calls on six floors (MultiBinary observation with a place): each open call costs 1 a step."""

    length = 80
    observation_space: Space[Any] = Dict({"calls": MultiBinary(6), "floor": Discrete(6)})
    action_space: Space[Any] = Discrete(3)

    def start(self) -> None:
        self.floor, self.calls = 0, np.zeros(6, np.int8)

    def observe(self) -> Any:
        return {"calls": self.calls.copy(), "floor": self.floor}

    def act(self, action: Any) -> float:
        self.floor = int(np.clip(self.floor + int(action) - 1, 0, 5))
        self.calls[self.floor] = 0
        if self.np_random.random() < 0.15:
            self.calls[self.np_random.integers(6)] = 1
        return -float(self.calls.sum())


class Market(Task):
    """Held back: shares of three assets (continuous) against drifts that two signals show; small rewards."""

    length = 250
    observation_space: Space[Any] = Box(-np.inf, np.inf, (3,))
    action_space: Space[Any] = Box(-1.0, 1.0, (3,))

    def start(self) -> None:
        self.drift = self.np_random.normal(0, 0.01, 3)

    def observe(self) -> Any:
        return self.drift.astype(np.float32)

    def act(self, action: Any) -> float:
        gain = float(np.clip(action, -1, 1) @ (self.drift + self.np_random.normal(0, 0.01, 3)))
        self.drift = 0.95 * self.drift + self.np_random.normal(0, 0.003, 3)
        return gain


class Parking(Task):
    """Held back: stop at a place with five accelerations; the reward comes at the end, −distance − speed."""

    length = 40
    observation_space: Space[Any] = Box(-500.0, 500.0, (3,))
    action_space: Space[Any] = Discrete(5)

    def start(self) -> None:
        self.place, self.speed, self.goal = 0.0, 0.0, float(self.np_random.uniform(-100, 100))

    def observe(self) -> Any:
        return np.array([self.place, self.speed, self.goal], np.float32)

    def act(self, action: Any) -> float:
        self.speed = float(np.clip(self.speed + int(action) - 2, -20, 20))
        self.place = float(np.clip(self.place + self.speed, -500, 500))
        return 0.0 if self.steps + 1 < self.length else -abs(self.place - self.goal) / 10 - abs(self.speed)


class Deal(Task):
    """Held back: a masked choice (mask in info) among 20 offers, of which few are legal at a time."""

    length = 30
    observation_space: Space[Any] = Box(0.0, 100.0, (20,))
    action_space: Space[Any] = Discrete(20)

    def start(self) -> None:
        self.draw()

    def draw(self) -> None:
        self.prices = self.np_random.uniform(0, 100, 20).astype(np.float32)
        self.legal = np.zeros(20, np.int8)
        self.legal[self.np_random.choice(20, 5, replace=False)] = 1

    def observe(self) -> Any:
        return np.where(self.legal, self.prices, 0).astype(np.float32)

    def info(self) -> dict[str, Any]:
        return {"action_mask": self.legal.copy()}

    def act(self, action: Any) -> float:
        paid = float(self.prices[int(action)]) * self.legal[int(action)]
        self.draw()
        return paid


def scaled_cartpole() -> gym.Env[Any, Any]:
    """CartPole with rewards of 1,000."""
    return gym.wrappers.TransformReward(gym.make("CartPole-v1"), lambda r: 1000.0 * float(r))


class Picture(Task):
    """A picture of 12 × 12 bytes: a paddle in the lowest row stays below a ball that drifts; 1 for every such step."""

    length = 40
    observation_space: Space[Any] = Box(0, 255, (12, 12, 1), np.uint8)
    action_space: Space[Any] = Discrete(3)

    def start(self) -> None:
        self.ball, self.paddle = int(self.np_random.integers(12)), 6

    def observe(self) -> Any:
        picture = np.zeros((12, 12, 1), np.uint8)
        picture[self.row(), self.ball] = 200
        picture[11, self.paddle] = 255
        return picture

    def row(self) -> int:
        """Return the row of the ball."""
        return 3

    def act(self, action: Any) -> float:
        self.paddle = int(np.clip(self.paddle + int(action) - 1, 0, 11))
        self.ball = int(np.clip(self.ball + self.np_random.integers(-1, 2), 0, 11))
        return float(abs(self.paddle - self.ball) <= 1)


class Catch(Picture):
    """The ball falls for 10 steps, and the last one pays 1 if it is caught and −1 if not."""

    length = 10

    def row(self) -> int:
        return self.steps

    def act(self, action: Any) -> float:
        self.paddle = int(np.clip(self.paddle + int(action) - 1, 0, 11))
        return 0.0 if self.steps < 9 else 1.0 if abs(self.paddle - self.ball) <= 1 else -1.0


def tiny_acrobot() -> gym.Env[Any, Any]:
    """Acrobot with rewards of −.001 and observations around 500 in steps of thousands."""
    env = gym.make("Acrobot-v1")
    space = Box(-1e5, 1e5, env.observation_space.shape)
    env = gym.wrappers.TransformObservation(env, lambda o: (1000.0 * o + 500.0).astype(np.float32), space)
    return gym.wrappers.TransformReward(env, lambda r: 0.001 * float(r))


def cliff() -> gym.Env[Any, Any]:
    """CliffWalking with a time limit of 200 steps, without which a policy may never end an episode."""
    return gym.make("CliffWalking-v1", max_episode_steps=200)


def minatar_breakout() -> gym.Env[Any, Any]:
    """MinAtar's Breakout."""
    return _minatar("MinAtar/Breakout-v1")


def minatar_asterix() -> gym.Env[Any, Any]:
    """MinAtar's Asterix."""
    return _minatar("MinAtar/Asterix-v1")


def _minatar(env_id: str) -> gym.Env[Any, Any]:
    import minatar.gym

    if env_id not in gym.registry:
        minatar.gym.register_envs()
    env = gym.make(env_id, max_episode_steps=1000, disable_env_checker=True)
    space = Box(0.0, 1.0, env.observation_space.shape)
    return gym.wrappers.TransformObservation(env, lambda o: np.asarray(o, np.float32), space)


@dataclass(frozen=True)
class Study:
    """A task of the study and its budget."""

    env_id: str
    steps: int
    held_back: bool = False

    def make(self) -> gym.Env[Any, Any]:
        """Make the environment, of an id or of a callable of this module."""
        name = self.env_id.partition(":")[2]
        if not name:
            return gym.make(self.env_id)
        creator: Callable[[], gym.Env[Any, Any]] = globals()[name]
        return creator()


def _here(name: str) -> str:
    return f"study_envs:{name}"


STUDY = {
    "cartpole": Study("CartPole-v1", 30_000),
    "acrobot": Study("Acrobot-v1", 30_000),
    "lunarlander": Study("LunarLander-v3", 50_000),
    "cliff": Study(_here("cliff"), 20_000),
    "taxi": Study("Taxi-v4", 50_000),
    "frozenlake": Study("FrozenLake-v1", 20_000),
    "blackjack": Study("Blackjack-v1", 20_000),
    "minigrid": Study("MiniGrid-Empty-5x5-v0", 30_000),
    "minatar-breakout": Study(_here("minatar_breakout"), 50_000),
    "two-actions": Study(_here("TwoActions"), 20_000),
    "bandit": Study(_here("ContextualBandit"), 20_000),
    "inventory": Study(_here("Inventory"), 30_000),
    "trading": Study(_here("Trading"), 30_000),
    "masked": Study(_here("Masked"), 20_000),
    "tuple": Study(_here("TupleKeys"), 20_000),
    "machines": Study(_here("Machines"), 20_000),
    "chain": Study(_here("Chain"), 20_000),
    "reservoir": Study(_here("Reservoir"), 30_000),
    "queues": Study(_here("Queues"), 20_000),
    "cartpole-1000": Study(_here("scaled_cartpole"), 30_000),
    "acrobot-tiny": Study(_here("tiny_acrobot"), 30_000),
    "pendulum": Study("Pendulum-v1", 30_000),
    "mountaincar-continuous": Study("MountainCarContinuous-v0", 20_000),
    "inverted-pendulum": Study("InvertedPendulum-v5", 20_000),
    "hopper": Study("Hopper-v5", 50_000),
    "halfcheetah": Study("HalfCheetah-v5", 50_000),
    "reach": Study(_here("Reach"), 20_000),
    "thermostat": Study(_here("Thermostat"), 20_000),
    "continuous-bandit": Study(_here("ContinuousBandit"), 20_000),
    "picture": Study(_here("Picture"), 20_000),
    "catch": Study(_here("Catch"), 20_000),
    "elevator": Study(_here("Elevator"), 20_000, held_back=True),
    "market": Study(_here("Market"), 20_000, held_back=True),
    "parking": Study(_here("Parking"), 20_000, held_back=True),
    "deal": Study(_here("Deal"), 20_000, held_back=True),
    "minatar-asterix": Study(_here("minatar_asterix"), 50_000, held_back=True),
    "frozenlake-8x8": Study("FrozenLake8x8-v1", 30_000, held_back=True),
    "double-pendulum": Study("InvertedDoublePendulum-v5", 20_000, held_back=True),
}
