"""Running standardisation of observations. Updated by the collector, frozen in evaluation, saved with the agent."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box, Space
from numpy.typing import NDArray

from limelight.envs.base import State
from limelight.packed import Packed
from limelight.pixels import is_coded, is_image


class Moments(NamedTuple):
    """Mean, variance and number of observations."""

    mean: NDArray[np.float64]
    """[*shape]."""
    var: NDArray[np.float64]
    """[*shape], not of a sample but of exactly these observations."""
    size: int
    """How many; of images it is pixels that are counted."""

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

    Several normalizers share one set of moments by adding what each has ``seen`` since it last did.

    Args:
        shape: of observations.
        entries: of flat observations, those to standardise, if not all are, [k].
        together: one mean and one variance for all numbers of an observation, as for the pixels of an image.
    """

    def __init__(self, shape: tuple[int, ...], entries: NDArray[np.intp] | None = None, together: bool = False) -> None:
        self.entries, self.together = entries, together
        self.moments = no_moments(() if together else shape if entries is None else entries.shape)
        self.seen: Moments | None = None
        """The part of the moments that came in through :meth:`update` since the last :meth:`share`; None: all of it."""

    def update(self, obs: NDArray[Any]) -> None:
        """Take a batch of observations [N, *shape] into the moments."""
        if len(obs) == 0:
            return
        # Written out, as ndarray.mean and var take three times as long for a few rows.
        rows = self.numbers(obs).astype(np.float64)
        rows = rows.reshape(-1) if self.together else rows
        size = len(rows)
        mean = np.add.reduce(rows) / size
        rows -= mean
        rows *= rows
        batch = Moments(mean, np.add.reduce(rows) / size, size)
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

    def __call__(self, obs: NDArray[Any]) -> NDArray[np.float32]:
        """Standardised observations [..., *shape] under the present moments."""
        mean, var, _ = self.moments
        if self.together:  # pixels are bytes, so float32 is exact enough, and ten times as fast
            factor = 1.0 / np.sqrt(var + 1e-8)
            pixels: NDArray[np.float32] = obs * np.float32(factor)
            pixels -= np.float32(mean * factor)
            return np.clip(pixels, -10.0, 10.0, out=pixels)
        scaled = (self.numbers(obs) - mean) / np.sqrt(var + 1e-8)
        numbers: NDArray[np.float32] = np.minimum(np.maximum(scaled, -10.0), 10.0).astype(np.float32)
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
        """Continue from :meth:`get_state`."""
        mean, var = np.asarray(state["mean"], np.float64), np.asarray(state["var"], np.float64)
        self.moments, self.seen = Moments(mean, var, int(state["count"])), no_moments(mean.shape)


def make_normalizer(space: Space[Any]) -> ObservationNormalizer | None:
    """A normalizer of the real numbers in observations, or of the brightness of an image; None where there is neither.

    An image of bytes has one mean and one variance over all its pixels, and becomes float32. Of packed observations
    it is the Box leaves of floats that are standardised: integers, one-hot values, images and masks stay.
    """
    if isinstance(space, Packed):
        parts = [leaf for leaf in space.visible if _is_real(leaf.space)]
        entries = np.concatenate([np.arange(0), *(np.arange(leaf.start, leaf.start + leaf.size) for leaf in parts)])
        return ObservationNormalizer(space.shape, entries.astype(np.intp)) if parts else None
    if isinstance(space, Box) and is_image(space) and not is_coded(space):
        return ObservationNormalizer(space.shape, together=True)
    return ObservationNormalizer(space.shape or ()) if _is_real(space) else None


def _is_real(space: Space[Any]) -> bool:
    return isinstance(space, Box) and np.issubdtype(space.dtype, np.floating)
