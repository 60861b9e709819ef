"""Running means and standard deviations, and what is normalised by them: observations, rewards and advantages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box, Space
from numpy.typing import NDArray

from limelight.algo.rollout import Rollout
from limelight.errors import ConfigError
from limelight.settings.schema import AlgorithmConfig
from limelight.spaces.describe import describe_space
from limelight.spaces.images import PixelScale, is_categorical_image, is_image
from limelight.spaces.packed import Packed
from limelight.typing import FloatArray, State

_CLIP = 10.0
"""Normalised observations and rewards are clipped to ± this."""
_EPSILON = 1e-8


class Moments(NamedTuple):
    """The mean, variance and number of a set of samples."""

    mean: NDArray[np.float64]
    """[*shape]."""
    var: NDArray[np.float64]
    """The population variance, [*shape]."""
    size: int
    """Number of samples."""

    def merge(self, other: Moments) -> Moments:
        """Return the moments of the union of both sets. Source: Chan et al. 1979."""
        total = self.size + other.size
        if total == 0:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.size / total)
        m2 = self.var * self.size + other.var * other.size + delta**2 * (self.size * other.size / total)
        return Moments(mean, m2 / total, total)


class NumberScale(NamedTuple):
    """Standardises real numbers: (number − mean) / std, clipped to ± limit."""

    mean: NDArray[np.float64]
    """Of each number that is normalised, [*shape] or [k]."""
    std: NDArray[np.float64]
    limit: float


def no_moments(shape: tuple[int, ...]) -> Moments:
    """Return the moments of the empty set: mean 0 and variance 1, which leave everything unchanged."""
    return Moments(np.zeros(shape, np.float64), np.ones(shape, np.float64), 0)


def moments_of(samples: NDArray[Any], dtype: type = np.float64) -> Moments:
    """Return the moments of ``samples`` [N, *shape], N ≥ 1, summed in ``dtype``, without those that are not finite."""
    if len(samples) == 1 and np.isfinite(samples).all():  # one sample is its own mean
        return Moments(samples[0].astype(np.float64), np.zeros(samples.shape[1:]), 1)
    # Written out, because ndarray.mean and ndarray.var are slow for few rows (benchmarks/throughput.py, 8 × 5).
    rows: NDArray[Any] = samples.astype(dtype)
    mean = np.add.reduce(rows) / len(rows)
    if not math.isfinite(np.add.reduce(mean, axis=None)):
        finite = samples[np.isfinite(samples).reshape(len(samples), -1).all(1)]
        return moments_of(finite, dtype) if len(finite) else no_moments(samples.shape[1:])
    rows -= mean
    rows *= rows
    return Moments(np.asarray(mean, np.float64), np.asarray(np.add.reduce(rows) / len(rows), np.float64), len(rows))


class RunningMeanStd:
    """The running mean and variance of all samples seen, in float64.

    Several processes share one by adding what each has seen since its last :meth:`share` to common moments.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.moments = no_moments(shape)
        self._pending: Moments | None = None
        """Samples since the last :meth:`share`; None: all samples."""

    @property
    def pending(self) -> Moments:
        """The moments of the samples since the last :meth:`share`."""
        return self.moments if self._pending is None else self._pending

    def update(self, batch: Moments) -> None:
        """Add the samples of ``batch``."""
        self.moments = self.moments.merge(batch)
        if self._pending is not None:
            self._pending = self._pending.merge(batch)

    def share(self, common: Moments) -> Moments:
        """Add the pending samples to ``common``, adopt the result here, and return it."""
        pending = self.pending
        if common.size + pending.size != self.moments.size:  # equal: this process is the only contributor
            self.moments = common.merge(pending)
        self.clear_pending()
        return self.moments

    def clear_pending(self) -> None:
        """Count the samples seen so far as shared."""
        self._pending = no_moments(self.moments.mean.shape)

    def snapshot(self) -> tuple[Moments, Moments | None]:
        """Return the statistics for :meth:`restore`: no copy, as moments are replaced and not changed."""
        return self.moments, self._pending

    def restore(self, before: tuple[Moments, Moments | None]) -> None:
        """Return to the statistics of :meth:`snapshot`."""
        self.moments, self._pending = before

    def get_state(self) -> State:
        """Return mean, variance and count."""
        mean, var, size = self.moments
        return {"mean": mean, "var": var, "count": size}

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`; a scalar mean and variance hold for all numbers."""
        shape = self.moments.mean.shape
        mean, var = (np.array(np.broadcast_to(state[name], shape), np.float64) for name in ("mean", "var"))
        self.moments = Moments(mean, var, int(state["count"]))
        self.clear_pending()


class ObservationNormalizer:
    """Normalises observations: (obs − mean) / √(variance + 1e-8), clipped to ±10.

    Of images, the mean is per pixel and the variance one number, the mean over all pixels: a constant pixel becomes 0,
    and noise in a pixel that rarely changes stays small. With ``per_frame``, both are of all pixels of all frames.

    Args:
        shape: of observations.
        indices: of the entries of flat observations that are normalised, [k]; None: all.
        images: observations are images of bytes.
        in_network: the network normalises the images (``image_scale``), so that they stay bytes; calls return them raw.
        per_frame: one mean for all pixels of images.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        indices: NDArray[np.intp] | None = None,
        images: bool = False,
        in_network: bool = False,
        per_frame: bool = False,
    ) -> None:
        self.per_frame = per_frame
        self.indices = indices
        self.images = images
        self.in_network = in_network
        self.statistics = RunningMeanStd(shape if indices is None else indices.shape)
        self.saw_non_finite = False
        """An observation was NaN or infinite; the statistics left it out."""

    def update(self, obs: NDArray[Any]) -> None:
        """Add observations [N, *shape] to the statistics; those that are not finite are left out."""
        if len(obs):  # float32 sums of bytes are exact
            moments = moments_of(self.select(obs), np.float32 if self.images else np.float64)
            self.saw_non_finite |= moments.size != len(obs)
            self.statistics.update(moments)

    def __call__(self, obs: NDArray[Any]) -> NDArray[Any]:
        """Normalise observations [..., *shape], float32; return them unchanged where the network normalises them."""
        if self.in_network:
            return obs
        if self.images:
            scale = self.image_scale()
            return np.clip((obs - scale.mean) * np.float32(scale.factor), -_CLIP, _CLIP)
        mean, std, _ = self.number_scale()
        raw = self.select(obs)
        scaled = (raw - mean) / std
        numbers: NDArray[np.float32] = np.minimum(np.maximum(scaled, -_CLIP), _CLIP).astype(np.float32)
        if self.saw_non_finite:  # clipping must not hide an infinity
            numbers = np.where(np.isfinite(raw), numbers, raw).astype(np.float32)
        if self.indices is None:
            return numbers
        whole = obs.astype(np.float32)
        whole[..., self.indices] = numbers
        return whole

    def select(self, obs: NDArray[Any]) -> NDArray[Any]:
        """Return the entries that are normalised, [..., *shape] or [..., k]."""
        return obs if self.indices is None else obs[..., self.indices]

    def number_scale(self) -> NumberScale:
        """Return the scale by which numbers are normalised at present."""
        mean, var, _ = self.statistics.moments
        return NumberScale(mean, np.sqrt(var + _EPSILON), _CLIP)

    def image_scale(self) -> PixelScale:
        """Return the mean image and the scale by which images are normalised at present."""
        mean, var, _ = self.statistics.moments
        if self.per_frame:  # the variance of all pixels together is the mean variance plus the variance of the means
            var = var + np.var(mean)
            mean = np.full_like(mean, mean.mean())
        return PixelScale(mean.astype(np.float32), float(1.0 / np.sqrt(var.mean() + _EPSILON)), _CLIP)

    def get_state(self) -> State:
        """Return the state of the statistics."""
        return self.statistics.get_state()

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`."""
        self.statistics.set_state(state)


def make_normalizer(space: Space[Any], builtin_encoder: bool = True, per_frame: bool = False) -> ObservationNormalizer:
    """Make a normalizer of the real numbers in observations, or of the brightness of an image.

    An image stays bytes until the built-in encoder normalises it; for a custom encoder it becomes float32. Of packed
    observations, the Box leaves of floats are normalised; integers, one-hot values, images and masks stay.
    ``per_frame``: one mean for all pixels of an image.

    Raises: ConfigError where the space holds neither, or ``per_frame`` has no image.
    """
    is_normalized_image = not isinstance(space, Packed) and is_image(space) and not is_categorical_image(space)  # type: ignore[arg-type]
    if per_frame and not is_normalized_image:
        raise ConfigError(
            "image_statistics = frame: only where observations are one image of brightness, but the observation space "
            f"is {describe_space(space)}; leave it out"
        )
    if isinstance(space, Packed):
        parts = [leaf for leaf in space.visible if _is_real(leaf.space)]
        indices = np.concatenate([np.arange(0), *(np.arange(leaf.start, leaf.start + leaf.size) for leaf in parts)])
        if parts:
            return ObservationNormalizer(space.shape, indices.astype(np.intp))
    elif is_normalized_image:
        return ObservationNormalizer(space.shape or (), images=True, in_network=builtin_encoder, per_frame=per_frame)
    elif _is_real(space):
        return ObservationNormalizer(space.shape or ())
    raise ConfigError(
        "normalize_obs = true: needs Box observations of floats, or images of brightness, but the observation space "
        f"is {describe_space(space)}; set it to false"
    )


def _is_real(space: Space[Any]) -> bool:
    return isinstance(space, Box) and np.issubdtype(space.dtype, np.floating)


class RewardNormalizer:
    """Divides rewards by the standard deviation of discounted returns  Gₜ = rₜ + γ Gₜ₋₁,  reset at episode ends.

    The mean is not subtracted, as that would change the optimal policy. Results are clipped to ±10.
    Source: Engstrom et al. 2020, section 3; VecNormalize of OpenAI Baselines.
    """

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self.statistics = RunningMeanStd(())
        """Statistics of the discounted returns."""
        self._returns: NDArray[np.float64] | None = None

    def __call__(self, rollout: Rollout, rewards: FloatArray) -> FloatArray:
        """Add the rewards [T, B] of a rollout to the statistics, then normalise them."""
        if self._returns is None:
            self._returns = np.zeros(rewards.shape[1])
        returns = self._returns
        if rewards.size == 1:  # the same in fewer calls, for learning step by step
            returns *= self.gamma * (1.0 - rollout.episode_start[0])
            returns += rewards[0]
            if rollout.num_valid:
                self.statistics.update(Moments(np.asarray(returns[0]), np.zeros(()), 1))
            return divided(rewards, self.statistics)
        history = np.empty(rewards.shape)
        keep = self.gamma * (1.0 - rollout.episode_start[:-1])  # invalid rows have reward 0 and are left out below
        for t, reward in enumerate(rewards):
            returns *= keep[t]
            returns += reward
            history[t] = returns
        valid = history[rollout.valid > 0.0]
        if len(valid):
            self.statistics.update(moments_of(valid))
        return divided(rewards, self.statistics)

    def get_state(self) -> State:
        """Return the statistics and the running returns."""
        return {"statistics": self.statistics.get_state(), "returns": self._returns}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self.statistics.set_state(state["statistics"])
        returns = state["returns"]
        self._returns = None if returns is None else np.array(returns, np.float64)


def divided(rewards: FloatArray, statistics: RunningMeanStd) -> FloatArray:
    """Return rewards over the standard deviation of discounted returns, clipped; the statistics stay as they are."""
    scale = 1.0 / math.sqrt(float(statistics.moments.var) + _EPSILON)
    return np.clip(rewards * np.float32(scale), -_CLIP, _CLIP)


def learning_rewards(rollout: Rollout, a: AlgorithmConfig, normalizer: RewardNormalizer | None) -> FloatArray:
    """Return a rollout's rewards to learn from, [T, B]: raw, then clipped, normalised and scaled."""
    return shaped_rewards(rollout.rewards, a, None if normalizer is None else partial(normalizer, rollout))


