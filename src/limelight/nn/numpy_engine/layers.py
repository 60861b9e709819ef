"""Layers and heads in NumPy: forward, and a written-out backward over the model's own memory."""

from __future__ import annotations

import functools
import math
from typing import Any, cast

import numpy as np
from torch import nn

from limelight.nn.encoders import MLP, FeaturesMLP
from limelight.nn.model import ActorCritic
from limelight.nn.numpy_engine.distributions import numpy_distribution
from limelight.nn.numpy_engine.inputs import InputLayout, Inputs, MixedRows, has_layout, input_layout
from limelight.nn.policy_head import GSDE_EPS, PolicyHead
from limelight.typing import FloatArray

MAX_WIDTH = 256
"""Widest hidden layer that NumPy computes; PyTorch catches up as layers grow (benchmarks/throughput.py)."""


def has_small_mlp(model: ActorCritic) -> bool:
    """Whether encoder and distribution have a NumPy form: the built-in MLP of :data:`NAMES`, narrow, on the CPU."""
    return (
        numpy_distribution(model.distribution) is not None
        and model.config.encoder is None  # a custom encoder may derive from the MLP
        and has_layout(model.encoder)
        and model.config.activation in NAMES.values()
        and max(model.config.hidden_sizes) <= MAX_WIDTH
        and next(model.parameters()).device.type == "cpu"
    )


NAMES: dict[type[nn.Module], str] = {nn.Tanh: "tanh", nn.ReLU: "relu", nn.LeakyReLU: "leaky_relu"}
"""The activations that have a NumPy form."""
_LEAK = np.float32(0.01)  # nn.LeakyReLU's slope below 0
_NORM_EPS = 1e-5  # nn.LayerNorm's


class Layer:
    """Computes y = f(x Wᵀ + b) with an activation f of :data:`NAMES` or None; W [fan_out, fan_in] a view of PyTorch's.

    With ``normalizes`` f is of x Wᵀ + b less its mean and divided by its deviation, over the fan_out numbers of a row.
    """

    def __init__(self, linear: nn.Linear, activation: str | None, normalizes: bool = False) -> None:
        self.weight: FloatArray = linear.weight.detach().numpy()
        self.bias: FloatArray = linear.bias.detach().numpy()
        self.activation = activation
        self.normalizes = normalizes
        if linear.weight.grad is not None and linear.bias.grad is not None:
            self.weight_grad: FloatArray = linear.weight.grad.numpy()
            self.bias_grad: FloatArray = linear.bias.grad.numpy()
        self._buffers: dict[tuple[int, int], FloatArray] = {}
        # Of the last forward pass that normalised: the rows z and 1 / deviation
        self._mean_weights = np.full(len(self.bias), 1.0 / len(self.bias), np.float32)
        self._normalized: FloatArray = np.zeros((0, 0), np.float32)
        self._inverse: FloatArray | float = 1.0

    def forward(self, x: FloatArray, out: FloatArray | None = None) -> FloatArray:
        """Return y [N, fan_out], in ``out`` or in a buffer that the next forward of as many rows overwrites."""
        y = np.matmul(x, self.weight.T, out=self.buffer(len(x)) if out is None else out)
        return self.activate(y)

    def backward(self, x: FloatArray, y: FloatArray, dy: FloatArray, need_dx: bool) -> FloatArray | None:
        """Write ∂L/∂W and ∂L/∂b from ∂L/∂y [N, fan_out], which is overwritten; return ∂L/∂x [N, fan_in] if needed."""
        self.through_activation(y, dy)
        if len(dy) == 1:  # an outer product, which matmul makes more slowly
            np.multiply(dy.T, x, out=self.weight_grad)
        else:
            np.matmul(dy.T, x, out=self.weight_grad)
        return dy @ self.weight if need_dx else None

    def activate(self, y: FloatArray) -> FloatArray:
        """Turn x Wᵀ into f(x Wᵀ + b), in place."""
        y += self.bias
        if self.normalizes:
            self._normalize(y)
        if self.activation == "tanh":
            np.tanh(y, out=y)
        elif self.activation == "relu":
            np.maximum(y, 0.0, out=y)
        elif self.activation == "leaky_relu":
            np.maximum(y, np.multiply(y, _LEAK, out=self.buffer(len(y), 1)), out=y)
        return y

    def through_activation(self, y: FloatArray, dy: FloatArray) -> None:
        """Turn ∂L/∂y into ∂L/∂(x Wᵀ + b), in place, and write ∂L/∂b."""
        if self.activation == "tanh":
            slope = np.multiply(y, y, out=self.buffer(len(y), 1))
            dy *= np.subtract(1.0, slope, out=slope)
        elif self.activation == "relu":
            dy *= y > 0.0
        elif self.activation == "leaky_relu":
            np.multiply(dy, _LEAK, out=dy, where=y <= 0.0)
        if self.normalizes:
            self._through_norm(dy)
        if len(dy) == 1:
            np.copyto(self.bias_grad, dy[0])
        else:  # a product with ones is faster than np.add.reduce over rows
            np.matmul(ones(len(dy)), dy, out=self.bias_grad)

    def _normalize(self, y: FloatArray) -> None:
        """Subtract the mean of each row of y [N, fan_out] and divide by its deviation, in place; keep both results."""
        mean = self._mean_weights
        if len(y) == 1:  # fewer calls: acting and learning step by step spend their time in them
            row, z = y[0], self.buffer(1, 2)
            row -= row @ mean
            self._inverse = 1.0 / math.sqrt(float(row @ row) / len(row) + _NORM_EPS)
            row *= self._inverse
            np.copyto(z, y)
            self._normalized = z
            return
        y -= (y @ mean)[:, None]
        square = np.multiply(y, y, out=self.buffer(len(y), 2))
        variance = square @ mean
        variance += np.float32(_NORM_EPS)
        self._inverse = (np.float32(1.0) / np.sqrt(variance, out=variance))[:, None]
        y *= self._inverse
        np.copyto(square, y)
        self._normalized = square

    def _through_norm(self, dy: FloatArray) -> None:
        """Turn ∂L/∂(normalised rows z) into that of the rows before: (dy − mean dy − z mean(dy z)) / deviation."""
        z, mean = self._normalized[: len(dy)], self._mean_weights
        inverse = self._inverse if isinstance(self._inverse, float) else self._inverse[: len(dy)]
        if len(dy) == 1:
            row = dy[0]
            shift = np.multiply(z[0], (row @ z[0]) / np.float32(len(row)), out=self.buffer(1, 3)[0])
            shift += row @ mean
            row -= shift
            row *= inverse if isinstance(inverse, float) else inverse[0]
            return
        product = np.multiply(dy, z, out=self.buffer(len(dy), 3))
        along = (product @ mean)[:, None]
        dy -= (dy @ mean)[:, None]
        dy -= np.multiply(z, along, out=product)
        dy *= inverse

    def buffer(self, rows: int, number: int = 0) -> FloatArray:
        """Return a buffer [rows, fan_out], allocated once: new pages cost as much as the arithmetic."""
        buffer = self._buffers.get((rows, number))
        if buffer is None:
            buffer = self._buffers[rows, number] = np.zeros((rows, len(self.bias)), np.float32)
        return buffer


