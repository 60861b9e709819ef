"""A convolutional encoder that keeps what acting has computed, for one backward over the whole rollout.

Made by learner.py, which learns from it, and shared with policy.py, which acts with it. Saves learning the forward of
all rows but the last. The memory of the activations is allocated once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from limelight.nn.images import Flat, ImageEncoder


class Acted:
    """Counts the rows of one rollout as they are acted on; a rollout is known by the array that holds it.

    Rows are acted on from the first to the last. Whoever fills that array by another policy in between must forget.

    Args: ``num_steps``: T of the rollouts that are learnt from; 0 keeps no rows.
    """

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self._rows = 0
        self._obs: NDArray[Any] | None = None

    def forget(self) -> None:
        """What acting computed is of no use any more: the parameters are about to change."""
        self._rows = 0

    def next_rows(self, obs: NDArray[Any]) -> slice | None:
        """Which rows of a rollout [T B] these observations [B, ...] are, if they are of a rollout."""
        if not self.num_steps or obs.base is None:
            return None
        B = len(obs)
        if obs.base is not self._obs or self._rows == self.num_steps * B:
            self._obs, self._rows = obs.base, 0
        self._rows += B
        return slice(self._rows - B, self._rows)

    def known_rows(self, obs: NDArray[Any]) -> int:
        """How many of the first of these observations [(T+1) B, ...] have all been acted on: T B, or none.

        If none, all is forgotten: what the caller computes now takes the place of what acting has left.
        """
        rows = len(obs) // (self.num_steps + 1) * self.num_steps
        if not rows or obs.base is not self._obs or self._rows != rows:
            self.forget()
        return self._rows


class Stage(NamedTuple):
    """A layer with parameters and the activation that follows it."""

    layer: nn.Conv2d | nn.Linear
    activation: nn.ReLU | nn.ELU


class CachingEncoder:
    """Runs an encoder row by row while acting, and backward over all rows of a rollout at once. See :func:`keep`."""

    def __init__(self, encoder: ImageEncoder, stages: list[Stage], num_steps: int) -> None:
        self.encoder, self.stages, self.acted = encoder, stages, Acted(num_steps)
        self._buffers: list[Tensor] = []
        """The input, and the output of every stage, of T + 1 rows of B observations: [(T+1) B, ...]."""
        self._parameters: list[Tensor] = []
        for layer, _ in stages:
            assert layer.bias is not None
            self._parameters += [layer.weight, layer.bias]

    def act(self, obs: NDArray[Any]) -> Tensor:
        """Features [B, F] of observations [B, *obs_shape], kept if they are of a rollout."""
        rows = self.acted.next_rows(obs)
        # Without inference mode, whose tensors could take no part in learning.
        with torch.inference_mode(False), torch.no_grad():
            images = torch.from_numpy(obs)
            if rows is None:
                outputs = self._run(images)
            else:
                outputs = self._run_and_keep(images, rows, (self.acted.num_steps + 1) * len(obs))
            return _flat(outputs[-1]).float()

    def forward(self, obs: NDArray[Any]) -> Tensor:
        """Features [N, F], without gradient, of a rollout's observations [N, *obs_shape], N = (T+1) B."""
        known = self.acted.known_rows(obs)
        with torch.no_grad():
            self._run_and_keep(torch.from_numpy(obs[known:]), slice(known, len(obs)), len(obs))
            return self.features(slice(0, len(obs)))

    def unroll(self, obs: NDArray[Any]) -> Tensor:
        """Features [T+1, B, F] of a rollout's observations [T+1, B, *obs_shape]; without gradient in the last row."""
        T, B = obs.shape[0] - 1, obs.shape[1]
        last = self.forward(obs.reshape((T + 1) * B, *obs.shape[2:]))[T * B :]
        features: Tensor = _Features.apply(self, T * B, *self._parameters)  # type: ignore[no-untyped-call]
        return torch.cat((features, last)).view(T + 1, B, -1)

    def features(self, rows: slice) -> Tensor:
        """What has been kept of these rows, [n, F] float32."""
        return _flat(self._buffers[-1][rows]).float()

    def gradients(self, d_features: Tensor) -> list[Tensor]:
        """∂L/∂weight, ∂L/∂bias of every stage, given ∂L/∂features [n, F] of the first n rows kept."""
        outputs = [buffer[: len(d_features)] for buffer in self._buffers]
        dy, gradients = d_features.clone(), []
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

    def backward(self, d_features: Tensor) -> None:
        """Write :meth:`gradients` where the parameters have theirs."""
        with torch.no_grad():
            for parameter, gradient in zip(self._parameters, self.gradients(d_features), strict=True):
                assert parameter.grad is not None
                parameter.grad.copy_(gradient)

    def dead_filters(self) -> float:
        """Of the filters with a ReLU, the share that gave 0 at all places of all rows kept: they learn nothing there.

        0.0 where there are none.
        """
        off = [
            y.sum((0, 2, 3)) <= 0.0  # a tenth of the time that the largest would take
            for y, stage in zip(self._buffers[1:], self.stages, strict=True)
            if y.ndim == 4 and isinstance(stage.activation, nn.ReLU)
        ]
        return float(torch.cat(off).float().mean()) if off else 0.0

    def _run_and_keep(self, obs: Tensor, rows: slice, total: int) -> list[Tensor]:
        """:meth:`_run`, whose results are put where these of ``total`` rows belong."""
        if self._buffers and len(self._buffers[0]) == total:
            return self._run(obs, [buffer[rows] for buffer in self._buffers])
        outputs = self._run(obs)
        self._buffers = [_room(output, total) for output in outputs]
        for buffer, output in zip(self._buffers, outputs, strict=True):
            buffer[rows] = output
        return outputs

    def _run(self, obs: Tensor, into: Sequence[Tensor | None] | None = None) -> list[Tensor]:
        """The input and every stage's output, of observations [N, *obs_shape]; in that memory, if it is given."""
        into = into or [None] * (len(self.stages) + 1)
        outputs = [self.encoder.input(obs, into[0])]
        with self.encoder.autocast("cpu"):
            for (layer, activation), room in zip(self.stages, into[1:], strict=True):
                x = outputs[-1]
                y = _linear(layer, _flat(x)) if isinstance(layer, nn.Linear) else layer(x)
                outputs.append(_activate(activation, y, room))
        return outputs


