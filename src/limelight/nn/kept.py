"""A convolutional encoder that keeps what acting has computed, for one backward over the whole rollout.

Used by policy.py (acting) and learner.py (learning), which share one. Saves learning the forward of all rows but the
last, a quarter of the network's time. The memory of the activations is allocated once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from limelight.nn.acted import Acted
from limelight.nn.images import Flat, ImageEncoder


class Stage(NamedTuple):
    """A layer with parameters and the activation that follows it."""

    layer: nn.Conv2d | nn.Linear
    activation: nn.ReLU | nn.ELU


class KeptEncoder:
    """Runs an encoder row by row while acting, and backward over all rows of a rollout at once.

    Args: ``encoder``: one that :func:`supports` accepts, on the CPU. ``num_steps``: T of the rollouts.
    """

    def __init__(self, encoder: ImageEncoder, num_steps: int) -> None:
        self.encoder, self.acted = encoder, Acted(num_steps)
        self.stages = _stages(encoder)
        self._buffers: list[Tensor] = []
        """The input, and the output of every stage, of T + 1 rows of B observations: [(T+1) B, ...]."""

    def step(self, obs: NDArray[Any]) -> Tensor:
        """Features [1, B, F] of observations [B, *obs_shape], kept if they are of a rollout."""
        rows = self.acted.next_rows(obs)
        with torch.inference_mode(False), torch.no_grad():
            outputs = self._run(torch.from_numpy(obs))
            if rows is not None:
                self._keep(outputs, rows, (self.acted.num_steps + 1) * len(obs))
        return _flat(outputs[-1]).float()[None]

    def unroll(self, obs: NDArray[Any]) -> Tensor:
        """Features [T+1, B, F] of a rollout's observations [T+1, B, *obs_shape]; without gradient in the last row."""
        T, B = obs.shape[0] - 1, obs.shape[1]
        flat = obs.reshape((T + 1) * B, *obs.shape[2:])
        known = self.acted.known_rows(flat)
        with torch.no_grad():
            self._keep(self._run(torch.from_numpy(flat[known:])), slice(known, len(flat)), len(flat))
        parameters = [p for stage in self.stages for p in (stage.layer.weight, stage.layer.bias)]
        features = _Backward.apply(self, T * B, *parameters)
        return torch.cat((features, self._features(slice(T * B, len(flat))))).view(T + 1, B, -1)

    def _run(self, obs: Tensor) -> list[Tensor]:
        """The input and every stage's output, of observations [N, *obs_shape]."""
        outputs = [self.encoder.planes(obs).contiguous(memory_format=torch.channels_last)]
        with self.encoder.autocast("cpu"):
            for layer, activation in self.stages:
                x = outputs[-1]
                outputs.append(activation(layer(_flat(x) if isinstance(layer, nn.Linear) else x)))
        return outputs

    def _keep(self, outputs: list[Tensor], rows: slice, total: int) -> None:
        if not self._buffers or len(self._buffers[0]) != total:
            self._buffers = [_room(output, total) for output in outputs]
        for buffer, output in zip(self._buffers, outputs, strict=True):
            buffer[rows] = output

    def _features(self, rows: slice) -> Tensor:
        return _flat(self._buffers[-1][rows]).float()

    def backward(self, d_features: Tensor) -> list[Tensor]:
        """Gradients of every stage's weight and bias, given ∂L/∂features [n, F] of the first n rows kept."""
        n = len(d_features)
        outputs = [buffer[:n] for buffer in self._buffers]
        dy, gradients = d_features, []
        for i in range(len(self.stages) - 1, -1, -1):
            (layer, activation), x, y = self.stages[i], outputs[i], outputs[i + 1]
            dy = _through_activation(activation, _like(dy.to(y.dtype), y), y)
            weight = layer.weight.to(y.dtype)
            if isinstance(layer, nn.Linear):
                gradients += [dy.sum(0), dy.T @ _flat(x)]
                dy = dy @ weight
            else:
                dy, d_weight, d_bias = torch.ops.aten.convolution_backward(
                    dy, x, weight, [len(weight)], layer.stride, layer.padding, layer.dilation, False, [0, 0], 1,
                    [i > 0, True, True],
                )  # fmt: skip
                gradients += [d_bias, d_weight]
        return [gradient.float() for gradient in reversed(gradients)]


class _Backward(torch.autograd.Function):
    """The features of the first rows, as if they had just been computed."""

    @staticmethod
    def forward(ctx: Any, kept: KeptEncoder, rows: int, *parameters: Tensor) -> Tensor:
        ctx.kept = kept
        return kept._features(slice(0, rows))

    @staticmethod
    def backward(ctx: Any, d_features: Tensor) -> Any:
        return None, None, *ctx.kept.backward(d_features)


def _flat(x: Tensor) -> Tensor:
    return x if x.ndim == 2 else x.permute(0, 2, 3, 1).flatten(1)


def _like(x: Tensor, y: Tensor) -> Tensor:
    """Undo :func:`_flat`: rows of numbers x [N, H W C] as planes, if y is planes [N, C, H, W]."""
    if x.ndim == y.ndim:
        return x
    N, C, H, W = y.shape
    return x.view(N, H, W, C).permute(0, 3, 1, 2)


def _room(output: Tensor, rows: int) -> Tensor:
    """Memory for so many rows like those of ``output``, planes in channels_last."""
    layout = torch.channels_last if output.ndim == 4 else torch.contiguous_format
    return torch.empty((rows, *output.shape[1:]), dtype=output.dtype, memory_format=layout)


def _through_activation(activation: nn.ReLU | nn.ELU, dy: Tensor, y: Tensor) -> Tensor:
    """∂L/∂x of y = activation(x)."""
    if isinstance(activation, nn.ReLU):
        return torch.ops.aten.threshold_backward(dy, y, 0.0)
    return torch.ops.aten.elu_backward(dy, activation.alpha, 1.0, 1.0, True, y)


def supports(encoder: nn.Module) -> bool:
    """Whether an encoder can be kept: images, through convolutions and linear layers with ReLU or ELU after each."""
    if not isinstance(encoder, ImageEncoder) or next(encoder.parameters()).device.type != "cpu":
        return False
    layers = [layer for layer in encoder.layers if not isinstance(layer, Flat)]
    return len(layers) % 2 == 0 and all(
        isinstance(layer, nn.Conv2d | nn.Linear) and isinstance(activation, nn.ReLU | nn.ELU)
        for layer, activation in zip(layers[::2], layers[1::2], strict=True)
    )


def _stages(encoder: ImageEncoder) -> list[Stage]:
    layers: list[Any] = [layer for layer in encoder.layers if not isinstance(layer, Flat)]
    return [Stage(layer, activation) for layer, activation in zip(layers[::2], layers[1::2], strict=True)]
