"""Train on an environment of your own: a heater that has to hold 20 degrees.

    python examples/02_own_environment.py [STEPS]

Any callable that makes a ``gymnasium.Env`` works in place of an id. The command line takes an environment of your own
package as ``limelight train my_package.envs:Heater``; see docs/extending.md.
"""

from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

import limelight

Observation = np.ndarray[Any, np.dtype[np.float32]]
Info = dict[str, Any]


class Heater(gym.Env[Observation, np.int64]):
    """Observe how far the room is from 20 °C, in tens of degrees; switch the heater off (0) or on (1)."""

    def __init__(self, max_steps: int = 60) -> None:
        self.observation_space, self.action_space = Box(-5.0, 5.0, (1,)), Discrete(2)
        self.max_steps, self.temperature, self.steps = max_steps, 0.0, 0

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Observation, Info]:
        """Start at a random temperature."""
        super().reset(seed=seed)  # seeds self.np_random; draw all random numbers from it
        self.temperature, self.steps = float(self.np_random.uniform(5.0, 30.0)), 0
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, Info]:
        """Heat or cool by a degree; the reward is the negative distance from 20 °C, in tens of degrees."""
        self.steps += 1
        self.temperature += 2.0 * int(action) - 1.0 + float(self.np_random.normal(0.0, 0.1))
        reward = -abs(self.temperature - 20.0) / 10.0
        # The clock is not part of the task, so this is a truncation: the last state keeps its value.
        return self._observe(), reward, False, self.steps >= self.max_steps, {}

    def _observe(self) -> Observation:
        return np.clip(np.array([(self.temperature - 20.0) / 10.0], np.float32), -5.0, 5.0)


def main(total_timesteps: int) -> None:
    result = limelight.train(Heater, seed=1, total_timesteps=total_timesteps, gamma=0.9, learning_rate=2e-3)
    evaluation = limelight.evaluate(limelight.load(result.run_dir), Heater, episodes=20)
    print(f"return {evaluation.mean_return:.2f} ± {evaluation.std_return:.2f} over {evaluation.episodes} episodes")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30_000)
