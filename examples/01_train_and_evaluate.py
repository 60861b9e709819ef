"""Train A2C on CartPole, load the best agent, evaluate it, and act with it.

python examples/01_train_and_evaluate.py [STEPS]
"""

from __future__ import annotations

import sys

import gymnasium as gym

import limelight


def main(total_timesteps: int) -> None:
    result = limelight.train("CartPole-v1", algo="a2c", seed=1, total_timesteps=total_timesteps)
    print(f"{result.status} in {result.run_dir}; the report is {result.report}")

    # Any later program can do this with the run folder.
    agent = limelight.load(result.run_dir)
    evaluation = limelight.evaluate(agent, episodes=20, seed=7)
    print(f"20 greedy episodes: {evaluation.mean_return:.1f} ± {evaluation.std_return:.1f}")

    # The agent acts in any environment with its spaces, one observation or a batch at a time.
    env = gym.make("CartPole-v1")
    obs, _ = env.reset(seed=7)
    episode_return, done = 0.0, False
    while not done:
        action, _ = agent.predict(obs, deterministic=True)
        obs, reward, terminated, truncated, _ = env.step(int(action))
        episode_return += float(reward)
        done = terminated or truncated
    env.close()
    print(f"one more episode, by hand: {episode_return:.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60_000)
