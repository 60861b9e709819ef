"""Running standardisation of observations. Updated by the collector, frozen in evaluation, saved with the agent.

Numbers are standardised here, before the policy sees them; pictures by the network (nn/images.py), so that they are
bytes until there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box, Space
from numpy.typing import NDArray

from limelight.envs.base import State
from limelight.packed import Packed
from limelight.pixels import PixelScale, is_coded, is_image

_LIMIT = 10.0
"""Standardised observations are cut to ± this."""
_EPSILON = 1e-8


class Moments(NamedTuple):
    """Mean, variance and number of observations."""

    mean: NDArray[np.float64]
    """[*shape]."""
    var: NDArray[np.float64]
    """[*shape], not of a sample but of exactly these observations."""
    size: int
    """How many."""

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets together. Source: Chan et al. 1979."""
        total = self.size + other.size
        if total == 0:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.size / total)
        m2 = self.var * self.size + other.var * other.size + delta**2 * (self.size * other.size / total)
        return Moments(mean, m2 / total, total)


def no_moments(shape: tuple[int, ...]) -> Moments:
    """The moments of no observations: standardising by them changes nothing."""
    return Moments(np.zeros(shape, np.float64), np.ones(shape, np.float64), 0)


class ObservationNormalizer:
    """(obs − mean) / √(variance + 1e-8), clipped to ±10, with running moments over all observations seen, in float64.

    Of pictures, the mean is each pixel's own and the deviation one for all: what does not move becomes 0, what does is
    as large as it is rare, and noise in a pixel that hardly ever changes stays small. Several normalizers share one set
    of moments by adding what each has ``seen`` since it last did.

    Args:
        shape: of observations.
        entries: of flat observations, those to standardise, if not all are, [k].
        pictures: observations are pictures, of bytes.
        by_network: the network standardises them, once it has been told the moments; here they stay as they are.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        entries: NDArray[np.intp] | None = None,
        pictures: bool = False,
        by_network: bool = False,
    ) -> None:
        self.entries, self.pictures, self.by_network = entries, pictures, by_network
        self.moments = no_moments(shape if entries is None else entries.shape)
        self.seen: Moments | None = None
        """The part of the moments that came in through :meth:`update` since the last :meth:`share`; None: all of it."""

    def update(self, obs: NDArray[Any]) -> None:
        """Take a batch of observations [N, *shape] into the moments."""
        if len(obs) == 0:
            return
        # Written out, as ndarray.mean and var take three times as long for a few rows. Bytes are exact in float32.
        rows: NDArray[Any] = self.numbers(obs).astype(np.float32 if self.pictures else np.float64)
        size = len(rows)
        mean = np.add.reduce(rows) / size
        rows -= mean
        rows *= rows
        batch = Moments(np.asarray(mean, np.float64), np.asarray(np.add.reduce(rows) / size, np.float64), size)
        self.moments = self.moments.merge(batch)
        if self.seen is not None:
            self.seen = self.seen.merge(batch)

    def unshared(self) -> Moments:
        """What was seen here since the last :meth:`share`."""
        return self.moments if self.seen is None else self.seen

    def share(self, common: Moments) -> Moments:
        """``common`` with what was seen here added; from now on these are the moments here, too."""
        seen = self.unshared()
        if common.size + seen.size != self.moments.size:  # otherwise nobody else has added, and these are it
            self.moments = common.merge(seen)
        self.seen = no_moments(seen.mean.shape)
        return self.moments

    def __call__(self, obs: NDArray[Any]) -> NDArray[Any]:
        """Observations [..., *shape] as the network is to get them: standardised under the present moments, float32.

        Raw ones where the network standardises them.
        """
        if self.by_network:
            return obs
        mean, var, _ = self.moments
        if self.pictures:
            scale = pixel_scale(self.moments)
            return np.clip((obs - scale.mean) * np.float32(scale.factor), -_LIMIT, _LIMIT)
        scaled = (self.numbers(obs) - mean) / np.sqrt(var + _EPSILON)
        numbers: NDArray[np.float32] = np.minimum(np.maximum(scaled, -_LIMIT), _LIMIT).astype(np.float32)
        if self.entries is None:
            return numbers
        whole = obs.astype(np.float32)
        whole[..., self.entries] = numbers
        return whole

    def numbers(self, obs: NDArray[Any]) -> NDArray[Any]:
        """What is standardised of observations, [..., *shape] or [..., k]."""
        return obs if self.entries is None else obs[..., self.entries]

    def get_state(self) -> State:
        """Mean, variance and count."""
        mean, var, size = self.moments
        return {"mean": mean, "var": var, "count": size}

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`; one mean and variance are those of all numbers."""
        shape = self.moments.mean.shape
        mean, var = (np.array(np.broadcast_to(state[name], shape), np.float64) for name in ("mean", "var"))
        self.moments, self.seen = Moments(mean, var, int(state["count"])), no_moments(shape)


def pixel_scale(moments: Moments) -> PixelScale:
    """What pictures of these moments are standardised by."""
    deviation = np.sqrt(moments.var.mean() + _EPSILON)
    return PixelScale(moments.mean.astype(np.float32), float(1.0 / deviation), _LIMIT)


def make_normalizer(space: Space[Any], own_encoder: bool = True) -> ObservationNormalizer | None:
    """A normalizer of the real numbers in observations, or of the brightness of an image; None where there is neither.

    An image of bytes stays as it is until our encoder; without ``own_encoder``, which is one of the user's, it becomes
    float32. Of packed observations it is the Box leaves of floats that are standardised: integers, one-hot values,
    images and masks stay.
    """
    if isinstance(space, Packed):
        parts = [leaf for leaf in space.visible if _is_real(leaf.space)]
        entries = np.concatenate([np.arange(0), *(np.arange(leaf.start, leaf.start + leaf.size) for leaf in parts)])
        return ObservationNormalizer(space.shape, entries.astype(np.intp)) if parts else None
    if isinstance(space, Box) and is_image(space) and not is_coded(space):
        return ObservationNormalizer(space.shape, pictures=True, by_network=own_encoder)
    return ObservationNormalizer(space.shape or ()) if _is_real(space) else None


def _is_real(space: Space[Any]) -> bool:
    return isinstance(space, Box) and np.issubdtype(space.dtype, np.floating)
