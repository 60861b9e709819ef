"""Evaluate a Limelight agent with Stable-Baselines3's own evaluate_policy: ``predict`` has the same signature.

pip install -e ".[sb3]"
python examples/05_sb3_evaluate.py [STEPS]
"""

from __future__ import annotations

import sys

import gymnasium as gym

import limelight


def main(total_timesteps: int) -> None:
    try:
        from stable_baselines3.common.evaluation import evaluate_policy
        from stable_baselines3.common.monitor import Monitor
    except ImportError:
        sys.exit('Stable-Baselines3 is not installed: pip install -e ".[sb3]"')

    result = limelight.train("CartPole-v1", seed=1, total_timesteps=total_timesteps)
    agent = limelight.load(result.run_dir)

    mean, std = evaluate_policy(agent, Monitor(gym.make("CartPole-v1")), n_eval_episodes=20, deterministic=True)
    print(f"evaluate_policy of Stable-Baselines3: {mean:.1f} ± {std:.1f}")
    ours = limelight.evaluate(agent, episodes=20)
    print(f"limelight.evaluate:                   {ours.mean_return:.1f} ± {ours.std_return:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60_000)
