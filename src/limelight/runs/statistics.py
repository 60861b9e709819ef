"""Statistics over seeds: interquartile mean, bootstrap intervals, probability of improvement, number of seeds.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist, median

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 2000
"""Bootstrap samples of an interval."""


def iqm(values: Floats) -> Floats:
    """Return the interquartile mean over the last axis: the mean without the lowest and the highest quarter.

    Raises: ValueError if the last axis is empty.
    """
    count = values.shape[-1]
    if count == 0:
        raise ValueError("the interquartile mean of an empty axis")
    cut = count // 4
    middle: Floats = np.sort(np.asarray(values), axis=-1)[..., cut : count - cut].mean(axis=-1)
    return middle


def bootstrap_interval(
    groups: Sequence[Sequence[float]],
    statistic: Callable[[Floats], Floats] = iqm,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile interval of ``statistic`` over all values, by a stratified bootstrap of equal groups.

    Groups are resampled first, then values within each resampled group, so each group keeps its weight.
    Resampling groups matters, since episodes of one seed resemble each other: without it, an interval over
    seeds × episodes would describe the precision of these seeds, not the spread over seeds.

    Args:
        groups: values by group (seed), each of the same length ≥ 1.
        statistic: maps [..., n] to [...].
        confidence: probability mass between the two ends, 0 to 1.
        resamples: the number of bootstrap samples.
        seed: of the random generator.
    Raises: ValueError if there are no groups, or they differ in length or are empty.
    """
    if not groups or len({len(group) for group in groups}) != 1 or not len(groups[0]):
        raise ValueError(f"groups of {[len(group) for group in groups]} values: must be equally many, at least one")
    values = np.asarray(groups, np.float64)
    num_groups, size = values.shape
    rng = np.random.default_rng(seed)
    results = np.empty(resamples)
    for i in range(resamples):
        chosen = rng.integers(num_groups, size=(num_groups, 1))
        results[i] = statistic(values[chosen, rng.integers(size, size=values.shape)].reshape(-1))
    low, high = _ends(results, confidence)
    return float(low), float(high)


def wilson_interval(successes: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a probability after ``successes`` in ``trials`` ≥ 1, within [0, 1].

    (p + z²/2n ± z √(p (1 − p)/n + z²/4n²)) / (1 + z²/n),  p = successes/n, z the normal quantile (two-sided).

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    p, n = successes / trials, trials
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1.0 + z * z / n
    low, high = (middle - half) / scale, (middle + half) / scale
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)  # exactly, not but for rounding


def curve_interval(
    curves: Floats, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Floats, Floats]:
    """Return the ends of the bootstrap interval of the interquartile mean over seeds at each point of their curves.

    Args:
        curves: [seeds, points]; whole curves are resampled, the same ones at every point.
        confidence, resamples, seed: as for :func:`bootstrap_interval`.
    Returns: low and high, [points] each.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(curves), size=(resamples, len(curves)))
    low, high = np.empty((2, curves.shape[1]))
    for point, values in enumerate(curves.T):  # a point at a time: all at once may not fit into memory
        low[point], high[point] = _ends(iqm(values[chosen]), confidence)
    return low, high


def probability_of_improvement(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the probability that a score of ``a`` is above one of ``b``, where equal scores count half.

    It is the Mann-Whitney U statistic over the number of pairs.
    """
    return float(_wins(a, b).mean())


def _wins(a: Sequence[float], b: Sequence[float]) -> Floats:
    """Return 1 where a score of ``a`` [N] is above one of ``b`` [M], ½ where they are equal, 0 elsewhere, [N, M]."""
    above, below = np.asarray(a, np.float64)[:, None], np.asarray(b, np.float64)
    wins: Floats = (above > below) + 0.5 * (above == below)
    return wins


def improvement_interval(
    a: Sequence[float], b: Sequence[float], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Return the bootstrap interval of :func:`probability_of_improvement`; the scores of each side are resampled."""
    rng = np.random.default_rng(seed)
    # How often each score is drawn, [resamples, N] and [resamples, M]
    drawn_a, drawn_b = (rng.multinomial(len(side), [1.0 / len(side)] * len(side), size=resamples) for side in (a, b))
    results = ((drawn_a @ _wins(a, b)) * drawn_b).sum(axis=1) / (len(a) * len(b))
    low, high = _ends(results, confidence)
    return float(low), float(high)


def mean_interval(values: Sequence[float], confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Return the bootstrap interval of the mean of independent values."""
    return bootstrap_interval(
        [[value] for value in values], lambda v: v.mean(axis=-1), confidence=confidence, seed=seed
    )


def difference_interval(
    a: Sequence[float], b: Sequence[float], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Return the bootstrap interval of the mean of ``a`` minus that of ``b``; each side is resampled by itself."""
    rng = np.random.default_rng(seed)
    means_a, means_b = (
        np.asarray(side, np.float64)[rng.integers(len(side), size=(resamples, len(side)))].mean(axis=1)
        for side in (a, b)
    )
    low, high = _ends(means_a - means_b, confidence)
    return float(low), float(high)


def seeds_needed(
    a: Sequence[float], b: Sequence[float], difference: float, *, confidence: float = 0.95, power: float = 0.8
) -> int | None:
    """Return how many seeds each side needs for a test of two means to show a true ``difference`` of scores.

    n = (z₁ + z₂)² (sₐ² + s_b²) / D² + z₁² / 4,  z₁ and z₂ the normal quantiles of confidence (two-sided) and power,
    s² the variances over seeds; at least 2. The last term corrects for estimated variances.

    Args:
        a, b: scores by seed.
        difference: D, other than 0.
        confidence: 1 − probability of a false alarm.
        power: probability that a true difference is shown.
    Returns: None where a side has fewer than two seeds, and so no known spread.
    Source: Guenther 1981, "Sample size formulas for normal theory t tests".
    """
    if min(len(a), len(b)) < 2:
        return None
    z_confidence = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    z_power = NormalDist().inv_cdf(power)
    variances = float(np.var(a, ddof=1) + np.var(b, ddof=1))
    if variances == 0.0:
        return 2
    exact = (z_confidence + z_power) ** 2 * variances / difference**2 + z_confidence**2 / 4.0
    return max(2, math.ceil(exact))


def median_or_never(values: Sequence[float | None]) -> float | None:
    """Return the median, where None means never and counts as later than all else; None if the median is never."""
    if not values:
        return None
    middle = median(float("inf") if value is None else value for value in values)
    return None if middle == float("inf") else middle


def _ends(results: Floats, confidence: float) -> Floats:
    """Return the two quantiles over the last axis between which ``confidence`` of the bootstrap samples lie."""
    return np.quantile(results, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