def shaped_rewards(
    rewards: FloatArray, a: AlgorithmConfig, normalize: Callable[[FloatArray], FloatArray] | None
) -> FloatArray:
    """Return rewards of any shape clipped, then normalised (None: they are not), then scaled."""
    if a.reward_clip is not None:
        rewards = rewards.clip(-a.reward_clip, a.reward_clip)
    if normalize is not None:
        rewards = normalize(rewards)
    if a.reward_scale != 1.0:
        rewards = rewards * a.reward_scale
    return rewards


class AdvantageNormalizer:
    """Normalises advantages by an exponential moving mean and variance, for batches too small to have their own.

    (A − m) / √v. The mean m is that of earlier updates only, so it is independent of the present actions: a baseline,
    which leaves the policy gradient unbiased. v is the moving mean of (A − m)², with decay 0.999.

    Args:
        mean_decay: decay of the mean per update.
        decay: decay of the variance per update.
    """

    def __init__(self, mean_decay: float, decay: float = 0.999) -> None:
        self.mean_decay = mean_decay
        self.decay = decay
        self.mean = 0.0
        self.variance = 0.0
        self.mean_weight = 0.0  # sum of the weights so far, for the bias correction
        self.variance_weight = 0.0

    def __call__(self, advantages: NDArray[Any], valid: NDArray[Any]) -> NDArray[Any]:
        """Normalise advantages [T, B] by the earlier statistics, then update these; 0 on invalid rows."""
        count = float(valid.sum())
        if count == 0.0:
            return advantages * 0.0
        batch_mean = float((advantages * valid).sum()) / count
        mean = self.mean / self.mean_weight if self.mean_weight else batch_mean
        centred = (advantages - mean) * valid
        self.mean, self.mean_weight = _decayed(self.mean, self.mean_weight, batch_mean, self.mean_decay)
        square = float((centred * centred).sum()) / count
        self.variance, self.variance_weight = _decayed(self.variance, self.variance_weight, square, self.decay)
        return centred / (math.sqrt(self.variance / self.variance_weight) + _EPSILON)

    def get_state(self) -> State:
        """Return the four sums."""
        return {name: getattr(self, name) for name in ("mean", "variance", "mean_weight", "variance_weight")}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        for name, value in state.items():
            setattr(self, name, float(value))


def _decayed(total: float, weight: float, new: float, decay: float) -> tuple[float, float]:
    """Return the moving sum and its weight after one more value."""
    return decay * total + (1.0 - decay) * new, decay * weight + (1.0 - decay)
