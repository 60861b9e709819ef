"""Statistics over seeds, against SciPy and rliable where these are installed, and against written-out definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from limelight.runs.evaluation import Evaluation
from limelight.runs.statistics import (
    bootstrap_interval,
    curve_interval,
    difference_interval,
    improvement_interval,
    iqm,
    mean_interval,
    median_or_never,
    probability_of_improvement,
    seeds_needed,
    wilson_interval,
)


def test_iqm_is_the_mean_of_the_middle_half(rng: np.random.Generator) -> None:
    assert iqm(np.array([8.0, 1, 2, 3, 4, 5, 6, 7])) == 4.5
    assert iqm(np.array([-1e9, 2.0, 4.0, 1e9])) == 3.0
    assert iqm(np.array([7.0])) == 7.0
    values = rng.standard_normal((3, 101))
    np.testing.assert_allclose(iqm(values), [Evaluation(list(row), [1] * 101).iqm_return for row in values])


@pytest.mark.parametrize("count", range(1, 14))
def test_iqm_is_the_trimmed_mean(rng: np.random.Generator, count: int) -> None:
    """Agarwal et al. take ``trim_mean(…, 0.25)``, which leaves out ⌊n / 4⌋ values at each end."""
    values = rng.standard_normal((4, count))
    middle = [sorted(row)[count // 4 : count - count // 4] for row in values.tolist()]
    np.testing.assert_allclose(iqm(values), [math.fsum(row) / len(row) for row in middle])


def test_scipy_and_rliable_agree_where_they_are_installed(rng: np.random.Generator) -> None:
    stats, metrics = pytest.importorskip("scipy.stats"), pytest.importorskip("rliable.metrics")
    for count in range(1, 14):
        values = rng.standard_normal((count, 4))
        np.testing.assert_allclose(iqm(values.T), stats.trim_mean(values, 0.25, axis=0))
        np.testing.assert_allclose(iqm(values.ravel()), metrics.aggregate_iqm(values))
    a, b = rng.integers(0, 5, 7).astype(float), rng.integers(0, 5, 9).astype(float)
    p = probability_of_improvement(a.tolist(), b.tolist())
    assert p == pytest.approx(stats.mannwhitneyu(a, b).statistic / 63)
    assert p == pytest.approx(metrics.probability_of_improvement(a[:, None], b[:, None]))


def test_iqm_of_an_empty_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="of an empty axis"):
        iqm(np.empty((4, 0)))


# --------------------------------------------------------------------------- bootstrap


def test_bootstrap_is_seeded_and_grows_with_confidence(rng: np.random.Generator) -> None:
    groups = rng.normal(100.0, 20.0, (6, 30))
    low, high = bootstrap_interval(groups.tolist())
    assert (low, high) == bootstrap_interval(groups.tolist())
    assert (low, high) != bootstrap_interval(groups.tolist(), seed=1)
    assert low < iqm(groups.ravel()) < high
    narrow = bootstrap_interval(groups.tolist(), confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_bootstrap_of_equal_values_has_no_width() -> None:
    assert bootstrap_interval([[500.0] * 4] * 3) == (500.0, 500.0)


def test_bootstrap_knows_that_seeds_differ() -> None:
    """Seeds that each repeat one score: were only episodes drawn anew, the interval would have no width."""
    low, high = bootstrap_interval([[10.0] * 50, [20.0] * 50, [30.0] * 50, [40.0] * 50], np.mean)
    assert low <= 16.0
    assert high >= 34.0


def test_bootstrap_covers_the_truth_as_often_as_it_says(rng: np.random.Generator) -> None:
    """Seeds spread around the true mean 0, and their episodes around them."""
    covered = 0
    for _ in range(150):
        groups = rng.normal(0.0, 1.0, (12, 1)) + rng.normal(0.0, 1.0, (12, 10))
        low, high = bootstrap_interval(groups.tolist(), np.mean, resamples=150)
        covered += low <= 0.0 <= high
    assert 0.85 < covered / 150 <= 1.0


@pytest.mark.parametrize("groups", [[], [[]], [[1.0, 2.0], [1.0]]])
def test_bootstrap_refuses_unequal_groups(groups: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="equally many"):
        bootstrap_interval(groups)


def test_bootstrap_approaches_the_distribution_over_all_resamples() -> None:
    """Three seeds have 27 resamples, so the distribution that the bootstrap draws from can be written out whole."""
    scores = [1.0, 2.0, 6.0]
    means = [float(np.mean(drawn)) for drawn in itertools.product(scores, repeat=3)]
    exact = np.quantile(means, [0.2, 0.8], method="inverted_cdf")  # both well within the mass of one mean
    assert bootstrap_interval([[s] for s in scores], np.mean, confidence=0.6, resamples=4000) == pytest.approx(exact)


def test_the_interval_of_a_curve_is_that_of_each_point(rng: np.random.Generator) -> None:
    curves = rng.normal(0.0, 1.0, (6, 3)) + np.array([0.0, 10.0, 20.0])
    low, high = curve_interval(curves, resamples=4000)
    for point in range(3):
        alone = bootstrap_interval(curves[:, [point]].tolist(), resamples=4000)
        assert (low[point], high[point]) == pytest.approx(alone, abs=0.15)
    assert (low <= iqm(curves.T)).all()
    assert (iqm(curves.T) <= high).all()


# --------------------------------------------------------------------------- two sides


def test_the_probability_of_improvement_is_the_share_of_pairs(rng: np.random.Generator) -> None:
    """It is the Mann-Whitney U over the number of pairs, of which equal ones count half."""
    assert probability_of_improvement([3.0, 4.0], [1.0, 2.0]) == 1.0
    assert probability_of_improvement([1.0, 2.0], [2.0, 3.0]) == 0.125
    assert probability_of_improvement([5.0], [5.0]) == 0.5
    a, b = rng.integers(0, 5, 7).astype(float).tolist(), rng.integers(0, 5, 9).astype(float).tolist()
    pairs = [1.0 if x > y else 0.5 if x == y else 0.0 for x in a for y in b]
    assert probability_of_improvement(a, b) == pytest.approx(math.fsum(pairs) / 63)
    assert probability_of_improvement(a, b) + probability_of_improvement(b, a) == pytest.approx(1.0)


def test_the_interval_of_the_improvement_is_wide_for_few_seeds() -> None:
    apart = improvement_interval([10.0, 11.0, 12.0], [1.0, 2.0, 3.0])
    assert apart == (1.0, 1.0)
    few = improvement_interval([1.0, 3.0, 5.0], [2.0, 4.0, 6.0])
    many = improvement_interval([1.0, 3.0, 5.0] * 10, [2.0, 4.0, 6.0] * 10)
    assert few[0] < many[0] < 1 / 3 < many[1] < few[1]
    assert few == improvement_interval([1.0, 3.0, 5.0], [2.0, 4.0, 6.0])


def test_the_interval_of_the_improvement_approaches_all_resamples() -> None:
    a, b = [1.0, 4.0], [2.0, 3.0, 5.0]
    drawn = itertools.product(itertools.product(a, repeat=2), itertools.product(b, repeat=3))
    all_of_them = [probability_of_improvement(x, y) for x, y in drawn]
    exact = np.quantile(all_of_them, [0.25, 0.75], method="inverted_cdf")
    assert improvement_interval(a, b, confidence=0.5, resamples=4000) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 64), (0.8, 26), (1.0, 17), (1.5, 9)])
def test_the_number_of_seeds_is_that_of_cohens_tables(effect: float, seeds: int) -> None:
    """Two-sided 5 %, power 80 %: Cohen 1988, table 2.4.1 (and its noncentral t for 1.5), in standard deviations."""
    scores = [-1.0, 1.0]
    deviation = float(np.std(scores, ddof=1))
    assert abs((seeds_needed(scores, scores, effect * deviation) or 0) - seeds) <= int(effect > 1.0)


def test_the_number_of_seeds_shows_the_difference_as_often_as_it_says(rng: np.random.Generator) -> None:
    """Simulated: so many seeds a side, and a test of Welch's t by its normal quantile, corrected as the number is."""
    count = seeds_needed([-1.0, 1.0], [-1.0, 1.0], 1.6)
    assert count is not None
    a = rng.normal(1.6, math.sqrt(2.0), (4000, count))
    b = rng.normal(0.0, math.sqrt(2.0), (4000, count))
    t = (a.mean(1) - b.mean(1)) / np.sqrt(a.var(1, ddof=1) / count + b.var(1, ddof=1) / count)
    critical = {14: 2.056}[count]  # t quantile of 26 degrees of freedom
    assert np.mean(np.abs(t) > critical) == pytest.approx(0.8, abs=0.03)