class _Features(torch.autograd.Function):
    """The features of the first rows, as if they had just been computed from the parameters."""

    @staticmethod
    def forward(ctx: Any, kept: CachingEncoder, rows: int, *parameters: Tensor) -> Tensor:
        ctx.kept = kept
        return kept.features(slice(0, rows))

    @staticmethod
    def backward(ctx: Any, d_features: Tensor) -> Any:
        return None, None, *ctx.kept.gradients(d_features)


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """layer(x) of rows of numbers; as (W xᵀ)ᵀ + b in two thirds of the time for few rows, most of which W takes."""
    if x.dtype != torch.float32:  # a sum apart would be rounded twice
        y: Tensor = layer(x)
        return y
    return torch.mm(layer.weight, x.t()).t() + layer.bias


def _flat(x: Tensor) -> Tensor:
    """ImagePreprocessor as :class:`limelight.nn.images.Flat` has them; rows of numbers as they are."""
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


def _activate(activation: nn.ReLU | nn.ELU, x: Tensor, out: Tensor | None) -> Tensor:
    """activation(x), in ``out`` if that is given."""
    if isinstance(activation, nn.ReLU):
        return torch.clamp_min(x, 0.0, out=out)
    return activation(x) if out is None else torch.ops.aten.elu.out(x, activation.alpha, out=out)


def _through_activation(activation: nn.ReLU | nn.ELU, dy: Tensor, y: Tensor) -> Tensor:
    """∂L/∂x of y = activation(x); ``dy`` is used up."""
    if isinstance(activation, nn.ReLU):
        return torch.ops.aten.threshold_backward.grad_input(dy, y, 0.0, grad_input=dy)
    return torch.ops.aten.elu_backward(dy, activation.alpha, 1.0, 1.0, True, y)


def keep(encoder: nn.Module, num_steps: int) -> CachingEncoder | None:
    """The encoder, keeping what acting computes for rollouts of T = ``num_steps``; None for one that cannot be kept.

    That takes images on the CPU, and convolutions and linear layers with ReLU or ELU after each.
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
