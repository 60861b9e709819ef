"""Numbers squashed by tanh: the log slope of tanh, and its mean under a normal distribution."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from limelight.typing import FloatArray

# Nodes and weights of the trapezoidal rule for E f(z) with standard normal z. For the log slope it is more precise
# than Gauss–Hermite quadrature with as many nodes; tests/nn/test_distributions.py bounds its error by Monte Carlo.
NODES = np.linspace(-4.5, 4.5, 33, dtype=np.float32)
WEIGHTS = np.exp(-0.5 * NODES * NODES) / np.exp(-0.5 * NODES * NODES).sum()


def log_slope(u: Tensor) -> Tensor:
    """Return the log slope of tanh at u, log(1 − tanh² u) = 2 (log 2 − u − softplus(−2u)), [...]; finite for all u."""
    return 2.0 * (math.log(2.0) - u - nn.functional.softplus(-2.0 * u))


def mean_log_slope(mean: Tensor, log_std: Tensor) -> Tensor:
    """Return E log(1 − tanh² u) for u ~ N(mean, e^(2 log_std)), [...]."""
    nodes = torch.as_tensor(NODES, dtype=mean.dtype, device=mean.device)
    weights = torch.as_tensor(WEIGHTS, dtype=mean.dtype, device=mean.device)
    return log_slope(mean.unsqueeze(-1) + log_std.exp().unsqueeze(-1) * nodes) @ weights


def numpy_log_slope(u: FloatArray) -> FloatArray:
    """Return :func:`log_slope` in NumPy."""
    distance = np.abs(u)  # the slope is symmetric in u
    return 2.0 * (math.log(2.0) - distance - np.log1p(np.exp(-2.0 * distance)))


def numpy_mean_log_slope(mean: FloatArray, std: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return :func:`mean_log_slope` and its derivatives by the mean, −2 E tanh u, and by log σ, −2 σ E z tanh u."""
    u = mean[..., None] + std[..., None] * NODES
    slope = np.tanh(u)
    return numpy_log_slope(u) @ WEIGHTS, slope @ (-2.0 * WEIGHTS), std * (slope @ (-2.0 * WEIGHTS * NODES))
