"""Activations kept from acting, so that learning need not compute them again.

Parameters do not change between acting and learning, so the activations of acting are those that the backward pass
needs. :class:`RolloutRows` counts the rows that are kept; :class:`CachingEncoder` keeps those of a convolutional
encoder and runs one written-out backward pass over all rows of a rollout.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from limelight.nn.images import Flat, ImageEncoder

WIDE = 1 << 20
"""Weights from which a linear layer is limited by the reading of its weights: hidden layers of large images."""


class RolloutRows:
    """Counts the rows of a rollout whose activations acting has kept, from the first row to the last.

    Args:
        num_steps: T of the rollouts that are learnt from; 0 keeps no rows.
    """

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self._rows = 0
        self._open = False

    def begin(self) -> None:
        """Begin a rollout: the next T batches that are acted on are its rows."""
        self._rows = 0
        self._open = self.num_steps > 0

    def clear(self) -> None:
        """Discard all rows: the parameters change, or the activations have been overwritten."""
        self._rows = 0
        self._open = False

    def next(self, batch: int) -> slice | None:
        """Return the rows of the next ``batch`` observations in the rollout [T B]; None outside a rollout."""
        if not self._open:
            return None
        self._rows += batch
        self._open = self._rows < self.num_steps * batch
        return slice(self._rows - batch, self._rows)

    def known(self, total: int) -> int:
        """Return how many of the first of ``total`` = (T+1) B rows are kept: T B, or 0, and then all are discarded."""
        rows = total // (self.num_steps + 1) * self.num_steps
        if self._rows != rows:
            self.clear()
        return self._rows


class Stage(NamedTuple):
    """A layer with parameters and the activation that follows it."""

    layer: nn.Conv2d | nn.Linear
    activation: nn.ReLU | nn.ELU


class CachingEncoder:
    """Runs a convolutional encoder row by row while acting, and backward over all rows of a rollout at once."""

    def __init__(self, encoder: ImageEncoder, stages: list[Stage], num_steps: int) -> None:
        self.encoder = encoder
        self.stages = stages
        self.rows = RolloutRows(num_steps)
        self._buffers: list[Tensor] = []
        """The input and the output of every stage for T + 1 rows of B observations, [(T+1) B, ...]."""
        self._parameters: list[Tensor] = []
        for layer, _ in stages:
            assert layer.bias is not None
            self._parameters += [layer.weight, layer.bias]

    def act(self, obs: NDArray[Any]) -> Tensor:
        """Return features [B, F] of observations [B, *obs_shape]; keep the activations inside a rollout."""
        rows = self.rows.next(len(obs))
        # Tensors made in inference mode could not be used in learning
        with torch.inference_mode(False), torch.no_grad():
            images = torch.from_numpy(obs)
            if rows is None:
                outputs = self._run(images)
            else:
                outputs = self._run_and_keep(images, rows, (self.rows.num_steps + 1) * len(obs))
            return _flat(outputs[-1]).float()

    def forward(self, obs: NDArray[Any]) -> Tensor:
        """Return features [N, F] without gradient of a rollout's observations [N, *obs_shape], N = (T+1) B."""
        known = self.rows.known(len(obs))
        with torch.no_grad():
            self._run_and_keep(torch.from_numpy(obs[known:]), slice(known, len(obs)), len(obs))
            return self.features(slice(0, len(obs)))

    def unroll(self, obs: NDArray[Any]) -> Tensor:
        """Return features [T+1, B, F] of observations [T+1, B, *obs_shape]; the last row carries no gradient."""
        T, B = obs.shape[0] - 1, obs.shape[1]
        last = self.forward(obs.reshape((T + 1) * B, *obs.shape[2:]))[T * B :]
        features: Tensor = _Features.apply(self, T * B, *self._parameters)  # type: ignore[no-untyped-call]
        return torch.cat((features, last)).view(T + 1, B, -1)

    def features(self, rows: slice) -> Tensor:
        """Return the features of these rows from the cache, [n, F] float32."""
        return _flat(self._buffers[-1][rows]).float()

    def gradients(self, d_features: Tensor, in_place: bool = False) -> list[Tensor]:
        """Return ∂L/∂weight and ∂L/∂bias of every stage from ∂L/∂features [n, F] of the first n rows in the cache.

        ``in_place`` writes the weights of float32 linear layers into their ``grad``: millions of numbers where images
        are large, and new memory for them would take as long as the product.
        """
        outputs = [buffer[: len(d_features)] for buffer in self._buffers]
        dy, gradients = d_features.clone(), []
        for i in range(len(self.stages) - 1, -1, -1):
            (layer, activation), x, y = self.stages[i], outputs[i], outputs[i + 1]
            dy = _through_activation(activation, _unflatten_like(dy.to(y.dtype), y), y)
            weight = layer.weight.to(y.dtype)
            if isinstance(layer, nn.Linear):
                room = layer.weight.grad if in_place and dy.dtype == torch.float32 else None
                gradients += [dy.sum(0), torch.mm(dy.T, _flat(x), out=room)]
                dy = dy @ weight
            else:
                dy, d_weight, d_bias = torch.ops.aten.convolution_backward(
                    dy, x, weight, [len(weight)], layer.stride, layer.padding, layer.dilation, False, [0, 0], 1,
                    [i > 0, True, True],
                )  # fmt: skip
                gradients += [d_bias, d_weight]
        return [gradient.float() for gradient in reversed(gradients)]

    def backward(self, d_features: Tensor) -> None:
        """Write :meth:`gradients` into the parameters' ``grad``."""
        with torch.no_grad():
            for parameter, gradient in zip(self._parameters, self.gradients(d_features, True), strict=True):
                assert parameter.grad is not None
                parameter.grad.copy_(gradient)  # of itself, where it was written in place: nothing happens

    def dead_filters(self) -> float:
        """Return the share of ReLU filters that were 0 everywhere in all rows of the cache, and so learn nothing.

        0.0 where the encoder has no such filters.
        """
        off = [
            y.sum((0, 2, 3)) <= 0.0  # a sum is faster than a maximum
            for y, stage in zip(self._buffers[1:], self.stages, strict=True)
            if y.ndim == 4 and isinstance(stage.activation, nn.ReLU)
        ]
        return float(torch.cat(off).float().mean()) if off else 0.0

    def _run_and_keep(self, obs: Tensor, rows: slice, total: int) -> list[Tensor]:
        """Run the encoder and write the results into the cache's rows, of ``total`` in all."""
        if self._buffers and len(self._buffers[0]) == total:
            return self._run(obs, [buffer[rows] for buffer in self._buffers])
        outputs = self._run(obs)
        self._buffers = [_empty_rows_like(output, total) for output in outputs]
        for buffer, output in zip(self._buffers, outputs, strict=True):
            buffer[rows] = output
        return outputs

    def _run(self, obs: Tensor, into: Sequence[Tensor | None] | None = None) -> list[Tensor]:
        """Return the input and every stage's output for observations [N, *obs_shape], in ``into`` if given."""
        into = into or [None] * (len(self.stages) + 1)
        outputs = [self.encoder.input(obs, into[0])]
        with self.encoder.autocast("cpu"):
            for (layer, activation), room in zip(self.stages, into[1:], strict=True):
                x = outputs[-1]
                y = _linear(layer, _flat(x)) if isinstance(layer, nn.Linear) else layer(x)
                outputs.append(_activate(activation, y, room))
        return outputs


