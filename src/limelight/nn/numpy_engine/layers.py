"""Layers and heads in NumPy: forward, and a written-out backward over the model's own memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray
from torch import nn

from limelight.errors import ConfigError
from limelight.nn.encoders import MLP, FlattenObs, out_of_space_message
from limelight.nn.model import ActorCritic
from limelight.nn.numpy_engine.distributions import numpy_distribution
from limelight.nn.policy_head import GSDE_EPS, PolicyHead
from limelight.typing import FloatArray

MAX_WIDTH = 256
"""Widest hidden layer that NumPy computes; PyTorch catches up as layers grow (benchmarks/throughput.py)."""


def has_small_mlp(model: ActorCritic) -> bool:
    """Whether encoder and distribution have a NumPy form: the built-in MLP with tanh or ReLU, narrow, on the CPU."""
    return (
        numpy_distribution(model.distribution) is not None
        and model.config.encoder is None  # a custom encoder may derive from the MLP
        and isinstance(model.encoder, MLP)
        and isinstance(model.encoder.flatten.space, Box | Discrete)
        and model.config.activation in ("tanh", "relu")
        and max(model.config.hidden_sizes) <= MAX_WIDTH
        and next(model.parameters()).device.type == "cpu"
    )


class Layer:
    """Computes y = f(x Wᵀ + b) with f tanh, ReLU or None; x [N, fan_in], W [fan_out, fan_in] a view of PyTorch's."""

    def __init__(self, linear: nn.Linear, activation: str | None) -> None:
        self.weight: FloatArray = linear.weight.detach().numpy()
        self.bias: FloatArray = linear.bias.detach().numpy()
        self.activation = activation
        if linear.weight.grad is not None and linear.bias.grad is not None:
            self.weight_grad: FloatArray = linear.weight.grad.numpy()
            self.bias_grad: FloatArray = linear.bias.grad.numpy()
        self._buffers: dict[tuple[int, int], FloatArray] = {}

    def forward(self, x: FloatArray, out: FloatArray | None = None) -> FloatArray:
        """Return y [N, fan_out], in ``out`` or in a buffer that the next forward of as many rows overwrites."""
        y = np.matmul(x, self.weight.T, out=self.buffer(len(x)) if out is None else out)
        y += self.bias
        if self.activation == "tanh":
            np.tanh(y, out=y)
        elif self.activation == "relu":
            np.maximum(y, 0.0, out=y)
        return y

    def backward(self, x: FloatArray, y: FloatArray, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        """Write ∂L/∂W and ∂L/∂b from ∂L/∂y [N, fan_out], which is overwritten; return ∂L/∂x [N, fan_in] if needed."""
        if self.activation == "tanh":
            slope = np.multiply(y, y, out=self.buffer(len(y), 1))
            dy *= np.subtract(1.0, slope, out=slope)
        elif self.activation == "relu":
            dy *= y > 0.0
        np.matmul(dy.T, x, out=self.weight_grad)
        np.matmul(ones(len(dy)), dy, out=self.bias_grad)  # a product with ones is faster than np.add.reduce over rows
        return dy @ self.weight if need_dx else None

    def buffer(self, rows: int, number: int = 0) -> FloatArray:
        """Return a buffer [rows, fan_out], allocated once: new pages cost as much as the arithmetic."""
        buffer = self._buffers.get((rows, number))
        if buffer is None:
            buffer = self._buffers[rows, number] = np.empty((rows, len(self.bias)), np.float32)
        return buffer


class Trunk:
    """The hidden layers of an MLP: flat observations [N, D] → features [N, F]; keeps activations for one backward."""

    def __init__(self, encoder: MLP) -> None:
        linears = [m for m in encoder.layers if isinstance(m, nn.Linear)]
        activation = "tanh" if isinstance(encoder.layers[1], nn.Tanh) else "relu"
        self.layers = [Layer(linear, activation) for linear in linears]
        self.activations: list[FloatArray] = []

    def forward(self, x: FloatArray, known: int = 0) -> FloatArray:
        """Return features [N, F] of flat observations [N, D]; the first ``known`` rows are in the buffers already."""
        self.activations = [x]
        for layer in self.layers:
            y = layer.buffer(len(x))
            layer.forward(x[known:], y[known:])
            self.activations.append(y)
            x = y
        return x

    def backward(self, dy: FloatArray) -> None:
        """Write all gradients of the trunk from ∂L/∂features of the first len(dy) rows."""
        n = len(dy)
        for i in range(len(self.layers) - 1, -1, -1):
            x, y = self.activations[i][:n], self.activations[i + 1][:n]
            dy = cast(FloatArray, self.layers[i].backward(x, y, dy, need_dx=i > 0))


class Head:
    """A policy head with state-independent parameters: their values are the last columns of every row."""

    def __init__(self, head: PolicyHead) -> None:
        assert head.state_independent is not None
        self.layer = Layer(head.linear, None)
        self.state_independent = head.state_independent.detach().numpy()
        if head.state_independent.grad is not None:
            self.state_independent_grad: FloatArray = head.state_independent.grad.numpy()
        self.num_outputs = len(self.layer.bias)

    def forward(self, x: FloatArray) -> FloatArray:
        """Return parameters [N, K] of features [N, F]."""
        params = np.empty((len(x), self.num_outputs + len(self.state_independent)), np.float32)
        params[:, : self.num_outputs] = self.layer.forward(x)
        params[:, self.num_outputs :] = self.state_independent
        return params

    def backward(self, x: FloatArray, y: FloatArray, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        """Write gradients as :meth:`Layer.backward` does."""
        np.matmul(ones(len(dy)), dy[:, self.num_outputs :], out=self.state_independent_grad)
        return self.layer.backward(x, y, dy[:, : self.num_outputs], need_dx)


class NumpyGsdeHead:
    """A policy head with :class:`~limelight.nn.policy_head.Gsde`: the log σ follow the means in each row."""

    def __init__(self, head: PolicyHead) -> None:
        assert head.gsde is not None
        log_std = head.gsde.log_std
        self.layer = Layer(head.linear, None)
        self.log_std = log_std.detach().numpy()
        if log_std.grad is not None:
            self.log_std_grad: FloatArray = log_std.grad.numpy()
        self.num_outputs = len(self.layer.bias)
        self._variance: FloatArray = np.zeros((0, 0), np.float32)

    def forward(self, x: FloatArray) -> FloatArray:
        """Return parameters [N, 2A] of features [N, F]."""
        self._variance = (x * x) @ self._weights()
        self._variance += GSDE_EPS
        params = np.empty((len(x), 2 * self.num_outputs), np.float32)
        params[:, : self.num_outputs] = self.layer.forward(x)
        np.multiply(np.log(self._variance), 0.5, out=params[:, self.num_outputs :])
        return params

    def backward(self, x: FloatArray, y: FloatArray, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        """Write gradients as :meth:`Layer.backward` does, with  ∂ log σⱼ / ∂Lᵢⱼ = zᵢ² e^(2 Lᵢⱼ) / (F σⱼ²)."""
        np.matmul((x * x).T, dy[:, self.num_outputs :] / self._variance[: len(dy)], out=self.log_std_grad)
        self.log_std_grad *= self._weights()
        return self.layer.backward(x, y, dy[:, : self.num_outputs], need_dx)

    def _weights(self) -> FloatArray:
        """Return e^(2 L) / F, [F, A]."""
        weights: FloatArray = np.exp(2.0 * self.log_std) / np.float32(len(self.log_std))
        return weights


def make_head(head: PolicyHead) -> Layer | Head | NumpyGsdeHead:
    """Return the NumPy form of a policy head."""
    if head.gsde is not None:
        return NumpyGsdeHead(head)
    return Layer(head.linear, None) if head.state_independent is None else Head(head)


def make_flattener(flatten: FlattenObs) -> Callable[[NDArray[Any]], FloatArray]:
    """Return FlattenObs in NumPy: [N, *shape] → float32 [N, D]."""
    space, width = flatten.space, flatten.num_features
    if isinstance(space, Discrete):
        rows, start = np.eye(width, dtype=np.float32), int(space.start)

        def one_hot(obs: NDArray[Any]) -> FloatArray:
            try:
                return rows[obs - start]
            except IndexError:
                raise ConfigError(out_of_space_message(space, obs)) from None

        return one_hot
    return lambda obs: np.asarray(obs, np.float32).reshape(-1, width)


@functools.lru_cache(maxsize=8)
def ones(n: int) -> FloatArray:
    """Return a row of ones, [n]."""
    return np.ones(n, np.float32)