def test_the_number_of_seeds_is_unknown_for_one_seed() -> None:
    assert seeds_needed([1.0], [2.0, 3.0], 1.0) is None
    assert seeds_needed([1.0, 1.0], [2.0, 2.0], 1.0) == 2


def test_never_is_later_than_everything() -> None:
    assert median_or_never([30.0, None, 10.0]) == 30.0
    assert median_or_never([10.0, None, None]) is None
    assert median_or_never([10.0, None]) is None
    assert median_or_never([]) is None


@pytest.mark.parametrize("successes", [0, 1, 7, 19, 20])
def test_the_wilson_interval_is_that_of_scipy(successes: int) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    theirs = scipy_stats.binomtest(successes, 20).proportion_ci(0.95, "wilson")
    assert wilson_interval(successes, 20) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_wilson_interval_stays_within_0_and_1_and_closes() -> None:
    assert wilson_interval(0, 5)[0] == 0.0
    assert wilson_interval(5, 5)[1] == 1.0
    assert wilson_interval(50, 100) == pytest.approx((0.40383, 0.59617), abs=1e-5)
    assert wilson_interval(500, 1000) > wilson_interval(50, 100), "more trials, a higher lower end"


def test_the_interval_of_a_difference_of_means_is_that_of_a_normal_sample() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(3.0, 1.0, 400), rng.normal(1.0, 2.0, 400)
    low, high = difference_interval(a.tolist(), b.tolist())
    half = 1.96 * np.sqrt(a.var(ddof=1) / 400 + b.var(ddof=1) / 400)
    assert [low, high] == pytest.approx([a.mean() - b.mean() - half, a.mean() - b.mean() + half], abs=0.03)
    assert mean_interval(a.tolist()) == pytest.approx(
        [a.mean() - 1.96 * a.std() / 20, a.mean() + 1.96 * a.std() / 20], abs=0.02
    )
