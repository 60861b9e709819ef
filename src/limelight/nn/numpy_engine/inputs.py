"""Observations as inputs of the first layer in NumPy: numbers, and codes of one-hot features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from limelight.nn.encoders import MLP, FeaturesMLP, FlattenObs, LeafEncoders
from limelight.nn.model import ILLEGAL
from limelight.typing import FloatArray


@final
class MixedRows:
    """Inputs of which some are one-hot: slices select rows, as in an array."""

    def __init__(self, numbers: list[FloatArray], codes: NDArray[np.intp]) -> None:
        self.numbers = numbers
        """Features that are numbers, [N, D] for every segment of the layout."""
        self.codes = codes
        """The features that are 1, [N, K]."""

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: slice) -> MixedRows:
        return MixedRows([numbers[rows] for numbers in self.numbers], self.codes[rows])


Inputs = FloatArray | MixedRows
"""Inputs of the first layer, N rows; all are numbers [N, F], or some are one-hot."""


class InputLayout(NamedTuple):
    """Where the inputs of the first layer are in flat observations [N, D]."""

    segments: list[tuple[slice, slice]]
    """Columns of observations that are numbers, and the features that these become."""
    code_columns: NDArray[np.intp]
    """Columns of observations that are categories, [K]."""
    offsets: NDArray[np.intp]
    """Added to these, they are codes, [K]."""


def has_layout(encoder: nn.Module) -> bool:
    """Return whether an encoder is a built-in MLP whose inputs are numbers and categories, without images."""
    if isinstance(encoder, FeaturesMLP) and isinstance(encoder.features, LeafEncoders):
        return all(isinstance(part, FlattenObs) for part in encoder.features.parts)
    return isinstance(encoder, MLP)


def input_layout(encoder: MLP | FeaturesMLP) -> InputLayout:
    """Return the layout of an encoder for which :func:`has_layout` holds."""
    segments: list[tuple[slice, slice]] = []
    code_columns = [np.zeros(0, np.intp)]
    offsets = [np.zeros(0, np.intp)]
    for part, column, feature in _parts(encoder):
        if part.offsets is not None:
            code_columns.append(np.arange(column, column + len(part.offsets)))
            offsets.append(part.offsets.numpy() + feature)
            continue
        size = part.num_features
        before = segments[-1] if segments else (slice(-1), slice(-1))
        if (before[0].stop, before[1].stop) == (column, feature):  # one product for neighbours
            segments[-1] = slice(before[0].start, column + size), slice(before[1].start, feature + size)
        else:
            segments.append((slice(column, column + size), slice(feature, feature + size)))
    return InputLayout(segments, np.concatenate(code_columns), np.concatenate(offsets))


def _parts(encoder: MLP | FeaturesMLP) -> list[tuple[FlattenObs, int, int]]:
    """Return every part with its first column in flat observations and its first feature."""
    if isinstance(encoder, MLP):
        return [(encoder.flatten, 0, 0)]
    leaves = encoder.features
    assert isinstance(leaves, LeafEncoders)
    parts = [part for part in leaves.parts if isinstance(part, FlattenObs)]
    return list(zip(parts, (leaf.start for leaf in leaves.leaves), leaves.starts, strict=True))


def make_input_reader(encoder: MLP | FeaturesMLP) -> Callable[[NDArray[Any]], Inputs]:
    """Return a function from observations [N, *obs_shape] to the inputs of the first layer."""
    layout = input_layout(encoder)
    if not layout.offsets.size:
        ((columns, _),) = layout.segments
        return lambda obs: np.asarray(obs, np.float32).reshape(len(obs), -1)[:, columns]
    number_columns = [columns for columns, _ in layout.segments]
    codes_at, offsets = _as_slice(layout.code_columns), layout.offsets

    def read(obs: NDArray[Any]) -> MixedRows:
        flat = obs.reshape(len(obs), -1)
        codes = flat[:, codes_at].astype(np.intp)
        codes += offsets
        return MixedRows([np.asarray(flat[:, columns], np.float32) for columns in number_columns], codes)

    return read


def _as_slice(columns: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Return columns as a slice if they are side by side, which is faster to select."""
    first, last = int(columns[0]), int(columns[-1])
    return slice(first, last + 1) if len(columns) == last + 1 - first else columns


def illegal(obs: NDArray[Any], mask: slice) -> NDArray[np.bool_]:
    """Return which logits are of illegal actions, [N, K], by the mask in packed observations [N, D]."""
    is_illegal: NDArray[np.bool_] = obs[:, mask] == 0
    return is_illegal


def hide(params: FloatArray, is_illegal: NDArray[np.bool_]) -> None:
    """Set the logits [N, K] of illegal actions, in place."""
    np.putmask(params, is_illegal, np.float32(ILLEGAL))