class _Features(torch.autograd.Function):
    """Features of the first rows, taken from the cache; the gradient is that of computing them anew."""

    @staticmethod
    def forward(ctx: Any, encoder: CachingEncoder, rows: int, *parameters: Tensor) -> Tensor:
        ctx.encoder = encoder
        return encoder.features(slice(0, rows))

    @staticmethod
    def backward(ctx: Any, d_features: Tensor) -> Any:
        return None, None, *ctx.encoder.gradients(d_features)


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Return layer(x), computed as (W xᵀ)ᵀ + b, which is faster for few rows of a layer that is not :data:`WIDE`."""
    if layer.weight.numel() >= WIDE or x.dtype != torch.float32:  # in bfloat16, adding the bias would round twice
        y: Tensor = layer(x)
        return y
    return torch.mm(layer.weight, x.t()).t() + layer.bias


def _flat(x: Tensor) -> Tensor:
    """Flatten planes as :class:`limelight.nn.images.Flat` does; return rows unchanged."""
    return x if x.ndim == 2 else x.permute(0, 2, 3, 1).flatten(1)


def _unflatten_like(x: Tensor, y: Tensor) -> Tensor:
    """Undo :func:`_flat`: reshape vectors x [N, H W C] into planes, if y is planes [N, C, H, W]."""
    if x.ndim == y.ndim:
        return x
    N, C, H, W = y.shape
    return x.view(N, H, W, C).permute(0, 3, 1, 2)


def _empty_rows_like(output: Tensor, rows: int) -> Tensor:
    """Return uninitialised memory for ``rows`` rows like those of ``output``, planes in channels_last."""
    layout = torch.channels_last if output.ndim == 4 else torch.contiguous_format
    return torch.empty((rows, *output.shape[1:]), dtype=output.dtype, memory_format=layout)


def _activate(activation: nn.ReLU | nn.ELU, x: Tensor, out: Tensor | None) -> Tensor:
    """Return activation(x), written into ``out`` if given."""
    if isinstance(activation, nn.ReLU):
        return torch.clamp_min(x, 0.0, out=out)
    return activation(x) if out is None else torch.ops.aten.elu.out(x, activation.alpha, out=out)


def _through_activation(activation: nn.ReLU | nn.ELU, dy: Tensor, y: Tensor) -> Tensor:
    """Return ∂L/∂x of y = activation(x); ``dy`` is overwritten."""
    if isinstance(activation, nn.ReLU):
        return torch.ops.aten.threshold_backward.grad_input(dy, y, 0.0, grad_input=dy)
    return torch.ops.aten.elu_backward(dy, activation.alpha, 1.0, 1.0, True, y)


def make_caching_encoder(encoder: nn.Module, num_steps: int) -> CachingEncoder | None:
    """Return an encoder with a cache for rollouts of T = ``num_steps``; None where the encoder cannot have one.

    It must encode images on the CPU by convolutions and linear layers with ReLU or ELU after each.
    """
    if not isinstance(encoder, ImageEncoder) or next(encoder.parameters()).device.type != "cpu":
        return None
    layers = [layer for layer in encoder.layers if not isinstance(layer, Flat)]
    stages = []
    for layer, activation in itertools.zip_longest(layers[::2], layers[1::2]):
        if not isinstance(layer, nn.Conv2d | nn.Linear) or not isinstance(activation, nn.ReLU | nn.ELU):
            return None
        stages.append(Stage(layer, activation))
    return CachingEncoder(encoder, stages, num_steps)