class MixedLayer:
    """A first layer of numbers and one-hot codes: it adds columns of W instead of multiplying zeros."""

    def __init__(self, layer: Layer, layout: InputLayout) -> None:
        self.layer = layer
        self.columns = [columns for _, columns in layout.segments]
        self.buffer = layer.buffer
        fan_out, fan_in = layer.weight.shape
        self._row_starts = np.arange(fan_out) * fan_in  # of W in memory

    def forward(self, x: MixedRows, out: FloatArray | None = None) -> FloatArray:
        """Return y [N, fan_out] as :meth:`Layer.forward` does."""
        weight = self.layer.weight
        y = self.buffer(len(x)) if out is None else out
        np.add.reduce(weight.T[x.codes], axis=1, out=y)
        for numbers, columns in zip(x.numbers, self.columns, strict=True):
            y += numbers @ weight[:, columns].T
        return self.layer.activate(y)

    def backward(self, x: MixedRows, y: FloatArray, dy: FloatArray, need_dx: bool) -> None:
        """Write ∂L/∂W and ∂L/∂b as :meth:`Layer.backward` does; codes have no derivative."""
        assert not need_dx
        self.layer.through_activation(y, dy)
        weight_grad = self.layer.weight_grad
        weight_grad.fill(0.0)
        places = (x.codes[:, :, None] + self._row_starts).reshape(-1)
        np.add.at(weight_grad.reshape(-1), places, dy.repeat(x.codes.shape[1], axis=0).reshape(-1))
        for numbers, columns in zip(x.numbers, self.columns, strict=True):
            np.matmul(dy.T, numbers, out=weight_grad[:, columns])


class Trunk:
    """The hidden layers of an MLP: inputs [N, F] → features [N, F']; keeps activations for one backward."""

    def __init__(self, encoder: MLP | FeaturesMLP) -> None:
        linears = [m for m in encoder.layers if isinstance(m, nn.Linear)]
        activation = NAMES[type(encoder.layers[-1])]
        self.normalizes = isinstance(encoder.layers[1], nn.LayerNorm)
        """Whether layers normalise: their backward pass then is of the last forward pass, whatever rows it had."""
        self.layers: list[Layer | MixedLayer] = [Layer(linear, activation, self.normalizes) for linear in linears]
        layout = input_layout(encoder)
        if layout.offsets.size:
            self.layers[0] = MixedLayer(Layer(linears[0], activation, self.normalizes), layout)
        self.activations: list[Any] = []

    def forward(self, x: Inputs, known: int = 0, end: int | None = None) -> FloatArray:
        """Return features [N, F'] of inputs [N, F]; the first ``known`` rows are in the buffers already.

        ``end``: rows from here on are not computed; what they hold is meaningless.
        """
        self.activations = [x]
        y: Any = x
        for layer in self.layers:
            x, y = y, layer.buffer(len(x))
            if known != end:
                layer.forward(x[known:end], y[known:end])  # type: ignore[arg-type]
            self.activations.append(y)
        return cast(FloatArray, y)

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


@functools.lru_cache(maxsize=8)
def ones(n: int) -> FloatArray:
    """Return a row of ones, [n]."""
    return np.ones(n, np.float32)
