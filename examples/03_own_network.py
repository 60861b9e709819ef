"""Train with an encoder of your own: a residual network with layer normalization.

    python examples/03_own_network.py [STEPS]

The class is named, not passed, so that ``config.yaml`` and a loaded agent can find it again. Here the class is in this
script; put yours into a package and write ``--encoder my_package.networks:Residual``; see docs/extending.md.
"""

from __future__ import annotations

import math
import sys
from typing import Any

from gymnasium.spaces import Space
from torch import Tensor, nn

import limelight


class Residual(nn.Module):
    """Map observations [..., *obs_shape] to features [..., num_features]. Limelight calls it with the space only."""

    num_features = 64

    def __init__(self, space: Space[Any]) -> None:
        super().__init__()
        self.obs_dims = len(space.shape or ())
        self.first = nn.Linear(math.prod(space.shape or ()), self.num_features)
        self.norm = nn.LayerNorm(self.num_features)
        self.block = nn.Sequential(nn.Linear(self.num_features, self.num_features), nn.ReLU())

    def forward(self, obs: Tensor) -> Tensor:
        """Encode [T, B, *obs_shape] when learning and [1, B, *obs_shape] when acting."""
        x = self.first(obs.flatten(start_dim=obs.ndim - self.obs_dims).float())
        return x + self.block(self.norm(x))


def main(total_timesteps: int) -> None:
    encoder = f"{__name__}:Residual"
    result = limelight.train(
        "CartPole-v1", seed=1, total_timesteps=total_timesteps, learning_rate=1e-3, encoder=encoder
    )
    parameters = sum(p.numel() for p in result.agent.model.parameters())
    summary = result.summary
    print(f"{parameters:,} parameters, {summary['final_eval_return']:.1f} after {summary['total_timesteps']:,} steps")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40_000)
