"""A2C in thirty lines: collect a rollout, update, repeat. All else in Limelight surrounds these two calls."""

import sys

import numpy as np

import limelight
from limelight.algo import Learner, RolloutCollector
from limelight.nn import ModelPolicy, make_model
from limelight.settings import AlgorithmConfig, ModelConfig, OptimConfig

TOTAL_STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 150_000

# Environments, a network over their spaces, a learner, and the policy that acts with the learner's parameters
envs = limelight.make_envs("CartPole-v1", num_envs=16)
model = make_model(envs.single_observation_space, envs.single_action_space, ModelConfig(), seed=0)
algorithm = AlgorithmConfig(num_steps=16, reward_scale=0.05, ent_coef=0.0)
learner = Learner(model, algorithm, OptimConfig(learning_rate=4e-3))
policy = ModelPolicy(learner.network, np.random.default_rng(0))
collector = RolloutCollector(envs, algorithm.num_steps)
collector.reset(seed=0)

steps, returns = 0, [0.0]
while steps < TOTAL_STEPS:
    rollout = collector.collect(policy)
    learner.update(rollout, progress=steps / TOTAL_STEPS)
    steps += rollout.num_valid
    returns += [episode.episode_return for episode in collector.pop_episodes()]
    if learner.num_updates % 50 == 0 or steps >= TOTAL_STEPS:
        print(f"{steps:7,} steps: mean return of the last 50 episodes {np.mean(returns[-50:]):.1f}")
