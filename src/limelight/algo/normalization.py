"""Running means and standard deviations: of observations, of discounted returns, and of advantages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box, Space
from numpy.typing import NDArray

from limelight.algo.rollout import Rollout
from limelight.errors import ConfigError
from limelight.spaces.describe import describe_space
from limelight.spaces.images import PixelScale, is_categorical_image, is_image
from limelight.spaces.packed import Packed
from limelight.typing import Array, State

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


def make_normalizer(space: Space[Any], builtin_encoder: bool = True) -> ObservationNormalizer:
    """Make a normalizer of the real numbers in observations, or of the brightness of an image.

    An image of bytes stays as it is until the built-in encoder standardises it; for a custom encoder it becomes
    float32. Of packed observations, the Box leaves of floats are standardised; integers, one-hot values, images and
    masks stay.

    Raises: ConfigError where the space holds neither.
    """
    if isinstance(space, Packed):
        parts = [leaf for leaf in space.visible if _is_real(leaf.space)]
        entries = np.concatenate([np.arange(0), *(np.arange(leaf.start, leaf.start + leaf.size) for leaf in parts)])
        if parts:
            return ObservationNormalizer(space.shape, entries.astype(np.intp))
    elif isinstance(space, Box) and is_image(space) and not is_categorical_image(space):
        return ObservationNormalizer(space.shape, pictures=True, by_network=builtin_encoder)
    elif _is_real(space):
        return ObservationNormalizer(space.shape or ())
    raise ConfigError(
        "normalize_obs = true: needs Box observations of floats, or images of brightness, but the observation space "
        f"is {describe_space(space)}; set it to false"
    )


def _is_real(space: Space[Any]) -> bool:
    return isinstance(space, Box) and np.issubdtype(space.dtype, np.floating)


class AdvantageNormalizer:
    """Standardises by a running mean and a slower running variance: for batches too small to have their own.

    (w − m) / √v. The mean m is of earlier updates only, so it does not depend on this update's actions: for the policy
    gradient it is a baseline, and leaves the gradient unbiased. v is the decayed mean of (w − m)², ``decay`` 0.999.
    """

    def __init__(self, mean_decay: float, decay: float = 0.999) -> None:
        self.mean_decay, self.decay = mean_decay, decay
        self.mean = self.variance = 0.0
        self.mean_weight = self.variance_weight = 0.0  # Σ of the weights so far, for the bias correction

    def __call__(self, x: Array, valid: Array) -> Array:
        """``x`` [T, B] standardised by the moments before it, which then take it in; 0 on invalid rows."""
        count = float(valid.sum())
        if count == 0.0:
            return x * 0.0
        batch_mean = float((x * valid).sum()) / count
        mean = self.mean / self.mean_weight if self.mean_weight else batch_mean
        centred = (x - mean) * valid
        self.mean, self.mean_weight = _decayed(self.mean, self.mean_weight, batch_mean, self.mean_decay)
        square = float((centred * centred).sum()) / count
        self.variance, self.variance_weight = _decayed(self.variance, self.variance_weight, square, self.decay)
        return centred / (math.sqrt(self.variance / self.variance_weight) + 1e-8)

    def get_state(self) -> State:
        """The four sums."""
        return {name: getattr(self, name) for name in ("mean", "variance", "mean_weight", "variance_weight")}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        for name, value in state.items():
            setattr(self, name, float(value))


class RewardNormalizer:
    """Divides rewards by the deviation of discounted returns  Gₜ = rₜ + γ Gₜ₋₁,  Gₜ of one episode alone.

    The rewards' mean stays: taking it away would change what is worth living for. Clipped to ±10.
    Source: Engstrom et al. 2020, section 3; VecNormalize of OpenAI Baselines.
    """

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self.moments = ObservationNormalizer(())
        """Of the returns seen; one number, not an observation."""
        self._returns: NDArray[np.float64] | None = None

    def __call__(self, rollout: Rollout, rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """``rewards`` [T, B] of a rollout, normalised by moments that take them in first."""
        if self._returns is None:
            self._returns = np.zeros(rewards.shape[1])
        returns, seen = self._returns, np.empty(rewards.shape)
        keep = self.gamma * (1.0 - rollout.episode_start[:-1])  # invalid rows have reward 0 and are not taken in
        for t, reward in enumerate(rewards):
            returns *= keep[t]
            returns += reward
            seen[t] = returns
        self.moments.update(seen[rollout.valid > 0.0])
        scale = 1.0 / math.sqrt(float(self.moments.moments.var) + 1e-8)
        return np.clip(rewards * np.float32(scale), -10.0, 10.0)

    def get_state(self) -> State:
        """Moments and running returns."""
        return {"moments": self.moments.get_state(), "returns": self._returns}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self.moments.set_state(state["moments"])
        returns = state["returns"]
        self._returns = None if returns is None else np.array(returns, np.float64)


def _decayed(total: float, weight: float, new: float, decay: float) -> tuple[float, float]:
    """Running sum and its weight after one more value."""
    return decay * total + (1.0 - decay) * new, decay * weight + (1.0 - decay)
