"""Play episodes with an exported agent: ONNX Runtime and Gymnasium alone, neither Limelight nor PyTorch.

limelight export RUN_DIR --output agent.onnx
pip install onnxruntime gymnasium
python examples/06_onnx_agent.py agent.onnx [EPISODES]
"""

from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import onnxruntime


def play(session: Any, env: gym.Env[Any, Any], seed: int) -> float:
    """Play one episode of an agent that observes one array, with a memory or without; return its return."""
    shapes = {port.name: port.shape for port in session.get_inputs()}
    has_memory = "state" in shapes
    lead = (1, 1) if has_memory else (1,)  # time and batch, or batch
    obs, _ = env.reset(seed=seed)
    state = np.zeros((1, shapes["state"][1]), np.float32) if has_memory else None
    episode_return, done = 0.0, False
    while not done:
        inputs = {"obs": np.reshape(obs, (*lead, *np.shape(obs)))}
        if has_memory:
            inputs |= {"state": state, "episode_start": np.zeros(lead, np.float32)}
        outputs = dict(zip([port.name for port in session.get_outputs()], session.run(None, inputs), strict=True))
        state = outputs.get("next_state")
        action = outputs["action"].reshape(outputs["action"].shape[len(lead) :])
        obs, reward, terminated, truncated, _ = env.step(action)
        episode_return += float(reward)
        done = terminated or truncated
    return episode_return


def main(path: str, episodes: int) -> None:
    session = onnxruntime.InferenceSession(path)
    about = session.get_modelmeta().custom_metadata_map
    print(f"{about['env_id']}, {about['algo']}, seed {about['seed']}, {about['actions']}")
    env = gym.make(about["env_id"])
    returns = [play(session, env, seed) for seed in range(episodes)]
    env.close()
    print(f"{episodes} episodes: mean return {np.mean(returns):.1f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5)
