"""Compare the gradient of one PPO minibatch with that of Stable-Baselines3 on the same parameters and numbers.

python benchmarks/ppo_gradient.py        # needs stable-baselines3, which this project does not depend on

Both have the same weights, observations, actions, advantages, returns and old log-probabilities, which are perturbed so
that ratios lie on both sides of the clip. Stable-Baselines3 runs its own ``PPO.train`` with one minibatch and an
optimizer that does not step. Exit status 1 if any relative difference is above 1e-5.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, Space

from limelight.algo.last_update import Targets
from limelight.algo.learner import Learner
from limelight.algo.minibatches import Batch
from limelight.algo.rollout import Rollout
from limelight.nn.model import ActorCritic, make_model
from limelight.settings.io import with_settings
from limelight.settings.schema import TrainConfig

T, B = 32, 4
OBSERVATIONS = Box(-1.0, 1.0, (4,), np.float32)
ACTIONS: dict[str, Space[Any]] = {"discrete": Discrete(3), "continuous": Box(-1.0, 1.0, (2,), np.float32)}


class Nothing(gym.Env[Any, Any]):
    """An environment with these spaces, which is never stepped."""

    def __init__(self, actions: Space[Any]) -> None:
        self.observation_space, self.action_space = OBSERVATIONS, actions

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Return zeros."""
        super().reset(seed=seed)
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Return zeros."""
        return np.zeros(4, np.float32), 0.0, False, False, {}


def pairs(policy: Any, model: ActorCritic) -> list[tuple[torch.nn.Parameter, torch.nn.Parameter]]:
    """Return the parameters of both that correspond: (Stable-Baselines3's, this project's)."""
    theirs = [*policy.mlp_extractor.policy_net, policy.action_net, *policy.mlp_extractor.value_net, policy.value_net]
    critic = model.critic
    ours = [*model.encoder.modules(), model.policy_head.linear, *critic.encoder.modules(), critic.value_head.linear]  # type: ignore[union-attr, operator]
    layers = zip(*([m for m in side if isinstance(m, torch.nn.Linear)] for side in (theirs, ours)), strict=True)
    found = [pair for a, b in layers for pair in ((a.weight, b.weight), (a.bias, b.bias))]
    if model.policy_head.state_independent is not None:
        found.append((policy.log_std, model.policy_head.state_independent))
    return found


def relative_difference(kind: str, normalize: bool, engine: str, vf_coef: float, ent_coef: float) -> float:
    """Return the largest difference of two gradients, relative to the largest entry."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.logger import Logger

    rng, actions = np.random.default_rng(0), ACTIONS[kind]
    theirs = PPO(
        "MlpPolicy", Nothing(actions), n_steps=T * B, batch_size=T * B, n_epochs=1,
        clip_range=0.2, vf_coef=vf_coef, ent_coef=ent_coef, normalize_advantage=normalize, max_grad_norm=1e9,
        device="cpu", seed=0,
    )  # fmt: skip
    settings = {
        "critic": "separate", "clip_ratio": 0.2, "vf_coef": vf_coef, "ent_coef": ent_coef, "num_epochs": 2,
        "normalize_advantages": "batch" if normalize else "none",
        "num_steps": T, "num_envs": B,
    }  # fmt: skip
    config = with_settings(TrainConfig(), settings)
    learner = Learner(make_model(OBSERVATIONS, actions, config.model, 0), config.algorithm, config.optim, None, engine)  # type: ignore[arg-type]
    with torch.no_grad():
        for one, other in pairs(theirs.policy, learner.model):
            one += 0.3 * torch.randn(one.shape, generator=torch.Generator().manual_seed(one.numel()))
            other.copy_(one)
    # The same numbers for both
    obs = rng.standard_normal((T + 1, B, 4)).astype(np.float32)
    taken = rng.integers(3, size=(T, B)) if kind == "discrete" else rng.standard_normal((T, B, 2)).astype(np.float32)
    advantages, returns, old = rng.standard_normal((3, T, B)).astype(np.float32)
    zero, one_ = np.zeros((T, B), np.float32), np.ones((T, B), np.float32)
    rollout = Rollout(obs, taken, zero, zero, zero, one_, np.zeros((T + 1, B), np.float32), T * B)
    old = (learner.log_probs(rollout) + 0.4 * old).astype(np.float32)
    ratios = np.exp(learner.log_probs(rollout) - old)
    assert all(side.any() for side in (ratios < 0.8, ratios > 1.2, abs(ratios - 1.0) < 0.2))
    # This project's gradient
    assert learner.epochs is not None
    learner.epochs._gradients(Batch(rollout, Targets(returns, advantages), zero, old))
    # Stable-Baselines3's
    buffer = theirs.rollout_buffer
    buffer.reset()
    for name, array in {
        "observations": obs[:-1], "actions": taken, "advantages": advantages, "returns": returns, "log_probs": old,
        "values": zero,
    }.items():  # fmt: skip
        target = getattr(buffer, name)
        target[:] = array.reshape(target.shape)
    buffer.full = True
    theirs.set_logger(Logger(None, []))
    theirs.policy.optimizer.step = lambda *args: None  # type: ignore[method-assign, assignment]
    theirs.train()
    found = [(a.grad.clone(), b.grad.clone()) for a, b in pairs(theirs.policy, learner.model)]  # type: ignore[union-attr]
    # Their standard deviation is the sample's, ours the population's: one factor on the policy's term alone
    factor = np.sqrt((T * B - 1) / (T * B)) if normalize else 1.0
    scale = max(float(a.abs().max()) for a, _ in found)
    return max(float((a - b * factor).abs().max()) for a, b in found) / scale


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's settings: none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    return parser.parse_args(argv)


def main() -> int:
    """Print a row per case."""
    parse()
    worst = 0.0
    print("| actions | engine | terms | normalize_advantages | largest relative difference |")
    print("| --- | --- | --- | --- | --- |")
    for kind in ACTIONS:
        for engine in ("numpy", "autograd"):
            for terms, normalize, coefficients in (
                ("policy, value, entropy", False, (0.5, 0.01)),
                ("policy", False, (0.0, 0.0)),
                ("policy", True, (0.0, 0.0)),
            ):
                difference = relative_difference(kind, normalize, engine, *coefficients)
                worst = max(worst, difference)
                print(f"| {kind} | {engine} | {terms} | {'batch' if normalize else 'none'} | {difference:.1e} |")
    return int(worst > 1e-5)


if __name__ == "__main__":
    raise SystemExit(main())
